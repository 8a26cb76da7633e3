//! The jobs of the core. Each is one call of a port, or a batch of calls, with its retries.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use backon::Retryable;
use chrono::{DateTime, TimeDelta, Utc};
use metrics::counter;
use push::{
    Clock, MailboxBounds, MessageId, PushMessage, Registration, Secrets,
    ports::{Delivery, Mailbox, QueueReader, RelayRegistrations},
    usage::{self, Counts, Tally},
};
use tokio::sync::watch;
use tokio_xmpp::jid::BareJid;
use url::Url;

use crate::{
    backoff::{backoff, report},
    delivery::core::{Input, Job},
    lease::Fence,
    measures::{EXPIRED, REVOKED},
    mutants::{Mutant, mutant},
};

mod command;
#[cfg(test)]
pub(crate) mod memory;
mod read;
mod register;
mod settle;
mod sweep;

pub(crate) use settle::{revoking::Revocations, spared::Spared};

/// Most repetitions of a look at an account before the core goes on without it.
const LOOK_RETRIES_MAX: usize = 5;

/// Ports and limits that jobs work with.
pub(crate) struct Jobs<R, Q: QueueReader, M> {
    pub(crate) registrations: R,
    pub(crate) queue: Q,
    pub(crate) mailbox: M,
    pub(crate) secrets: watch::Receiver<Secrets>,
    /// The URL below which endpoints are named. It ends in a slash.
    pub(crate) endpoints: Url,
    pub(crate) lifetime: TimeDelta,
    pub(crate) mailbox_bounds: MailboxBounds,
    pub(crate) account_registrations_max: usize,
    pub(crate) usage: usage::Meter,
    pub(crate) clock: Clock,
    pub(crate) fence: Fence,
    pub(crate) receipts: Receipts<Q::Receipt>,
    /// Number of times that a registration was stored, or was to be moved.
    pub(crate) moves: AtomicU64,
    pub(crate) spared: Spared,
    pub(crate) revocations: Revocations,
}

impl<R: RelayRegistrations, Q: QueueReader, M: Mailbox> Jobs<R, Q, M> {
    /// Does one job. Returns its result as an input of the core.
    pub(crate) async fn run(&self, job: Job) -> Input {
        match job {
            Job::Receive(max) => Input::Received(self.receive(max).await),
            Job::Read(request) => Input::Page(self.read_page(&request).await),
            Job::Look(account) => self.look(account).await,
            Job::Settle(fates) => Input::Settled(self.settle(fates).await),
            Job::Register(requests) => Input::Registered(self.register_all(requests).await),
            Job::Sweep(after) => Input::Found(self.sweep(after).await),
            Job::Count(after) => Input::Counted(self.count_living(after).await),
        }
    }

    async fn receive(&self, max: usize) -> Vec<Arc<PushMessage>> {
        let receive = || self.queue.receive(max);
        let received = receive.retry(backoff()).notify(report).await.unwrap_or_default();
        self.receipts.note(received)
    }

    async fn look(&self, account: BareJid) -> Input {
        let look = || self.registrations.account(&account, self.clock.read().least());
        let found = look.retry(backoff().with_max_times(LOOK_RETRIES_MAX)).notify(report).await.ok();
        Input::Looked(account, found)
    }

    /// Adds up the counts of tenants that become durable in one step.
    fn tally_all(&self, counts: &[(BareJid, MessageId, Counts)]) -> Tally {
        let tally = Tally::default();
        for (account, _, counts) in counts {
            self.usage.count(account.domain().as_str(), *counts, self.clock.now(), &tally);
        }
        tally
    }

    /// Makes the tally of one account's counts.
    fn tally(&self, account: &BareJid, counts: Counts) -> Tally {
        let tally = Tally::default();
        self.usage.count(account.domain().as_str(), counts, self.clock.now(), &tally);
        tally
    }

    fn count_move(&self) {
        self.moves.fetch_add(1, Ordering::Release);
    }

    fn moves(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }
}

/// The queue's receipts of the pushes that were received. A push that comes twice has two.
pub(crate) struct Receipts<Receipt>(Mutex<Received<Receipt>>);

struct Received<Receipt> {
    held: BTreeMap<MessageId, Vec<Receipt>>,
    /// Pushes whose settlements are under way.
    settling: BTreeSet<MessageId>,
}

impl<Receipt> Default for Receipts<Receipt> {
    fn default() -> Self {
        Self(Mutex::new(Received { held: BTreeMap::new(), settling: BTreeSet::new() }))
    }
}

impl<Receipt> Receipts<Receipt> {
    fn note(&self, received: Vec<Delivery<Receipt>>) -> Vec<Arc<PushMessage>> {
        let held = &mut self.lock().held;
        let note = |delivery: Delivery<Receipt>| {
            held.entry(delivery.message.id).or_default().push(delivery.receipt);
            delivery.message
        };
        received.into_iter().map(note).collect()
    }

    /// Takes the receipts of a push that is settled. [`Receipts::note_settled`] has to follow.
    fn take(&self, id: MessageId) -> Vec<Receipt> {
        let mut received = self.lock();
        let mut receipts = received.held.remove(&id).unwrap_or_default();
        if mutant(Mutant::SecondReceiptForgotten) {
            receipts.truncate(1);
        }
        if !receipts.is_empty() {
            received.settling.insert(id);
        }
        receipts
    }

    /// Notes that the queue has taken the settlements of these pushes.
    fn note_settled(&self, ids: &[MessageId]) {
        let mut received = self.lock();
        for id in ids {
            received.settling.remove(id);
        }
    }

    /// Returns whether the queue has a push that was received: a process that came after this one would find it there.
    fn has(&self, id: MessageId) -> bool {
        let received = self.lock();
        received.held.contains_key(&id) || received.settling.contains(&id)
    }

    /// Locks the receipts. A poisoned lock means that a panic was reported elsewhere; the maps are whole after every
    /// step.
    fn lock(&self) -> MutexGuard<'_, Received<Receipt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a push that ends undelivered, as expired or as revoked.
fn count_over(message: &PushMessage, now: DateTime<Utc>) {
    counter!(if message.is_expired(now) { EXPIRED } else { REVOKED }).increment(1);
}

/// Returns whether a push may still be delivered under this row.
fn waits_for(row: &Registration, message: &PushMessage, now: DateTime<Utc>) -> bool {
    is_of_life(row, message, now) && !message.is_expired(now)
}

/// Returns whether the life of the registration that a push is for goes on.
fn is_of_life(row: &Registration, message: &PushMessage, now: DateTime<Utc>) -> bool {
    row.epoch == message.epoch && row.lives(now)
}

/// Delay to report for a call that is not repeated.
const ONCE: Duration = Duration::ZERO;

#[cfg(test)]
mod tests;
