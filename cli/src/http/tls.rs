//! TLS of the listener's own: its certificate, which is read again when its files change.

mod files;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::net::TcpStream;
use tokio::signal::unix::Signal;
use tokio::time::{Instant, interval, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_util::sync::CancellationToken;

pub(crate) use self::files::CertificateFiles;
use super::connection::End;
use super::socket::Socket;
use crate::configuration::ConfigurationError;

/// Time between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// "The protocol identifier … for HTTP/1.1" (RFC 9112 §9.8): a client that offers HTTP/2 too takes this one.
const HTTP_1_1: &[u8] = b"http/1.1";

/// The TLS configuration of a listener.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    current: Arc<Current>,
    files: CertificateFiles,
}

/// The certificate that new sessions get.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

impl Tls {
    /// With the certificate that is in these files now; `host` is what senders expect it to name.
    pub(crate) fn open(files: CertificateFiles, host: Option<&str>) -> Result<Self, ConfigurationError> {
        let certificate = files.read()?;
        if let Some(host) = host {
            files::warn_of_another_name(&certificate, host);
        }
        let current = Arc::new(Current(RwLock::new(Arc::new(certificate))));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ConfigurationError::new(files::CERTIFICATE, error.to_string(), "report it"))?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), current, files })
    }

    /// Reads the files again when they have changed, and at each SIGHUP, until `stop`.
    pub(crate) async fn reread(self, mut hangups: Signal, stop: CancellationToken) -> anyhow::Result<()> {
        let mut timer = interval(LOOK_INTERVAL);
        let mut known = self.files.stamps();
        let mut seen = known.clone();
        loop {
            let is_asked = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = hangups.recv() => true,
                _ = timer.tick() => false,
            };
            let stamps = self.files.stamps();
            let is_at_rest = seen == stamps;
            seen = stamps;
            // A renewal writes one file after the other.
            if is_asked || (is_at_rest && seen != known) {
                known = seen.clone();
                self.take();
            }
        }
    }

    fn take(&self) {
        match self.files.read() {
            Ok(certificate) if certificate.cert == self.current.0.read().cert => {}
            Ok(certificate) => {
                *self.current.0.write() = Arc::new(certificate);
                tracing::info!("the certificate was read again: new connections get the new one");
            }
            Err(error) => tracing::error!(
                %error,
                "the certificate was read again and cannot be used: connections get the one before still"
            ),
        }
    }
}

/// The socket of a connection once its handshake is done, where there is one; until `deadline`, or until it is told to
/// be `closing`, or the server stops.
pub(crate) async fn open(
    socket: TcpStream,
    tls: Option<&Tls>,
    deadline: Instant,
    stop: &CancellationToken,
    closing: &CancellationToken,
) -> Result<Socket, End> {
    let Some(tls) = tls else { return Ok(Socket::Plain(socket)) };
    let shaken = tokio::select! {
        biased;
        () = closing.cancelled() => return Err(End::Over),
        () = stop.cancelled() => return Err(End::Over),
        shaken = timeout_at(deadline, tls.acceptor.accept(socket)) => shaken,
    };
    match shaken {
        Ok(Ok(socket)) => Ok(Socket::Tls(Box::new(socket))),
        // Why it failed is for the peer to see.
        Ok(Err(_)) => Err(End::Over),
        Err(_) => Err(End::Slow),
    }
}
