//! The contract of reading all registrations that live, over every backend.

use std::collections::BTreeMap;

use e2e::{SOON, eventually};
use push::ports::{
    Accounts, Registrant, Registrations,
    Renewal::{Always, WhereNeeded},
};
use push::{Application, Registration, Target};

use super::{Backend, Register, WEEK, at, on_each_backend, target};

fn name(row: &Registration) -> Registrant {
    (row.target.recipient.to_bare(), row.target.registration_id())
}

/// Returns all registrations that live, each once, read in pages of `max`.
async fn living<B: Backend>(backend: &B, max: usize, second: i64) -> BTreeMap<Registrant, Registration> {
    let (mut found, mut after) = (BTreeMap::new(), None);
    loop {
        let (page, further) = backend.store().living(after, max, at(second)).await.unwrap();
        assert!(further.is_none() || page.len() >= max);
        for row in page {
            assert!(row.lives(at(second)));
            assert_eq!(found.insert(name(&row), row), None, "each comes once");
        }
        after = further;
        if after.is_none() {
            return found;
        }
    }
}

/// Waits until these registrations live, in pages of several sizes. An index may lag.
async fn live<B: Backend>(backend: &B, second: i64, expected: &[Registration]) {
    let expected: BTreeMap<_, _> = expected.iter().map(|row| (name(row), row.clone())).collect();
    for max in [1, 2, 3, 7, 100] {
        let what = format!("{} registrations live, in pages of {max}", expected.len());
        eventually(SOON, &what, async || living(backend, max, second).await == expected).await;
    }
}

async fn every_registration_that_lives_is_found_once_and_no_other<B: Backend>() {
    let backend = B::fresh().await;
    live(&backend, 0, &[]).await;
    let mut rows = Vec::new();
    for (user, count) in [("a", 1), ("b", 3), ("ba", 1), ("c", 4)] {
        for number in 1..=count {
            let application = Application::from_bytes([number; 32]);
            let target = Target { application, ..target(user, "phone") };
            rows.push(
                backend.store().register_one(target, at(i64::from(number)), WEEK, Always).await.unwrap(),
            );
        }
    }
    let legacy = Target { legacy: Some(at(WEEK.num_seconds() + 9)), ..target("c", "phone") };
    let legacy = backend.store().register(legacy, at(0), WEEK, WhereNeeded, 1).await.unwrap();
    rows.push(legacy.stored().unwrap());
    live(&backend, 5, &rows).await;

    let revoked = rows.remove(2);
    let (id, recipient) = (revoked.target.registration_id(), &revoked.target.recipient);
    backend.store().revoke(id, revoked.epoch, recipient, at(5)).await.unwrap();
    live(&backend, 5, &rows).await;
    // The items of accounts are beside the registrations.
    backend.store().note_seen(&recipient.to_bare(), Vec::new(), at(5)).await.unwrap();
    let backend = backend.after_a_restart().await;
    live(&backend, 5, &rows).await;
    let later = WEEK.num_seconds() + 2;
    let left: Vec<_> = rows.iter().filter(|row| row.lives(at(later))).cloned().collect();
    assert!(left.len() > 1 && left.len() < rows.len());
    live(&backend, later, &left).await;
    live(&backend, 2 * later, &[]).await;
}

on_each_backend!(every_registration_that_lives_is_found_once_and_no_other);
