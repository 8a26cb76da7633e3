//! The contract of registrations, over every backend.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use futures::future::join_all;
use push::ports::{
    Consistency::Strong,
    Registrations,
    Renewal::{Always, WhereNeeded},
};
use push::{Epoch, Registration};

use super::{Backend, Register, WEEK, at, on_each_backend, target};

async fn a_registration_is_found_as_it_was_stored<B: Backend>() {
    let backend = B::fresh().await;
    let target = target("juliet", "phöne 'n\" <co>");
    assert_eq!(backend.store().find(target.registration_id(), Strong).await.unwrap(), None);
    let stored = backend.store().register_one(target.clone(), at(0), WEEK, Always).await.unwrap();
    assert_eq!(stored, Registration::renew(None, target.clone(), at(0), WEEK));
    assert_eq!(backend.store().find(target.registration_id(), Strong).await.unwrap(), Some(stored.clone()));
    let backend = backend.after_a_restart().await;
    assert_eq!(backend.store().find(target.registration_id(), Strong).await.unwrap(), Some(stored));
}

async fn a_renewal_keeps_the_epoch_and_a_lapse_does_not<B: Backend>() {
    let backend = B::fresh().await;
    let first = backend.store().register_one(target("juliet", "a"), at(0), WEEK, Always).await.unwrap();
    let moved = backend.store().register_one(target("juliet", "b"), at(9), WEEK, Always).await.unwrap();
    assert_eq!((moved.epoch, moved.expires_at), (first.epoch, at(9) + WEEK));
    let found = backend.store().find(first.target.registration_id(), Strong).await.unwrap().unwrap();
    assert_eq!(found.target.recipient.resource().as_str(), "b");
    let late =
        backend.store().register_one(target("juliet", "b"), moved.expires_at, WEEK, Always).await.unwrap();
    assert!(late.epoch > first.epoch);
}

async fn registrations_at_once_agree<B: Backend>() {
    let backend = B::fresh().await;
    let registering = (0..50).map(|number| {
        backend.store().register_one(target("juliet", &format!("r{number}")), at(number), WEEK, Always)
    });
    let epochs: BTreeSet<Epoch> =
        join_all(registering).await.into_iter().map(|row| row.unwrap().epoch).collect();
    assert_eq!(epochs.len(), 1, "the same target, the same URL");
}

async fn registrations_at_once_after_a_lapse_agree<B: Backend>() {
    let backend = B::fresh().await;
    let first = backend.store().register_one(target("juliet", "a"), at(0), WEEK, Always).await.unwrap();
    let late = first.expires_at;
    let registering =
        (0..20).map(|_| backend.store().register_one(target("juliet", "a"), late, WEEK, WhereNeeded));
    let epochs: BTreeSet<Epoch> =
        join_all(registering).await.into_iter().map(|row| row.unwrap().epoch).collect();
    assert_eq!(epochs.len(), 1, "one new life, one URL");
    assert!(*epochs.first().unwrap() > first.epoch);
}

async fn a_renewal_that_changes_little_is_not_written<B: Backend>() {
    let backend = B::fresh().await;
    let first = backend.store().register_one(target("juliet", "a"), at(0), WEEK, WhereNeeded).await.unwrap();
    let renew = async |resource, after, renewal| {
        backend.store().register_one(target("juliet", resource), at(0) + after, WEEK, renewal).await.unwrap()
    };
    assert_eq!(renew("a", TimeDelta::hours(19), WhereNeeded).await, first);
    assert_eq!(renew("a", TimeDelta::days(1), Always).await.expires_at, at(0) + TimeDelta::days(8));
    assert_eq!(renew("b", TimeDelta::days(2), WhereNeeded).await.expires_at, at(0) + TimeDelta::days(9));
    let renewed = renew("b", TimeDelta::hours(68), WhereNeeded).await;
    assert_eq!(renewed.expires_at, at(0) + TimeDelta::hours(68) + WEEK, "20 hours after the last one");
    assert_eq!(renewed.epoch, first.epoch);
}

on_each_backend!(
    a_registration_is_found_as_it_was_stored,
    a_renewal_keeps_the_epoch_and_a_lapse_does_not,
    registrations_at_once_agree,
    registrations_at_once_after_a_lapse_agree,
    a_renewal_that_changes_little_is_not_written,
);
