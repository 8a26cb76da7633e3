//! The contract of the queue, over every backend.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use futures::future::join_all;
use push::MessageId;
use push::ports::{Delivery, QueueReader, QueueWriter, Settlement};
use tokio::time::timeout;

use super::{Backend, at, message, on_each_backend, receive};

fn ids<R>(deliveries: &[Delivery<R>]) -> Vec<MessageId> {
    deliveries.iter().map(|delivery| delivery.message.id).collect()
}

async fn a_push_is_received_as_it_was_sent_oldest_first<B: Backend>() {
    let backend = B::fresh().await;
    for number in [1, 2, 3] {
        backend.writer().send(message(number, at(number.into()))).await.unwrap();
    }
    let deliveries = receive(&backend, 2).await;
    let sent = [message(1, at(1)), message(2, at(2))];
    assert_eq!(
        deliveries.iter().map(|delivery| &*delivery.message).collect::<Vec<_>>(),
        sent.iter().collect::<Vec<_>>()
    );
    assert!(deliveries.iter().all(|delivery| delivery.is_first));
    assert_eq!(ids(&receive(&backend, 10).await), [message(3, at(3)).id], "the others are taken");
}

async fn receiving_waits_for_a_push<B: Backend>() {
    let backend = B::fresh().await;
    let (received, sent) = tokio::join!(receive(&backend, 10), backend.writer().send(message(1, at(0))));
    sent.unwrap();
    assert_eq!(received.len(), 1);
}

async fn a_settled_push_is_gone_and_a_postponed_one_comes_back<B: Backend>() {
    let backend = B::fresh().await;
    for number in [1, 2] {
        backend.writer().send(message(number, at(0))).await.unwrap();
    }
    let deliveries = receive(&backend, 10).await;
    let [first, second] = &deliveries[..] else { panic!("{deliveries:?}") };
    let (gone, back) = (first.receipt.clone(), second.receipt.clone());
    backend.reader().settle(vec![Settlement::Delete(gone), Settlement::Postpone(back, at(0))]).await.unwrap();
    let again = receive(&backend, 10).await;
    assert_eq!((ids(&again), again[0].is_first), (vec![second.message.id], false));
    backend.reader().settle(vec![Settlement::Delete(again[0].receipt.clone())]).await.unwrap();
    let empty = timeout(Duration::from_millis(300), backend.reader().receive(10)).await;
    assert!(empty.is_err() || empty.is_ok_and(|received| received.unwrap().is_empty()));
}

#[expect(clippy::disallowed_methods, reason = "the queue has a clock of its own: 'later' is later than now")]
async fn a_postponed_push_comes_back_no_sooner_than_asked<B: Backend>() {
    let backend = B::fresh().await;
    backend.writer().send(message(1, at(0))).await.unwrap();
    let receipt = receive(&backend, 1).await[0].receipt.clone();
    let later = Utc::now() + TimeDelta::seconds(2);
    backend.reader().settle(vec![Settlement::Postpone(receipt, later)]).await.unwrap();
    assert_eq!(receive(&backend, 1).await.len(), 1);
    assert!(Utc::now() >= later);
}

async fn what_was_not_settled_comes_back_after_a_crash<B: Backend>() {
    let backend = B::fresh().await;
    for number in [1, 2, 3] {
        backend.writer().send(message(number, at(number.into()))).await.unwrap();
    }
    let deliveries = receive(&backend, 2).await;
    backend.reader().settle(vec![Settlement::Delete(deliveries[0].receipt.clone())]).await.unwrap();
    let backend = backend.after_a_restart().await;
    assert_eq!(ids(&receive(&backend, 10).await), [message(2, at(2)).id, message(3, at(3)).id]);
}

async fn pushes_sent_at_once_are_all_received_once<B: Backend>() {
    let backend = B::fresh().await;
    let send = async {
        let sent = join_all((0..200).map(|number| backend.writer().send(message(number, at(0))))).await;
        assert!(sent.into_iter().all(|sent| sent.is_ok()));
    };
    let receive_all = async {
        let mut received = Vec::new();
        while received.len() < 200 {
            received.extend(ids(&receive(&backend, 16).await));
        }
        received
    };
    let ((), received) = tokio::join!(send, receive_all);
    assert_eq!(received.iter().map(ToString::to_string).collect::<BTreeSet<_>>().len(), 200);
    assert_eq!(received.len(), 200);
}

on_each_backend!(
    a_push_is_received_as_it_was_sent_oldest_first,
    receiving_waits_for_a_push,
    a_settled_push_is_gone_and_a_postponed_one_comes_back,
    a_postponed_push_comes_back_no_sooner_than_asked,
    what_was_not_settled_comes_back_after_a_crash,
    pushes_sent_at_once_are_all_received_once,
);
