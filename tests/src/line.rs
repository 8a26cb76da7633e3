//! A phone's TCP connection, which a test can cut and mend.

use std::borrow::Cow;
use std::net::{Shutdown, SocketAddr, TcpStream as StdTcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sasl::common::ChannelBinding;
use tokio::io::BufStream;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_xmpp::Error;
use tokio_xmpp::connect::ServerConnector;
use tokio_xmpp::jid::Jid;
use tokio_xmpp::xmlstream::{PendingFeaturesRecv, StreamHeader, Timeouts, initiate_stream};

const CONNECT_INTERVAL: Duration = Duration::from_millis(100);

/// A connector without TLS. It connects as often as the client wants, while it is whole.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    address: SocketAddr,
    whole: Arc<watch::Sender<bool>>,
    /// A second handle on the current connection; `cut` drops it.
    socket: Arc<Mutex<Option<StdTcpStream>>>,
    /// Number of connections since a session was last bound or resumed.
    attempts: Arc<AtomicUsize>,
    lost: Arc<Notify>,
}

impl Line {
    pub(crate) fn to_port(port: u16) -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            whole: Arc::new(watch::Sender::new(true)),
            socket: Arc::default(),
            attempts: Arc::default(),
            lost: Arc::default(),
        }
    }

    /// Notes that a session was bound or resumed.
    pub(crate) fn online(&self) {
        self.attempts.store(0, Ordering::Relaxed);
    }

    /// Waits until the client connects a second time without a session in between. tokio-xmpp 6.0.0 cannot parse a
    /// `<failed/>` without `h`, by which Prosody and ejabberd say that they do not know a session: they were restarted,
    /// or its time ran out. The client would ask for the same session for ever, as fast as it can. Only another client
    /// mends that.
    pub(crate) async fn lost(&self) {
        self.lost.notified().await;
        self.online();
    }

    /// Ends the TCP connection without closing the XML stream. No other connection follows until `mend`.
    pub(crate) fn cut(&self) {
        self.whole.send_replace(false);
        if let Some(socket) = self.socket.lock().expect("no panic while held").take() {
            // An error means that the connection is down already.
            drop(socket.shutdown(Shutdown::Both));
        }
    }

    /// Lets the client connect again.
    pub(crate) fn mend(&self) {
        self.whole.send_replace(true);
    }

    /// Connects as soon as the server listens. The client would wait up to 30 s between two attempts of its own, longer
    /// than most tests wait for a phone.
    async fn reach(&self) -> TcpStream {
        let mut whole = self.whole.subscribe();
        loop {
            whole.wait_for(|whole| *whole).await.expect("self holds the sender");
            match TcpStream::connect(self.address).await {
                Ok(stream) => return stream,
                Err(_) => sleep(CONNECT_INTERVAL).await,
            }
        }
    }

    async fn tcp(&self) -> std::io::Result<TcpStream> {
        let stream = self.reach().await;
        if self.attempts.fetch_add(1, Ordering::Relaxed) > 0 {
            drop(stream);
            self.lost.notify_one();
            return std::future::pending().await;
        }
        stream.set_nodelay(true)?;
        let stream = stream.into_std()?;
        let handle = stream.try_clone()?;
        let mut socket = self.socket.lock().expect("no panic while held");
        if !*self.whole.borrow() {
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        *socket = Some(handle);
        drop(socket);
        TcpStream::from_std(stream)
    }
}

impl ServerConnector for Line {
    type Stream = BufStream<TcpStream>;

    async fn connect(
        &self,
        jid: &Jid,
        ns: &'static str,
        timeouts: Timeouts,
    ) -> Result<(PendingFeaturesRecv<Self::Stream>, ChannelBinding), Error> {
        let stream = BufStream::new(self.tcp().await?);
        let header = StreamHeader { to: Some(Cow::Borrowed(jid.domain().as_str())), from: None, id: None };
        let stream = initiate_stream(stream, ns, header, timeouts).await?;
        Ok((stream, ChannelBinding::None))
    }
}
