//! TLS as a sender speaks it, and the expiry of the certificate.

use std::io;
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

/// A time span longer than the lifetime of any certificate.
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

    /// Returns whether the other end of the socket speaks TLS, with any certificate.
    pub(super) async fn is_spoken(&self, socket: TcpStream, host: &str) -> bool {
        match self.connect(socket, host).await {
            Ok(_) => true,
            Err(error) => matches!(
                cause(&error),
                Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))
            ),
        }
    }

    /// Returns the expiry of the server's certificate. It comes from the verifier's error for a time in the far future,
    /// when the certificate has expired.
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

/// Returns the TLS library's error, if it is the cause.
fn cause(error: &anyhow::Error) -> Option<&rustls::Error> {
    error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref())
}

/// Returns why the TLS session failed, and the remedy; `None`: a certificate for the host, with its chain.
pub(super) fn problem(error: &anyhow::Error) -> (String, Option<&'static str>) {
    const PLAIN: &str = "have the proxy speak TLS on that port (or upwire: UPWIRE_TLS_CERTIFICATE and UPWIRE_TLS_KEY), or write \
        the port into UPWIRE_PUBLIC_URL that speaks it";
    const OWN: &str = "get one from an authority: certbot; one of your own is to be no authority's (with openssl req -x509: -addext \
        basicConstraints=critical,CA:FALSE), and senders have to trust it";
    match cause(error) {
        Some(rustls::Error::InvalidMessage(_)) => {
            let what = "UPWIRE_PUBLIC_URL begins with https://, and what answers there does not speak TLS";
            (what.to_owned(), Some(PLAIN))
        }
        Some(rustls::Error::InvalidCertificate(problem)) => match problem {
            CertificateError::UnknownIssuer => {
                let what = "the certificate is refused: it is of no authority that is trusted here, or self-signed, or \
                            those between it and the authority are missing";
                (what.to_owned(), None)
            }
            // By default, `openssl req -x509` makes certificates that webpki refuses with this error.
            CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                let what =
                    "the certificate is refused: it is an authority's own, as a self-signed one often is";
                (what.to_owned(), Some(OWN))
            }
            problem => (format!("the certificate is refused: {problem}"), None),
        },
        _ => (format!("no TLS session comes about: {error:#}"), None),
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::{InvalidMessage, OtherError};

    use super::*;

    #[test]
    fn a_failure_of_tls_is_told_in_plain_words_with_its_mend() {
        let authority = OtherError(Arc::new(io::Error::other("CaUsedAsEndEntity")));
        for (error, words, mends) in [
            (
                rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "does not speak TLS",
                Some("UPWIRE_TLS_KEY"),
            ),
            (CertificateError::Other(authority).into(), "an authority's own", Some("CA:FALSE")),
            (CertificateError::UnknownIssuer.into(), "refused: it is of no authority", None),
            (CertificateError::Expired.into(), "refused: Expired", None),
            (rustls::Error::DecryptError, "no TLS session comes about", None),
        ] {
            let error = io::Error::new(io::ErrorKind::InvalidData, error).into();
            let (what, mend) = problem(&error);
            assert!(what.contains(words), "{what}");
            assert_eq!(mend.is_some(), mends.is_some(), "{what}");
            assert!(mend.is_none_or(|mend| mends.is_some_and(|words| mend.contains(words))), "{mend:?}");
            for name in ["InvalidContentType", "CaUsedAsEndEntity", "UnknownIssuer"] {
                assert!(!what.contains(name), "{what}");
            }
        }
    }
}
