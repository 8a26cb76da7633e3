//! The contract of the ports, over every backend: what `push::ports` promises, and what a crash leaves.

use std::collections::BTreeSet;
use std::time::Duration;

use aws::{MailboxTable, Queue, QueueSender, RegistrationsTable};
use chrono::{DateTime, TimeDelta, Utc};
use e2e::{Emulator, SOON, folder};
use embedded::Database;
use futures::future::join_all;
use push::message::Wishes;
use push::ports::{
    Consistency::Strong,
    Delivery, Mailbox, MarkerWriter, OperatorStore, QueueReader, QueueWriter, Registrations,
    Renewal::{self, Always, WhereNeeded},
    Settlement, Unavailable,
};
use push::{Body, Epoch, MailboxBounds, MessageId, PushMessage, Registration, Target, Urgency, testing};
use tokio::time::timeout;

pub(crate) const WEEK: TimeDelta = TimeDelta::days(7);
/// How long the queue on AWS hides what was received, and how often it gives it out before it is worn.
const VISIBILITY: Duration = Duration::from_secs(4);
const RECEIVES_MAX: u32 = 1000;

/// A backend, and a way to leave it as a crash would and come back.
pub(crate) trait Backend: Sized {
    type Store: OperatorStore + MarkerWriter;
    type Writer: QueueWriter;
    type Reader: QueueReader;
    type Mailbox: Mailbox;

    async fn fresh() -> Self;
    async fn after_a_restart(self) -> Self;
    fn store(&self) -> &Self::Store;
    fn writer(&self) -> &Self::Writer;
    fn reader(&self) -> &Self::Reader;
    fn mailbox(&self) -> &Self::Mailbox;
}

pub(crate) type Receipt<B> = <<B as Backend>::Reader as QueueReader>::Receipt;

impl Backend for Database {
    type Store = Self;
    type Writer = Self;
    type Reader = Self;
    type Mailbox = Self;

    async fn fresh() -> Self {
        Database::open(&folder("contract").join("upwire.db")).unwrap()
    }

    async fn after_a_restart(self) -> Self {
        let path = self.path().to_owned();
        drop(self);
        // The writer thread gives up the file when it has seen that nobody is left.
        e2e::eventually_some(SOON, "the file is free", async || Database::open(&path).ok()).await
    }

    fn store(&self) -> &Self {
        self
    }

    fn writer(&self) -> &Self {
        self
    }

    fn reader(&self) -> &Self {
        self
    }

    fn mailbox(&self) -> &Self {
        self
    }
}

/// Two tables and a queue with its dead-letter queue, fresh on the emulator.
pub(crate) struct Aws {
    table: RegistrationsTable,
    mailbox: MailboxTable,
    sender: QueueSender,
    queue: Queue,
    url: String,
}

impl Aws {
    async fn open(table: RegistrationsTable, mailbox: MailboxTable, url: String) -> Self {
        let config = Emulator::shared().await.config();
        let queue = Queue::open(&config, &url).await.unwrap();
        Self { table, mailbox, sender: QueueSender::new(&config, &url), queue, url }
    }
}

impl Backend for Aws {
    type Store = RegistrationsTable;
    type Writer = QueueSender;
    type Reader = Queue;
    type Mailbox = MailboxTable;

    async fn fresh() -> Self {
        let emulator = Emulator::shared().await;
        let table = RegistrationsTable::new(&emulator.config(), &emulator.table().await);
        table.check().await.unwrap();
        let mailbox = MailboxTable::new(&emulator.config(), &emulator.mailbox_table().await);
        mailbox.check().await.unwrap();
        Self::open(table, mailbox, emulator.queue(VISIBILITY, RECEIVES_MAX).await.url).await
    }

    async fn after_a_restart(self) -> Self {
        let Self { table, mailbox, queue, url, .. } = self;
        drop(queue);
        Self::open(table, mailbox, url).await
    }

    fn store(&self) -> &RegistrationsTable {
        &self.table
    }

    fn writer(&self) -> &QueueSender {
        &self.sender
    }

    fn reader(&self) -> &Queue {
        &self.queue
    }

    fn mailbox(&self) -> &MailboxTable {
        &self.mailbox
    }
}

/// Makes two tests of each promise, an `async fn<B: Backend>()`: on the SQLite file and on the emulated AWS.
macro_rules! on_each_backend {
    ($($promise:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise::<embedded::Database>().await;
            })*
        }
        mod cloud {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise::<crate::contract::Aws>().await;
            })*
        }
    };
}
pub(crate) use on_each_backend;

/// Registers for tests that are about something else than the bound of an account.
pub(crate) trait Register: Registrations {
    fn register_one(
        &self,
        target: Target,
        now: DateTime<Utc>,
        lifetime: TimeDelta,
        renewal: Renewal,
    ) -> impl Future<Output = Result<Registration, Unavailable>> + Send {
        async move {
            let registered = self.register(target, now, lifetime, renewal, usize::MAX).await?;
            Ok(registered.stored().expect("it has no bound"))
        }
    }
}

impl<R: Registrations> Register for R {}

/// Keeps so many of each registration, and of each account as many as there are.
pub(crate) fn at_most(of_registration: usize) -> MailboxBounds {
    MailboxBounds { of_registration, of_account: usize::MAX }
}

pub(crate) fn target(user: &str, resource: &str) -> Target {
    testing::target(&format!("{user}@example.com/{resource}"))
}

pub(crate) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
}

pub(crate) fn message(number: u8, accepted_at: DateTime<Utc>) -> PushMessage {
    let registration = Registration::renew(None, target("juliet", "phone"), accepted_at, WEEK);
    let topic = push::Topic::parse("topic");
    let wishes = Wishes { urgency: Urgency::High, topic, ..testing::wishes(60) };
    let chance = [number; MessageId::CHANCE_BYTES];
    PushMessage::new(chance, &registration, wishes, Body::from_bytes(&[number]), accepted_at)
}

pub(crate) async fn receive<B: Backend>(backend: &B, max: usize) -> Vec<Delivery<Receipt<B>>> {
    let received = async {
        loop {
            let received = backend.reader().receive(max).await.unwrap();
            if !received.is_empty() {
                return received;
            }
        }
    };
    timeout(SOON, received).await.expect("a push is due")
}

fn ids<R>(deliveries: &[Delivery<R>]) -> Vec<MessageId> {
    deliveries.iter().map(|delivery| delivery.message.id).collect()
}

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
    a_registration_is_found_as_it_was_stored,
    a_renewal_keeps_the_epoch_and_a_lapse_does_not,
    registrations_at_once_agree,
    registrations_at_once_after_a_lapse_agree,
    a_renewal_that_changes_little_is_not_written,
    a_push_is_received_as_it_was_sent_oldest_first,
    receiving_waits_for_a_push,
    a_settled_push_is_gone_and_a_postponed_one_comes_back,
    a_postponed_push_comes_back_no_sooner_than_asked,
    what_was_not_settled_comes_back_after_a_crash,
    pushes_sent_at_once_are_all_received_once,
);
