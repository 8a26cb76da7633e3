//! The contract of the ports, over every backend: the promises of `push::ports`, and the state after a crash.

mod accounts;
mod bounds;
mod erasure;
mod lease_on_dynamodb;
mod living;
pub(crate) mod mailbox;
mod mailbox_on_dynamodb;
mod marker;
mod pages;
mod queue;
mod queue_on_sqs;
mod queue_on_sqs_settled;
mod queue_on_sqs_together;
mod registrations;
mod registrations_on_dynamodb;
mod revocation;
mod sqlite;
mod sweep;
mod throttle;
mod together;
mod units;
mod vapid;

use std::time::Duration;

use aws::{MailboxTable, Queue, QueueSender, RegistrationsTable};
use chrono::{DateTime, TimeDelta, Utc};
use e2e::{Emulator, SOON, folder};
use embedded::Database;
use push::message::Wishes;
use push::ports::{
    Delivery, Mailbox, MarkerWriter, OperatorStore, QueueReader, QueueWriter, Registrations, Renewal,
    Unavailable,
};
use push::{Body, MailboxBounds, MessageId, PushMessage, Registration, Target, Urgency, testing};
use tokio::time::timeout;

pub(crate) const WEEK: TimeDelta = TimeDelta::days(7);
/// Visibility timeout of the queue on AWS.
const VISIBILITY: Duration = Duration::from_secs(4);
/// Number of receives after which SQS moves an entry to the dead-letter queue.
const RECEIVES_MAX: u32 = 1000;

/// A backend that can be left as by a crash, and opened again.
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
        // The writer thread releases the file once it sees that nobody uses the database.
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
                super::$promise::<crate::ports::Aws>().await;
            })*
        }
    };
}
pub(crate) use on_each_backend;

/// Registers without a bound of the account, for tests about something else.
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

/// Returns bounds with this number of pushes for each registration, and without a bound for an account.
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
