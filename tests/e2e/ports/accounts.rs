//! The contract of accounts, over every backend: the phones of an account, and who may end or move its registrations.

use e2e::{SOON, eventually};
use push::ports::{
    Account, Accounts,
    Consistency::Strong,
    Registrations, RelayRegistrations,
    Renewal::{Always, WhereNeeded},
    Revocation, SEEN_MAX, Seen,
};
use push::{Application, Epoch, Registration, RegistrationId, Target};
use tokio_xmpp::jid::{BareJid, FullJid};

use super::{Backend, Register, WEEK, at, on_each_backend, target};

fn jid(user: &str, resource: &str) -> FullJid {
    target(user, resource).recipient
}

fn juliet() -> BareJid {
    jid("juliet", "a").to_bare()
}

fn seen(resource: &str, second: i64, ended: bool) -> Seen {
    Seen { jid: jid("juliet", resource), seen_at: at(second), ended }
}

/// Registers one of the user's applications.
async fn register<B: Backend>(backend: &B, user: &str, application: u8, second: i64) -> Registration {
    let application = Application::from_bytes([application; 32]);
    let target = Target { application, ..target(user, "a") };
    backend.store().register_one(target, at(second), WEEK, Always).await.unwrap()
}

async fn find<B: Backend>(backend: &B, row: &Registration) -> Registration {
    backend.store().find(row.target.registration_id(), Strong).await.unwrap().unwrap()
}

/// Waits until the store knows this of an account. The index may lag.
async fn knows<B: Backend>(backend: &B, account: &BareJid, second: i64, expected: Account) {
    let sorted = |mut account: Account| {
        account.registrations.sort_by_key(|row| row.target.registration_id());
        account
    };
    let expected = sorted(expected);
    eventually(SOON, &format!("{expected:?}"), async || {
        sorted(backend.store().account(account, at(second)).await.unwrap()) == expected
    })
    .await;
}

async fn nobody_ends_a_registration_but_the_jid_that_it_names<B: Backend>() {
    let backend = B::fresh().await;
    let row = register(&backend, "juliet", 1, 0).await;
    let id = row.target.registration_id();
    let revoke = async |user, resource| {
        backend.store().revoke(id, row.epoch, &jid(user, resource), at(1)).await.unwrap()
    };
    assert_eq!(revoke("juliet", "b").await, Revocation::GoesOn);
    assert_eq!(revoke("romeo", "a").await, Revocation::GoesOn);
    assert_eq!(find(&backend, &row).await, row);
    backend.store().register_one(target("juliet", "b"), at(0), WEEK, Always).await.unwrap();
    assert_eq!(revoke("juliet", "a").await, Revocation::GoesOn, "it was renewed from elsewhere");
    assert_eq!(revoke("juliet", "b").await, Revocation::Revoked);
    for resource in ["a", "b"] {
        assert_eq!(revoke("juliet", resource).await, Revocation::OverBefore);
    }
}

async fn a_registration_follows_its_phone_and_nothing_else_changes<B: Backend>() {
    let backend = B::fresh().await;
    let row = register(&backend, "juliet", 1, 0).await;
    let id = row.target.registration_id();
    backend.store().throttle(id, row.epoch, at(60)).await.unwrap();
    let before = find(&backend, &row).await;
    let follow = async |epoch, from: &str, to: &str| {
        backend.store().follow(id, epoch, &jid("juliet", from), &jid("juliet", to)).await.unwrap()
    };
    let later = Epoch::from_seconds(row.epoch.as_seconds() + 1);
    assert!(!follow(later, "a", "b").await, "another life");
    assert!(!follow(row.epoch, "c", "b").await, "it names another");
    assert!(!backend.store().follow(id, row.epoch, &jid("juliet", "a"), &jid("romeo", "a")).await.unwrap());
    let unknown = RegistrationId::from_bytes([0; RegistrationId::BYTES]);
    let (a, b) = (jid("juliet", "a"), jid("juliet", "b"));
    assert!(!backend.store().follow(unknown, row.epoch, &a, &b).await.unwrap());
    assert_eq!(find(&backend, &row).await, before);

    assert!(follow(row.epoch, "a", "b").await);
    let moved = Registration { target: target("juliet", "b"), ..before };
    assert_eq!(find(&backend, &row).await, moved);
    assert!(!follow(row.epoch, "a", "b").await, "twice");
    let backend = backend.after_a_restart().await;
    assert_eq!(find(&backend, &row).await, moved);

    let renewed =
        backend.store().register_one(target("juliet", "c"), at(9), WEEK, WhereNeeded).await.unwrap();
    assert_eq!((renewed.epoch, renewed.target.recipient), (row.epoch, jid("juliet", "c")));
    backend.store().revoke(id, row.epoch, &jid("juliet", "c"), at(10)).await.unwrap();
    assert!(!backend.store().follow(id, row.epoch, &jid("juliet", "c"), &a).await.unwrap(), "revoked");
}

async fn a_registration_and_a_move_at_once_leave_what_registered<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let row = register(&backend, "juliet", 1, 0).await;
    let (id, epoch) = (row.target.registration_id(), row.epoch);
    for round in 1..=20 {
        let named = find(&backend, &row).await.target.recipient;
        let (followed, registering) =
            (jid("juliet", &format!("f{round}")), target("juliet", &format!("r{round}")));
        let (_, registered) = tokio::join!(
            store.follow(id, epoch, &named, &followed),
            store.register_one(registering.clone(), at(round), WEEK, WhereNeeded)
        );
        assert_eq!(registered.unwrap().epoch, epoch);
        let found = find(&backend, &row).await;
        assert_eq!((found.epoch, found.target), (epoch, registering));
    }
}

async fn an_account_has_its_registrations_that_live<B: Backend>() {
    let backend = B::fresh().await;
    knows(&backend, &juliet(), 0, Account::default()).await;
    let mut rows = Vec::new();
    for application in 1..=4 {
        rows.push(register(&backend, "juliet", application, application.into()).await);
    }
    register(&backend, "julie", 1, 0).await;
    register(&backend, "juliets", 1, 0).await;
    let of =
        |registrations: &[Registration]| Account { registrations: registrations.to_vec(), seen: Vec::new() };
    knows(&backend, &juliet(), 5, of(&rows)).await;

    let week = WEEK.num_seconds();
    knows(&backend, &juliet(), week + 2, of(&rows[2..])).await;
    let gone = rows.remove(3);
    let id = gone.target.registration_id();
    backend.store().revoke(id, gone.epoch, &gone.target.recipient, at(9)).await.unwrap();
    let (a, b) = (jid("juliet", "a"), jid("juliet", "b"));
    assert!(backend.store().follow(rows[0].target.registration_id(), rows[0].epoch, &a, &b).await.unwrap());
    rows[0].target.recipient = b;
    knows(&backend, &juliet(), 9, of(&rows)).await;
    let backend = backend.after_a_restart().await;
    knows(&backend, &juliet(), 9, of(&rows)).await;
}

async fn an_account_of_a_great_many_is_read_whole<B: Backend>() {
    let backend = B::fresh().await;
    let mut rows = Vec::new();
    for application in 1..=150 {
        rows.push(register(&backend, "juliet", application, 0).await);
    }
    knows(&backend, &juliet(), 1, Account { registrations: rows, seen: Vec::new() }).await;
}

async fn the_full_jids_seen_lately_are_kept_for_an_account_that_has_a_registration<B: Backend>() {
    let backend = B::fresh().await;
    let note = async |seen: &[Seen], second| {
        backend.store().note_seen(&juliet(), seen.to_vec(), at(second)).await.unwrap();
    };
    note(&[seen("a", 0, false)], 0).await;
    let row = register(&backend, "juliet", 1, 1).await;
    let of = |seen: &[Seen]| Account { registrations: vec![row.clone()], seen: seen.to_vec() };
    knows(&backend, &juliet(), 1, of(&[])).await;

    let list = [seen("phöne \"<", 3, false), seen("b", 9, true), seen("c", 2, false)];
    note(&list, 9).await;
    knows(&backend, &juliet(), 9, of(&list)).await;
    let many: Vec<_> = (0..10).map(|number| seen(&format!("r{number}"), number, number % 2 == 0)).collect();
    note(&many, 10).await;
    knows(&backend, &juliet(), 10, of(&many[..SEEN_MAX])).await;
    let romeo = jid("romeo", "a").to_bare();
    knows(&backend, &romeo, 10, Account::default()).await;
    note(&list[1..], 11).await;
    let backend = backend.after_a_restart().await;
    knows(&backend, &juliet(), 11, of(&list[1..])).await;

    let over = WEEK.num_seconds() + 1;
    backend.store().note_seen(&juliet(), many.clone(), at(over)).await.unwrap();
    knows(&backend, &juliet(), 12, of(&list[1..])).await;
    let id = row.target.registration_id();
    backend.store().revoke(id, row.epoch, &jid("juliet", "a"), at(12)).await.unwrap();
    knows(&backend, &juliet(), 12, Account { registrations: Vec::new(), seen: list[1..].to_vec() }).await;
    backend.store().note_seen(&juliet(), many, at(13)).await.unwrap();
    knows(&backend, &juliet(), 13, Account { registrations: Vec::new(), seen: list[1..].to_vec() }).await;
}

on_each_backend!(
    nobody_ends_a_registration_but_the_jid_that_it_names,
    a_registration_follows_its_phone_and_nothing_else_changes,
    a_registration_and_a_move_at_once_leave_what_registered,
    an_account_has_its_registrations_that_live,
    an_account_of_a_great_many_is_read_whole,
    the_full_jids_seen_lately_are_kept_for_an_account_that_has_a_registration,
);
