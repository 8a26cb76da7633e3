//! A clock in doubt, and refusals that are stored.

use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use chrono::{DateTime, TimeDelta, Utc};
use push::{Clock, Reading, Registration};

use super::{LIFETIME, Store, header, now, store};

fn over(store: Store) -> Store {
    let before = now() - LIFETIME - TimeDelta::hours(2);
    let row = Registration::renew(None, store.row.target.clone(), before, LIFETIME);
    Store { row, ..store }
}

fn at(now: DateTime<Utc>, wall: DateTime<Utc>) -> Clock {
    Clock::guarded(move || Reading { now, wall })
}

#[tokio::test]
async fn who_is_told_that_a_life_is_over_is_told_the_same_ever_after() {
    let refusals = Arc::<Mutex<Vec<_>>>::default();
    let remembering = over(Store { refusals: Some(refusals.clone()), ..store() });
    assert_eq!(remembering.push_now().await.status(), StatusCode::GONE);
    assert_eq!(*refusals.lock().unwrap(), [remembering.row.epoch]);
    // Living, revoked and earlier lives are not revoked.
    let lives = Store { row: store().row, ..remembering.clone() };
    assert_eq!(lives.push_now().await.status(), StatusCode::CREATED);
    let earlier = lives.endpoint(push::Epoch::from_seconds(lives.row.epoch.as_seconds() - 1));
    assert_eq!(lives.push(&earlier).await.status(), StatusCode::GONE);
    let mut revoked = remembering.clone();
    revoked.row.revoked = true;
    assert_eq!(revoked.push_now().await.status(), StatusCode::GONE);
    assert_eq!(refusals.lock().unwrap().len(), 1);
    // The function stores no refusals.
    assert_eq!(over(store()).push_now().await.status(), StatusCode::GONE);
}

#[tokio::test]
async fn in_doubt_nothing_is_refused_for_good() {
    let (now, hour) = (now(), TimeDelta::hours(24));
    for wall in [now - hour, now + hour] {
        let store = Store { clock: at(now, wall), ..store() };
        let lives = store.push_now().await;
        assert_eq!((lives.status(), header(&lives, "ttl").as_deref()), (StatusCode::CREATED, Some("60")));
        let over = over(store).push_now().await;
        assert_eq!(over.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(header(&over, "retry-after").is_some());
    }
}
