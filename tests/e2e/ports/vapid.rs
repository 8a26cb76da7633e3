//! The contract of keys, over every backend: the key that a registration is bound to, and its end by another key.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use futures::future::join_all;
use push::ports::{
    Consistency::{Eventual, Strong},
    Registrations, RelayRegistrations,
    Renewal::{Always, WhereNeeded},
    Revocation,
};
use push::{Target, VapidKey};

use super::{Backend, Register, WEEK, at, on_each_backend, target};

/// Returns a key that is no point of the curve, which a store cannot tell.
fn key(number: u8) -> Option<VapidKey> {
    let mut point = [number; VapidKey::BYTES];
    point[0] = 4;
    Some(VapidKey::from_bytes(&point).unwrap())
}

fn bound(resource: &str, vapid: Option<VapidKey>) -> Target {
    Target { vapid, ..target("juliet", resource) }
}

async fn a_key_is_kept_for_as_long_as_it_is_the_same<B: Backend>() {
    let backend = B::fresh().await;
    let first = backend.store().register_one(bound("a", key(1)), at(0), WEEK, Always).await.unwrap();
    let id = first.target.registration_id();
    let renewed = backend.store().register_one(bound("b", key(1)), at(9), WEEK, Always).await.unwrap();
    assert_eq!((renewed.epoch, renewed.target.vapid), (first.epoch, key(1)));
    let stands = backend.store().register_one(bound("b", key(1)), at(10), WEEK, WhereNeeded).await.unwrap();
    assert_eq!(stands, renewed);

    let backend = backend.after_a_restart().await;
    assert_eq!(backend.store().find(id, Strong).await.unwrap(), Some(renewed.clone()));
    assert_eq!(backend.store().find(id, Eventual).await.unwrap(), Some(renewed.clone()));
    backend.store().throttle(id, first.epoch, at(99)).await.unwrap();
    assert_eq!(
        backend.store().revoke(id, first.epoch, &renewed.target.recipient, at(11)).await.unwrap(),
        Revocation::Revoked
    );
    assert_eq!(backend.store().find(id, Strong).await.unwrap().unwrap().target.vapid, key(1));
    let next = backend.store().register_one(bound("b", key(1)), at(12), WEEK, WhereNeeded).await.unwrap();
    assert!(next.epoch > first.epoch && next.target.vapid == key(1));
}

async fn a_key_that_changes_begins_another_life<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let mut row = store.register_one(bound("a", None), at(0), WEEK, Always).await.unwrap();
    let id = row.target.registration_id();
    // All of this is within one second, and each key still has another URL.
    for vapid in [key(1), key(2), None, key(2)] {
        store.throttle(id, row.epoch, at(99)).await.unwrap();
        let next = store.register_one(bound("a", vapid), at(0), WEEK, WhereNeeded).await.unwrap();
        assert!(next.epoch > row.epoch, "{vapid:?}");
        assert_eq!((next.target.vapid, next.throttled_until), (vapid, None));
        assert_eq!(store.find(id, Strong).await.unwrap(), Some(next.clone()));
        assert_eq!(
            store.revoke(id, row.epoch, &row.target.recipient, at(1)).await.unwrap(),
            Revocation::OverBefore,
            "its former life"
        );
        row = next;
    }
}

async fn different_keys_at_once_end_in_one_of_them<B: Backend>() {
    let backend = B::fresh().await;
    let registering =
        (0..4).map(|number| backend.store().register_one(bound("a", key(number)), at(0), WEEK, Always));
    let rows: Vec<_> = join_all(registering).await.into_iter().map(Result::unwrap).collect();
    let lives: BTreeSet<_> = rows.iter().map(|row| row.epoch).collect();
    assert_eq!(lives.len(), rows.len(), "no URL is good for two keys");
    let last = rows.iter().max_by_key(|row| row.epoch).unwrap();
    let found = backend.store().find(last.target.registration_id(), Strong).await.unwrap();
    assert_eq!(found.as_ref(), Some(last));
    let renewed =
        backend.store().register_one(last.target.clone(), at(0) + TimeDelta::days(6), WEEK, Always).await;
    assert_eq!(renewed.unwrap().epoch, last.epoch);
}

on_each_backend!(
    a_key_is_kept_for_as_long_as_it_is_the_same,
    a_key_that_changes_begins_another_life,
    different_keys_at_once_end_in_one_of_them,
);
