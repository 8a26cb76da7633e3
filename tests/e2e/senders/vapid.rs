//! VAPID (docs/protocol.md, "VAPID"; RFC 8292): who may push to an endpoint that is bound to a key, and what ends it.

use std::process::Command;

use chrono::Utc;
use e2e::{
    ApplicationServer, Kind, Phone, Registered, SOON, Tether, Upwire, XmppServer, eventually_some, folder,
    hashed, http, profile_folder,
};
use serde_json::{Value, json};
use tokio_xmpp::parsers::stanza_error::{DefinedCondition, ErrorType};

use crate::cloud::{Cloud, costing};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

#[expect(clippy::disallowed_methods, reason = "an expiry is a time of day")]
fn now() -> i64 {
    Utc::now().timestamp()
}

/// The credentials of a sender, and the status of the answer if the endpoint is bound to a key.
struct Case {
    name: &'static str,
    headers: Vec<(&'static str, String)>,
    status: u16,
}

impl Case {
    fn new(name: &'static str, authorization: impl Into<String>, status: u16) -> Self {
        Self { name, headers: vec![("authorization", authorization.into())], status }
    }

    fn and(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    async fn push(&self, endpoint: &str) -> http::Response {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        http::post_patiently(endpoint, &headers, self.name).await
    }
}

fn expiring(audience: &str, seconds: i64) -> Value {
    json!({"aud": audience, "exp": now() + seconds, "sub": "mailto:operator@example.com"})
}

/// Returns all kinds of credentials, for an endpoint of this origin that is bound to this server's key.
fn cases(server: &ApplicationServer, audience: &str) -> Vec<Case> {
    let (key, other) = (&server.key, ApplicationServer::new());
    let standard = key.replace('-', "+").replace('_', "/");
    let good = server.token(&expiring(audience, 12 * HOUR));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let turned: String = signature.chars().rev().skip(6).collect();
    let vapid = |name, claims: &Value, status| {
        Case::new(name, format!("vapid t={}, k={key}", server.token(claims)), status)
    };
    let headed = |name, header, status| {
        let token = server.sign(header, &expiring(audience, HOUR));
        Case::new(name, format!("vapid t={token}, k={key}"), status)
    };
    vec![
        Case { name: "absent", headers: Vec::new(), status: 401 },
        Case::new("of another scheme", "Basic dXBAcA==", 401),
        Case { name: "the key alone", headers: Vec::new(), status: 401 }
            .and("crypto-key", format!("p256ecdsa={key}")),
        Case::new("no token", format!("vapid k={key}"), 403),
        Case::new("no JWT", format!("vapid t=nonsense, k={key}"), 403),
        Case::new("of another key", format!("vapid t={good}, k={}", other.key), 403),
        Case::new(
            "by another server",
            format!("vapid t={}, k={}", other.token(&expiring(audience, HOUR)), other.key),
            403,
        ),
        Case::new(
            "by another in its name",
            format!("vapid t={}, k={key}", other.token(&expiring(audience, HOUR))),
            403,
        ),
        Case::new("bad signature", format!("vapid t={signed}.{turned}, k={key}"), 403),
        Case::new("no signature", format!("vapid t={signed}., k={key}"), 403),
        headed("of no algorithm", r#"{"alg":"none"}"#, 403),
        headed("of another algorithm", r#"{"alg":"HS256"}"#, 403),
        vapid("for another service", &expiring("https://push.example.org", HOUR), 403),
        vapid("for nobody", &json!({"exp": now() + HOUR}), 403),
        vapid("for ever", &json!({"aud": audience}), 403),
        vapid("expired", &expiring(audience, -HOUR), 403),
        vapid("too far ahead", &expiring(audience, DAY + HOUR), 403),
        vapid("just expired", &expiring(audience, -60), 201),
        vapid("for exactly a day", &expiring(audience, DAY), 201),
        vapid("for a minute longer", &expiring(audience, DAY + 60), 201),
        vapid("without a contact", &json!({"aud": audience, "exp": now() + HOUR}), 201),
        vapid("for several services", &expiring_for_several(audience), 201),
        Case::new("as it is", format!("vapid t={good}, k={key}"), 201),
        Case::new("the other way around", format!("VAPID k={key},t={good}"), 201),
        Case::new("in the other alphabet", format!("vapid t={good}, k={standard}"), 201),
        Case::new("padded", format!("vapid t={good}, k={key}="), 201),
        Case::new("twice", format!("vapid t={good}, k={key}"), 201).and("authorization", "vapid t=x, k=y"),
        Case::new("of a draft", format!("WebPush {good}"), 201)
            .and("crypto-key", format!("dh=BGEw2wsHgLwzerjvnMTkbKrFRxdmwJ5S;p256ecdsa={key}")),
        Case::new("of an older draft", format!("Bearer {good}"), 201)
            .and("crypto-key", format!("p256ecdsa={standard}=")),
        Case::new("of a draft, by another key", format!("WebPush {good}"), 403)
            .and("crypto-key", format!("p256ecdsa={}", other.key)),
    ]
}

fn expiring_for_several(audience: &str) -> Value {
    json!({"aud": ["https://push.example.org", format!("{audience}/")], "exp": now() + HOUR})
}

/// Pushes each case to an endpoint that is bound to the key, and to one that is not.
async fn each_case_is_judged(phone: &Phone, [bound, open]: [&str; 2], cases: &[Case]) {
    for case in cases {
        let answer = case.push(bound).await;
        assert_eq!(answer.status, case.status, "{}: {}", case.name, answer.text());
        let challenge = (case.status == 401).then_some("vapid"); // RFC 8292 §3
        assert_eq!(answer.header("www-authenticate"), challenge, "{}", case.name);
        if case.status != 201 {
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", case.name);
            assert_eq!(answer.json()["status"], case.status);
        }
        assert_eq!(case.push(open).await.status, 201, "{}, where nobody asks", case.name);
    }
    let accepted: Vec<_> = cases.iter().filter(|case| case.status == 201).collect();
    let pushes = phone.wait_for_pushes(accepted.len() + cases.len(), SOON).await;
    let to_bound: Vec<_> = pushes.iter().filter(|push| push.application == hashed("bound")).collect();
    let mut arrived: Vec<_> = to_bound.iter().map(|push| String::from_utf8_lossy(&push.body)).collect();
    let mut expected: Vec<_> = accepted.iter().map(|case| case.name).collect();
    arrived.sort_unstable();
    expected.sort_unstable();
    assert_eq!(arrived, expected);
}

async fn bound(phone: &Phone, upwire: &Upwire, key: &str) -> Registered {
    phone.register_bound(&upwire.component.jid, &hashed("bound"), &hashed("1"), key).await.unwrap()
}

async fn unbound(phone: &Phone, upwire: &Upwire) -> Registered {
    phone.register(&upwire.component.jid, &hashed("bound"), &hashed("1")).await.unwrap()
}

#[tokio::test]
async fn only_the_server_that_has_the_key_may_push() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let sender = ApplicationServer::new();
    let endpoint = bound(&phone, &upwire, &sender.key).await.endpoint;
    let open = phone.endpoint(&upwire.component.jid, "open").await;
    let cases = cases(&sender, &upwire.public_url);
    each_case_is_judged(&phone, [&endpoint, &open], &cases).await;

    let of_status = |status| cases.iter().filter(|case| case.status == status).count() as f64;
    for (reason, status) in [("vapid_missing", 401), ("vapid_wrong", 403)] {
        let refused = [("reason", reason)];
        upwire.metric_is_where("upwire_pushes_refused_total", &refused, of_status(status)).await;
    }
    // The log has neither keys nor tokens.
    upwire.never_logged(&[&sender.key, "eyJ"]);
}

#[tokio::test]
async fn only_the_server_that_has_the_key_may_push_through_the_function() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    let relay = cloud.relay_on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let sender = ApplicationServer::new();
    let endpoint = bound(&phone, &relay, &sender.key).await.endpoint;
    let open = phone.endpoint(&relay.component.jid, "open").await;
    // The function assumes TLS in front of it.
    let (origin, _) = endpoint.split_once("/push/").unwrap();
    let cases = cases(&sender, &origin.replacen("http:", "https:", 1));
    each_case_is_judged(&phone, [&endpoint, &open], &cases).await;

    let the_read_of_every_push = [("GetItem", 1)];
    let unsigned = costing(&cloud.ingress_ways, the_read_of_every_push, async || {
        http::post(&endpoint, "unsigned").await
    })
    .await;
    assert_eq!(unsigned.status, 401);

    let other = bound(&phone, &relay, &ApplicationServer::new().key).await.endpoint;
    assert_ne!(other, endpoint);
    assert_eq!(http::post_patiently(&endpoint, &[], "too late").await.status, 410);
    assert_eq!(http::post_patiently(&other, &[], "unsigned").await.status, 401);
}

#[tokio::test]
async fn another_key_makes_another_url_and_the_same_does_not() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut upwire = Upwire::on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let sender = ApplicationServer::new();
    let first = bound(&phone, &upwire, &sender.key).await.endpoint;
    let signed = async |endpoint: &str, sender: &ApplicationServer| {
        let token = sender.token(&expiring(&upwire.public_url, HOUR));
        let authorization = format!("vapid t={token}, k={}", sender.key);
        http::post_with(endpoint, &[("authorization", &authorization)], "x").await.status
    };
    assert_eq!(bound(&phone, &upwire, &sender.key).await.endpoint, first);
    assert_eq!(signed(&first, &sender).await, 201);

    let successor = ApplicationServer::new();
    let second = bound(&phone, &upwire, &successor.key).await.endpoint;
    assert_ne!(second, first);
    // An endpoint that has ended is refused before its key is checked: every sender gets a 410.
    assert_eq!((http::post(&first, "x").await.status, signed(&first, &sender).await), (410, 410));
    assert_eq!((signed(&second, &sender).await, signed(&second, &successor).await), (403, 201));

    let third = unbound(&phone, &upwire).await.endpoint;
    assert!(third != first && third != second);
    assert_eq!((signed(&second, &successor).await, http::post(&third, "x").await.status), (410, 201));

    let fourth = bound(&phone, &upwire, &sender.key).await.endpoint;
    assert!(![&first, &second, &third].contains(&&fourth), "a URL that was refused never comes back");
    phone.wait_for_pushes(3, SOON).await;
    upwire.kill();
    upwire.start_again();
    upwire.ready().await;
    assert_eq!(http::post(&fourth, "x").await.status, 401, "the key outlives a crash");
    assert_eq!(bound(&phone, &upwire, &sender.key).await.endpoint, fourth);
}

#[tokio::test]
async fn what_is_no_key_is_a_bad_request_that_says_why() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let key = ApplicationServer::new().key;
    let compressed = key.replacen('B', "A", 1);
    let padded = format!("{key}=");
    let cases = [
        ("", "vapid: decodes to 0 bytes, expected 65"),
        ("%%%", "vapid: not valid base64url without padding"),
        (&padded, "vapid: not valid base64url without padding"),
        (&key[..84], "vapid: decodes to 63 bytes, expected 65"),
        (&compressed, "vapid: not an uncompressed point of P-256, whose first byte is 4"),
    ];
    for (vapid, text) in cases {
        let refused = phone
            .register_bound(&upwire.component.jid, &hashed("bound"), &hashed("1"), vapid)
            .await
            .unwrap_err();
        assert_eq!(
            (refused.type_, refused.defined_condition),
            (ErrorType::Modify, DefinedCondition::BadRequest)
        );
        assert_eq!(refused.texts.values().next().map(String::as_str), Some(text));
    }
}

#[tokio::test]
async fn the_distributor_in_a_terminal_registers_a_key() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).start_ready().await;
    let user = server.user().await;
    let sender = ApplicationServer::new();
    let endpoint = async |key: Option<&str>| {
        let mut command = Command::new(profile_folder().join("upwire"));
        command.args(["distributor", "--json", "--plaintext", "--jid", user.jid.as_str()]);
        command.args(["--server", &format!("127.0.0.1:{}", server.c2s_port)]);
        command.args(["--push-server", upwire.component.jid.as_str()]);
        command.args(key.map(|key| ["--vapid", key]).into_iter().flatten());
        command.env("UPWIRE_PASSWORD", &user.password);
        let mut distributor = Tether::start(&command, &folder("distributor").join("log"));
        eventually_some(SOON, "the distributor prints its endpoint", async || {
            distributor.assert_running();
            let log = distributor.log();
            let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut endpoints = events.filter_map(|event| event["endpoint"].as_str().map(str::to_owned));
            endpoints.next()
        })
        .await
    };
    let first = endpoint(Some(&sender.key)).await;
    assert_eq!(http::post(&first, "x").await.status, 401);
    assert_eq!(endpoint(Some(&sender.key)).await, first);
    let open = endpoint(None).await;
    assert_eq!((http::post(&first, "x").await.status, http::post(&open, "x").await.status), (410, 201));
}
