//! The ingress over stores that no emulator offers: with lagging copies, with a panic, or without an answer.

mod answers;
mod any_request;
mod clock_doubt;
mod marker;
mod paths;
mod store;
mod tenants;

use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use chrono::TimeDelta;
use push::{Epoch, RegistrationId, VapidKey};
use tower::ServiceExt;

pub(crate) use self::store::*;
use crate::ingress::PublicUrl;

#[tokio::test]
async fn an_accepted_push_costs_one_eventual_read_and_one_send() {
    let store = store();
    assert_eq!(store.push_now().await.status(), StatusCode::CREATED);
    assert_eq!(store.calls(), [1, 0, 1, 0]);
}

#[tokio::test]
async fn a_put_is_a_post() {
    let store = store();
    let request = Request::put(store.endpoint(store.row.epoch)).body(Body::from("version=1")).unwrap();
    let accepted = store.answer(request).await;
    assert_eq!((accepted.status(), store.calls()), (StatusCode::CREATED, [1, 0, 1, 0]));
    assert!(header(&accepted, "location").is_some());
}

#[tokio::test]
async fn a_registration_too_young_to_be_seen_costs_nobody_a_subscription() {
    let store = Store { copies: Copies::Lag, ..store() };
    assert_eq!(store.push_now().await.status(), StatusCode::CREATED);
    assert_eq!(store.calls(), [1, 1, 1, 0]);
}

#[tokio::test]
async fn a_refusal_for_good_is_confirmed_by_a_strong_read() {
    let store = store();
    let other = Epoch::from_seconds(store.row.epoch.as_seconds() + 1);
    assert_eq!(store.push(&store.endpoint(other)).await.status(), StatusCode::GONE);
    assert_eq!(store.calls(), [1, 1, 0, 0]);
}

#[tokio::test]
async fn a_forgery_costs_one_read_of_the_marker_in_all() {
    let store = store();
    let reversed = |token: &str| token.chars().rev().collect::<String>();
    let endpoint = store.endpoint(store.row.epoch);
    let endpoint = endpoint.strip_prefix("/push/").unwrap();
    let forged = marker::of_another_secret();
    let forged = forged.strip_prefix("/push/").unwrap();
    for token in [&reversed(endpoint), &store.message(), forged, forged] {
        assert_eq!(store.push(&format!("/push/{token}")).await.status(), StatusCode::NOT_FOUND);
    }
    for token in [&reversed(&store.message()), endpoint, &store.message()[1..], "x", "%FF"] {
        assert_eq!(store.withdraw(token).await.status(), StatusCode::NOT_FOUND, "{token}");
    }
    assert_eq!(store.calls(), NO_CALL);
    assert_eq!(store.marker_reads(), 1, "by the first that could be ours");
}

#[tokio::test]
async fn a_panic_costs_one_500() {
    let store = Store { copies: Copies::Panic, ..store() };
    assert_eq!(store.push_now().await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(store.withdraw(&store.message()).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn senders_over_their_rate_are_told_for_how_long_by_the_one_read() {
    let mut store = store();
    store.row.throttled_until = Some(now() + TimeDelta::seconds(3600));
    let refused = store.push_now().await;
    assert_eq!((refused.status(), store.calls()), (StatusCode::TOO_MANY_REQUESTS, [1, 0, 0, 0]));
    let seconds = header(&refused, "retry-after").unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&seconds), "{seconds}");
    assert_eq!(header(&refused, "content-type").as_deref(), Some("application/problem+json"));

    store.row.throttled_until = Some(now());
    assert_eq!(store.push_now().await.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn senders_whose_pushes_fill_their_part_of_the_queue_are_told_to_wait() {
    let mut store = store();
    store.line = Line::ShareUsedUp;
    let refused = store.push_now().await;
    assert_eq!((refused.status(), store.calls()), (StatusCode::TOO_MANY_REQUESTS, [1, 0, 1, 0]));
    assert_eq!(header(&refused, "retry-after").as_deref(), Some("5"));
}

#[tokio::test]
async fn who_does_not_sign_for_a_key_is_refused_by_the_one_read_whatever_the_rate() {
    let mut store = store();
    store.row.target.vapid = Some(VapidKey::from_bytes(&[4; VapidKey::BYTES]).unwrap());
    store.row.throttled_until = Some(now() + TimeDelta::seconds(3600));
    let unsigned = store.push_now().await;
    assert_eq!((unsigned.status(), store.calls()), (StatusCode::UNAUTHORIZED, [1, 0, 0, 0]));
    assert_eq!(header(&unsigned, "www-authenticate").as_deref(), Some("vapid"));

    let mut request = Request::post(store.endpoint(store.row.epoch)).header("authorization", "vapid t=x");
    request = request.extension(PublicUrl("https://push.example.com".parse().unwrap()));
    let badly_signed = store.answer(request.body(Body::from("hello")).unwrap()).await;
    assert_eq!((badly_signed.status(), store.calls()), (StatusCode::FORBIDDEN, [2, 0, 0, 0]));

    store.row.revoked = true;
    assert_eq!(store.push_now().await.status(), StatusCode::GONE, "before anyone is asked who it is");
}

#[tokio::test]
async fn a_dead_registration_is_gone_whatever_its_rate_was() {
    let mut store = store();
    store.row.throttled_until = Some(now() + TimeDelta::seconds(3600));
    store.row.revoked = true;
    assert_eq!(store.push_now().await.status(), StatusCode::GONE);
}

#[tokio::test]
async fn the_ttl_that_is_answered_is_the_one_that_is_kept() {
    let store = store();
    let longest = (LIFETIME * 2).num_seconds();
    for (asked, kept) in [(0, 0..=0), (60, 60..=60), (u32::MAX, longest - 60..=longest)] {
        let request = Request::post(store.endpoint(store.row.epoch)).header("ttl", asked);
        let accepted = store.answer(request.body(Body::from("hello")).unwrap()).await;
        let answered = header(&accepted, "ttl").unwrap().parse().unwrap();
        assert!(kept.contains(&answered), "{asked}: {answered}");
    }
}

#[tokio::test]
async fn a_push_is_named_below_where_its_sender_reached_the_ingress_and_by_a_token() {
    let store = store();
    let mut request = Request::post(store.endpoint(store.row.epoch)).body(Body::from("hello")).unwrap();
    request.extensions_mut().insert(PublicUrl("https://push.example.com/stage".parse().unwrap()));
    let location = header(&store.answer(request).await, "location").unwrap();
    let token = location.strip_prefix("https://push.example.com/stage/message/").unwrap();
    let (registration, _) = secrets().verify_message(token).unwrap();
    assert_eq!((registration, token.len()), (store.id(), 70));
}

#[tokio::test]
async fn a_withdrawal_costs_one_strong_read_and_one_removal() {
    for copies in [Copies::AllAgree, Copies::Lag] {
        let store = Store { copies, ..store() };
        let withdrawn = store.withdraw(&store.message()).await;
        assert_eq!((withdrawn.status(), store.calls()), (StatusCode::NO_CONTENT, [0, 1, 0, 1]));
        assert!(to_bytes(withdrawn.into_body(), 1).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_waits_for_a_registration_that_is_dead_or_throttled_can_be_withdrawn() {
    let mut store = store();
    store.row.throttled_until = Some(now() + TimeDelta::seconds(3600));
    store.row.revoked = true;
    assert_eq!(store.withdraw(&store.message()).await.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn what_does_not_wait_is_not_found() {
    let store = Store { post: Post::Nothing, ..store() };
    let refused = store.withdraw(&store.message()).await;
    assert_eq!((refused.status(), store.calls()), (StatusCode::NOT_FOUND, [0, 1, 0, 1]));
    assert_eq!(header(&refused, "content-type").as_deref(), Some("application/problem+json"));

    let of_another = secrets().sign_message(RegistrationId::from_bytes([3; 16]), named());
    assert_eq!(store.withdraw(of_another.as_str()).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(store.calls(), [0, 2, 0, 1], "no row, no mailbox");
}

#[tokio::test]
async fn a_mailbox_that_does_not_answer_is_503_and_in_time() {
    for post in [Post::OutOfReach, Post::Hangs] {
        let store = Store { post, ..store() };
        let refused = store.withdraw(&store.message()).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(header(&refused, "retry-after").as_deref(), Some("5"));
    }
}
