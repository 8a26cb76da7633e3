//! TLS of the listener. The certificate is read again when its files change.

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

/// Time between two checks of the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// "The protocol identifier … for HTTP/1.1" (RFC 9112 §9.8). A client that also offers HTTP/2 then uses HTTP/1.1.
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
    /// Reads the certificate from these files. Warns if it does not name `host`, which senders expect.
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
            // A renewal writes one file after the other, so the files have to be unchanged since the last check.
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

/// Returns the socket of a connection, after the TLS handshake if there is TLS. Gives up at `deadline`, when `closing`
/// is cancelled, or when the server stops.
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
        // The peer sees why the handshake failed.
        Ok(Err(_)) => Err(End::Over),
        Err(_) => Err(End::Slow),
    }
}
