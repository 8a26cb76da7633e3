//! The mailboxes, on SQLite or DynamoDB.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use push::{
    Epoch, MailboxBounds, MessageId, RegistrationId,
    ports::{Kept, Mailbox, Page, Registrant, Trimmed, Unavailable, Waiting, Withdrawals},
};
use tokio_xmpp::jid::BareJid;

use crate::{
    bounds::Counts,
    calls::{Port, Shared, State},
};

pub(crate) type Key = (BareJid, MessageId);

/// The content of the mailboxes.
#[derive(Debug, Default)]
pub(crate) struct Mailboxes {
    pub(crate) waiting: BTreeMap<Key, Waiting>,
    /// The items that count the waiting pushes of each account, on DynamoDB.
    pub(crate) counts: BTreeMap<BareJid, Counts>,
    /// Pushes that were written to DynamoDB and are not counted yet: they may be beyond the bounds.
    pub(crate) unfinished: BTreeSet<Key>,
}

impl Mailboxes {
    pub(crate) fn holds(&self, account: &BareJid, id: MessageId) -> bool {
        self.waiting.contains_key(&(account.clone(), id))
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = MessageId> {
        self.waiting.keys().map(|(_, id)| *id)
    }

    pub(crate) fn of(&self, account: &BareJid) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter().filter(move |((owner, _), _)| owner == account).map(|(_, waiting)| waiting)
    }

    /// Returns the pushes that a kept push replaces, and those that the bounds drop for it.
    pub(crate) fn beyond(&self, waiting: &Waiting, bounds: MailboxBounds) -> Kept {
        let message = &waiting.message;
        let account = message.recipient.to_bare();
        let of_registration: Vec<&Waiting> =
            self.of(&account).filter(|one| one.message.registration == message.registration).collect();
        let mut replaced: Vec<MessageId> = of_registration
            .iter()
            .filter(|one| message.topic.is_some() && one.message.topic == message.topic)
            .map(|one| one.message.id)
            .collect();
        replaced.sort_by(|one, other| one.age().cmp(other.age()));
        replaced.pop();
        let counts = |one: &&Waiting| {
            one.message.expires_at > message.accepted_at && !replaced.contains(&one.message.id)
        };
        let mut line: Vec<MessageId> =
            of_registration.iter().copied().filter(counts).map(|one| one.message.id).collect();
        line.sort_by(|one, other| one.age().cmp(other.age()));
        line.truncate(line.len().saturating_sub(bounds.of_registration));
        let rest = self.of(&account).filter(counts).filter(|one| !line.contains(&one.message.id));
        let of_account = bounds
            .beyond_account(rest.map(|one| (one.message.registration, one.message.id)).collect::<Vec<_>>());
        line.extend(of_account);
        Kept { replaced, dropped: line }
    }
}

impl State {
    pub(crate) fn remove(&mut self, account: &BareJid, id: MessageId, shared: &Shared) -> Option<Waiting> {
        let key = (account.clone(), id);
        self.mailboxes.unfinished.remove(&key);
        let waiting = self.mailboxes.waiting.remove(&key)?;
        self.note_left(&waiting.message, shared);
        Some(waiting)
    }

    pub(crate) fn put(&mut self, waiting: Waiting, shared: &Shared) {
        let (account, id) = (waiting.message.recipient.to_bare(), waiting.message.id);
        self.mailboxes.waiting.insert((account, id), waiting);
        self.ledger.note_kept(id, shared.now());
    }

    /// Removes the pushes that a push in the mailbox replaces, and those beyond the bounds.
    pub(crate) fn make_room(&mut self, waiting: &Waiting, bounds: MailboxBounds, shared: &Shared) -> Kept {
        let account = waiting.message.recipient.to_bare();
        let kept = self.mailboxes.beyond(waiting, bounds);
        self.check_drops(&waiting.message, &kept, shared);
        self.ledger.dropped.extend(kept.dropped.iter().copied());
        let at = shared.now();
        for id in kept.replaced.iter().chain(&kept.dropped) {
            self.ledger.note_removed(*id, at);
            self.remove(&account, *id, shared);
        }
        kept
    }
}

/// A guard that notes, if it is dropped before the write ends, that the relay has given up the write. The relay may not
/// learn that the write was made.
struct Untold {
    shared: Arc<Shared>,
    id: Option<MessageId>,
}

impl Untold {
    fn end(mut self) {
        self.id = None;
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.lock().ledger.untold.insert(id);
        }
    }
}

impl Port {
    async fn keep_at_once(&self, waiting: Waiting, bounds: MailboxBounds) -> Result<Kept, Unavailable> {
        let account = waiting.message.recipient.to_bare();
        self.call_store(
            "keep",
            |_| vec![account],
            move |state, shared| {
                state.put(waiting.clone(), shared);
                let kept = state.make_room(&waiting, bounds, shared);
                state.check_bounds(&waiting.message.recipient.to_bare(), shared);
                kept
            },
        )
        .await
    }
}

impl Mailbox for Port {
    async fn keep(&self, waiting: Waiting, bounds: MailboxBounds) -> Result<Kept, Unavailable> {
        let untold = Untold { shared: Arc::clone(&self.shared), id: Some(waiting.message.id) };
        let kept = if self.shared.is_cloud() {
            self.keep_in_steps(waiting, bounds).await
        } else {
            self.keep_at_once(waiting, bounds).await
        };
        untold.end();
        kept
    }

    async fn waiting(
        &self,
        account: &BareJid,
        of: Option<&BTreeSet<RegistrationId>>,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<Waiting>, Unavailable> {
        let (owner, of) = (account.clone(), of.cloned());
        self.call_store(
            "waiting",
            |_| vec![account.clone()],
            move |state, _| {
                let behind = |one: &&Waiting| after.is_none_or(|after| one.message.id > after);
                let wanted =
                    |one: &&Waiting| of.as_ref().is_none_or(|of| of.contains(&one.message.registration));
                state.mailboxes.of(&owner).filter(behind).filter(wanted).take(max).cloned().collect()
            },
        )
        .await
    }

    async fn find(&self, account: &BareJid, message: MessageId) -> Result<Option<Waiting>, Unavailable> {
        let key = (account.clone(), message);
        self.call_store(
            "find_waiting",
            |_| vec![account.clone()],
            move |state, _| state.mailboxes.waiting.get(&key).cloned(),
        )
        .await
    }

    async fn remove(&self, messages: Vec<(BareJid, MessageId)>) -> Result<(), Unavailable> {
        let accounts: BTreeSet<BareJid> = messages.iter().map(|(account, _)| account.clone()).collect();
        self.call_store(
            "remove",
            |_| accounts.into_iter().collect(),
            move |state, shared| {
                for (account, id) in &messages {
                    state.remove(account, *id, shared);
                }
            },
        )
        .await
    }

    async fn note_asked(
        &self,
        account: &BareJid,
        message: MessageId,
        asked_at: DateTime<Utc>,
    ) -> Result<(), Unavailable> {
        let key = (account.clone(), message);
        self.call_store(
            "note_asked",
            |_| vec![account.clone()],
            move |state, _| {
                if let Some(waiting) = state.mailboxes.waiting.get_mut(&key) {
                    waiting.asked_at = Some(asked_at);
                }
            },
        )
        .await
    }

    async fn clear(
        &self,
        account: &BareJid,
        registration: RegistrationId,
        epoch: Epoch,
    ) -> Result<usize, Unavailable> {
        let owner = account.clone();
        self.call_store(
            "clear",
            |_| vec![account.clone()],
            move |state, shared| {
                let over =
                    |one: &&Waiting| one.message.registration == registration && one.message.epoch <= epoch;
                let over: Vec<MessageId> =
                    state.mailboxes.of(&owner).filter(over).map(|one| one.message.id).collect();
                over.iter().filter(|id| state.remove(&owner, **id, shared).is_some()).count()
            },
        )
        .await
    }

    async fn trim(&self, account: &BareJid, max: usize, now: DateTime<Utc>) -> Result<Trimmed, Unavailable> {
        self.call("trim", move |state, shared| {
            let living = state.mailboxes.of(account).filter(|one| one.message.expires_at > now);
            let living: Vec<_> = living.map(|one| (one.message.registration, one.message.id)).collect();
            let count = living.len();
            let dropped = MailboxBounds::of_account(max).beyond_account(living);
            state.ledger.dropped.extend(dropped.iter().copied());
            for id in &dropped {
                state.remove(account, *id, shared);
            }
            Trimmed { left: count - dropped.len(), dropped }
        })
        .await
    }

    async fn recipients(
        &self,
        after: Option<Registrant>,
        max: usize,
    ) -> Result<Page<(Registrant, usize)>, Unavailable> {
        self.call_store(
            "recipients",
            |_| Vec::new(),
            move |state, _| {
                let mut all: BTreeMap<Registrant, usize> = BTreeMap::new();
                for ((account, _), waiting) in &state.mailboxes.waiting {
                    *all.entry((account.clone(), waiting.message.registration)).or_default() += 1;
                }
                let behind =
                    all.into_iter().filter(|(one, _)| after.as_ref().is_none_or(|after| one > after));
                let found: Vec<(Registrant, usize)> = behind.take(max).collect();
                let next = found.last().filter(|_| found.len() >= max).map(|(one, _)| one.clone());
                (found, next)
            },
        )
        .await
    }
}

impl Withdrawals for Port {
    async fn withdraw(
        &self,
        account: &BareJid,
        message: MessageId,
        now: DateTime<Utc>,
    ) -> Result<bool, Unavailable> {
        self.call("withdraw", move |state, shared| {
            if state.mailboxes.holds(account, message) {
                let is_queued = state.entries.holds(message);
                state.ledger.note_withdrawn(message, is_queued, shared.now());
            }
            let waiting = state.remove(account, message, shared);
            waiting.is_some_and(|waiting| waiting.message.expires_at > now)
        })
        .await
    }
}
