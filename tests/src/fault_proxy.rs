//! A TCP proxy that fails as networks do, and shows the bytes that pass.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::try_join;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

const BUFFER_BYTES: usize = 16 * 1024;

/// A function that sees the bytes of one direction of a connection in order, and may change them.
pub(crate) type Tap = Box<dyn FnMut(&mut [u8]) + Send>;

/// A function that makes the taps of each connection: from its client, and from its server.
type Taps = Arc<dyn Fn() -> [Tap; 2] + Send + Sync>;

/// A proxy on a port of its own, closed when dropped.
pub struct FaultProxy {
    /// The port on loopback.
    pub port: u16,
    orders: watch::Sender<Orders>,
    from_clients: Arc<AtomicU64>,
    _connections: JoinSet<()>,
}

#[derive(Clone, Copy, Default)]
struct Orders {
    flow: Flow,
    /// Number of orders to end all connections.
    ends: usize,
    /// The kind of the last such order.
    end: End,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Flow {
    #[default]
    Open,
    Stalled,
    Closed,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum End {
    #[default]
    Close,
    Reset,
    Abandon,
}

impl FaultProxy {
    /// Opens a proxy to this port on loopback.
    pub async fn to(target: u16) -> Self {
        Self::tapped(format!("127.0.0.1:{target}"), || [Box::new(|_| {}), Box::new(|_| {})]).await
    }

    /// Opens a proxy to this `host:port`; `taps` makes the taps of each connection, from its client and from its
    /// server.
    pub(crate) async fn tapped(target: String, taps: impl Fn() -> [Tap; 2] + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it listens").port();
        let (orders, from_clients) = (watch::Sender::new(Orders::default()), Arc::<AtomicU64>::default());
        let bytes = Arc::clone(&from_clients);
        let taps: Taps = Arc::new(move || {
            let ([mut there, back], bytes) = (taps(), Arc::clone(&bytes));
            let counted = move |read: &mut [u8]| {
                bytes.fetch_add(read.len() as u64, Ordering::Relaxed);
                there(read);
            };
            [Box::new(counted), back]
        });
        let mut connections = JoinSet::new();
        connections.spawn(accept(listener, target, orders.subscribe(), taps));
        Self { port, orders, from_clients, _connections: connections }
    }

    /// Returns the `host:port` at which the proxy listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the number of bytes that the proxy has read from clients, on all connections.
    pub fn bytes_from_clients(&self) -> u64 {
        self.from_clients.load(Ordering::Relaxed)
    }

    /// Closes every connection in both directions, and each new one at once, until `mend`.
    pub fn cut(&self) {
        self.orders.send_modify(|orders| orders.flow = Flow::Closed);
        self.end(End::Close);
    }

    /// Passes nothing in either direction until `mend`, not even the end of a connection. A client cannot tell this
    /// from a silent peer.
    pub fn stall(&self) {
        self.orders.send_modify(|orders| orders.flow = Flow::Stalled);
    }

    /// Ends `cut` or `stall`. Stalled bytes go on.
    pub fn mend(&self) {
        self.orders.send_modify(|orders| orders.flow = Flow::Open);
    }

    /// Resets every connection (RST) at both ends. New connections are accepted.
    pub fn reset(&self) {
        self.end(End::Reset);
    }

    /// Ends every connection to the client. The server learns nothing of it, and its side stays open for ever, as when
    /// a phone gets another address. New connections are accepted.
    pub fn abandon(&self) {
        self.end(End::Abandon);
    }

    fn end(&self, end: End) {
        self.orders.send_modify(|orders| {
            orders.ends += 1;
            orders.end = end;
        });
    }
}

async fn accept(listener: TcpListener, target: String, orders: watch::Receiver<Orders>, taps: Taps) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (target, orders, taps) = (target.clone(), orders.clone(), taps());
        let Orders { flow, ends, .. } = *orders.borrow();
        if flow != Flow::Closed {
            connections.spawn(async move {
                // A target that is down shows as a connection that ends at once.
                if let Ok(server) = TcpStream::connect(target).await {
                    carry(client, server, orders, ends, taps).await;
                }
            });
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    mut orders: watch::Receiver<Orders>,
    ends: usize,
    [tap_there, tap_back]: [Tap; 2],
) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let flow = orders.clone();
    let end = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let there = pump(from_client, to_server, flow.clone(), tap_there);
        let back = pump(from_server, to_client, flow, tap_back);
        tokio::select! {
            _ = try_join(there, back) => End::Close,
            ordered = orders.wait_for(|orders| orders.ends > ends) => match ordered {
                Ok(orders) => orders.end,
                Err(_) => End::Close,
            },
        }
    };
    match end {
        End::Close => {}
        End::Reset => {
            let _ = (client.set_zero_linger(), server.set_zero_linger());
        }
        End::Abandon => {
            drop(client);
            std::future::pending::<()>().await;
        }
    }
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut orders: watch::Receiver<Orders>,
    mut tap: Tap,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        tap(&mut buffer[..count]);
        let flows = orders.wait_for(|orders| orders.flow != Flow::Stalled).await;
        flows.map_err(|_| io::ErrorKind::ConnectionAborted)?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}
