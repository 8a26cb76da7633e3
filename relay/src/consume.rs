//! The relay's side of the queue: receives what there is room for, and makes durable what is decided.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use backon::{ExponentialBuilder, Retryable};
use chrono::{DateTime, Utc};
use futures::future::join_all;
use metrics::counter;
use push::{
    Epoch, MailboxBounds, MessageId, PushMessage, RegistrationId,
    ports::{
        Consistency, Delivery, Kept, Mailbox, QueueReader, Registrations, Revocation, Settlement,
        Unavailable, Waiting,
    },
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_xmpp::jid::{BareJid, FullJid};

use crate::{
    clock,
    deliver::RETRY_DELAY_MIN,
    lease::Fence,
    mailbox::{Postbox, count_over, waits_for},
    measures::{DELIVERED, DROPPED, KEPT, REGISTRATIONS_REVOKED, REPLACED, REVOKED},
    pending::{Held, Origin},
};

/// Most pushes that the relay holds from the queue: in line, in flight, or waiting to be settled.
pub(crate) const HELD_MAX: usize = 4096;
/// Most pushes in one receive, and settlements in one call.
const BATCH_MAX: usize = 256;

/// What was decided about a push, to be made durable.
#[derive(Debug)]
pub(crate) enum Fate<Receipt> {
    /// Delivered or expired: it is removed from where it is.
    Done(Held<Receipt>),
    /// It could not be delivered: it leaves the queue, and waits in the mailbox.
    Keep {
        push: Held<Receipt>,
        /// When it went out without an answer.
        asked_at: Option<DateTime<Utc>>,
        /// It came behind others, and was not sent yet.
        untried: bool,
    },
    /// It waits, and went out again without an answer.
    Asked { message: PushMessage, asked_at: DateTime<Utc> },
    /// It stays in the queue until its turn, at this moment.
    Postponed(Receipt, DateTime<Utc>),
    /// Its application is gone, as the answer to the push sent at `asked_at` said: the
    /// registration is revoked, and only then is the push removed.
    Revoke {
        push: Held<Receipt>,
        asked_at: DateTime<Utc>,
        /// Dropped when the fate is decided.
        undecided: Arc<()>,
    },
    /// An answer came after the push was given up, here or by another process: if it waits, it is removed.
    Late(BareJid, MessageId),
    /// The same, and its application is gone. The last is dropped when that is decided.
    LateRevoke(BareJid, MessageId, Arc<()>),
    /// The senders of a registration are over their rate until that moment.
    Throttle(RegistrationId, Epoch, DateTime<Utc>),
}

/// What the dispatcher is told of a push that waits in the mailbox.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Whom its registration names now.
    pub(crate) recipient: FullJid,
    pub(crate) message: MessageId,
    /// This recipient was not tried for it yet.
    pub(crate) untried: bool,
    pub(crate) kept: Kept,
}

/// Backs off from a store that does not answer: until it does.
pub(crate) fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_jitter()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(10))
        .without_max_times()
}

/// Receives while there is room, until `stop`.
pub(crate) async fn receive<Q: QueueReader>(
    queue: Q,
    room: Arc<Semaphore>,
    deliveries: mpsc::Sender<Delivery<Q::Receipt>>,
    stop: CancellationToken,
) {
    while let Some(max) = stop.run_until_cancelled(take_room(&room)).await {
        let receiving = async {
            let receive = || queue.receive(max);
            receive.retry(backoff()).notify(report).await
        };
        let Some(received) = stop.run_until_cancelled(receiving).await else { return };
        let received = received.unwrap_or_default();
        room.add_permits(max - received.len());
        // There is room for all of them, unless delivery has ended.
        let refused = received.into_iter().filter_map(|delivery| deliveries.try_send(delivery).err());
        let back = refused.map(|refused| Settlement::Postpone(refused.into_inner().receipt, clock::now()));
        let back: Vec<_> = back.collect();
        if !back.is_empty() {
            let _ = queue.settle(back).await.inspect_err(|error| report(error, Duration::ZERO));
            return;
        }
    }
}

/// Waits for room, and takes as much of it as one receive may fill.
async fn take_room(room: &Semaphore) -> usize {
    let Ok(first) = room.acquire().await else { return std::future::pending().await };
    first.forget();
    let more = room.available_permits().min(BATCH_MAX - 1);
    let more = room.try_acquire_many(more as u32).map_or(0, |permits| {
        let count = permits.num_permits();
        permits.forget();
        count
    });
    1 + more
}

/// What fates are made durable by.
pub(crate) struct Settler<R, Q, M> {
    pub(crate) queue: Q,
    pub(crate) postbox: Postbox<R, M>,
    /// Most pushes that wait of one registration.
    pub(crate) mailbox_bounds: MailboxBounds,
    pub(crate) room: Arc<Semaphore>,
    pub(crate) stored: mpsc::Sender<Stored>,
    /// Counts the registrations that were stored.
    pub(crate) registered: Arc<AtomicU64>,
    pub(crate) fence: Fence,
}

/// What is left to do for a push when its fate is decided.
enum Step<Receipt> {
    Settle(Settlement<Receipt>),
    Remove(BareJid, MessageId),
    Nothing,
}

impl<R: Registrations, Q: QueueReader, M: Mailbox> Settler<R, Q, M> {
    /// Makes fates durable in batches, until there are no more to come.
    pub(crate) async fn settle_all(self, mut fates: mpsc::Receiver<Fate<Q::Receipt>>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while fates.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let (kept, others) = by_registration(batch.drain(..));
            let kept = join_all(kept.into_iter().map(|fates| self.keep_all(fates))).await;
            // After them: an answer that came late may be to one of those.
            let others = join_all(others.into_iter().map(|fate| self.decide(fate))).await;
            let (mut settlements, mut removals) = (Vec::new(), Vec::new());
            for step in kept.into_iter().flatten().chain(others) {
                match step {
                    Step::Settle(settlement) => settlements.push(settlement),
                    Step::Remove(account, message) => removals.push((account, message)),
                    Step::Nothing => {}
                }
            }
            tokio::join!(self.settle(settlements), self.remove(removals));
        }
        // Last of all: until then, what is given back may be taken once more by a poll that is still under way.
        self.queue.close().await;
    }

    /// Retried until it succeeds: pushes stay with this process, which alone could settle them.
    async fn settle(&self, settlements: Vec<Settlement<Q::Receipt>>) {
        if !settlements.is_empty() {
            let settle = || self.queue.settle(settlements.clone());
            let settled = settle.retry(backoff()).notify(report).await;
            debug_assert!(settled.is_ok(), "retried without end");
            self.room.add_permits(settlements.len());
        }
    }

    /// What stays in a mailbox is delivered again.
    async fn remove(&self, removals: Vec<(BareJid, MessageId)>) {
        if !removals.is_empty() {
            self.insist(|| self.postbox.mailbox.remove(removals.clone())).await;
        }
    }

    /// Retries a change of a mailbox until it succeeds; without the lease, another relay must not wait for what is
    /// behind it. `None`: it has failed.
    async fn insist<T, F: Future<Output = Result<T, Unavailable>>>(
        &self,
        change: impl FnMut() -> F,
    ) -> Option<T> {
        let changed = change.retry(backoff()).when(|_| !self.fence.is_lost()).notify(report).await;
        debug_assert!(changed.is_ok() || self.fence.is_lost(), "retried without end");
        changed.ok()
    }

    /// Keeps pushes of one registration. Each replaces those of its topic before it, and the last counts all: a store
    /// need not see what is kept at the same moment.
    async fn keep_all(&self, mut fates: Vec<Fate<Q::Receipt>>) -> Vec<Step<Q::Receipt>> {
        let last = fates.pop();
        let kept = join_all(by_topic(fates).into_iter().map(|fates| self.decide_each(fates))).await;
        let last = self.decide_each(last.into_iter().collect()).await;
        kept.into_iter().flatten().chain(last).collect()
    }

    async fn decide_each(&self, fates: Vec<Fate<Q::Receipt>>) -> Vec<Step<Q::Receipt>> {
        let mut steps = Vec::with_capacity(fates.len());
        for fate in fates {
            steps.push(self.decide(fate).await);
        }
        steps
    }

    async fn decide(&self, fate: Fate<Q::Receipt>) -> Step<Q::Receipt> {
        match fate {
            Fate::Done(push) => done(push),
            Fate::Postponed(receipt, at) => Step::Settle(Settlement::Postpone(receipt, at)),
            Fate::Keep { push, asked_at, untried } => {
                let kept = self.keep(&push.message, asked_at, untried).await;
                self.after(push, kept)
            }
            Fate::Asked { message, asked_at } => {
                let account = message.recipient.to_bare();
                self.insist(|| self.postbox.mailbox.note_asked(&account, message.id, asked_at)).await;
                Step::Nothing
            }
            Fate::Revoke { push, asked_at, undecided } => {
                let revoked = self.revoke(&push.message, asked_at).await;
                drop(undecided);
                if matches!((&push.origin, &revoked), (Origin::Queue { .. }, Ok(Fated::Over))) {
                    counter!(REVOKED).increment(1);
                }
                if matches!((&push.origin, &revoked), (Origin::Mailbox, Ok(Fated::GoesOn) | Err(_))) {
                    self.tell_of(&push.message, push.message.recipient.clone(), true, Kept::default()).await;
                }
                self.after(push, revoked)
            }
            Fate::Late(account, message) => {
                let withdraw = || self.postbox.mailbox.withdraw(&account, message, clock::now());
                let waited = self.insist(withdraw).await.unwrap_or_default();
                counter!(DELIVERED).increment(waited.into());
                Step::Nothing
            }
            Fate::LateRevoke(account, message, _undecided) => {
                let revoked = async {
                    let waiting = self.postbox.mailbox.find(&account, message).await?;
                    match waiting {
                        Some(Waiting { message, asked_at: Some(asked_at) }) => {
                            self.revoke(&message, asked_at).await.map(drop)
                        }
                        _ => Ok(()),
                    }
                };
                // Should it fail, the push is delivered again, and refused again.
                let _ = revoked.await.inspect_err(|error| report(error, Duration::ZERO));
                Step::Nothing
            }
            Fate::Throttle(registration, epoch, until) => {
                let throttled = self.postbox.registrations.throttle(registration, epoch, until).await;
                // Should it fail, senders go on as before until the moment that it names.
                let _ = throttled.inspect_err(|error| report(error, Duration::ZERO));
                Step::Nothing
            }
        }
    }

    /// What is left to do for a push that is durably elsewhere, is not (`false`), or may not be.
    fn after(&self, push: Held<Q::Receipt>, outcome: Result<Fated, Unavailable>) -> Step<Q::Receipt> {
        match (outcome, push.origin) {
            (Ok(Fated::Over), Origin::Mailbox) => {
                Step::Remove(push.message.recipient.to_bare(), push.message.id)
            }
            (Ok(Fated::Over | Fated::Waits), Origin::Queue { receipt, .. }) => {
                Step::Settle(Settlement::Delete(receipt))
            }
            (Ok(Fated::Waits | Fated::GoesOn) | Err(_), Origin::Mailbox) => Step::Nothing,
            (Ok(Fated::GoesOn), Origin::Queue { receipt, .. }) => {
                Step::Settle(Settlement::Release(receipt, clock::now() + RETRY_DELAY_MIN))
            }
            (Err(error), Origin::Queue { receipt, .. }) => {
                report(&error, Duration::ZERO);
                Step::Settle(Settlement::Release(receipt, clock::now() + RETRY_DELAY_MIN))
            }
        }
    }

    /// Puts a push into its mailbox, unless it is over.
    async fn keep(
        &self,
        message: &PushMessage,
        asked_at: Option<DateTime<Utc>>,
        untried: bool,
    ) -> Result<Fated, Unavailable> {
        let registered = self.registered.load(Ordering::Acquire);
        let find = || self.postbox.registrations.find(message.registration, Consistency::Strong);
        let (row, now) = (find().await?, clock::now());
        let Some(row) = row.filter(|row| waits_for(row, message, now)) else {
            count_over(message, now);
            return Ok(Fated::Over);
        };
        let waiting = Waiting { message: message.clone(), asked_at };
        let kept = self.postbox.mailbox.keep(waiting, self.mailbox_bounds).await?;
        counter!(KEPT).increment(1);
        counter!(REPLACED).increment(kept.replaced.len() as u64);
        if !kept.dropped.is_empty() {
            counter!(DROPPED).increment(kept.dropped.len() as u64);
            tracing::warn!(
                registration = %message.registration,
                dropped = kept.dropped.len(),
                max = self.mailbox_bounds.of_registration,
                of_account = self.mailbox_bounds.of_account,
                "more pushes wait than may; the oldest were dropped"
            );
        }
        let mut recipient = row.target.recipient;
        // It may have moved to a JID whose mailbox was read before this was in it.
        if self.registered.load(Ordering::Acquire) != registered
            && let Ok(Some(row)) = find().await
        {
            recipient = row.target.recipient;
        }
        let untried = untried || recipient != message.recipient;
        self.tell_of(message, recipient, untried, kept).await;
        Ok(Fated::Waits)
    }

    /// Tells the dispatcher of a push that waits.
    async fn tell_of(&self, message: &PushMessage, recipient: FullJid, untried: bool, kept: Kept) {
        // The dispatcher is gone when the relay stops.
        let _ = self.stored.send(Stored { recipient, message: message.id, untried, kept }).await;
    }

    /// Ends the registration of a push and all that waits for it.
    async fn revoke(&self, message: &PushMessage, asked_at: DateTime<Utc>) -> Result<Fated, Unavailable> {
        let PushMessage { registration, epoch, ref recipient, .. } = *message;
        match self.postbox.registrations.revoke(registration, epoch, recipient, asked_at).await? {
            Revocation::GoesOn => return Ok(Fated::GoesOn),
            Revocation::OverBefore => {}
            Revocation::Revoked => {
                counter!(REGISTRATIONS_REVOKED).increment(1);
                tracing::info!(%registration, "an application is gone; its registration is revoked");
            }
        }
        let account = message.recipient.to_bare();
        let waited = self.postbox.mailbox.clear(&account, registration, epoch).await?;
        counter!(REVOKED).increment(waited as u64);
        Ok(Fated::Over)
    }
}

/// Parts the pushes that are kept, those of one registration together, from the other fates.
fn by_registration<Receipt>(
    fates: impl Iterator<Item = Fate<Receipt>>,
) -> (Vec<Vec<Fate<Receipt>>>, Vec<Fate<Receipt>>) {
    let (mut kept, mut others) = (HashMap::<_, Vec<_>>::new(), Vec::new());
    for fate in fates {
        match &fate {
            Fate::Keep { push, .. } => kept.entry(push.message.registration).or_default().push(fate),
            _ => others.push(fate),
        }
    }
    (kept.into_values().collect(), others)
}

/// Puts the pushes of each topic together, in their order; one without has nothing to replace.
fn by_topic<Receipt>(fates: Vec<Fate<Receipt>>) -> Vec<Vec<Fate<Receipt>>> {
    let (mut chains, mut of_topics) = (Vec::new(), HashMap::<_, Vec<_>>::new());
    for fate in fates {
        let topic = match &fate {
            Fate::Keep { push, .. } => push.message.topic.clone(),
            _ => None,
        };
        match topic {
            Some(topic) => of_topics.entry(topic).or_default().push(fate),
            None => chains.push(vec![fate]),
        }
    }
    chains.extend(of_topics.into_values());
    chains
}

/// Where a push stands after its fate was made durable.
enum Fated {
    /// In the mailbox.
    Waits,
    /// Its life is over.
    Over,
    /// It is to be delivered still.
    GoesOn,
}

fn done<Receipt>(push: Held<Receipt>) -> Step<Receipt> {
    match push.origin {
        Origin::Queue { receipt, .. } => Step::Settle(Settlement::Delete(receipt)),
        Origin::Mailbox => Step::Remove(push.message.recipient.to_bare(), push.message.id),
    }
}

pub(crate) fn report(error: &Unavailable, _: Duration) {
    tracing::error!(%error, "the queue or the store does not answer; trying again");
}
