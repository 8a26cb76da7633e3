//! HTTP/1.1 listeners that stay reachable under load. Each connection has time limits, and their number has a bound.

mod connection;
mod crowd;
mod descriptors;
mod head;
mod proxies;
mod socket;
mod tls;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use functions::Seldom;
use metrics::{counter, describe_counter, describe_gauge, gauge};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::connection::{End, HEAD_TIMEOUT, attend};
use self::crowd::{Crowd, Reason};
pub(crate) use self::descriptors::{connections_max, raise_limit};
pub(crate) use self::proxies::{Proxies, network};
pub(crate) use self::tls::{CertificateFiles, Tls};

/// Most connections to the administration address. Their descriptors are among the reserved ones.
pub(crate) const ADMIN_CONNECTIONS_MAX: usize = 32;
/// Most connections beyond the bound: those that were told to close, and are not closed yet.
const CLOSING_MAX: usize = 16;
/// Delay before the next accept after a failure, as when no descriptor is free.
const PAUSE: Duration = Duration::from_millis(100);

const LOW_PORT_MEND: &str =
    "ports below 1024 are for who may have them (AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit)";

const CONNECTIONS: &str = "upwire_connections";
const CLOSED: &str = "upwire_connections_closed_total";

/// The label of a connection whose request did not come in time.
const SLOW: &str = "slow";

/// Describes the metrics of the listeners to the recorder, and sets them to 0.
pub(crate) fn describe_metrics() {
    describe_gauge!(CONNECTIONS, "Connections of senders that are open");
    describe_counter!(
        CLOSED,
        "Connections closed because a request did not come in time (`slow`), as many were open as may be (`crowd`), \
         or one address had too many incomplete requests (`peer`)"
    );
    gauge!(CONNECTIONS).set(0.0);
    for reason in [SLOW, Reason::Crowd.label(), Reason::Peer.label()] {
        counter!(CLOSED, "reason" => reason).increment(0);
    }
}

/// Listens on an address from `variable`.
pub(crate) async fn listen(address: SocketAddr, variable: &str) -> anyhow::Result<TcpListener> {
    let mut bound = TcpListener::bind(address).await;
    let is_without_ipv6 =
        |error: &std::io::Error| !matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied);
    if address.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED) && bound.as_ref().is_err_and(is_without_ipv6) {
        bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await;
    }
    bound.map_err(|error| {
        let mend = match error.kind() {
            ErrorKind::PermissionDenied => LOW_PORT_MEND,
            ErrorKind::AddrInUse => "stop what does",
            ErrorKind::AddrNotAvailable => "this machine has no such address",
            _ => "see what the system says of it",
        };
        let problem =
            format!("cannot listen on {address}: {mend}, or set {variable} to a free port of this machine");
        anyhow::Error::from(error).context(problem)
    })
}

/// A listener, with its bounds.
pub(crate) struct Server {
    listener: TcpListener,
    router: Router,
    tls: Option<Tls>,
    crowd: Arc<Mutex<Crowd>>,
    /// One permit for each socket that may be open.
    places: Arc<Semaphore>,
    /// True if the metrics count its connections.
    is_counted: bool,
}

impl Server {
    /// Makes a listener for senders, with at most `connections_max` connections. Any number of incomplete requests may
    /// come from a proxy.
    pub(crate) fn public(
        listener: TcpListener,
        router: Router,
        connections_max: usize,
        proxies: Proxies,
    ) -> Self {
        Self { is_counted: true, ..Self::new(listener, router, connections_max, proxies) }
    }

    /// Makes a listener for the operator. Its connections are counted apart, so that it answers under any load of
    /// senders.
    pub(crate) fn private(listener: TcpListener, router: Router) -> Self {
        Self::new(listener, router, ADMIN_CONNECTIONS_MAX, Proxies::default())
    }

    fn new(listener: TcpListener, router: Router, connections_max: usize, proxies: Proxies) -> Self {
        Self {
            listener,
            router,
            tls: None,
            crowd: Arc::new(Mutex::new(Crowd::new(connections_max, proxies))),
            places: Arc::new(Semaphore::new(connections_max + CLOSING_MAX)),
            is_counted: false,
        }
    }

    /// Sets the TLS configuration, if there is one.
    pub(crate) fn with_tls(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// Answers requests until `stop`, and then finishes those under way.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.accept() => accepted,
            };
            if let Some((socket, peer)) = accepted {
                self.admit(socket, peer, &mut connections, &stop);
            }
        }
        drop(self.listener);
        while connections.join_next().await.is_some() {}
        Ok(())
    }

    /// Accepts the next connection, once there is a place for it.
    async fn accept(&self) -> Option<(TcpStream, IpAddr)> {
        static TROUBLE: Seldom = Seldom::new();
        // The semaphore is never closed.
        let _room = self.places.acquire().await.ok()?;
        match self.listener.accept().await {
            Ok((socket, peer)) => Some((socket, peer.ip())),
            Err(error) if is_of_the_peer(error.kind()) => None,
            Err(error) => {
                if let Some(times) = TROUBLE.due() {
                    tracing::error!(%error, times, "no connection can be accepted for now");
                }
                sleep(PAUSE).await;
                None
            }
        }
    }

    fn admit(
        &self,
        socket: TcpStream,
        peer: IpAddr,
        connections: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) {
        static FULL: Seldom = Seldom::new();
        let Ok(place) = self.places.clone().try_acquire_owned() else { return };
        let since = Instant::now();
        let admitted = self.crowd.lock().admit(peer, since);
        if admitted.is_full
            && let Some(times) = FULL.due()
        {
            tracing::error!(
                times,
                "as many connections as may be are open: those that are slowest to send their requests are closed"
            );
        }
        count(self.is_counted, admitted.closed.map(Reason::label));
        let Some((id, closing)) = admitted.place else { return };
        // An answer is one small write, which must not wait for a TCP acknowledgement.
        let _ = socket.set_nodelay(true);
        let (crowd, router, stop, is_counted) =
            (self.crowd.clone(), self.router.clone(), stop.clone(), self.is_counted);
        let tls = self.tls.clone();
        if is_counted {
            gauge!(CONNECTIONS).increment(1.0);
        }
        connections.spawn(async move {
            let note = |phase| {
                let closed = crowd.lock().note(id, phase);
                count(is_counted, closed.map(Reason::label));
            };
            // During the TLS handshake, a connection counts as one whose request has not begun.
            let end = match tls::open(socket, tls.as_ref(), since + HEAD_TIMEOUT, &stop, &closing).await {
                Ok(socket) => attend(socket, since, router, &stop, &closing, note).await,
                Err(end) => end,
            };
            crowd.lock().leave(id);
            drop(place);
            if is_counted {
                gauge!(CONNECTIONS).decrement(1.0);
            }
            count(is_counted, matches!(end, End::Slow).then_some(SLOW));
        });
    }
}

fn count(is_counted: bool, closed: Option<&'static str>) {
    if let Some(reason) = closed.filter(|_| is_counted) {
        counter!(CLOSED, "reason" => reason).increment(1);
    }
}

/// Returns whether the peer ended the connection before it was accepted.
fn is_of_the_peer(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}
