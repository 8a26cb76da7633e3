//! The session at the XMPP server: the server's address, the connection's security, and a stream that reconnects by
//! itself.
//!
//! The stream is the stanza stream inside `tokio_xmpp::Client`, with a connector of our own. The client's connector
//! only logs a wrong password and retries for ever, and hides that a stream was lost. Both would retry for ever to
//! resume a session that the server has forgotten (6.0.0 does not parse `<failed/>` without `h`). So a connection
//! offers no resumption if the one before led to no session.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use sasl::common::Credentials;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_xmpp::connect::{
    DirectTlsServerConnector, DnsConfig, ServerConnector, StartTlsServerConnector, TcpServerConnector,
};
use tokio_xmpp::error::Error;
use tokio_xmpp::jid::Jid;
use tokio_xmpp::parsers::ns;
use tokio_xmpp::rustls;
use tokio_xmpp::stanzastream::{Connection, StanzaStream};
use tokio_xmpp::xmlstream::{StreamHeader, Timeouts};

use super::failure::Failure;
use super::login::{NoSession, log_in};

/// Longest time from the first packet to the end of the login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Shortest time between two connections, for a server that accepts the login and then drops the stream.
const RECONNECT_INTERVAL_MIN: Duration = Duration::from_secs(2);
/// Silence after which the stream pings the server, and wait for the answer before the stream is given up.
const TIMEOUTS: Timeouts =
    Timeouts { read_timeout: Duration::from_secs(60), response_timeout: Duration::from_secs(30) };
const STANZAS_QUEUED_MAX: usize = 64;

/// A server's address: `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Server {
    Address(SocketAddr),
    Name(String, u16),
}

impl Server {
    /// Returns whether the address is on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        match self {
            Self::Address(address) => address.ip().to_canonical().is_loopback(),
            // RFC 6761 §6.3: this name always resolves to the loopback address.
            Self::Name(name, _) => name.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl FromStr for Server {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected host:port, for example xmpp.example.com:5222";
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or(EXPECTED)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(EXPECTED)?;
        if host.is_empty() || host.contains([':', '/', '[', ']', ' ', '@']) || host.parse::<IpAddr>().is_ok()
        {
            return Err(EXPECTED);
        }
        Ok(Self::Name(host.to_owned(), port))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// The encryption of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    StartTls,
    DirectTls,
    /// No encryption; for loopback alone.
    Plaintext,
}

/// The account that logs in, and the server.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) jid: Jid,
    pub(super) password: SecretString,
    /// The server; `None`: the SRV records of the JID's domain name it.
    pub(super) server: Option<Server>,
    pub(super) security: Security,
}

impl Account {
    /// Returns the server's name for messages.
    pub(super) fn server_name(&self) -> String {
        self.server.as_ref().map_or_else(|| self.jid.domain().to_string(), Server::to_string)
    }

    fn dns(&self) -> DnsConfig {
        match (&self.server, self.security) {
            (Some(Server::Address(address)), _) => DnsConfig::addr(&address.to_string()),
            (Some(Server::Name(name, port)), _) => DnsConfig::no_srv(name, *port),
            (None, Security::DirectTls) => DnsConfig::srv_xmpps(self.jid.domain().as_str()),
            (None, _) => DnsConfig::srv_default_client(self.jid.domain().as_str()),
        }
    }

    async fn connect(&self, resume: bool) -> Result<Connection, NoSession> {
        let mut connection = match self.security {
            Security::StartTls => self.login(StartTlsServerConnector(self.dns())).await?,
            Security::DirectTls => self.login(DirectTlsServerConnector(self.dns())).await?,
            Security::Plaintext => self.login(TcpServerConnector(self.dns())).await?,
        };
        if !resume {
            connection.features.stream_management = None;
        }
        Ok(connection)
    }

    /// Connects and logs in. The stanza stream binds the resource afterwards.
    async fn login<C: ServerConnector>(&self, connector: C) -> Result<Connection, NoSession> {
        let (stream, channel_binding) = connector.connect(&self.jid, ns::JABBER_CLIENT, TIMEOUTS).await?;
        let (features, stream) = stream.recv_features().await?;
        let credentials = Credentials::default()
            .with_username(self.jid.node().map(|node| node.as_str()).unwrap_or_default())
            .with_password(self.password.expose_secret());
        let stream = log_in(stream, features, &credentials, channel_binding).await?;
        let domain = self.jid.domain().as_str();
        let header = StreamHeader { to: Some(domain.into()), from: None, id: None };
        let (features, stream) = stream.send_header(header).await?.recv_features().await?;
        if !features.can_bind() {
            // The stanza stream would panic without this feature.
            return Err(Error::InvalidState.into());
        }
        Ok(Connection { stream: stream.box_stream(), features, identity: self.jid.clone() })
    }
}

/// A failed attempt to connect, and the time to the next one.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) failure: Failure,
    pub(super) retry_in: Duration,
}

/// True while the latest connection has yet to become a session.
#[derive(Debug, Clone, Default)]
pub(super) struct Unproven(Arc<AtomicBool>);

impl Unproven {
    /// Notes that a session was resumed or begun.
    pub(super) fn proven(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Notes a new connection. Returns whether the one before became a session.
    fn begin(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}

/// Opens a stream that reconnects by itself. The channel gets the failed attempts; a permanent failure is the last one.
pub(super) fn open(account: Account, unproven: Unproven) -> (StanzaStream, mpsc::Receiver<Attempt>) {
    // Other crates of the build may bring a second provider, between which rustls refuses to choose.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (attempts, failed) = mpsc::channel(1);
    let mut latest: Option<Instant> = None;
    let reconnect = move |_, slot| {
        let now = Instant::now();
        let wait = latest.map_or(Duration::ZERO, |then| (then + RECONNECT_INTERVAL_MIN).duration_since(now));
        latest = Some(now + wait);
        tokio::spawn(connect(account.clone(), unproven.begin(), wait, slot, attempts.clone()));
    };
    (StanzaStream::new(Box::new(reconnect), STANZAS_QUEUED_MAX), failed)
}

/// Returns endless delays with jitter, which double from 1 s up to 30 s.
pub(super) fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(Duration::from_secs(30))
        .without_max_times()
        .build()
}

async fn connect(
    account: Account,
    resume: bool,
    wait: Duration,
    mut slot: oneshot::Sender<Connection>,
    attempts: mpsc::Sender<Attempt>,
) {
    sleep(wait).await;
    for retry_in in backoff() {
        let failure = match timeout(CONNECT_TIMEOUT, account.connect(resume)).await {
            Ok(Ok(connection)) => {
                // Sending fails only if the stream was closed meanwhile.
                let _ = slot.send(connection);
                return;
            }
            Ok(Err(error)) => Failure::connecting(&error, &account.server_name()),
            Err(_) => Failure::temporary(
                "unreachable",
                format!("{} did not let us in within {CONNECT_TIMEOUT:?}", account.server_name()),
                "is --server right, and does a firewall let it through?",
            ),
        };
        let permanent = failure.permanent;
        if attempts.send(Attempt { failure, retry_in }).await.is_err() {
            return;
        }
        if permanent {
            // The stanza stream panics if its slot is dropped before the stream.
            slot.closed().await;
            return;
        }
        sleep(retry_in).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_and_a_port() {
        for good in ["xmpp.example.com:5222", "127.0.0.1:5222", "[::1]:5222"] {
            assert_eq!(good.parse::<Server>().unwrap().to_string(), good);
        }
        for bad in
            ["", "example.com", "example.com:", "example.com:0", ":5222", "::1:5222", "::1", "xmpp://a:1"]
        {
            assert!(bad.parse::<Server>().is_err(), "{bad}");
        }
    }

    #[test]
    fn loopback_is_known_by_address_or_by_its_one_name() {
        let is_loopback = |text: &str| text.parse::<Server>().unwrap().is_loopback();
        for here in
            ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1", "LocalHost:1"]
        {
            assert!(is_loopback(here), "{here}");
        }
        for elsewhere in
            ["192.0.2.1:1", "[2001:db8::1]:1", "0.0.0.0:1", "localhost.example.com:1", "example.com:1"]
        {
            assert!(!is_loopback(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn waiting_grows_and_stays_bounded() {
        let delays: Vec<_> = backoff().take(20).collect();
        assert!(delays[0] >= Duration::from_secs(1) && delays[0] <= Duration::from_secs(2));
        assert!(delays[19] >= Duration::from_secs(30) && delays[19] <= Duration::from_secs(60));
    }
}
