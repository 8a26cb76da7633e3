//! The contract of batches, over every backend: pushes that are queued together, registrations that are read together.

use std::collections::BTreeSet;

use push::ports::{
    Consistency::{Eventual, Strong},
    QueueReader, QueueWriter, Registrations,
    Renewal::Always,
    Settlement,
};
use push::{Registration, RegistrationId};

use super::{Backend, Register, WEEK, at, message, on_each_backend, receive, target};

const COUNT: u8 = 25;

async fn pushes_sent_together_are_all_received_once<B: Backend>() {
    let backend = B::fresh().await;
    let pushes: Vec<_> = (0..COUNT).map(|number| message(number, at(number.into()))).collect();
    let sent: BTreeSet<_> = pushes.iter().map(|push| push.id).collect();
    backend.writer().send_all(pushes).await.unwrap();
    let (mut received, mut settled) = (BTreeSet::new(), Vec::new());
    while received.len() < sent.len() {
        for delivery in receive(&backend, 10).await {
            assert!(received.insert(delivery.message.id), "not twice");
            settled.push(Settlement::Delete(delivery.receipt));
        }
    }
    assert_eq!(received, sent);
    backend.reader().settle(settled).await.unwrap();
    backend.writer().send_all(Vec::new()).await.unwrap();
    backend.writer().send_all(vec![message(COUNT, at(0))]).await.unwrap();
    assert_eq!(*receive(&backend, 10).await[0].message, message(COUNT, at(0)));
}

async fn pushes_sent_together_survive_a_crash<B: Backend>() {
    let backend = B::fresh().await;
    backend.writer().send_all((0..COUNT).map(|number| message(number, at(0))).collect()).await.unwrap();
    let backend = backend.after_a_restart().await;
    let mut received = BTreeSet::new();
    while received.len() < COUNT.into() {
        received.extend(receive(&backend, 10).await.into_iter().map(|delivery| delivery.message.id));
    }
}

async fn registrations_are_found_together<B: Backend>() {
    let backend = B::fresh().await;
    let mut stored = Vec::new();
    for number in 0..3 {
        let target = target(&format!("user{number}"), "phone");
        stored.push(backend.store().register_one(target, at(0), WEEK, Always).await.unwrap());
    }
    let Registration { target, epoch, .. } = &stored[1];
    backend.store().revoke(target.registration_id(), *epoch, &target.recipient, at(1)).await.unwrap();
    stored[1].revoked = true;
    let unknown = (0..100).map(|number| RegistrationId::from_bytes([number; 16]));
    let ids: BTreeSet<_> = stored.iter().map(|row| row.target.registration_id()).chain(unknown).collect();
    for consistency in [Eventual, Strong] {
        let mut found = backend.store().find_all(ids.clone(), consistency).await.unwrap();
        found.sort_by_key(|row| row.target.recipient.to_string());
        assert_eq!(found, stored);
        assert_eq!(backend.store().find_all(BTreeSet::new(), consistency).await.unwrap(), []);
    }
}

on_each_backend!(
    registrations_are_found_together,
    pushes_sent_together_are_all_received_once,
    pushes_sent_together_survive_a_crash,
);
