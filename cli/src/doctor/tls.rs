//! TLS as a sender speaks it, and how long the certificate lives.

use std::sync::Arc;

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::pki_types::{ServerName, UnixTime};
use tokio_rustls::rustls::{self, CertificateError, ClientConfig, RootCertStore};

/// Later than any certificate lives.
const FAR: TimeDelta = TimeDelta::days(365 * 200);

/// A connector that speaks TLS as a sender with the system's trust store.
#[derive(Clone)]
pub(super) struct Tls {
    roots: Arc<RootCertStore>,
    connector: TlsConnector,
}

impl Tls {
    pub(super) fn new() -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(&roots))
            .with_no_client_auth();
        Ok(Self { roots, connector: TlsConnector::from(Arc::new(config)) })
    }

    pub(super) async fn connect(
        &self,
        socket: TcpStream,
        host: &str,
    ) -> anyhow::Result<TlsStream<TcpStream>> {
        let name =
            ServerName::try_from(host.to_owned()).context("the host is none that a certificate names")?;
        Ok(self.connector.connect(name, socket).await?)
    }

    /// When the certificate ends that the server has shown. The verifier is asked about a time at which it has ended, and
    /// says since when.
    pub(super) fn ends_at(
        &self,
        stream: &TlsStream<TcpStream>,
        host: &str,
        now: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let (certificate, chain) = stream.get_ref().1.peer_certificates()?.split_first()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::clone(&self.roots);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build().ok()?;
        let name = ServerName::try_from(host).ok()?;
        let far = u64::try_from((now + FAR).timestamp()).ok()?;
        let far = UnixTime::since_unix_epoch(std::time::Duration::from_secs(far));
        match verifier.verify_server_cert(certificate, chain, &name, &[], far) {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after, ..
            })) => DateTime::from_timestamp(i64::try_from(not_after.as_secs()).ok()?, 0),
            _ => None,
        }
    }
}
