//! Web Push from end to end: the libraries with which application servers send, and the application that decrypts.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::http::Response;
use crate::run::{folder, target_folder};
use crate::slixmpp::python;
use crate::tether::Tether;
use crate::wait::SOON;

const SENDERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/senders");

/// A library with which application servers send pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// npm's `web-push`.
    WebPush,
    /// Python's `pywebpush`.
    Pywebpush,
}

/// A P-256 key pair in base64url, of an application's subscription or of an application server (VAPID).
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// The public key: an uncompressed point of 65 bytes.
    pub public: String,
    /// The private key: a number of 32 bytes.
    pub private: String,
}

/// The keys of an application: those that it gives to its server beside the endpoint, and its private key.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The key pair.
    pub keys: KeyPair,
    /// The secret that application and server share, 16 bytes in base64url.
    pub auth: String,
}

/// A push for a library to send.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The payload before its encryption.
    pub payload: &'a str,
    /// The content encoding: `aes128gcm` or `aesgcm`.
    pub encoding: &'a str,
    /// The TTL in seconds.
    pub ttl: u32,
    /// The value of the `Urgency` header.
    pub urgency: &'a str,
    /// The value of the `Topic` header; `None`: no header.
    pub topic: Option<&'a str>,
    /// The key pair that signs the push; `None`: not signed.
    pub vapid: Option<&'a KeyPair>,
}

impl Library {
    /// Has the library send a push to an endpoint. The library trusts the certificate authority in `trusted`.
    pub async fn send(
        self,
        endpoint: &str,
        trusted: &Path,
        subscription: &Subscription,
        message: &Message<'_>,
    ) -> Response {
        let vapid = message.vapid.map(|keys| json!({"public": keys.public, "private": keys.private}));
        let request = json!({
            "endpoint": endpoint,
            "p256dh": subscription.keys.public,
            "auth": subscription.auth,
            "payload": message.payload,
            "encoding": message.encoding,
            "ttl": message.ttl,
            "urgency": message.urgency,
            "topic": message.topic,
            "vapid": vapid,
        });
        let mut command = match self {
            Self::WebPush => script("node".as_ref(), "web_push_sender.cjs"),
            Self::Pywebpush => script(python().as_ref(), "pywebpush_sender.py"),
        };
        command.arg(request.to_string());
        command.env("NODE_PATH", target_folder().join("web-push/node_modules"));
        command.env("NODE_EXTRA_CA_CERTS", trusted).env("REQUESTS_CA_BUNDLE", trusted);
        // Nothing goes through a proxy.
        for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(proxy);
        }
        answer(&run(&command).await)
    }
}

impl Subscription {
    /// Makes a subscription with fresh keys.
    pub async fn new() -> Self {
        let keys = run(script(python().as_ref(), "application.py").arg("keys")).await;
        let text = |name: &str| keys[name].as_str().expect("a key").to_owned();
        Self { keys: KeyPair { public: text("public"), private: text("private") }, auth: text("auth") }
    }

    /// Returns the decrypted payloads of the bodies that the phone got. Panics if one does not decrypt.
    pub async fn decrypt(&self, bodies: impl IntoIterator<Item = Vec<u8>>) -> Vec<String> {
        let mut command = script(python().as_ref(), "application.py");
        command.args(["decrypt", &self.keys.private, &self.auth]);
        command.args(bodies.into_iter().map(|body| STANDARD.encode(body)));
        serde_json::from_value(run(&command).await).expect("a list of texts")
    }
}

pub(crate) fn script(interpreter: &OsStr, name: &str) -> Command {
    let mut command = Command::new(interpreter);
    command.arg(format!("{SENDERS}/{name}"));
    command
}

/// Runs a program to its end, and returns the JSON of its last line.
pub(crate) async fn run(command: &Command) -> Value {
    let mut process = Tether::start(command, &folder("sender").join("log"));
    let status = process.wait(SOON).await;
    let log = process.log();
    assert!(status.success(), "{process:?}: {status}: {log}");
    let last = log.lines().last().and_then(|line| serde_json::from_str(line).ok());
    last.unwrap_or_else(|| panic!("{process:?} prints no JSON: {log}"))
}

fn answer(printed: &Value) -> Response {
    let headers = printed["headers"].as_object().expect("headers").iter();
    let headers = headers.filter_map(|(name, value)| {
        let value = HeaderValue::from_str(value.as_str()?).ok()?;
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
    });
    let status = printed["status"].as_u64().and_then(|status| status.try_into().ok());
    Response {
        status: status.expect("a status"),
        headers: headers.collect(),
        body: printed["body"].as_str().unwrap_or_default().into(),
    }
}
