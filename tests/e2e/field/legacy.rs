//! A holder of a predecessor's secret can make any number of endpoints, for any account. Bounds limit the damage.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::{Kind, Phone, SOON, Upwire, XmppServer, eventually, folder, hashed, http};
use embedded::Database;
use push::Marker;
use push::ports::{MarkerWriter, Markers};
use ring::hmac;
use serde_json::json;

use super::is_released;
use crate::cloud::Cloud;
use crate::senders::legacy::{UP_SECRET, up_token};

/// Connects a phone that has the application of the tokens.
async fn phone(server: &XmppServer) -> Phone {
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    phone.hold(&hashed("app"), &hashed("1"));
    phone
}

fn endpoint(upwire: &Upwire, token: &str) -> String {
    format!("{}/push/{token}", upwire.public_url)
}

/// The maker of a token chooses the account that it names.
#[tokio::test]
async fn a_predecessors_endpoint_is_for_those_on_the_list() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let list = folder("acl").join("acl");
    fs::write(&list, "example.org").unwrap();
    let mut upwire = Upwire::on(server)
        .set("UPWIRE_LEGACY_PASETO_KEY", UP_SECRET)
        .set("UPWIRE_ACL_FILE", list.display())
        .start_ready()
        .await;
    let phone = phone(server).await;
    let endpoint = endpoint(&upwire, &up_token(&phone, 3600));
    let refused = http::post(&endpoint, "hello").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    upwire.log_line(&["WARN", "UPWIRE_ACL does not have their accounts"]).await;
    fs::write(&list, "localhost").unwrap();
    upwire.hang_up();
    upwire.log_line(&["\"changed\":\"UPWIRE_ACL_FILE\""]).await;
    assert_eq!(http::post(&endpoint, "hello").await.status, 201);
    assert_eq!(phone.next_push(SOON).await.body, b"hello");
}

#[tokio::test]
async fn so_it_is_at_the_function_where_that_has_a_list() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let phone = phone(server).await;
    let token = up_token(&phone, 3600);
    let cloud_with = |list: &str| {
        Cloud::with([("UPWIRE_LEGACY_PASETO_KEY", UP_SECRET.to_owned()), ("UPWIRE_ACL", list.to_owned())])
    };
    let (listed, unlisted) = (cloud_with("localhost").await, cloud_with("example.org").await);
    let endpoint = |cloud: &Cloud| format!("{}/push/{token}", cloud.function.url);
    assert_eq!(http::post_patiently(&endpoint(&listed), &[], "hello").await.status, 201);
    eventually(SOON, "the function refuses it for that reason", async || {
        assert_eq!(http::post(&endpoint(&unlisted), "hello").await.status, 503);
        unlisted.function.log().contains("UPWIRE_ACL does not have their accounts")
    })
    .await;
}

/// The rows outlive a restart, and so does their count.
#[tokio::test]
async fn beyond_their_number_senders_are_asked_to_wait() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut upwire = Upwire::on(server)
        .set("UPWIRE_LEGACY_PASETO_KEY", UP_SECRET)
        .set("UPWIRE_LEGACY_MAX", 2)
        .start_ready()
        .await;
    let phone = phone(server).await;
    let endpoints = [3600, 3700, 3800].map(|lives_for| endpoint(&upwire, &up_token(&phone, lives_for)));
    for _ in 0..2 {
        for (endpoint, status) in endpoints.iter().zip([201, 201, 503]) {
            assert_eq!(http::post(endpoint, "hello").await.status, status);
        }
        upwire.log_line(&["WARN", "UPWIRE_LEGACY_MAX"]).await;
        upwire.kill();
        upwire.start_again();
        upwire.ready().await;
    }
}

/// ecadlabs/signatory#356: a short secret is accepted, and anyone who has one token finds it by trying.
#[tokio::test]
async fn a_secret_that_could_be_found_by_trying_is_not_taken_unasked() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let short = || Upwire::on(server).set("UPWIRE_LEGACY_SECRET", "open sesame");
    let mut refused = short().start();
    assert_eq!(refused.wait_exit(SOON).await.code(), Some(64));
    let log = refused.log();
    let said = log.lines().find(|line| line.starts_with("upwire: UPWIRE_LEGACY_SECRET: ")).expect("one line");
    assert!(said.contains("fewer than 32 bytes") && said.contains("--weak-legacy-secret"), "{said}");
    for taken in [short().argument("--weak-legacy-secret"), short().set("UPWIRE_WEAK_LEGACY_SECRET", "true")]
    {
        taken.start_ready().await.log_line(&["WARN", "UPWIRE_LEGACY_SECRET is short"]).await;
    }
}

/// A function that did not start would refuse all pushes.
#[tokio::test]
async fn a_function_that_has_one_asks_the_senders_of_its_endpoints_to_wait_and_says_why() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let phone = phone(server).await;
    let token = jwt(&phone, "open sesame");
    for (takes_weak, status) in [("", 503), ("false", 503), ("true", 201)] {
        let secret = ("UPWIRE_LEGACY_SECRET", "open sesame".to_owned());
        let cloud = Cloud::with([secret, ("UPWIRE_WEAK_LEGACY_SECRET", takes_weak.to_owned())]).await;
        let endpoint = format!("{}/push/{token}", cloud.function.url);
        if status == 201 {
            assert_eq!(http::post_patiently(&endpoint, &[], "hello").await.status, status);
            continue;
        }
        eventually(SOON, "the function refuses it for that reason", async || {
            let answer = http::post(&endpoint, "hello").await;
            assert_eq!((answer.status, answer.header("retry-after")), (status, Some("5")));
            cloud.function.log().contains("UPWIRE_WEAK_LEGACY_SECRET does not take it")
        })
        .await;
    }
}

/// Makes a token as Prosody's module does.
fn jwt(phone: &Phone, secret: &str) -> String {
    let expiry = crate::senders::legacy::now() / 1000 + 3600;
    let claims = json!({
        "sub": phone.jid(), "exp": expiry, "application": hashed("app"), "instance": hashed("1"),
    });
    let parts = [r#"{"alg":"HS256","typ":"JWT"}"#.to_owned(), claims.to_string()];
    let signed = parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A key that is never removed would be valid for ever.
#[tokio::test]
async fn the_key_ends_and_the_log_says_to_remove_it() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut upwire = Upwire::on(server)
        .set("UPWIRE_LEGACY_PASETO_KEY", UP_SECRET)
        .set("UPWIRE_LEGACY_LIFE", "2d")
        .start_ready()
        .await;
    let phone = phone(server).await;
    let endpoint = endpoint(&upwire, &up_token(&phone, 3600));
    assert_eq!(http::post(&endpoint, "hello").await.status, 201);
    for (days_ago, status) in [(2, 201), (4, 410)] {
        upwire.terminate();
        upwire.wait_exit(SOON).await;
        first_used(&upwire, days_ago).await;
        upwire.start_again();
        upwire.ready().await;
        assert_eq!(http::post(&endpoint, "hello").await.status, status, "{days_ago}");
    }
    upwire.log_line(&["WARN", "a key of the predecessor has ended", "remove UPWIRE_LEGACY_SECRET or"]).await;
    upwire.log_line(&["WARN", "endpoints of the predecessor have ended with its key"]).await;
}

/// Sets the first use of the predecessor's key to this many days ago.
async fn first_used(upwire: &Upwire, days_ago: i64) {
    let database = Database::open(&upwire.database()).unwrap();
    let mut marker: serde_json::Value =
        serde_json::from_str(&database.marker().await.unwrap().unwrap().to_json()).unwrap();
    let since = crate::senders::legacy::now() / 1000 - days_ago * 86_400;
    for known in marker["legacy_since"].as_object_mut().unwrap().values_mut() {
        *known = since.into();
    }
    database.set_marker(&Marker::parse(&marker.to_string()).unwrap()).await.unwrap();
    drop(database);
    is_released(&upwire.database()).await;
}
