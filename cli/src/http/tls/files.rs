//! The files of a certificate and its key, as the tools of Prosody, ejabberd, certbot and others write them.

use std::fs::{self, File};
use std::io::{BufReader, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, Error, InconsistentKeys};

use crate::configuration::ConfigurationError;

/// The variable that names the certificate's file.
pub(crate) const CERTIFICATE: &str = "UPWIRE_TLS_CERTIFICATE";
/// The variable that names the key's file.
pub(crate) const KEY: &str = "UPWIRE_TLS_KEY";

/// The paths of a certificate and its key. Both may be in one file, as ejabberd has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
}

/// A file's inode, size and modification time, which show that it was replaced or written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp(Option<(u64, u64, i64, i64)>);

impl Stamp {
    fn of(file: &Path) -> Self {
        let metadata = fs::metadata(file).ok();
        Self(metadata.map(|file| (file.ino(), file.size(), file.mtime(), file.mtime_nsec())))
    }
}

impl CertificateFiles {
    /// Returns the files that the two variables name; `None`: neither is set.
    pub(crate) fn given(
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
    ) -> Result<Option<Self>, ConfigurationError> {
        let missing = |variable, other| {
            let problem = format!("is missing, and {other} is given");
            let mend = "name both files, or neither where a proxy in front speaks TLS";
            Err(ConfigurationError::new(variable, problem, mend))
        };
        match (certificate, key) {
            (Some(certificate), Some(key)) => Ok(Some(Self { certificate, key })),
            (None, None) => Ok(None),
            (Some(_), None) => missing(KEY, CERTIFICATE),
            (None, Some(_)) => missing(CERTIFICATE, KEY),
        }
    }

    /// Returns the stamps of both files.
    pub(crate) fn stamps(&self) -> [Stamp; 2] {
        [&self.certificate, &self.key].map(|file| Stamp::of(file))
    }

    /// Reads the certificate with its chain, and the key.
    pub(crate) fn read(&self) -> Result<CertifiedKey, ConfigurationError> {
        let (certificates, key) = (self.certificates()?, self.private_key()?);
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(certificates, key, &provider).map_err(|error| self.explain(&error))
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, ConfigurationError> {
        let (file, mend) =
            (&self.certificate, "name a file with the certificate and its authorities, in PEM");
        let wrong = |problem: &str| {
            ConfigurationError::new(CERTIFICATE, format!("{} {problem}", file.display()), mend)
        };
        let read = CertificateDer::pem_reader_iter(open(CERTIFICATE, file)?).collect::<Result<Vec<_>, _>>();
        match read {
            Ok(certificates) if certificates.is_empty() => Err(wrong("has no certificate")),
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(wrong(&format!("is no PEM: {error}"))),
        }
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, ConfigurationError> {
        let file = &self.key;
        PrivateKeyDer::from_pem_reader(open(KEY, file)?).map_err(|error| {
            let is_encrypted = matches!(error, pem::Error::NoItemsFound)
                && fs::read_to_string(file).is_ok_and(|text| text.contains("BEGIN ENCRYPTED PRIVATE KEY"));
            let (problem, mend) = match error {
                _ if is_encrypted => (
                    "has a key that is encrypted by a passphrase".to_owned(),
                    "take that off: openssl pkey -in KEY -out NEW-KEY",
                ),
                pem::Error::NoItemsFound => (
                    "has no private key".to_owned(),
                    "name the file of the certificate's private key, in PEM",
                ),
                error => (format!("is no PEM: {error}"), "name the file of the certificate's private key"),
            };
            ConfigurationError::new(KEY, format!("{} {problem}", file.display()), mend)
        })
    }

    fn explain(&self, error: &Error) -> ConfigurationError {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => ConfigurationError::new(
                KEY,
                format!("the key in {key} is not that of the first certificate in {certificate}"),
                "name the key that the certificate was made for; in its file, the server's own certificate comes first",
            ),
            Error::InvalidCertificate(error) => ConfigurationError::new(
                CERTIFICATE,
                format!("the first certificate in {certificate} cannot be used: {error:?}"),
                "have your certificate's tool make it anew",
            ),
            error => ConfigurationError::new(
                KEY,
                format!("the key in {key} cannot be used: {error}"),
                "take a key of ECDSA (P-256 or P-384), Ed25519, or RSA with 2048 bits or more",
            ),
        }
    }
}

fn open(variable: &str, file: &Path) -> Result<BufReader<File>, ConfigurationError> {
    File::open(file).map(BufReader::new).map_err(|error| {
        let problem = format!("{} cannot be read: {error}", file.display());
        let mend = match error.kind() {
            ErrorKind::PermissionDenied => {
                "let the user that runs this read it, by a group of the file, or by a copy that the certificate's tool makes"
            }
            _ => "name a file in PEM",
        };
        ConfigurationError::new(variable, problem, mend)
    })
}

/// Warns of a certificate that does not name the host of the endpoints, so that senders refuse it.
pub(crate) fn warn_of_another_name(certificate: &CertifiedKey, host: &str) {
    if let Some(problem) = other_names(certificate, host) {
        tracing::warn!(
            "{CERTIFICATE}: the certificate is not for {host}, which UPWIRE_PUBLIC_URL names, and senders that come here by \
             that name refuse it: {problem}"
        );
    }
}

fn other_names(certificate: &CertifiedKey, host: &str) -> Option<String> {
    let name = ServerName::try_from(host).ok()?;
    let parsed = ParsedCertificate::try_from(certificate.end_entity_cert().ok()?).ok()?;
    verify_server_name(&parsed, &name).err().map(|error| error.to_string())
}
