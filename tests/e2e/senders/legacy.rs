//! Endpoints of a predecessor, Prosody's own `mod_unified_push` or *up*, go on working.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::Utc;
use e2e::{
    Answer, Kind, Phone, Registered, SOON, Settings, Upwire, XmppServer, eventually, hashed, http, python,
};
use serde_json::json;
use tokio_xmpp::jid::{BareJid, Jid};
use tokio_xmpp::parsers::stanza_error::DefinedCondition;

use super::matrix::{notification, rejected};
use crate::cloud::Cloud;

const UP_TOKEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/senders/up_token.py");
/// `sharedSecret` in the configuration of `up`.
pub(crate) const UP_SECRET: &str = "7z8XLjkj/8h2T22nd1Z279vT2ONMOgQu8xj0BLps3qA=";

/// A Prosody with a push server of its own, and a phone that is registered there.
struct Predecessor {
    server: XmppServer,
    phone: Phone,
    registered: Registered,
}

impl Predecessor {
    async fn new() -> Self {
        let settings = Settings { unified_push: Some("jwt"), ..Settings::default() };
        let server = XmppServer::start_with(Kind::Prosody, settings).await;
        let phone = Phone::connect(&server, &server.user().await, "phone").await;
        let jid = BareJid::new("unified-push.localhost").unwrap();
        let registered = phone.register(&jid, &hashed("app"), &hashed("1")).await.unwrap();
        Self { server, phone, registered }
    }

    /// Returns the secret of `infra/prosody/prosody.cfg.lua`.
    fn secret(&self) -> String {
        format!("{}, a secret that is long enough", self.server.component().secret)
    }

    /// Returns the same path at another server, as after a change of the DNS or the reverse proxy.
    fn endpoint_at(&self, url: &str) -> String {
        let (_, token) = self.registered.endpoint.rsplit_once('/').unwrap();
        format!("{url}/push/{token}")
    }
}

/// Follows an endpoint of Prosody's module from its first push to its end.
async fn lives_until_the_application_is_gone(
    Predecessor { phone, .. }: &Predecessor,
    component: &BareJid,
    url: &str,
    endpoint: &str,
) {
    phone.greet(component).await;
    assert_eq!(http::get(endpoint).await.json(), json!({"unifiedpush": {"version": 1}}));
    for body in ["first", "second"] {
        let accepted = http::post_with(endpoint, &[("ttl", "3600")], body).await;
        assert_eq!((accepted.status, accepted.header("ttl")), (201, Some("3600")), "{}", accepted.text());
        let push = phone.next_push(SOON).await;
        assert_eq!((push.body.as_slice(), &push.from), (body.as_bytes(), &Jid::from(component.clone())));
        assert_eq!((push.application, push.instance), (hashed("app"), hashed("1")));
    }
    let (request, body) = notification("$1", &[endpoint]);
    assert_eq!(rejected(url, request).await, json!([]));
    assert_eq!(phone.next_push(SOON).await.body, body);

    let ours = phone.register(component, &hashed("app"), &hashed("1")).await.unwrap().endpoint;
    assert_ne!(ours, endpoint);
    assert_eq!(http::post(endpoint, "beside the new one").await.status, 201);
    assert_eq!(phone.next_push(SOON).await.body, b"beside the new one");

    phone.set_answer(Answer::Error(DefinedCondition::ItemNotFound));
    assert_eq!(http::post(endpoint, "anyone there?").await.status, 201);
    eventually(SOON, "410", async || http::post(endpoint, "and now?").await.status == 410).await;
    let (request, _) = notification("$2", &[endpoint]);
    assert_eq!(rejected(url, request).await, json!([endpoint]));
    phone.set_answer(Answer::Result);
    assert_eq!(http::post(&ours, "the new one").await.status, 201);
    assert_eq!(http::post(endpoint, "never again").await.status, 410);
}

#[tokio::test]
async fn an_endpoint_of_prosodys_module_works_until_the_application_is_gone() {
    let predecessor = Predecessor::new().await;
    let mut upwire =
        Upwire::on(&predecessor.server).set("UPWIRE_LEGACY_SECRET", predecessor.secret()).start_ready().await;
    let endpoint = predecessor.endpoint_at(&upwire.public_url);
    let component = upwire.component.jid.clone();
    lives_until_the_application_is_gone(&predecessor, &component, &upwire.public_url, &endpoint).await;
    upwire.kill();
    upwire.start_again();
    upwire.ready().await;
    assert_eq!(http::post(&endpoint, "after a restart").await.status, 410);
    upwire.never_logged(&[&predecessor.secret(), endpoint.rsplit_once('/').unwrap().1]);
}

#[tokio::test]
async fn an_endpoint_of_prosodys_module_works_through_the_function() {
    let predecessor = Predecessor::new().await;
    let cloud = Cloud::with([("UPWIRE_LEGACY_SECRET", predecessor.secret())]).await;
    let relay = cloud.relay_on(&predecessor.server).start_ready().await;
    let endpoint = predecessor.endpoint_at(&cloud.function.url);
    lives_until_the_application_is_gone(&predecessor, &relay.component.jid, &cloud.function.url, &endpoint)
        .await;
}

#[tokio::test]
async fn without_the_predecessors_secret_or_with_another_its_endpoints_are_in_doubt_at_first() {
    let predecessor = Predecessor::new().await;
    for secret in ["", "another secret, of more than 32 bytes 0123456789"] {
        let mut upwire =
            Upwire::on(&predecessor.server).set("UPWIRE_LEGACY_SECRET", secret).start_ready().await;
        let endpoint = predecessor.endpoint_at(&upwire.public_url);
        let answer = http::post(&endpoint, "hello").await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("600")), "{secret}");
        upwire.log_line(&["UPWIRE_LEGACY_SECRET"]).await;
    }
}

#[tokio::test]
async fn a_push_to_a_predecessors_endpoint_waits_for_a_phone_that_is_away() {
    let predecessor = Predecessor::new().await;
    let upwire =
        Upwire::on(&predecessor.server).set("UPWIRE_LEGACY_SECRET", predecessor.secret()).start_ready().await;
    let endpoint = predecessor.endpoint_at(&upwire.public_url);
    predecessor.phone.set_answer(Answer::Error(DefinedCondition::ServiceUnavailable));
    assert_eq!(http::post(&endpoint, "later").await.status, 201);
    predecessor.phone.next_push(SOON).await;
    upwire.mailbox_holds(1).await;
    predecessor.phone.set_answer(Answer::Result);
    predecessor.phone.greet(&upwire.component.jid).await;
    assert_eq!(predecessor.phone.next_push(SOON).await.body, b"later");
    upwire.mailbox_holds(0).await;
}

/// Makes a token as `up` does, by a library that is not ours.
pub(crate) fn up_token(phone: &Phone, expires_in: i64) -> String {
    let claims = json!({
        "sub": phone.jid(), "exp": now() + expires_in * 1000,
        "application": hashed("app"), "instance": hashed("1"),
    });
    let mut command = Command::new(python());
    command.args([UP_TOKEN, UP_SECRET]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(claims.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[expect(clippy::disallowed_methods, reason = "an expiry is a time of day")]
pub(crate) fn now() -> i64 {
    Utc::now().timestamp_millis()
}

#[tokio::test]
async fn an_endpoint_of_up_works_until_it_expires() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).set("UPWIRE_LEGACY_PASETO_KEY", UP_SECRET).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    phone.hold(&hashed("app"), &hashed("1"));
    let endpoint = |expires_in| format!("{}/push/{}", upwire.public_url, up_token(&phone, expires_in));
    let (lives, short, expired) = (endpoint(3600), endpoint(10), endpoint(-1));
    assert!(lives.len() < 1000, "as long as UnifiedPush allows");
    assert_eq!(http::post(&lives, "hello").await.status, 201);
    assert_eq!(phone.next_push(SOON).await.body, b"hello");
    assert_eq!(http::post(&expired, "hello").await.status, 410);
    eventually(SOON, "it expires", async || http::post(&short, "hello").await.status == 410).await;
    assert_eq!(http::post(&lives, "hello").await.status, 201);

    let other = STANDARD.encode([7; 32]);
    let upwire = Upwire::on(server).set("UPWIRE_LEGACY_PASETO_KEY", other).start_ready().await;
    let (_, token) = lives.rsplit_once('/').unwrap();
    let answer = http::post(&format!("{}/push/{token}", upwire.public_url), "hello").await;
    assert_eq!(answer.status, 503, "the database is new");
}
