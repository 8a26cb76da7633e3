//! Certificates for tests, made by `openssl`, which comes with Debian's ejabberd and stunnel.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::folder;

const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// A certificate with its key, in one file.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The PEM file that a server reads.
    pub file: PathBuf,
}

/// A certificate authority. Only clients that are told to trust it do so.
pub struct Authority {
    folder: PathBuf,
    /// Its own certificate, which a client is told to trust.
    pub trusted: PathBuf,
}

impl Authority {
    /// Makes a fresh authority.
    pub fn new() -> Self {
        let folder = folder("authority");
        let request =
            ["req", "-x509", "-subj", "/CN=authority of a test", "-keyout", "key", "-out", "trusted"];
        openssl(&folder, &[&request[..], &NEW_KEY].concat());
        Self { trusted: folder.join("trusted"), folder }
    }

    /// Signs a certificate for this host.
    pub fn certificate(&self, host: &str) -> Certificate {
        self.sign(host, "2")
    }

    /// Signs a certificate that has expired already.
    pub fn expired_certificate(&self, host: &str) -> Certificate {
        self.sign(host, "-1")
    }

    fn sign(&self, host: &str, days: &str) -> Certificate {
        let folder = folder("certificate");
        let names = format!("subjectAltName=DNS:{host}");
        let request =
            ["req", "-subj", "/CN=of a test", "-addext", &names, "-keyout", "key", "-out", "request"];
        openssl(&folder, &[&request[..], &NEW_KEY].concat());
        let (authority, key) =
            (self.trusted.display().to_string(), self.folder.join("key").display().to_string());
        let sign = ["x509", "-req", "-in", "request", "-CA", &authority, "-CAkey", &key, "-CAcreateserial"];
        openssl(
            &folder,
            &[&sign[..], &["-copy_extensions", "copy", "-days", days, "-out", "certificate"]].concat(),
        );
        Certificate::joined(&folder)
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificate {
    /// Makes a self-signed certificate, as an operator without an authority does. A client trusts it once its settings
    /// name it. `extensions` are openssl's, such as `subjectAltName=DNS:localhost`.
    pub fn self_signed(extensions: &[&str]) -> Self {
        let folder = folder("certificate");
        let request = ["req", "-x509", "-subj", "/CN=of a test", "-keyout", "key", "-out", "certificate"];
        let extensions = extensions.iter().flat_map(|extension| ["-addext", extension]);
        let arguments = request.into_iter().chain(NEW_KEY).chain(extensions).collect::<Vec<_>>();
        openssl(&folder, &arguments);
        Self::joined(&folder)
    }

    fn joined(folder: &Path) -> Self {
        let file = folder.join("certificate-and-key");
        let read = |name| std::fs::read(folder.join(name)).expect("what openssl wrote");
        std::fs::write(&file, [read("certificate"), read("key")].concat()).expect("write a certificate");
        Self { file }
    }
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().expect("start openssl");
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
