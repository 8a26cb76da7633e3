//! A wrong deployment never tells senders that an endpoint has ended.

use axum::http::StatusCode;
use chrono::TimeDelta;
use push::{Epoch, Fingerprint, Marker, Registration, RegistrationId, Secrets, Urgency, marker::Keys};

use super::*;
use crate::{
    ingress::{Allowance, MarkerWatch},
    legacy::LegacyKeys,
};

const OTHER: &str = "fedcba9876543210fedcba9876543210";
/// Tokens with the form of a predecessor's.
const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhQGIvYyJ9.AAAA";
const PASETO: &str = "v2.local.AAAA";

fn fingerprint(secret: &str) -> Fingerprint {
    Fingerprint::of(secret.as_bytes())
}

/// Returns the path of an endpoint that another secret made.
pub(super) fn of_another_secret() -> String {
    let secrets = Secrets::parse(OTHER).unwrap();
    format!("/push/{}", secrets.sign(RegistrationId::from_bytes([7; 16]), Epoch::from_seconds(1)).as_str())
}

/// Returns the path of an endpoint of ours without a row.
fn without_a_row(epoch: Epoch) -> String {
    format!("/push/{}", secrets().sign(RegistrationId::from_bytes([7; 16]), epoch).as_str())
}

fn past() -> Epoch {
    Epoch::from_seconds((now() - TimeDelta::days(10)).timestamp().try_into().unwrap())
}

async fn is_in_doubt(store: &Store, path: &str) -> bool {
    let answer = store.push(path).await;
    match answer.status() {
        StatusCode::SERVICE_UNAVAILABLE => {
            assert!(header(&answer, "retry-after").is_some());
            true
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => false,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_ingress_without_a_secret_of_the_relay_says_of_no_endpoint_that_it_never_was() {
    let marker = Some(long_in_use(vec![fingerprint(OTHER), fingerprint(SECRET)]));
    let store = Store { marker, ..store() };
    assert!(is_in_doubt(&store, &of_another_secret()).await);
    assert!(is_in_doubt(&store, &format!("/push/{JWT}")).await);
    assert!(is_in_doubt(&store, &format!("/push/{PASETO}")).await);
    assert!(is_in_doubt(&store, &without_a_row(past())).await, "nor that it has ended");
    let elsewhere = of_another_secret().replace("/push/", "/_matrix/push//");
    assert!(is_in_doubt(&store, &elsewhere).await, "nor at a path that a proxy has changed");
    assert!(!is_in_doubt(&store, "/push/nothing-of-ours").await);
    assert!(!is_in_doubt(&store, "/nothing-of-ours").await);
    assert_eq!(store.push_now().await.status(), StatusCode::CREATED, "what it knows goes on");
}

#[tokio::test]
async fn an_ingress_without_a_key_of_the_predecessor_is_in_doubt_until_it_has_it() {
    let keys = Keys { secrets: vec![fingerprint(SECRET)], legacy: [fingerprint("of prosody")].into() };
    let mut marker = Marker::begin(None, keys.clone(), None, now() - TimeDelta::days(30));
    marker.note(keys, now());
    let store = Store { marker: Some(marker), ..store() };
    assert!(is_in_doubt(&store, &format!("/push/{JWT}")).await);
    let legacy = LegacyKeys::default().with_jwt("of prosody");
    let store = Store { legacy, watch: MarkerWatch::default(), ..store };
    assert!(!is_in_doubt(&store, &format!("/push/{JWT}")).await);
}

#[tokio::test]
async fn a_table_that_no_relay_has_used_or_that_is_another_one_ends_no_endpoint() {
    let empty = Store { marker: None, ..store() };
    let another = Store { watch: MarkerWatch::of_table(Some("another".into())), ..store() };
    for store in [empty, another] {
        assert!(is_in_doubt(&store, &without_a_row(past())).await);
        assert!(is_in_doubt(&store, &of_another_secret()).await);
        assert_eq!(store.marker_reads(), 1, "it is not read again for each push");
    }
    assert!(!is_in_doubt(&store(), &without_a_row(past())).await);
    assert!(!is_in_doubt(&store(), &of_another_secret()).await);
}

#[tokio::test]
async fn a_table_that_was_restored_or_begun_anew_ends_no_endpoint_that_it_may_have_lost() {
    let keys = Keys { secrets: vec![fingerprint(SECRET)], ..Keys::default() };
    let begun = |ago| Marker::begin(None, keys.clone(), None, now() - ago);
    for (ago, doubted) in [(TimeDelta::hours(1), true), (TimeDelta::hours(73), false)] {
        let store = Store { marker: Some(begun(ago)), ..store() };
        assert_eq!(is_in_doubt(&store, &without_a_row(past())).await, doubted, "begun anew {ago} ago");
    }
    let restored = Marker::begin(Some(&begun(TimeDelta::days(20))), keys.clone(), None, now());
    let store = Store { marker: Some(restored), ..store() };
    assert!(is_in_doubt(&store, &without_a_row(past())).await);
    let before = Epoch::from_seconds((now() - TimeDelta::days(25)).timestamp().try_into().unwrap());
    assert!(is_in_doubt(&store, &without_a_row(before)).await, "it may have been purged since");
    let later_life = Epoch::from_seconds(store.row.epoch.as_seconds() + 9999);
    assert!(is_in_doubt(&store, &store.endpoint(later_life)).await, "the row is of the life before");
    let earlier_life = Epoch::from_seconds(store.row.epoch.as_seconds() - 9);
    assert!(!is_in_doubt(&store, &store.endpoint(earlier_life)).await, "the row is of a later life");
}

#[tokio::test]
async fn a_new_table_ends_no_endpoint_of_before_it_that_an_unknown_secret_made() {
    let begun = |ago| {
        let keys = Keys { secrets: secrets().fingerprints(), ..Keys::default() };
        Marker::begin(None, keys, None, now() - ago)
    };
    for (ago, doubted) in [(TimeDelta::hours(1), true), (TimeDelta::hours(73), false)] {
        let store = Store { marker: Some(begun(ago)), ..store() };
        for token in [of_another_secret(), format!("/push/{JWT}"), format!("/push/{PASETO}")] {
            assert_eq!(is_in_doubt(&store, &token).await, doubted, "begun {ago} ago: {token}");
        }
        let secrets = Secrets::parse(OTHER).unwrap();
        let epoch = Epoch::from_seconds(now().timestamp().try_into().unwrap());
        let forged = secrets.sign(RegistrationId::from_bytes([7; 16]), epoch);
        assert!(
            !is_in_doubt(&store, &format!("/push/{}", forged.as_str())).await,
            "it claims to be of this table"
        );
        assert_eq!(store.marker_reads(), 1);
    }
}

#[tokio::test]
async fn a_row_that_lapsed_in_a_restored_table_is_in_doubt_and_left_as_it_is() {
    let lapsed = || {
        let mut store = store();
        let row = push::testing::registration("juliet@example.com/phone", now() - TimeDelta::days(9));
        store.row = Registration { target: store.row.target.clone(), ..row };
        store.marker = Some(long_in_use(secrets().fingerprints()));
        store
    };
    let store = lapsed();
    assert!(!is_in_doubt(&store, &store.endpoint(store.row.epoch)).await);
    let mut store = lapsed();
    let keys = Keys { secrets: secrets().fingerprints(), ..Keys::default() };
    let copied = Marker::begin(None, keys.clone(), None, now() - TimeDelta::days(4));
    store.marker = Some(Marker::begin(Some(&copied), keys, None, now()));
    assert!(is_in_doubt(&store, &store.endpoint(store.row.epoch)).await);
}

/// Pushes with this urgency, and returns the answer.
async fn pushed(store: &Store, urgency: &str) -> axum::http::Response<axum::body::Body> {
    let request = Request::post(store.endpoint(store.row.epoch)).header("urgency", urgency);
    store.answer(request.body(Body::from("hello")).unwrap()).await
}

#[tokio::test]
async fn a_relay_that_is_behind_has_the_least_urgent_kept_back_first() {
    let mut store = store();
    let shed = |store: &mut Store, urgency| {
        let mut marker = long_in_use(secrets().fingerprints());
        marker.shed(urgency, now());
        (store.marker, store.watch) = (Some(marker), MarkerWatch::default());
    };
    shed(&mut store, Urgency::Low);
    for urgency in ["low", "very-low"] {
        let refused = pushed(&store, urgency).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "{urgency}");
        let wait: u64 = header(&refused, "retry-after").unwrap().parse().unwrap();
        assert!((1..=90).contains(&wait), "{wait}");
    }
    for urgency in ["normal", "high"] {
        assert_eq!(pushed(&store, urgency).await.status(), StatusCode::CREATED, "{urgency}");
    }
    assert_eq!(store.marker_reads(), 1);

    shed(&mut store, Urgency::Normal);
    assert_eq!(pushed(&store, "normal").await.status(), StatusCode::CREATED, "it asks nobody");
    assert_eq!(pushed(&store, "low").await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(pushed(&store, "normal").await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(pushed(&store, "high").await.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn an_ingress_takes_so_many_pushes_of_a_registration_in_a_minute_without_any_relay() {
    let store = Store { allowance: Allowance::per_minute(Some(20)), ..store() };
    let mut refused = 0;
    // A minute may end in between.
    for _ in 0..41 {
        let answer = store.push_now().await;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            assert!(header(&answer, "retry-after").is_some());
            refused += 1;
        }
    }
    assert!(refused >= 1);
    assert_eq!(store.calls(), [41, 0, 41 - refused, 0]);
}
