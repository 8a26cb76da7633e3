//! The contract of the bounds of one account, over every backend.

use std::collections::BTreeSet;

use futures::future::join_all;
use push::ports::{
    Consistency::Strong,
    Kept, Mailbox, Registered, Registrations,
    Renewal::{Always, WhereNeeded},
    Revocation, Waiting,
};
use push::{Instance, MailboxBounds, MessageId, Registration, Target, Urgency, VapidKey};

use super::mailbox::{MANY, account, ids, juliet, next_life, plain, push, romeo};
use super::{Backend, WEEK, at, on_each_backend, target};

/// Most registrations that an account may have.
const MAX: usize = 3;
/// Seconds between two steps of these tests. A full account may be counted anew only after a while.
const STEP: i64 = 100;

fn instance(user: &str, number: u8) -> Target {
    Target { instance: Instance::from_bytes([number; 32]), ..target(user, "a") }
}

async fn register<B: Backend>(backend: &B, target: Target, step: i64) -> Option<Registration> {
    let registering = backend.store().register(target.clone(), at(step * STEP), WEEK, Always, MAX);
    let registered = registering.await.unwrap();
    if registered == Registered::AccountFull {
        let row = backend.store().find(target.registration_id(), Strong).await.unwrap();
        assert!(row.is_none_or(|row| !row.lives(at(step * STEP))), "nothing was stored");
    }
    registered.stored()
}

async fn revoke<B: Backend>(backend: &B, row: &Registration) {
    let (id, recipient) = (row.target.registration_id(), &row.target.recipient);
    let revoked = backend.store().revoke(id, row.epoch, recipient, row.renewed_at).await.unwrap();
    assert_eq!(revoked, Revocation::Revoked);
}

async fn a_new_registration_beyond_the_bound_is_refused_and_what_lives_is_renewed<B: Backend>() {
    let backend = B::fresh().await;
    let mut rows = Vec::new();
    for number in 1..=3 {
        rows.push(register(&backend, instance("juliet", number), 0).await.unwrap());
    }
    for step in [0, 1] {
        assert_eq!(register(&backend, instance("juliet", 4), step).await, None);
    }
    for row in &rows {
        for renewal in [WhereNeeded, Always] {
            let renewing = backend.store().register(row.target.clone(), at(STEP), WEEK, renewal, MAX);
            assert_eq!(renewing.await.unwrap().stored().unwrap().epoch, row.epoch);
        }
    }
    let mut point = [9; VapidKey::BYTES];
    point[0] = 4;
    let bound = Target { vapid: VapidKey::from_bytes(&point).ok(), ..instance("juliet", 1) };
    assert!(
        register(&backend, bound, 1).await.unwrap().epoch > rows[0].epoch,
        "one of them, under another URL"
    );
    assert!(register(&backend, instance("romeo", 1), 1).await.is_some());

    let backend = backend.after_a_restart().await;
    let row = backend.store().find(rows[2].target.registration_id(), Strong).await.unwrap().unwrap();
    revoke(&backend, &row).await;
    assert!(
        register(&backend, instance("juliet", 4), 3).await.is_some(),
        "in the place of the one that ended"
    );
    assert_eq!(register(&backend, instance("juliet", 3), 4).await, None, "that one");
    let later = WEEK.num_seconds() / STEP + 5;
    for number in [3, 5, 6] {
        let registered = register(&backend, instance("juliet", number), later + i64::from(number)).await;
        assert!(registered.is_some(), "the others have lapsed");
    }
    assert_eq!(register(&backend, instance("juliet", 7), later + 7).await, None);
}

async fn what_has_ended_counts_when_there_is_as_much_of_it_as_may_live<B: Backend>() {
    let backend = B::fresh().await;
    for number in 1..=6 {
        let row = register(&backend, instance("juliet", number), number.into()).await.unwrap();
        revoke(&backend, &row).await;
    }
    for number in [7, 8] {
        assert_eq!(register(&backend, instance("juliet", number), number.into()).await, None);
    }
    let purged = (WEEK.num_seconds() + 86_400) / STEP + 10;
    assert!(register(&backend, instance("juliet", 7), purged).await.is_some());
}

async fn where_none_may_be_new_what_lives_is_renewed<B: Backend>() {
    let backend = B::fresh().await;
    let register = async |target: Target, second, renewal, max| {
        backend.store().register(target, at(second), WEEK, renewal, max).await.unwrap()
    };
    let first = instance("juliet", 1);
    assert_eq!(register(first.clone(), 0, Always, 0).await, Registered::AccountFull);
    let Registered::Begun(row) = register(first.clone(), 1, Always, MAX).await else {
        panic!("its first life begins")
    };
    for (second, renewal) in [(2, WhereNeeded), (3, Always)] {
        let Registered::Stored(renewed) = register(first.clone(), second, renewal, 0).await else {
            panic!("it goes on")
        };
        assert_eq!(renewed.epoch, row.epoch);
    }
    assert_eq!(register(instance("juliet", 2), 4, Always, 0).await, Registered::AccountFull);
    revoke(&backend, &Registration { renewed_at: at(5), ..row }).await;
    assert_eq!(register(first.clone(), 6, Always, 0).await, Registered::AccountFull);
    assert!(matches!(register(first, 7, Always, MAX).await, Registered::Begun(_)), "another life");
}

async fn an_account_is_trimmed_by_the_oldest_of_its_fullest_registration<B: Backend>() {
    let backend = B::fresh().await;
    let [loud, quiet] = [1, 2].map(juliet);
    let of_loud = [push(&loud, Urgency::VeryLow, 2, None), plain(&loud, 3), plain(&loud, 4)];
    let of_quiet = plain(&quiet, 1);
    for waiting in of_loud.iter().chain([&of_quiet, &plain(&romeo(1), 1)]) {
        assert_eq!(keep(&backend, waiting, MANY).await, []);
    }
    let trim = async |max, second| {
        let trimmed = backend.mailbox().trim(&account(&loud), max, at(second)).await.unwrap();
        (trimmed.dropped, trimmed.left)
    };
    assert_eq!(trim(4, 5).await, (vec![], 4));
    assert_eq!(trim(3, 5).await, (ids([&of_loud[0]]), 3));
    let backend = backend.after_a_restart().await;
    let trim = async |max, second| {
        let trimmed = backend.mailbox().trim(&account(&loud), max, at(second)).await.unwrap();
        (trimmed.dropped, trimmed.left)
    };
    assert_eq!(all(&backend, &loud).await, ids([&of_loud[1], &of_loud[2], &of_quiet]).into_iter().collect());
    // An expired push no longer counts.
    assert_eq!(trim(2, 3602).await, (vec![], 2));
    assert_eq!(trim(1, 5).await, (ids([&of_loud[1], &of_quiet]), 1));
    assert_eq!(trim(0, 5).await, (ids([&of_loud[2]]), 0));
    assert_eq!(trim(0, 5).await, (vec![], 0));
    assert_eq!(all(&backend, &romeo(1)).await.len(), 1);
}

async fn endpoints_of_a_predecessor_neither_count_nor_are_refused<B: Backend>() {
    let backend = B::fresh().await;
    let legacy = |number: u8| Target { legacy: Some(at(3600)), ..instance("juliet", number) };
    for number in 1..=6 {
        let target = legacy(number);
        let row = backend.store().register(target, at(0), WEEK, WhereNeeded, usize::MAX).await.unwrap();
        assert!(row.stored().is_some());
    }
    for number in 1..=3 {
        assert!(register(&backend, instance("juliet", number), 1).await.is_some());
    }
    assert_eq!(register(&backend, instance("juliet", 4), 2).await, None);
    let row = backend.store().register(legacy(7), at(3 * STEP), WEEK, WhereNeeded, MAX).await.unwrap();
    assert!(row.stored().is_some());
}

async fn registrations_at_once_do_not_exceed_the_bound<B: Backend>() {
    let backend = B::fresh().await;
    let registering = (0..30).map(|number| register(&backend, instance("juliet", number), 0));
    let stored = join_all(registering).await.into_iter().flatten().count();
    assert_eq!(stored, MAX);
}

/// Keeps a push within this bound of its account. Returns the pushes that were dropped for it.
async fn keep<B: Backend>(backend: &B, waiting: &Waiting, of_account: usize) -> Vec<MessageId> {
    let bounds = MailboxBounds { of_registration: 4, of_account };
    let Kept { replaced, dropped } = backend.mailbox().keep(waiting.clone(), bounds).await.unwrap();
    assert_eq!(replaced, []);
    dropped
}

async fn all<B: Backend>(backend: &B, registration: &Registration) -> BTreeSet<MessageId> {
    let waiting = backend.mailbox().waiting(&account(registration), None, None, MANY).await.unwrap();
    ids(&waiting).into_iter().collect()
}

async fn the_bound_of_an_account_drops_the_oldest_of_its_fullest_registration<B: Backend>() {
    let backend = B::fresh().await;
    let [loud, quiet, third] = [1, 2, 3].map(juliet);
    assert_eq!(keep(&backend, &plain(&romeo(1), 1), 5).await, []);
    let of_quiet = plain(&quiet, 1);
    let of_loud = [
        push(&loud, Urgency::VeryLow, 4, None),
        push(&loud, Urgency::High, 2, None),
        push(&next_life(&loud), Urgency::Normal, 3, None),
        push(&loud, Urgency::Low, 5, None),
    ];
    for waiting in of_loud.iter().chain([&of_quiet]) {
        assert_eq!(keep(&backend, waiting, 5).await, []);
    }
    let new = plain(&third, 6);
    assert_eq!(keep(&backend, &new, 5).await, ids([&of_loud[1]]), "not of the one that it is kept for");
    let late = plain(&quiet, 0);
    assert_eq!(keep(&backend, &late, 5).await, ids([&of_loud[2]]));
    let expected = ids([&of_quiet, &late, &new, &of_loud[0], &of_loud[3]]);
    assert_eq!(all(&backend, &loud).await, expected.into_iter().collect());

    let last = plain(&quiet, 7);
    assert_eq!(keep(&backend, &last, 5).await, ids([&late]), "the oldest of its own");
    let older = plain(&quiet, -1);
    assert_eq!(keep(&backend, &older, 5).await, ids([&older]), "it may be the push itself");
    let expected = ids([&of_quiet, &of_loud[0], &new, &of_loud[3]]);
    let next = plain(&third, 8);
    assert_eq!(keep(&backend, &next, 2).await, expected, "of a bound that was lowered");
    assert_eq!(all(&backend, &loud).await, ids([&last, &next]).into_iter().collect());
    assert_eq!(all(&backend, &romeo(1)).await.len(), 1);
}

async fn both_bounds_hold_and_what_has_expired_counts_for_neither<B: Backend>() {
    let backend = B::fresh().await;
    let [one, other] = [1, 2].map(juliet);
    let of_one: Vec<_> = (1..=4).map(|second| plain(&one, second)).collect();
    for waiting in &of_one {
        assert_eq!(keep(&backend, waiting, 5).await, []);
    }
    let fifth = plain(&one, 5);
    assert_eq!(keep(&backend, &fifth, 5).await, ids([&of_one[0]]), "the registration's");
    assert_eq!(keep(&backend, &plain(&other, 6), 5).await, []);
    assert_eq!(keep(&backend, &plain(&other, 7), 5).await, ids([&of_one[1]]), "the account's");
    // By then, two of the five have expired.
    for second in [3604, 3605] {
        assert_eq!(keep(&backend, &plain(&other, second), 5).await, []);
    }
}

on_each_backend!(
    a_new_registration_beyond_the_bound_is_refused_and_what_lives_is_renewed,
    what_has_ended_counts_when_there_is_as_much_of_it_as_may_live,
    where_none_may_be_new_what_lives_is_renewed,
    an_account_is_trimmed_by_the_oldest_of_its_fullest_registration,
    endpoints_of_a_predecessor_neither_count_nor_are_refused,
    registrations_at_once_do_not_exceed_the_bound,
    the_bound_of_an_account_drops_the_oldest_of_its_fullest_registration,
    both_bounds_hold_and_what_has_expired_counts_for_neither,
);
