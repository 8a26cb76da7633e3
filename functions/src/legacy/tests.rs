use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use proptest::prelude::*;
use push::{AccessList, Marker, Registration, marker::Keys};
use ring::hmac;
use serde_json::{Value, json};

use super::*;
use tokio::sync::watch;

use crate::{
    ingress::{LegacyTally, LegacyTerms},
    tests::{NO_CALL, SECRET, Store, header, now, secrets, store},
};

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

/// Returns the path of the endpoint that Prosody's module issued for the target of this row.
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

fn target_of(keys: &LegacyKeys, token: &str) -> Option<Target> {
    keys.read(token).map(|(target, _)| target)
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
        assert_eq!(target_of(&keys(), &token), Some(target(expiry)), "{token}");
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
        assert!(target_of(&keys(), token).is_some());
        assert_eq!(target_of(&LegacyKeys::default(), token), None);
        assert_eq!(target_of(&others, token), None);
        for changed in
            [&token[1..], &token[..token.len() - 2], &format!("{token}AA"), &format!("{token}.AAAA")]
        {
            assert_eq!(target_of(&keys(), changed), None, "{changed}");
        }
    }
    assert!(target_of(&jwt_alone, &paseto).is_none() && target_of(&paseto_alone, &jwt).is_none());
    for algorithm in ["none", "HS384", "ES256", "RS256"] {
        let token = jwt_headed(&json!({ "alg": algorithm }).to_string(), &claims(EXPIRY));
        assert_eq!(target_of(&keys(), &token), None, "{algorithm}");
    }
    assert_eq!(target_of(&keys(), &paseto.replacen("local", "public", 1)), None);
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
        assert_eq!(
            (target_of(&keys(), &jwt(&claims)), target_of(&keys(), &paseto(&claims))),
            (None, None),
            "{claims}"
        );
        claims.as_object_mut().unwrap().remove(name);
        assert_eq!(
            (target_of(&keys(), &jwt(&claims)), target_of(&keys(), &paseto(&claims))),
            (None, None),
            "{claims}"
        );
    }
}

#[test]
fn a_key_is_base64_of_32_bytes_and_none_is_shown() {
    for key in ["", "x", &STANDARD.encode([7; 31]), &URL_SAFE_NO_PAD.encode([0xff; 32])] {
        assert_eq!(LegacyKeys::default().with_paseto(key).unwrap_err(), BadPasetoKey, "{key}");
    }
    assert_eq!(format!("{:?}", keys()), "LegacyKeys(2 of them)");
}

/// Returns an ingress that has seen no push to a predecessor's endpoint, and the path of one that lives for `left`.
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
    store.row.target = target_of(&keys, path.strip_prefix("/push/").unwrap()).unwrap();
    assert_eq!(calls(&store).await, (StatusCode::CREATED, [2, 1, 2, 0]));
    store.row.revoked = true;
    assert_eq!(calls(&store).await, (StatusCode::GONE, [3, 2, 2, 0]));
    store.legacy = LegacyKeys::default();
    assert_eq!(calls(&store).await, (StatusCode::NOT_FOUND, [3, 2, 2, 0]));
}

#[tokio::test]
async fn an_endpoint_lives_until_it_expires_and_for_a_bounded_time() {
    let life = TimeDelta::days(30);
    for (left, lives_for) in [
        (TimeDelta::seconds(-1), None),
        (TimeDelta::seconds(5), Some(TimeDelta::seconds(5))),
        (life, Some(life)),
        (life + TimeDelta::seconds(5), Some(life)),
        (life * 100_000, Some(life)),
        (DateTime::<Utc>::MAX_UTC - now() - TimeDelta::seconds(1), Some(life)),
    ] {
        let (store, path) = ingress(left);
        let store = Store { legacy_terms: LegacyTerms { life, ..LegacyTerms::default() }, ..store };
        let status = store.push(&path).await.status();
        let Some(lives_for) = lives_for else {
            assert_eq!((status, store.calls()), (StatusCode::GONE, NO_CALL), "{left}");
            continue;
        };
        assert_eq!(status, StatusCode::CREATED, "{left}");
        let request =
            Request::post(&path).header("ttl", u32::MAX.to_string()).body(Body::from("hello")).unwrap();
        let kept: i64 = header(&store.answer(request).await, "ttl").unwrap().parse().unwrap();
        let least = lives_for.num_seconds() - 3;
        assert!((least..=lives_for.num_seconds()).contains(&kept), "{left}: {kept}");
    }
}

/// A key of fewer than 32 bytes can be found by brute force; its finder can then sign any token.
#[tokio::test]
async fn an_ingress_that_has_a_weak_secret_all_the_same_asks_the_senders_of_its_endpoints_to_wait() {
    let (mut store, path) = ingress(TimeDelta::hours(1));
    let weak = "open sesame";
    let signed_by = |secret: &str, path: &str| {
        let (signed, _) = path.strip_prefix("/push/").unwrap().rsplit_once('.').unwrap();
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
        format!("/push/{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let (of_weak, expired) = (signed_by(weak, &path), signed_by(weak, &ingress(TimeDelta::seconds(-1)).1));
    store.legacy = LegacyKeys::default().with_jwt_unless_weak(SECRET).with_jwt_unless_weak(weak);
    for path in [&of_weak, &expired] {
        assert_eq!(store.push(path).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(store.calls(), NO_CALL);
    assert_eq!(store.push(&path).await.status(), StatusCode::CREATED, "another secret is strong");
    let of_nobody = store.push(&signed_by("another", &path)).await;
    assert_eq!(of_nobody.status(), StatusCode::NOT_FOUND);
    store.legacy = LegacyKeys::default().with_jwt(weak);
    assert_eq!(store.push(&of_weak).await.status(), StatusCode::CREATED, "it is taken as it was asked for");
}

#[tokio::test]
async fn only_who_is_on_the_list_gets_pushes_and_nothing_ends_for_that() {
    let (mut store, path) = ingress(TimeDelta::hours(1));
    let list = watch::Sender::new("example.org".parse::<AccessList>().unwrap());
    store.legacy_terms.access = Some(list.subscribe());
    let refused = store.push(&path).await;
    assert_eq!((refused.status(), store.calls()), (StatusCode::SERVICE_UNAVAILABLE, NO_CALL));
    assert!(header(&refused, "retry-after").is_some());
    list.send_replace("example.com".parse().unwrap());
    assert_eq!(store.push(&path).await.status(), StatusCode::CREATED);
    // An endpoint with a row works, too.
    store.row.target = target_of(&store.legacy, path.strip_prefix("/push/").unwrap()).unwrap();
    assert_eq!(store.push(&path).await.status(), StatusCode::CREATED);
    list.send_replace("example.org".parse().unwrap());
    assert_eq!(store.push(&path).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    store.row.target.legacy = None;
    assert_eq!(store.push_now().await.status(), StatusCode::CREATED, "ours end by themselves");
}

#[tokio::test]
async fn beyond_their_number_senders_are_asked_to_wait() {
    let (mut store, path) = ingress(TimeDelta::hours(1));
    store.legacy_terms.tally = LegacyTally::at_most(2, 1);
    let count = |account: &str| {
        let account = account.parse().unwrap();
        store.legacy_terms.tally.count(&account, now() + TimeDelta::hours(1));
    };
    count("romeo@example.com");
    assert_eq!(store.push(&path).await.status(), StatusCode::SERVICE_UNAVAILABLE, "of the domain");
    let list = watch::Sender::new("example.com".parse::<AccessList>().unwrap());
    store.legacy_terms.access = Some(list.subscribe());
    assert_eq!(
        store.push(&path).await.status(),
        StatusCode::CREATED,
        "the domain is named, and has no bound"
    );
    // The endpoint counts, though this store did not keep its row.
    assert_eq!(store.push(&path).await.status(), StatusCode::SERVICE_UNAVAILABLE, "of all");
    store.row.target = target_of(&store.legacy, path.strip_prefix("/push/").unwrap()).unwrap();
    assert_eq!(store.push(&path).await.status(), StatusCode::CREATED, "one that has its row counts no more");
}

#[tokio::test]
async fn the_key_ends_a_life_and_a_day_after_its_first_start() {
    let life = TimeDelta::days(2);
    for (in_use_for, status) in [
        (life, StatusCode::CREATED),
        (life + TimeDelta::days(1) - TimeDelta::seconds(5), StatusCode::CREATED),
        (life + TimeDelta::days(1) + TimeDelta::seconds(1), StatusCode::GONE),
    ] {
        let (mut store, path) = ingress(TimeDelta::hours(1));
        store.legacy_terms.life = life;
        let keys = Keys { legacy: store.legacy.fingerprints().collect(), secrets: secrets().fingerprints() };
        let mut marker = Marker::begin(None, keys.clone(), None, now() - in_use_for);
        marker.note(keys, now());
        store.marker = Some(marker);
        // Both without a row and with one.
        for _ in 0..2 {
            assert_eq!(store.push(&path).await.status(), status, "{in_use_for}");
            store.row.target = target_of(&store.legacy, path.strip_prefix("/push/").unwrap()).unwrap();
        }
        let pushkey = format!("https://push.example.com{path}");
        let body =
            json!({"notification": {"event_id": "$1", "devices": [{"app_id": "a", "pushkey": pushkey}]}});
        let request = Request::post("/_matrix/push/v1/notify").body(Body::from(body.to_string())).unwrap();
        let answer = to_bytes(store.answer(request).await.into_body(), 10_000).await.unwrap();
        let rejected = if status == StatusCode::GONE { json!([pushkey]) } else { json!([]) };
        assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap(), json!({"rejected": rejected}));
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
        prop_assert_eq!(target_of(&keys(), &text), None);
    }
}
