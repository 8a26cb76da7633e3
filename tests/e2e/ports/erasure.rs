//! The contract of erasing an account, over every backend: only the ended lives stay, which keep URLs refused.

use e2e::{SOON, eventually};
use push::ports::{
    Account, Accounts,
    Consistency::Strong,
    Registrations,
    Renewal::{Always, WhereNeeded},
    Seen,
    operator::{Erasure, NOBODY},
};
use push::{Application, Registration, RegistrationId, Target};

use super::{Backend, Register, WEEK, at, on_each_backend, target};

async fn find<B: Backend>(backend: &B, id: RegistrationId) -> Option<Registration> {
    backend.store().find(id, Strong).await.unwrap()
}

/// Waits until the index has this number of a user's registrations. Returns the account.
async fn lists<B: Backend>(backend: &B, user: &str, count: usize) -> Account {
    let account = target(user, "a").recipient.to_bare();
    eventually(SOON, &format!("{user} has {count}"), async || {
        backend.store().account(&account, at(2)).await.unwrap().registrations.len() == count
    })
    .await;
    backend.store().account(&account, at(2)).await.unwrap()
}

async fn a_forgotten_account_leaves_nothing_but_ended_lives<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let of =
        |user, number| Target { application: Application::from_bytes([number; 32]), ..target(user, "a") };
    let predecessors = Target { legacy: Some(at(9)), ..of("juliet", 3) };
    let mut rows = Vec::new();
    for target in [of("juliet", 1), of("juliet", 2), predecessors.clone()] {
        rows.push(store.register_one(target, at(0), WEEK, Always).await.unwrap());
    }
    let others = store.register_one(of("romeo", 1), at(0), WEEK, Always).await.unwrap();
    lists(&backend, "juliet", 3).await;
    let juliet = target("juliet", "a").recipient;
    let seen = Seen { jid: juliet.clone(), seen_at: at(1), ended: false };
    store.note_seen(&juliet.to_bare(), vec![seen], at(1)).await.unwrap();

    assert_eq!(store.forget(&juliet.to_bare(), at(2)).await.unwrap(), 3);
    assert_eq!(lists(&backend, "juliet", 0).await, Account::default());
    for row in &rows {
        let left = find(&backend, row.target.registration_id()).await.expect("its epoch is remembered");
        assert!(left.revoked && !left.lives(at(2)) && left.epoch == row.epoch);
        assert_eq!((left.target.recipient.as_str(), left.target.vapid), (NOBODY, None));
        assert_ne!(left.target.application, row.target.application);
    }
    assert_eq!(find(&backend, others.target.registration_id()).await, Some(others));
    assert_eq!(store.forget(&juliet.to_bare(), at(3)).await.unwrap(), 0, "nothing is left to forget");

    // Neither a clock that went back nor a push to a predecessor's endpoint brings a URL back.
    let again = store.register_one(of("juliet", 1), at(-5), WEEK, Always).await.unwrap();
    assert!(again.epoch > rows[0].epoch && again.target == of("juliet", 1));
    let legacy = store.register_one(predecessors, at(4), WEEK, WhereNeeded).await.unwrap();
    assert!(!legacy.lives(at(4)));
    assert_eq!(lists(&backend, "juliet", 1).await.registrations, [again]);
}

on_each_backend!(a_forgotten_account_leaves_nothing_but_ended_lives);
