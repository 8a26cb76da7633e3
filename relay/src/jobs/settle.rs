//! Makes fates durable.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use backon::Retryable;
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use metrics::counter;
use push::{
    Epoch, MessageId, PushMessage, RegistrationId,
    ports::{
        Consistency, Kept, Mailbox, QueueReader, RelayRegistrations, Revocation, Settlement, Unavailable,
        Waiting,
    },
    usage::{Counts, Drops, Tally},
};
use tokio_xmpp::jid::{BareJid, FullJid};

use self::spared::{Change, WITHIN, within};
use super::{Jobs, ONCE, count_over, waits_for};
use crate::{
    backoff::{backoff, report},
    delivery::{
        domains::Trim,
        fate::{Fate, Held, Note, Origin},
    },
    measures::{DROPPED, KEPT, REGISTRATIONS_REVOKED, REPLACED, REVOKED},
    mutants::{Mutant, mutant},
};

mod keeping;
pub(super) mod revoking;
pub(super) mod spared;

/// Delay before a push is received again if its fate could not be made durable.
const AGAIN_AFTER: TimeDelta = TimeDelta::seconds(5);
/// Most repetitions of a call for one account before its batch goes on without it.
const ATTEMPTS_MAX: usize = 3;

/// The pushes of a batch that leave the queue once all of them are in the mailbox.
type Queued = Arc<BTreeSet<MessageId>>;

/// The part of the work that is done for all fates of a batch together.
#[derive(Default)]
struct Rest {
    /// Pushes that leave the queue.
    delete: Vec<MessageId>,
    /// Pushes that stay in the queue, each until this moment.
    postpone: Vec<(MessageId, DateTime<Utc>)>,
    /// Changes of pushes in the mailbox.
    changes: Vec<(BareJid, MessageId, Change)>,
    notes: Vec<Note>,
    /// Counts of tenants that become durable with these writes.
    counts: Vec<(BareJid, MessageId, Counts)>,
}

impl Rest {
    fn of(note: Note) -> Self {
        Self { notes: vec![note], ..Self::default() }
    }

    fn deletion(message: MessageId) -> Self {
        Self { delete: vec![message], ..Self::default() }
    }

    /// Makes the counts of a push that leaves the queue or the mailbox.
    fn count(account: BareJid, id: MessageId, counts: Counts) -> Self {
        Self { counts: vec![(account, id, counts)], ..Self::default() }
    }

    /// Removes a push that is over from its origin.
    fn removal(push: &Held) -> Self {
        let id = push.message.id;
        match push.origin {
            Origin::Queue => Self::deletion(id),
            Origin::Mailbox => Self::change(push.message.recipient.to_bare(), id, Change::Remove),
        }
    }

    fn change(account: BareJid, id: MessageId, change: Change) -> Self {
        Self { changes: vec![(account, id, change)], ..Self::default() }
    }

    fn and(mut self, other: Self) -> Self {
        self.delete.extend(other.delete);
        self.postpone.extend(other.postpone);
        self.changes.extend(other.changes);
        self.notes.extend(other.notes);
        self.counts.extend(other.counts);
        self
    }
}

impl<R: RelayRegistrations, Q: QueueReader, M: Mailbox> Jobs<R, Q, M> {
    /// Takes the pushes that came into the mailbox after their batches were over.
    pub(crate) fn take_kept_late(&self) -> Vec<(Arc<PushMessage>, Kept)> {
        self.spared.take_late()
    }

    /// Makes a batch of fates durable. Returns what the core has to know of them.
    pub(super) async fn settle(&self, fates: Vec<Fate>) -> Vec<Note> {
        let (delivered, fates) = apart_from_delivered(fates);
        let counts = self.tally_all(&delivered.counts);
        // Deliveries are settled at once, because a queue may answer senders by that.
        let ((), notes) = tokio::join!(
            self.settle_in_queue(delivered.delete, Vec::new(), &counts),
            self.settle_others(fates)
        );
        notes
    }

    async fn settle_others(&self, fates: Vec<Fate>) -> Vec<Note> {
        let (kept, others) = keeping::by_registration(fates);
        let queued = kept.iter().flatten().filter_map(|fate| match fate {
            Fate::Keep { message, .. } => Some(message.id),
            _ => None,
        });
        let queued: &Queued = &Arc::new(queued.collect());
        let kept = join_all(kept.into_iter().map(|fates| self.keep_all(fates, queued))).await;
        // The other fates come after the pushes that are kept: a late answer may be to one of those.
        let others = join_all(others.into_iter().map(|fate| self.decide(fate, queued))).await;
        let rest = kept.into_iter().chain(others).fold(Rest::default(), Rest::and);
        self.spared.end_batch();
        let mut changes = BTreeMap::new();
        for (account, id, change) in rest.changes {
            spared::add(&mut changes, account, id, change);
        }
        let (of_the_queue, of_the_mailbox): (Vec<_>, Vec<_>) =
            rest.counts.into_iter().partition(|(.., counts)| leaves_queue(counts));
        let of_the_queue = self.tally_all(&of_the_queue);
        let of_each =
            of_the_mailbox.into_iter().map(|(account, id, counts)| (id, self.tally(&account, counts)));
        let of_each: BTreeMap<MessageId, Tally> = of_each.collect();
        tokio::join!(
            self.settle_in_queue(rest.delete, rest.postpone, &of_the_queue),
            self.spared.change(&self.mailbox, changes, &of_each, &self.fence),
        );
        of_each.values().for_each(|counts| self.usage.take_over(counts));
        rest.notes
    }

    /// Settles pushes in the queue. Failed calls are repeated until they succeed: this process alone could settle the
    /// pushes.
    async fn settle_in_queue(
        &self,
        delete: Vec<MessageId>,
        postpone: Vec<(MessageId, DateTime<Utc>)>,
        counts: &Tally,
    ) {
        let mut taken = Vec::new();
        let mut take = |id| {
            let receipts = self.receipts.take(id);
            taken.extend((!receipts.is_empty()).then_some(id));
            receipts
        };
        let mut settlements: Vec<_> =
            delete.into_iter().flat_map(&mut take).map(Settlement::Delete).collect();
        for (id, at) in postpone.into_iter().filter(|_| !mutant(Mutant::PostponedForgotten)) {
            settlements.extend(take(id).into_iter().map(|receipt| Settlement::Postpone(receipt, at)));
        }
        if !settlements.is_empty() {
            let settle = || self.queue.settle_counted(settlements.clone(), counts);
            let once = mutant(Mutant::SettlementNotRetried);
            let settled = settle.retry(backoff()).when(|_| !once).notify(report).await;
            debug_assert!(settled.is_ok() || once, "retried without end");
            self.receipts.note_settled(&taken);
        }
        self.usage.take_over(counts);
    }

    /// Repeats a call for one account a few times, within the time that a batch has. Returns `None` if the call has
    /// failed.
    async fn attempt<T, F: Future<Output = Result<T, Unavailable>>>(
        &self,
        account: &BareJid,
        call: impl FnMut() -> F,
    ) -> Option<T> {
        let call = call.retry(backoff().with_max_times(ATTEMPTS_MAX)).when(|_| !self.fence.is_lost());
        let made = self.spared.call(account, call.notify(report)).await;
        made.inspect_err(|error| report(error, ONCE)).ok()
    }

    async fn decide(&self, fate: Fate, queued: &Queued) -> Rest {
        match fate {
            Fate::Done(push) => Rest::removal(&push),
            Fate::Postpone(id, at) => Rest { postpone: vec![(id, at)], ..Rest::default() },
            Fate::Keep { message, asked_at, untried, .. } => {
                self.keep(message, asked_at, untried, queued).await
            }
            Fate::Asked { .. } if mutant(Mutant::AskedUnwritten) => Rest::default(),
            Fate::Asked { message, asked_at } => {
                Rest::change(message.recipient.to_bare(), message.id, Change::Asked(asked_at))
            }
            Fate::Revoke { push, recipient, asked_at } => self.revoke_for(push, &recipient, asked_at).await,
            Fate::Late(account, id) => self.settle_late(account, id).await,
            Fate::LateRevoke(recipient, message) => {
                let revoked = self.revoke_late(&recipient, message).await;
                // If this fails, the push is delivered again, and refused again.
                revoked.inspect_err(|error| report(error, ONCE)).unwrap_or_default()
            }
            Fate::Throttle(registration, epoch, until) => {
                let throttled = within(WITHIN, self.registrations.throttle(registration, epoch, until)).await;
                // If this fails, the next push over the rate asks for it again.
                match throttled.inspect_err(|error| report(error, ONCE)) {
                    Ok(()) => Rest::default(),
                    Err(_) => Rest::of(Note::NotThrottled(registration)),
                }
            }
            Fate::Follow { registration, epoch, from, to } => {
                self.follow(registration, epoch, from, to).await
            }
            Fate::Trim(trim) => self.trim(trim, queued).await,
            Fate::Count(account, id, counts) => Rest::count(account, id, counts),
            Fate::NoteSeen(account, seen) => {
                let noted = self.registrations.note_seen(&account, seen, self.clock.now());
                let noted = within(WITHIN, noted).await;
                match noted.inspect_err(|error| report(error, ONCE)) {
                    Ok(()) => {
                        tracing::debug!("the resources of an account that were seen lately are stored");
                        Rest::default()
                    }
                    Err(_) => Rest::of(Note::NotSeen(account)),
                }
            }
        }
    }

    async fn follow(
        &self,
        registration: RegistrationId,
        epoch: Epoch,
        from: Vec<FullJid>,
        to: FullJid,
    ) -> Rest {
        let mut moved = Ok(false);
        for from in &from {
            moved = within(WITHIN, self.registrations.follow(registration, epoch, from, &to)).await;
            self.count_move();
            if !matches!(moved, Ok(false)) {
                break;
            }
        }
        // If this fails, a result moves the registration a minute later.
        if moved.inspect_err(|error| report(error, ONCE)).unwrap_or(false) {
            tracing::debug!(%registration, "a registration follows its phone to another resource");
            return Rest::of(Note::Moved(to.to_bare(), registration));
        }
        let unread = || from.into_iter().next().map(|from| Note::Names(registration, epoch, from));
        self.whom_it_names(registration)
            .await
            .unwrap_or_else(|_| unread().map_or_else(Rest::default, Rest::of))
    }

    /// Tells the core which full JID a registration names: another one has registered, or was followed, in between.
    async fn whom_it_names(&self, registration: RegistrationId) -> Result<Rest, Unavailable> {
        let row = within(WITHIN, self.registrations.find(registration, Consistency::Strong)).await?;
        let names = |row: push::Registration| Note::Names(registration, row.epoch, row.target.recipient);
        Ok(row.map(names).map_or_else(Rest::default, Rest::of))
    }

    /// Settles a late result. The push is found before it is removed, because the answer to a removal may be lost. A
    /// push that is not found in time is removed, and not counted.
    async fn settle_late(&self, account: BareJid, id: MessageId) -> Rest {
        let found = self.attempt(&account, || self.mailbox.find(&account, id)).await;
        let removal = Rest::change(account.clone(), id, Change::Remove);
        let Some(found) = found else { return removal };
        let Some(Waiting { message, .. }) = found else { return Rest::default() };
        let (accepted_at, expired) = (message.accepted_at, message.is_expired(self.clock.read().least()));
        let (delivered, expired_now) = (u64::from(!expired), u64::from(expired));
        let counts = Counts { delivered, expired: expired_now, ..Counts::default() };
        let note = Note::Late { account: account.clone(), id, accepted_at, expired };
        removal.and(Rest::count(account, id, counts)).and(Rest::of(note))
    }

    /// Trims the mailbox of an account, because its domain has too much waiting.
    async fn trim(&self, trim: Trim, queued: &Queued) -> Rest {
        let Trim { account, max } = &trim;
        let trimmed = self.attempt(account, async || {
            let (drops, least) = (self.drops(account, queued), self.clock.read().least());
            Ok((self.mailbox.trim_counted(account, *max, least, &drops).await?, drops))
        });
        let Some((trimmed, drops)) = trimmed.await else { return Rest::default() };
        self.usage.take_over(&drops.counts);
        counter!(DROPPED).increment(trimmed.dropped.len() as u64);
        if !trimmed.dropped.is_empty() {
            let (domain, dropped) = (account.domain(), trimmed.dropped.len());
            tracing::warn!(%domain, dropped, "too much waits for a domain: the oldest of its fullest account were dropped");
        }
        let dropped = Counts { dropped: 1, ..Counts::default() };
        let of_the_queue = trimmed.dropped.iter().filter(|id| queued.contains(id));
        let counted = of_the_queue.map(|id| Rest::count(account.clone(), *id, dropped));
        counted.fold(Rest::default(), Rest::and).and(Rest::of(Note::Trimmed(trim, trimmed)))
    }

    /// Ends the registration of a push that was refused, and removes the push.
    async fn revoke_for(&self, push: Held, recipient: &FullJid, asked_at: DateTime<Utc>) -> Rest {
        match self.revoke(&push.message, recipient, asked_at).await {
            Ok(Some(waited)) => {
                let mut rest = Rest::removal(&push).and(ended(&push.message, waited));
                if push.origin == Origin::Queue {
                    counter!(REVOKED).increment(1);
                    let account = push.message.recipient.to_bare();
                    let counts = Counts::accepted(&push.message);
                    rest = rest.and(Rest::count(account, push.message.id, counts));
                }
                rest
            }
            Ok(None) => self.after_refusal(&push).await,
            Err(error) => {
                report(&error, ONCE);
                self.after_refusal(&push).await
            }
        }
    }

    /// Leaves a refused push to be delivered: its registration was renewed since, or names another full JID.
    async fn after_refusal(&self, push: &Held) -> Rest {
        let (id, registration) = (push.message.id, push.message.registration);
        let rest = match push.origin {
            Origin::Queue => Rest { postpone: vec![(id, self.clock.now() + AGAIN_AFTER)], ..Rest::default() },
            Origin::Mailbox => Rest::of(Note::Waits {
                message: Arc::clone(&push.message),
                recipient: push.message.recipient.clone(),
                untried: true,
                kept: None,
            }),
        };
        // This note comes last: the core goes by what the row names now.
        rest.and(self.whom_it_names(registration).await.unwrap_or_default())
    }

    async fn revoke_late(&self, recipient: &FullJid, message: MessageId) -> Result<Rest, Unavailable> {
        let account = recipient.to_bare();
        let waiting = self.spared.call(&account, self.mailbox.find(&account, message)).await?;
        let Some(Waiting { message, asked_at: Some(asked_at) }) = waiting else { return Ok(Rest::default()) };
        let waited = self.revoke(&message, recipient, asked_at).await?;
        Ok(waited.map_or_else(Rest::default, |waited| ended(&message, waited)))
    }

    /// Ends the registration of a push, and removes all that waits for it. Returns how many pushes waited; `None`: the
    /// registration goes on.
    async fn revoke(
        &self,
        message: &PushMessage,
        recipient: &FullJid,
        asked_at: DateTime<Utc>,
    ) -> Result<Option<usize>, Unavailable> {
        let PushMessage { registration, epoch, .. } = *message;
        let (registrations, mailbox, by) =
            (self.registrations.clone(), self.mailbox.clone(), recipient.clone());
        let revoke = async move {
            match registrations.revoke(registration, epoch, &by, asked_at).await? {
                Revocation::GoesOn => return Ok(None),
                Revocation::OverBefore => {}
                Revocation::Revoked => {
                    counter!(REGISTRATIONS_REVOKED).increment(1);
                    tracing::info!(%registration, "an application is gone; its registration is revoked");
                }
            }
            let waited = mailbox.clear(&by.to_bare(), registration, epoch).await?;
            counter!(REVOKED).increment(waited as u64);
            Ok(Some(waited))
        };
        self.revocations.revoke(registration, recipient, asked_at, revoke).await
    }
}

/// Makes the note that the registration of this push is over. `waited` pushes waited for it.
fn ended(message: &PushMessage, waited: usize) -> Rest {
    let PushMessage { registration, epoch, .. } = *message;
    Rest::of(Note::Ended { account: message.recipient.to_bare(), registration, epoch, waited })
}

/// Returns whether these are the counts of a push that leaves the queue. All other pushes have left it before.
const fn leaves_queue(counts: &Counts) -> bool {
    counts.accepted > 0
}

/// Separates the pushes that leave the queue without any other write, with their counts, from the other fates.
fn apart_from_delivered(fates: Vec<Fate>) -> (Rest, Vec<Fate>) {
    let (mut delivered, mut others) = (Rest::default(), Vec::new());
    for fate in fates {
        match fate {
            Fate::Done(Held { origin: Origin::Queue, message }) => delivered.delete.push(message.id),
            Fate::Count(account, id, counts) if leaves_queue(&counts) => {
                delivered.counts.push((account, id, counts));
            }
            _ => others.push(fate),
        }
    }
    (delivered, others)
}

#[cfg(test)]
mod tests;
