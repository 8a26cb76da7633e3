//! The log says what happened. It has no JID, no body and no token.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::{Answer, Kind, Phone, RawClient, SOON, Upwire, User, XmppServer, hashed, http};
use serde_json::Value;
use tokio_xmpp::parsers::stanza_error::DefinedCondition;

const BODY: &str = "a secret that is nobody's business";

const RESOURCE: &str = "a-telling-resource";

/// Everything that must not be in the log.
#[derive(Default)]
struct Secrets(Vec<String>);

impl Secrets {
    fn user(&mut self, user: &User) {
        self.0.extend([user.name().to_owned(), user.password.clone(), RESOURCE.to_owned()]);
    }

    fn endpoint(&mut self, endpoint: &str) {
        self.0.push(endpoint.rsplit('/').next().unwrap().to_owned());
    }

    fn are_kept(&self, log: &str) {
        for secret in &self.0 {
            let told = log.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(told, None, "{secret:?} is told");
        }
    }
}

/// Makes valid and invalid registrations, pushes, and answers in every way.
async fn all_that_can_happen(server: &XmppServer, upwire: &Upwire, secrets: &mut Secrets) {
    let component = &upwire.component.jid;
    let (user, other) = (server.user().await, server.user().await);
    secrets.user(&user);
    secrets.user(&other);
    let phone = Phone::connect(server, &user, RESOURCE).await;
    phone.greet(component).await;
    phone.register(component, "not a hash", &hashed("1")).await.unwrap_err();
    let mut endpoints = Vec::new();
    for application in ["delivered", "gone", "retried"] {
        let endpoint = phone.endpoint(component, application).await;
        secrets.endpoint(&endpoint);
        endpoints.push(endpoint);
    }
    let answers = [
        Answer::Result,
        Answer::Error(DefinedCondition::ItemNotFound),
        Answer::Error(DefinedCondition::ServiceUnavailable),
    ];
    for (endpoint, answer) in endpoints.iter().zip(answers) {
        phone.set_answer(answer);
        assert_eq!(http::post(endpoint, BODY).await.status, 201);
        phone.next_push(SOON).await;
    }
    upwire.metric_reaches("upwire_pushes_retried_total", 1.0).await;
    upwire.metric_reaches("upwire_registrations_revoked_total", 1.0).await;
    refusals(&endpoints).await;

    let mut villain = RawClient::connect(server, &other, "villain").await;
    villain
        .send(format!("<iq type='get' id='1' to='{component}'><a xmlns='b'>{BODY}</a></iq>"))
        .await
        .unwrap();
    villain.read_until("service-unavailable", SOON).await.unwrap();
    villain.send(format!("<message to='{component}'><body>{BODY}</body></message>")).await.unwrap();
    phone.set_answer(Answer::Silent);
    assert_eq!(http::post(&endpoints[0], BODY).await.status, 201);
    phone.next_push(SOON).await;
    phone.disconnect().await;
    upwire.metric_reaches("upwire_pushes_retried_total", 2.0).await;
    secrets.are_kept(&http::get(&format!("{}/metrics", upwire.admin_url)).await.text());
}

/// Provokes every refusal of the push resource.
async fn refusals(endpoints: &[String]) {
    let (delivered, gone) = (&endpoints[0], &endpoints[1]);
    assert_eq!(http::post(gone, BODY).await.status, 410);
    assert_eq!(http::post(&format!("{delivered}x"), BODY).await.status, 404);
    assert_eq!(http::post(delivered, "").await.status, 400);
    assert_eq!(http::post(delivered, BODY.repeat(200)).await.status, 413);
    assert_eq!(http::post_with(delivered, &[("TTL", "soon")], BODY).await.status, 400);
    assert_eq!(http::send("DELETE", delivered, &[], BODY).await.status, 405);
}

#[tokio::test]
async fn the_log_at_debug_holds_no_body_no_token_and_no_jid() {
    let mut server = XmppServer::start(Kind::Prosody).await;
    let mut upwire = Upwire::on(&server).set("UPWIRE_ACK_TIMEOUT", 1).start_ready().await;
    let mut secrets = Secrets::default();
    secrets.0.extend([BODY.to_owned(), STANDARD.encode(BODY), upwire.component.secret.clone()]);
    all_that_can_happen(&server, &upwire, &mut secrets).await;
    server.kill();
    upwire.unready().await;
    server.start_again().await;
    upwire.ready().await;
    upwire.terminate();
    assert_eq!(upwire.wait_exit(SOON).await.code(), Some(0));

    let log = upwire.log();
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for (level, message) in [
        ("INFO", "connected to the XMPP server"),
        ("INFO", "the XMPP server has closed the stream, as when it stops or restarts: connecting again"),
        ("DEBUG", "registered"),
        ("INFO", "an application is gone; its registration is revoked"),
        ("INFO", "stopped"),
    ] {
        let said = events.iter().any(|event| event["level"] == level && event["message"] == message);
        assert!(said, "{level} {message:?} is in the log:\n{log}");
    }
    assert!(events.iter().all(|event| event["timestamp"].is_string() && event["target"].is_string()));
    secrets.are_kept(&log);
}

#[tokio::test]
async fn the_log_for_people_keeps_secrets_too() {
    let server = XmppServer::shared(Kind::Ejabberd).await;
    let mut upwire = Upwire::on(server).unset("UPWIRE_LOG_FORMAT").start_ready().await;
    let mut secrets = Secrets::default();
    secrets.0.extend([BODY.to_owned(), STANDARD.encode(BODY), upwire.component.secret.clone()]);
    all_that_can_happen(server, &upwire, &mut secrets).await;
    upwire.log_line(&["INFO", "connected to the XMPP server"]).await;
    upwire.terminate();
    assert_eq!(upwire.wait_exit(SOON).await.code(), Some(0));
    upwire.terminate();
    assert_eq!(upwire.wait_exit(SOON).await.code(), Some(0));
    secrets.are_kept(&upwire.log());
}
