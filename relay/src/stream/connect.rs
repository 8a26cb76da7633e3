//! The way to the XMPP server's port for components: TCP, with TLS if the address says so.

use std::{
    fmt, io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    str::FromStr,
    sync::Once,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_util::{either::Either, io::InspectReader};
use tokio_xmpp::{
    connect::{
        DnsConfig,
        tls_common::{TlsStream, establish_tls_connection},
    },
    rustls::{self, CertificateError, pki_types::ServerName},
};

/// The scheme of a [`ServerAddress`] whose port speaks TLS from the first byte.
const TLS_SCHEME: &str = "tls://";

/// The address of a port for components, and its security.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The port for components.
    pub port: u16,
    /// The layer between the stream and TCP.
    pub security: Security,
}

/// The protection of a stream from eavesdroppers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Plain text.
    Plain,
    /// TLS from the first byte, with a certificate for the host that the address names.
    Tls,
}

/// Why a text is no [`ServerAddress`], and how to write one.
#[derive(Debug, thiserror::Error)]
#[error("{0}; write it as host:port, for example localhost:5347, or as tls://host:port")]
pub struct BadServerAddress(&'static str);

impl FromStr for ServerAddress {
    type Err = BadServerAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (security, authority) =
            text.strip_prefix(TLS_SCHEME).map_or((Security::Plain, text), |rest| (Security::Tls, rest));
        let (host, port) = authority.rsplit_once(':').ok_or(BadServerAddress("it has no port"))?;
        let port = port.parse().ok().filter(|port| *port > 0);
        let port = port.ok_or(BadServerAddress("its port is not a number from 1 to 65535"))?;
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let known = in_brackets.map_or_else(
            || !host.is_empty() && !host.contains([':', '/', '[', ']', ' ', '@']),
            |ip| ip.parse::<Ipv6Addr>().is_ok(),
        );
        let host = in_brackets.unwrap_or(host);
        if !known {
            return Err(BadServerAddress("its host is no name and no address"));
        }
        if security == Security::Tls && ServerName::try_from(host).is_err() {
            return Err(BadServerAddress("its host is none that a certificate could be for"));
        }
        Ok(Self { host: host.to_owned(), port, security })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.security == Security::Tls { TLS_SCHEME } else { "" };
        if self.host.contains(':') {
            write!(f, "{scheme}[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}{}:{}", self.host, self.port)
        }
    }
}

/// Opens connections to the XMPP server's port for components. The `Display` text names that port in the log.
pub trait Connect: fmt::Display + Send + Sync + 'static {
    /// A new connection, on which nothing was sent yet.
    type Connection: AsyncRead + AsyncWrite + Send + 'static;

    /// Opens a connection.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, ConnectError>> + Send;

    /// Returns whether the server is on this machine. If it is, a connection is tried more often.
    fn is_on_this_machine(&self) -> bool {
        false
    }
}

/// Most bytes that count as an answer or two.
const FEW_BYTES: usize = 256;

/// Acknowledges the bytes that were read.
type Acknowledge = Box<dyn FnMut(&[u8]) + Send>;

impl Connect for ServerAddress {
    type Connection = InspectReader<Either<TcpStream, TlsStream<TcpStream>>, Acknowledge>;

    async fn connect(&self) -> Result<Self::Connection, ConnectError> {
        let Self { host, port, security } = self;
        let route = match host.parse::<IpAddr>() {
            Ok(ip) => DnsConfig::addr(&SocketAddr::new(ip, *port).to_string()),
            Err(_) => DnsConfig::no_srv(host, *port),
        };
        let socket = route.resolve().await?;
        // This fails only on a socket that is gone already, as the first write will say.
        let _ = socket.set_nodelay(true);
        let acknowledge = acknowledge_at_once(&socket);
        let connection = match security {
            Security::Plain => {
                if let (Ok(local), Ok(peer)) = (socket.local_addr(), socket.peer_addr())
                    && leaves_this_machine(local.ip(), peer.ip())
                {
                    warn_of_plain_text(self);
                }
                Either::Left(socket)
            }
            Security::Tls => {
                // Other crates of the build may bring a second provider, and rustls then refuses to choose.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let (socket, _) =
                    establish_tls_connection(socket, host).await.map_err(ConnectError::handshake)?;
                Either::Right(socket)
            }
        };
        Ok(InspectReader::new(connection, acknowledge))
    }

    fn is_on_this_machine(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            Err(_) => self.host == "localhost" || self.host.ends_with(".localhost"),
        }
    }
}

/// Makes the system acknowledge few bytes at once. Prosody has Nagle's algorithm on: it sends an answer only when the
/// one before is acknowledged. The system delays acknowledgements by 40 ms (RFC 1122 §4.2.3.2), unless something is
/// sent meanwhile. If many answers come, something is.
fn acknowledge_at_once(socket: &TcpStream) -> Acknowledge {
    let socket = socket.as_fd().try_clone_to_owned();
    Box::new(move |bytes| {
        #[cfg(target_os = "linux")]
        if let Ok(socket) = &socket
            && bytes.len() <= FEW_BYTES
        {
            // The option holds until the system decides otherwise. Without it, answers are late.
            let _ = rustix::net::sockopt::set_tcp_quickack(socket, true);
        }
    })
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name resolves to no address.
    #[error("the server's name does not resolve")]
    Name,
    /// The connection is refused.
    #[error("nothing listens there")]
    Nothing,
    /// The server's certificate does not vouch for it.
    #[error("{}", certificate_problem(.0))]
    Certificate(CertificateError),
    /// The port speaks plain text.
    #[error("what answers there does not speak TLS")]
    NotTls,
    /// The TLS handshake failed for another reason.
    #[error("no TLS comes about: {0}")]
    Tls(io::Error),
    /// This process has all descriptors that it may have. Calls that need another one report something else.
    #[error("this process has too many open files")]
    Descriptors,
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

/// The system's words for a lack of descriptors.
const OUT_OF_DESCRIPTORS: &str = "Too many open files";

impl From<tokio_xmpp::Error> for ConnectError {
    /// Translates an error. tokio-xmpp shows the insides of its resolver, and nothing of an address that refuses.
    fn from(error: tokio_xmpp::Error) -> Self {
        use tokio_xmpp::Error;
        match error {
            error if format!("{error} {error:?}").contains(OUT_OF_DESCRIPTORS) => Self::Descriptors,
            Error::DnsNet(_) | Error::DnsProto(_) | Error::Idna => Self::Name,
            Error::Disconnected => Self::Nothing,
            Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => Self::Nothing,
            other => Self::Other(other.to_string()),
        }
    }
}

impl ConnectError {
    /// Returns why a handshake failed. The TLS library's errors are inside those of the connection.
    fn handshake(error: tokio_xmpp::Error) -> Self {
        let tokio_xmpp::Error::Io(error) = error else { return error.into() };
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::InvalidCertificate(problem)) => Self::Certificate(problem.clone()),
            Some(rustls::Error::InvalidMessage(_)) => Self::NotTls,
            _ => Self::Tls(error),
        }
    }

    /// Returns the remedy, in words for the operator.
    pub(crate) fn mend(&self) -> &'static str {
        match self {
            Self::Name | Self::Nothing | Self::Other(_) => {
                "check that the XMPP server runs and listens for components at UPWIRE_XMPP_SERVER"
            }
            Self::Certificate(problem) => certificate_mend(problem),
            Self::Descriptors => {
                "raise the limit of this process (LimitNOFILE= of the unit, `ulimit -n`); the XMPP server has nothing to \
                 do with it"
            }
            Self::NotTls | Self::Tls(_) => {
                "let the XMPP server speak TLS on its port for components (ejabberd's `tls: true` and `certfile` in that \
                 listener, or a TLS tunnel in front of Prosody), or leave tls:// out of UPWIRE_XMPP_SERVER"
            }
        }
    }
}

fn certificate_problem(problem: &CertificateError) -> String {
    use CertificateError as Wrong;
    match problem {
        Wrong::Expired | Wrong::ExpiredContext { .. } => "the server's certificate has expired".into(),
        Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet".into()
        }
        Wrong::NotValidForNameContext { expected, presented } => format!(
            "the server's certificate is not for {} but for {}",
            expected.to_str(),
            if presented.is_empty() { "no name at all".into() } else { presented.join(", ") }
        ),
        // The last two occur if an authority of that name is trusted, with another key.
        Wrong::UnknownIssuer
        | Wrong::BadSignature
        | Wrong::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the server's certificate is of no authority that is trusted here".into()
        }
        Wrong::Other(other) => format!("the server's certificate is refused: {other}"),
        other => format!("the server's certificate is refused: {other}"),
    }
}

fn certificate_mend(problem: &CertificateError) -> &'static str {
    use CertificateError as Wrong;
    match problem {
        Wrong::Expired | Wrong::ExpiredContext { .. } => {
            "give the XMPP server a new certificate; if it has one, restart it and check this machine's clock"
        }
        Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => "check this machine's clock",
        Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => {
            "write the host in UPWIRE_XMPP_SERVER as the certificate names it (a DNS: or IP: entry of its \
             subjectAltName), or give the XMPP server a certificate for that host"
        }
        Wrong::UnknownIssuer
        | Wrong::BadSignature
        | Wrong::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "give the XMPP server a certificate of a public authority with its whole chain, or name the file with \
             its authority's certificate in SSL_CERT_FILE"
        }
        // webpki's `CaUsedAsEndEntity` is what `openssl req -x509` makes unless it is told otherwise.
        _ => {
            "give the XMPP server a certificate of version 3 that is no authority's own (with openssl: \
             -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:its-host)"
        }
    }
}

/// Returns whether a connection leaves this machine: its peer is neither loopback nor this machine's own address.
fn leaves_this_machine(local: IpAddr, peer: IpAddr) -> bool {
    local != peer && !peer.to_canonical().is_loopback()
}

/// Warns of plain text, once: in some private networks it is as it should be.
fn warn_of_plain_text(address: &ServerAddress) {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            server = %address,
            mend = "let the XMPP server speak TLS on its port for components, and write tls:// before the address in \
                    UPWIRE_XMPP_SERVER; or keep that network private",
            "the stream to the XMPP server leaves this machine in plain text: whoever is on the way reads it"
        );
    });
}

#[cfg(test)]
mod tests;
