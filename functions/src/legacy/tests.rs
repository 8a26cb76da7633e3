use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use proptest::prelude::*;
use push::Registration;
use ring::hmac;
use serde_json::{Value, json};

use super::*;
use crate::tests::{SECRET, Store, header, now, store};

const KEY: [u8; 32] = [7; 32];
const EXPIRY: i64 = 1_800_000_000;

fn keys() -> LegacyKeys {
    LegacyKeys::default().with_jwt(SECRET).with_paseto(&STANDARD.encode(KEY)).unwrap()
}

fn claims(expiry: impl Into<Value>) -> Value {
    json!({
        "sub": "juliet@example.com/Conversations.r4nD",
        "application": STANDARD.encode([1; 32]),
        "instance": STANDARD.encode([2; 32]),
        "exp": expiry.into(),
    })
}

fn jwt_headed(header: &str, claims: &Value) -> String {
    let signed = [header, &claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn jwt(claims: &Value) -> String {
    jwt_headed(r#"{"alg":"HS256","typ":"JWT"}"#, claims)
}

/// The path of the endpoint that Prosody's module issued for the target of this row.
pub(crate) fn endpoint(row: &Registration) -> String {
    let Target { recipient, application, instance, legacy, .. } = &row.target;
    let seconds = legacy.unwrap().timestamp();
    let claims = json!({"sub": recipient, "application": application, "instance": instance, "exp": seconds});
    format!("/push/{}", jwt(&claims))
}

fn paseto(claims: &Value) -> String {
    let key = SymmetricKey::from(&KEY).unwrap();
    LocalToken::encrypt(&key, claims.to_string().as_bytes(), None).unwrap()
}

fn target(milliseconds: i64) -> Target {
    Target {
        recipient: "juliet@example.com/Conversations.r4nD".parse().unwrap(),
        application: Application::from_bytes([1; 32]),
        instance: Instance::from_bytes([2; 32]),
        vapid: None,
        legacy: Some(DateTime::UNIX_EPOCH + TimeDelta::milliseconds(milliseconds)),
    }
}

#[test]
fn a_token_says_what_it_stands_for_and_until_when() {
    for (token, expiry) in [
        (jwt(&claims(EXPIRY)), EXPIRY * 1000),
        (jwt(&claims(EXPIRY as f64 + 0.5)), EXPIRY * 1000 + 500),
        (jwt(&claims(1)), 1000),
        (paseto(&claims(EXPIRY * 1000 + 123)), EXPIRY * 1000 + 123),
        (paseto(&claims("2027-01-15T08:00:00+00:00")), EXPIRY * 1000),
    ] {
        assert_eq!(keys().target(&token), Some(target(expiry)), "{token}");
    }
}

#[test]
fn what_nobody_made_with_the_key_stands_for_nothing() {
    let (jwt, paseto) = (jwt(&claims(EXPIRY)), paseto(&claims(EXPIRY * 1000)));
    let (jwt_alone, paseto_alone) = (
        LegacyKeys::default().with_jwt(SECRET),
        LegacyKeys::default().with_paseto(&STANDARD.encode(KEY)).unwrap(),
    );
    let others = LegacyKeys::default().with_jwt("another").with_paseto(&STANDARD.encode([8; 32])).unwrap();
    for token in [&jwt, &paseto] {
        assert!(keys().target(token).is_some());
        assert_eq!(LegacyKeys::default().target(token), None);
        assert_eq!(others.target(token), None);
        for changed in
            [&token[1..], &token[..token.len() - 2], &format!("{token}AA"), &format!("{token}.AAAA")]
        {
            assert_eq!(keys().target(changed), None, "{changed}");
        }
    }
    assert!(jwt_alone.target(&paseto).is_none() && paseto_alone.target(&jwt).is_none());
    for algorithm in ["none", "HS384", "ES256", "RS256"] {
        let token = jwt_headed(&json!({ "alg": algorithm }).to_string(), &claims(EXPIRY));
        assert_eq!(keys().target(&token), None, "{algorithm}");
    }
    assert_eq!(keys().target(&paseto.replacen("local", "public", 1)), None);
}

#[test]
fn a_token_that_lacks_something_stands_for_nothing() {
    for (name, value) in [
        ("sub", json!("juliet@example.com")),
        ("sub", json!(1)),
        ("application", json!("")),
        ("instance", json!(STANDARD.encode([2; 31]))),
        ("exp", json!("soon")),
        ("exp", json!(1e300)),
        ("exp", json!([])),
        ("exp", Value::Null),
    ] {
        let mut claims = claims(EXPIRY);
        claims[name] = value;
        assert_eq!((keys().target(&jwt(&claims)), keys().target(&paseto(&claims))), (None, None), "{claims}");
        claims.as_object_mut().unwrap().remove(name);
        assert_eq!((keys().target(&jwt(&claims)), keys().target(&paseto(&claims))), (None, None), "{claims}");
    }
}

#[test]
fn a_key_is_base64_of_32_bytes_and_none_is_shown() {
    for key in ["", "x", &STANDARD.encode([7; 31]), &URL_SAFE_NO_PAD.encode([0xff; 32])] {
        assert_eq!(LegacyKeys::default().with_paseto(key).unwrap_err(), BadPasetoKey, "{key}");
    }
    assert_eq!(format!("{:?}", keys()), "LegacyKeys(2 of them)");
}

/// An ingress that has seen no push to such an endpoint, and the path of one that lives for so long.
fn ingress(left: TimeDelta) -> (Store, String) {
    let store = Store { legacy: LegacyKeys::default().with_jwt(SECRET), ..store() };
    let mut row = store.row.clone();
    row.target.legacy = DateTime::from_timestamp((now() + left).timestamp(), 0);
    let path = endpoint(&row);
    (store, path)
}

#[tokio::test]
async fn an_endpoint_gets_its_row_with_its_first_push_and_has_one_life() {
    let (mut store, path) = ingress(TimeDelta::hours(1));
    let calls = async |store: &Store| (store.push(&path).await.status(), store.calls());
    assert_eq!(calls(&store).await, (StatusCode::CREATED, [1, 1, 1, 0]));

    let keys = store.legacy.clone();
    store.row.target = keys.target(path.strip_prefix("/push/").unwrap()).unwrap();
    assert_eq!(calls(&store).await, (StatusCode::CREATED, [2, 1, 2, 0]));
    store.row.revoked = true;
    assert_eq!(calls(&store).await, (StatusCode::GONE, [3, 2, 2, 0]));
    store.legacy = LegacyKeys::default();
    assert_eq!(calls(&store).await, (StatusCode::NOT_FOUND, [3, 2, 2, 0]));
}

#[tokio::test]
async fn an_endpoint_that_has_expired_or_would_never_is_gone() {
    let year = TimeDelta::days(365);
    for (left, status) in [
        (TimeDelta::seconds(-1), StatusCode::GONE),
        (TimeDelta::seconds(5), StatusCode::CREATED),
        (year, StatusCode::CREATED),
        (year + TimeDelta::seconds(5), StatusCode::GONE),
        (year * 100_000, StatusCode::GONE),
        (DateTime::<Utc>::MAX_UTC - now() - TimeDelta::seconds(1), StatusCode::GONE),
    ] {
        let (store, path) = ingress(left);
        assert_eq!(store.push(&path).await.status(), status, "{left}");
    }
}

#[tokio::test]
async fn no_push_is_kept_for_longer_than_the_endpoint_lives() {
    let (store, path) = ingress(TimeDelta::hours(1));
    let request = Request::post(path).header("ttl", 86_400).body(Body::from("hello")).unwrap();
    let kept = header(&store.answer(request).await, "ttl").unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&kept), "{kept}");
}

proptest! {
    #[test]
    fn any_text_at_all_is_answered(text in "(v2\\.local\\.|v2\\.public\\.|)[A-Za-z0-9_.=-]{0,80}|.*") {
        prop_assert_eq!(keys().target(&text), None);
    }
}
