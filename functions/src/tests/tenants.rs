//! The answers to senders of tenants, and the reads that they cost.

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use chrono::TimeDelta;
use push::{
    Epoch, Roster, Tenant,
    tenant::{Month, Quotas},
};
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::ingress::TenantWatch;

fn roster(tenant: Tenant) -> Roster {
    let mut roster = Roster::default();
    roster.add("example.com".parse().unwrap(), tenant).unwrap();
    roster
}

fn suspended() -> Tenant {
    Tenant { suspended_since: Some(now()), ..Tenant::new(now()) }
}

impl Store {
    fn with_tenant(self, tenant: Tenant) -> Self {
        *self.roster.lock().unwrap() = Some(roster(tenant));
        self
    }
}

async fn refusal(response: axum::http::Response<Body>) -> (StatusCode, Option<String>, Value) {
    let (status, wait) = (response.status(), header(&response, "retry-after"));
    let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
    let problem: Value = serde_json::from_slice(&body).unwrap();
    (status, wait, problem["code"].clone())
}

#[tokio::test]
async fn senders_of_a_suspended_tenant_are_asked_to_wait_whatever_became_of_the_endpoint() {
    let expected = (StatusCode::TOO_MANY_REQUESTS, Some("3600".to_owned()), json!("suspended"));
    let lives = store().with_tenant(suspended());
    assert_eq!(refusal(lives.push_now().await).await, expected);
    let mut lapsed = store().with_tenant(suspended());
    lapsed.row.expires_at = now() - TimeDelta::hours(1);
    assert_eq!(refusal(lapsed.push_now().await).await, expected);
    assert!(lapsed.sent.lock().unwrap().is_empty());

    let pushkey = format!("https://push.example.com{}", lapsed.endpoint(lapsed.row.epoch));
    let device = json!({ "app_id": "app", "pushkey": pushkey });
    let notification = json!({ "notification": { "event_id": "$1", "devices": [device] } }).to_string();
    let request = || Request::post("/_matrix/push/v1/notify").body(Body::from(notification.clone())).unwrap();
    let answer = lapsed.answer(request()).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);

    // A revoked life stays ended, and so does an earlier life.
    let mut revoked = store().with_tenant(suspended());
    revoked.row.revoked = true;
    assert_eq!(revoked.push_now().await.status(), StatusCode::GONE);
    let other = Epoch::from_seconds(lapsed.row.epoch.as_seconds() - 1);
    assert_eq!(lapsed.push(&lapsed.endpoint(other)).await.status(), StatusCode::GONE);
    lapsed.roster.lock().unwrap().take();
    let resumed = Store { tenants: TenantWatch::default(), ..lapsed }.with_tenant(Tenant::new(now()));
    assert_eq!(resumed.push_now().await.status(), StatusCode::GONE);
}

#[tokio::test]
async fn senders_over_a_quota_are_asked_to_wait_and_lose_nothing() {
    let used_up = Tenant { used_up: Some(Month::of(now())), ..Tenant::new(now()) };
    let (status, wait, code) = refusal(store().with_tenant(used_up).push_now().await).await;
    assert_eq!((status, code), (StatusCode::TOO_MANY_REQUESTS, json!("quota_used_up")));
    assert!((1..=3600).contains(&wait.unwrap().parse::<u64>().unwrap()));
    let last_month = Month::of(Month::of(now()).start() - TimeDelta::days(1));
    let renewed = Tenant { used_up: Some(last_month), ..Tenant::new(now()) };
    assert_eq!(store().with_tenant(renewed).push_now().await.status(), StatusCode::CREATED);

    let rate = Some("2/0.001".parse().unwrap());
    let quotas = Quotas { rate, ..Quotas::default() };
    let store = store().with_tenant(Tenant { quotas, ..Tenant::new(now()) });
    for status in [StatusCode::CREATED, StatusCode::CREATED, StatusCode::TOO_MANY_REQUESTS] {
        assert_eq!(store.push_now().await.status(), status);
    }
    assert_eq!(store.sent.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn tenants_are_read_once_a_minute_and_what_was_known_holds_while_they_cannot_be() {
    let seconds = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(0));
    let (start, clock) = (now(), seconds.clone());
    let clock = push::Clock::new(move || start + TimeDelta::seconds(clock.load(Relaxed)));
    let store = Store { clock, ..store() }.with_tenant(suspended());
    let pushes = async |count| {
        let mut statuses = Vec::new();
        for _ in 0..count {
            statuses.push(store.push_now().await.status());
        }
        statuses.dedup();
        (statuses, store.roster_reads.load(Relaxed))
    };
    assert_eq!(pushes(20).await, (vec![StatusCode::TOO_MANY_REQUESTS], 1));
    store.roster.lock().unwrap().take();
    seconds.store(60, Relaxed);
    assert_eq!(pushes(20).await, (vec![StatusCode::TOO_MANY_REQUESTS], 2), "it is out of reach");
    *store.roster.lock().unwrap() = Some(roster(Tenant::new(start)));
    assert_eq!(pushes(20).await, (vec![StatusCode::TOO_MANY_REQUESTS], 2));
    seconds.store(120, Relaxed);
    assert_eq!(pushes(20).await, (vec![StatusCode::CREATED], 3), "a change shows within a minute");

    let blind = super::store();
    blind.roster.lock().unwrap().take();
    assert_eq!(blind.push_now().await.status(), StatusCode::CREATED, "nothing is known of any tenant");
}
