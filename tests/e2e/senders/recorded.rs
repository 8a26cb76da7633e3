//! Requests as known senders make them (`tests/requests`, written by hand), byte for byte, to both ingresses. Each is
//! accepted, and its content reaches the application.
//!
//! A file has comments, the head of a request, an empty line, and the body: text, or `base64 …`. The bodies are
//! encrypted to the keys of RFC 8291, Appendix A.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::{KeyPair, Kind, Phone, SOON, Subscription, Upwire, XmppServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cloud::Cloud;

const MENTION: &str = r#"{"access_token":"t","preferred_locale":"en","notification_id":"42","notification_type":"mention","icon":"https://mastodon.example/a.png","title":"romeo mentioned you","body":"Good morrow"}"#;

/// A request, and its expected outcome.
struct Recorded {
    name: &'static str,
    file: &'static str,
    /// The TTL of the answer in seconds.
    ttl: u32,
    /// The text that the application decrypts; `None`: the body is no ciphertext, whatever the headers say.
    plaintext: Option<&'static str>,
}

macro_rules! recorded {
    ($name:literal, $ttl:literal, $plaintext:expr) => {
        Recorded {
            name: $name,
            file: include_str!(concat!("../../requests/", $name, ".http")),
            ttl: $ttl,
            plaintext: $plaintext,
        }
    };
}

const REQUESTS: [Recorded; 6] = [
    recorded!("mastodon-aesgcm", 172_800, Some(MENTION)),
    recorded!("mastodon-aes128gcm", 172_800, Some(MENTION)),
    recorded!(
        "nextcloud",
        604_800,
        Some(r#"{"nid":1631,"app":"spreed","subject":"Juliet called you","type":"call","id":"t0pic"}"#)
    ),
    recorded!("mollysocket", 86_400, None),
    recorded!("common-gateway", 86_400, None),
    recorded!("common-gateway-aesgcm", 172_800, Some(MENTION)),
];

impl Recorded {
    /// Returns the head, with placeholders for host, path and length, and the body.
    fn parts(&self) -> (String, Vec<u8>) {
        let (head, body) = self.file.split_once("\n\n").unwrap();
        let lines = head.lines().filter(|line| !line.starts_with('#'));
        let head: String = lines.flat_map(|line| [line, "\r\n"]).collect();
        let body = body.trim_end_matches('\n');
        let body = match body.strip_prefix("base64 ") {
            Some(encoded) => STANDARD.decode(encoded).unwrap(),
            None => body.as_bytes().to_vec(),
        };
        (head, body)
    }

    /// Sends the request to an endpoint. Returns the answer in lower case.
    async fn send(&self, endpoint: &str) -> String {
        let (head, body) = self.parts();
        let address = endpoint.strip_prefix("http://").unwrap();
        let (host, path) = address.split_at(address.find('/').unwrap());
        let head = head.replace("{host}", host).replace("{path}", path);
        let request = head.replace("{length}", &body.len().to_string()) + "\r\n";
        let mut socket = TcpStream::connect(host).await.unwrap();
        socket.write_all(&[request.as_bytes(), &body].concat()).await.unwrap();
        let mut answer = String::new();
        timeout(SOON, socket.read_to_string(&mut answer)).await.expect("an answer").unwrap();
        answer.to_lowercase()
    }
}

/// Replays all requests to the endpoint of a phone.
async fn replay(endpoint: &str, phone: &Phone) {
    let keys = KeyPair {
        public: "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
            .into(),
        private: "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94".into(),
    };
    let subscription = Subscription { keys, auth: "BTBZMqHH6r4Tts7J_aSIgg".into() };
    let (mut expected, mut ciphertexts) = (Vec::new(), Vec::new());
    for request in REQUESTS {
        let (name, (_, body)) = (request.name, request.parts());
        let answer = request.send(endpoint).await;
        assert!(answer.starts_with("http/1.1 201 "), "{name}: {answer}");
        assert!(answer.contains(&format!("\r\nttl: {}\r\n", request.ttl)), "{name}: {answer}");
        let arrived = phone.next_push(SOON).await.body;
        match name.ends_with("aesgcm") {
            true => assert!(arrived.starts_with(b"aesgcm\nEncryption: salt=") && arrived.ends_with(&body)),
            false => assert_eq!(arrived, body, "{name}"),
        }
        if let Some(plaintext) = request.plaintext {
            expected.push(plaintext);
            ciphertexts.push(arrived);
        }
    }
    assert_eq!(subscription.decrypt(ciphertexts).await, expected);
}

#[tokio::test]
async fn known_senders_are_answered_by_the_embedded_ingress() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    replay(&phone.endpoint(&upwire.component.jid, "app").await, &phone).await;
}

#[tokio::test]
async fn known_senders_are_answered_by_the_function() {
    let server = XmppServer::shared(Kind::Ejabberd).await;
    let cloud = Cloud::new().await;
    let relay = cloud.relay_on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    replay(&phone.endpoint(&relay.component.jid, "app").await, &phone).await;
}
