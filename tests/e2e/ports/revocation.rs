//! The contract of a revocation, over every backend: a registration ends because its application is gone.

use chrono::TimeDelta;
use push::ports::{Consistency::Strong, Registrations, Renewal::Always, Revocation};
use push::{Epoch, RegistrationId};
use tokio_xmpp::jid::FullJid;

use super::{Backend, Register, WEEK, at, on_each_backend, target};

/// Returns the full JID of one of juliet's phones.
fn juliet(resource: &str) -> FullJid {
    target("juliet", resource).recipient
}

async fn a_revocation_ends_this_life_and_no_other<B: Backend>() {
    let backend = B::fresh().await;
    let first = backend.store().register_one(target("juliet", "a"), at(0), WEEK, Always).await.unwrap();
    let id = first.target.registration_id();
    let other_epoch = Epoch::from_seconds(first.epoch.as_seconds() + 1);
    assert_eq!(
        backend.store().revoke(id, other_epoch, &juliet("a"), at(1)).await.unwrap(),
        Revocation::OverBefore
    );
    let unknown = RegistrationId::from_bytes([0; 16]);
    assert_eq!(
        backend.store().revoke(unknown, first.epoch, &juliet("a"), at(1)).await.unwrap(),
        Revocation::OverBefore
    );
    assert!(!backend.store().find(id, Strong).await.unwrap().unwrap().revoked);

    assert_eq!(
        backend.store().revoke(id, first.epoch, &juliet("a"), at(1)).await.unwrap(),
        Revocation::Revoked
    );
    assert_eq!(
        backend.store().revoke(id, first.epoch, &juliet("a"), at(1)).await.unwrap(),
        Revocation::OverBefore
    );
    assert!(backend.store().find(id, Strong).await.unwrap().unwrap().revoked);
    let second = backend.store().register_one(target("juliet", "a"), at(1), WEEK, Always).await.unwrap();
    assert!(second.epoch > first.epoch && !second.revoked);
}

async fn a_renewal_after_the_question_outlives_the_answer<B: Backend>() {
    let backend = B::fresh().await;
    let first = backend.store().register_one(target("juliet", "a"), at(0), WEEK, Always).await.unwrap();
    let id = first.target.registration_id();
    backend.store().register_one(target("juliet", "a"), at(10), WEEK, Always).await.unwrap();
    assert_eq!(
        backend.store().revoke(id, first.epoch, &juliet("a"), at(9)).await.unwrap(),
        Revocation::GoesOn
    );
    assert_eq!(
        backend.store().revoke(id, first.epoch, &juliet("a"), at(10)).await.unwrap(),
        Revocation::Revoked
    );
}

async fn a_revocation_and_a_renewal_at_once_agree<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let mut row = store.register_one(target("juliet", "a"), at(0), WEEK, Always).await.unwrap();
    let id = row.target.registration_id();
    for round in 1..=20 {
        let (before, now) = (row.epoch, at(round * 10));
        let (revocation, renewed) = tokio::join!(
            store.revoke(id, before, &row.target.recipient, now - TimeDelta::seconds(1)),
            store.register_one(target("juliet", "a"), now, WEEK, Always)
        );
        row = renewed.unwrap();
        match revocation.unwrap() {
            Revocation::Revoked => {
                assert!(row.epoch > before, "who registers after the end gets another URL")
            }
            Revocation::GoesOn => assert_eq!(row.epoch, before),
            Revocation::OverBefore => panic!("nobody else ends lives here"),
        }
        assert_eq!(
            store.find(id, Strong).await.unwrap(),
            Some(row.clone()),
            "what was answered is what lives"
        );
    }
}

on_each_backend!(
    a_revocation_ends_this_life_and_no_other,
    a_renewal_after_the_question_outlives_the_answer,
    a_revocation_and_a_renewal_at_once_agree,
);
