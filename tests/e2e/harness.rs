//! The harness against peers that work without Upwire. If these tests fail, the fault is in the harness.

use std::time::Duration;

use e2e::{
    Kind, Phone, RawClient, SOON, Settings, Slixmpp, UNIFIED_PUSH, XmppServer, eventually, hashed, http,
};
use tokio_xmpp::jid::{BareJid, FullJid};
use tokio_xmpp::parsers::stanza_error::DefinedCondition;

fn peer() -> BareJid {
    BareJid::new("unified-push.localhost").unwrap()
}

async fn prosody_with_unified_push() -> XmppServer {
    let settings = Settings { unified_push: Some("storage"), ..Settings::default() };
    XmppServer::start_with(Kind::Prosody, settings).await
}

#[tokio::test]
async fn a_phone_registers_with_prosodys_own_push_server_and_gets_a_push() {
    let server = prosody_with_unified_push().await;
    let phone = Phone::connect(&server, &server.user().await, "phone").await;
    phone.greet(&peer()).await;
    let registered = phone.register(&peer(), &hashed("app"), &hashed("1")).await.unwrap();

    assert_eq!(http::post(&registered.endpoint, "hello").await.status, 201);
    let push = phone.next_push(SOON).await;
    assert_eq!((push.body.as_slice(), push.application), (&b"hello"[..], hashed("app")));
}

#[tokio::test]
async fn slixmpp_registers_with_prosodys_own_push_server_and_gets_a_push() {
    let server = prosody_with_unified_push().await;
    let user = server.user().await;
    let mut client = Slixmpp::start(&server, &user, &peer(), &hashed("app"), &hashed("1"));
    let endpoint = client.endpoint(SOON).await;
    assert_eq!(http::post(&endpoint, "hello").await.status, 201);
    assert_eq!(client.next_push(SOON).await.body, b"hello");
}

#[tokio::test]
async fn a_refused_registration_names_the_condition() {
    let server = prosody_with_unified_push().await;
    let phone = Phone::connect(&server, &server.user().await, "phone").await;
    let refused = phone.register(&peer(), "not a hash", &hashed("1")).await.unwrap_err();
    assert_eq!(refused.defined_condition, DefinedCondition::BadRequest);
}

/// Returns the push that `raw` sends to a full JID, as a push server would.
fn push_to(jid: &FullJid, id: &str) -> String {
    format!(
        "<iq type='set' id='{id}' to='{jid}'>\
         <push xmlns='{UNIFIED_PUSH}' application='a' instance='i'>aGVsbG8=</push></iq>"
    )
}

async fn two_clients_meet(server: &XmppServer) {
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let mut raw = RawClient::connect(server, &server.user().await, "raw").await;
    phone.hold("a", "i");
    raw.send(push_to(phone.jid(), "p1")).await.unwrap();
    assert_eq!(phone.next_push(SOON).await.body, b"hello");
    raw.read_until("p1", SOON).await.unwrap();
}

async fn a_cut_phone_resumes_its_session(server: &XmppServer) {
    let server = XmppServer::patient(server.kind).await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let mut raw = RawClient::connect(server, &server.user().await, "raw").await;
    phone.cut();
    phone.hold("a", "i");
    raw.send(push_to(phone.jid(), "p1")).await.unwrap();
    phone.reconnect().await;
    assert_eq!((phone.sessions_bound(), phone.sessions_resumed()), (1, 1));
    assert_eq!(phone.next_push(SOON).await.id, "p1");
    phone.disconnect().await;
}

async fn sessions_and_accounts_outlast_what_they_should(kind: Kind) {
    let settings = Settings { hibernation: Duration::from_secs(1), ..Settings::default() };
    let mut server = XmppServer::start_with(kind, settings).await;
    let user = server.user().await;
    let phone = Phone::connect(&server, &user, "phone").await;

    // The cut lasts longer than a session hibernates. The waiting push bounces, and another session begins.
    let mut raw = RawClient::connect(&server, &server.user().await, "raw").await;
    phone.cut();
    phone.hold("a", "i");
    raw.send(push_to(phone.jid(), "p1")).await.unwrap();
    raw.read_until("unavailable", SOON).await.unwrap();
    phone.reconnect().await;
    assert_eq!((phone.sessions_bound(), phone.sessions_resumed()), (2, 0));

    server.kill();
    server.start_again().await;
    eventually(SOON, "the phone is back", async || phone.sessions_bound() > 2).await;

    server.stop().await;
    server.start_again().await;
    Phone::connect(&server, &user, "another").await.disconnect().await;
}

on_each_server!(two_clients_meet, a_cut_phone_resumes_its_session);

#[tokio::test]
async fn sessions_and_accounts_outlast_what_they_should_on_prosody() {
    sessions_and_accounts_outlast_what_they_should(Kind::Prosody).await;
}

#[tokio::test]
async fn sessions_and_accounts_outlast_what_they_should_on_ejabberd() {
    sessions_and_accounts_outlast_what_they_should(Kind::Ejabberd).await;
}
