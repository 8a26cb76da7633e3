//! Registration (docs/protocol.md, "Register"): who may register, the errors, and the URL that comes back.

use std::process::Command;

use chrono::{TimeDelta, Utc};
use e2e::{Kind, Phone, SOON, Slixmpp, UNIFIED_PUSH, Upwire, XmppServer, eventually, hashed, http};
use tokio_xmpp::minidom::Element;
use tokio_xmpp::parsers::disco::{DiscoInfoQuery, DiscoInfoResult, DiscoItemsQuery};
use tokio_xmpp::parsers::ping::Ping;
use tokio_xmpp::parsers::stanza_error::{DefinedCondition, ErrorType};
use tokio_xmpp::{IqRequest, IqResponse};

async fn phone(server: &XmppServer) -> Phone {
    Phone::connect(server, &server.user().await, "phone").await
}

async fn a_renewal_returns_the_same_url(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let user = server.user().await;
    let (app, instance) = (hashed("app"), hashed("1"));
    let phone = Phone::connect(server, &user, "one").await;
    let first = phone.register(&upwire.component.jid, &app, &instance).await.unwrap();
    assert!(first.endpoint.len() < 512 && !first.endpoint.contains(user.name()));
    let two_days = first.expiration.timestamp() - now();
    assert!((172_700..=172_800).contains(&two_days), "less than the week that it lives: {two_days}");

    let again = phone.register(&upwire.component.jid, &app, &instance).await.unwrap();
    assert_eq!(again.endpoint, first.endpoint);
    let other = phone.register(&upwire.component.jid, &app, &hashed("2")).await.unwrap();
    assert_ne!(other.endpoint, first.endpoint);

    // After a conflict, the phone comes back under another resource. The endpoint moves with it.
    phone.disconnect().await;
    let phone = Phone::connect(server, &user, "two").await;
    let moved = phone.register(&upwire.component.jid, &app, &instance).await.unwrap();
    assert_eq!(moved.endpoint, first.endpoint);
    assert_eq!(http::post(&moved.endpoint, "moved").await.status, 201);
    assert_eq!(phone.next_push(SOON).await.body, b"moved");
}

#[expect(clippy::disallowed_methods, reason = "an expiration is a time of day")]
fn now() -> i64 {
    Utc::now().timestamp()
}

#[tokio::test]
async fn a_lapse_ends_the_url_and_a_new_registration_has_a_new_one() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).set("UPWIRE_REGISTRATION_TTL", 10).start_ready().await;
    let phone = phone(server).await;
    let register =
        async || phone.register(&upwire.component.jid, &hashed("app"), &hashed("1")).await.unwrap();
    let first = register().await;
    assert!(first.expiration.timestamp() - now() <= TimeDelta::seconds(10).num_seconds());
    assert_eq!(http::post(&first.endpoint, "x").await.status, 201);
    eventually(SOON, "the registration lapses", async || {
        http::post(&first.endpoint, "x").await.status == 410
    })
    .await;
    let second = register().await;
    assert_ne!(second.endpoint, first.endpoint);
    assert_eq!(http::post(&first.endpoint, "x").await.status, 410);
    assert_eq!(http::post(&second.endpoint, "x").await.status, 201);
}

async fn a_bad_hash_is_a_bad_request_that_names_the_attribute(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let phone = phone(server).await;
    let good = hashed("good");
    let long = hashed("x").repeat(3);
    let cases = [
        ("", good.as_str(), "application: no value provided"),
        (&good, "", "instance: no value provided"),
        ("%%%", &good, "application: not valid base64"),
        (&good, "c2hvcnQ=", "instance: decodes to 5 bytes, expected 32"),
        (&long, &good, "application: not valid base64"),
    ];
    for (application, instance, text) in cases {
        let error = phone.register(&upwire.component.jid, application, instance).await.unwrap_err();
        assert_eq!((error.type_, error.defined_condition), (ErrorType::Modify, DefinedCondition::BadRequest));
        assert_eq!(error.texts.values().next().map(String::as_str), Some(text));
    }
}

#[tokio::test]
async fn the_access_list_decides_who_may_register() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let juliet = server.user().await;
    let romeo = server.user().await;
    let upwire =
        Upwire::on(server).set("UPWIRE_ACL", format!("example.org, {}", juliet.jid)).start_ready().await;
    let register = async |user| {
        let phone = Phone::connect(server, user, "phone").await;
        phone.register(&upwire.component.jid, &hashed("app"), &hashed("1")).await
    };
    assert!(register(&juliet).await.is_ok());
    let error = register(&romeo).await.unwrap_err();
    assert_eq!((error.type_, error.defined_condition), (ErrorType::Auth, DefinedCondition::Forbidden));
}

async fn it_is_discovered_and_answers_what_is_asked(server: &XmppServer) {
    let contact = "mailto:admin@example.com,xmpp:admin@example.com";
    let upwire = Upwire::on(server).set("UPWIRE_CONTACT", contact).start_ready().await;
    let phone = phone(server).await;
    let ask = async |request| phone.request(&upwire.component.jid, request).await;

    let info = DiscoInfoQuery { node: None };
    let IqResponse::Result(Some(info)) = ask(IqRequest::Get(info.into())).await else {
        panic!("no disco#info")
    };
    let info = DiscoInfoResult::try_from(info).unwrap();
    assert!(info.features.contains(UNIFIED_PUSH) && info.features.contains("urn:xmpp:ping"));
    assert!(!info.identities.is_empty());
    let form = &info.extensions[0];
    let field = form.fields.iter().find(|field| field.var.as_deref() == Some("support-addresses")).unwrap();
    assert_eq!(field.values, contact.split(',').collect::<Vec<_>>());
    let items = DiscoItemsQuery { node: None, rsm: None };
    assert!(matches!(ask(IqRequest::Get(items.into())).await, IqResponse::Result(Some(_))));
    assert!(matches!(ask(IqRequest::Get(Ping.into())).await, IqResponse::Result(None)));

    let node = DiscoInfoQuery { node: Some("elsewhere".into()) };
    let items = DiscoItemsQuery { node: Some("elsewhere".into()), rsm: None };
    let version: Element = "<query xmlns='jabber:iq:version'/>".parse().unwrap();
    let IqResponse::Result(Some(answer)) = ask(IqRequest::Get(version)).await else { panic!("no version") };
    assert_eq!(answer.get_child("name", "jabber:iq:version").unwrap().text(), "Upwire");
    let unknown: Element = "<query xmlns='jabber:iq:last'/>".parse().unwrap();
    let register: Element = format!("<register xmlns='{UNIFIED_PUSH}'/>").parse().unwrap();
    let cases = [
        (IqRequest::Get(node.into()), DefinedCondition::ItemNotFound),
        (IqRequest::Get(items.into()), DefinedCondition::ItemNotFound),
        (IqRequest::Get(unknown.clone()), DefinedCondition::ServiceUnavailable),
        (IqRequest::Set(unknown), DefinedCondition::ServiceUnavailable),
        (IqRequest::Get(register), DefinedCondition::ServiceUnavailable),
    ];
    for (request, condition) in cases {
        let IqResponse::Error(error) = ask(request).await else { panic!("no error: {condition:?}") };
        assert_eq!(error.defined_condition, condition);
    }
}

async fn a_store_that_cannot_answer_says_wait(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let phone = phone(server).await;
    let register =
        async |instance| phone.register(&upwire.component.jid, &hashed("app"), &hashed(instance)).await;
    let registered = register("1").await.unwrap();

    // The table is missing, as on a damaged disk.
    sql(&upwire, "ALTER TABLE registration RENAME TO hidden");
    let error = register("1").await.unwrap_err();
    assert_eq!(
        (error.type_, error.defined_condition),
        (ErrorType::Wait, DefinedCondition::InternalServerError)
    );
    let refused = http::post(&registered.endpoint, "x").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));

    sql(&upwire, "ALTER TABLE hidden RENAME TO registration");
    assert_eq!(register("1").await.unwrap().endpoint, registered.endpoint);
    assert_eq!(http::post(&registered.endpoint, "x").await.status, 201);
    phone.next_push(SOON).await;
}

/// Executes a statement in the database from outside, with Python's own library.
fn sql(upwire: &Upwire, statement: &str) {
    let script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit()";
    let python = Command::new("python3").args(["-c", script]).arg(upwire.database()).arg(statement).status();
    assert!(python.unwrap().success());
}

async fn slixmpp_registers_and_gets_a_push(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let user = server.user().await;
    let mut client = Slixmpp::start(server, &user, &upwire.component.jid, &hashed("app"), &hashed("1"));
    let endpoint = client.endpoint(SOON).await;
    assert_eq!(http::post(&endpoint, "hello").await.status, 201);
    assert_eq!(client.next_push(SOON).await.body, b"hello");
    upwire.metric_is("upwire_pushes_delivered_total", 1.0).await;
}

on_each_server!(
    a_renewal_returns_the_same_url,
    a_bad_hash_is_a_bad_request_that_names_the_attribute,
    it_is_discovered_and_answers_what_is_asked,
    a_store_that_cannot_answer_says_wait,
    slixmpp_registers_and_gets_a_push,
);
