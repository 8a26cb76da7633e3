//! The mailboxes.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use push::{
    Epoch, MailboxBounds, MessageId, RegistrationId,
    ports::{Kept, Mailbox, Page, Registrant, Trimmed, Unavailable, Waiting, Withdrawals},
};
use tokio_xmpp::jid::BareJid;

use crate::calls::{Port, Shared, State};

type Key = (BareJid, MessageId);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Mailboxes(BTreeMap<Key, Waiting>);

impl Mailboxes {
    pub(crate) fn holds(&self, account: &BareJid, id: MessageId) -> bool {
        self.0.contains_key(&(account.clone(), id))
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = MessageId> {
        self.0.keys().map(|(_, id)| *id)
    }

    fn of(&self, account: &BareJid) -> impl Iterator<Item = &Waiting> {
        self.0.iter().filter(move |((owner, _), _)| owner == account).map(|(_, waiting)| waiting)
    }

    /// Pushes that a kept push replaces, or that the bounds drop for it.
    fn beyond(&self, waiting: &Waiting, bounds: MailboxBounds) -> Kept {
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
    fn remove(&mut self, account: &BareJid, id: MessageId, shared: &Shared) -> Option<Waiting> {
        let waiting = self.mailboxes.0.remove(&(account.clone(), id))?;
        self.note_left(&waiting.message, shared);
        Some(waiting)
    }

    fn keep(&mut self, waiting: Waiting, bounds: MailboxBounds, shared: &Shared) -> Kept {
        let account = waiting.message.recipient.to_bare();
        self.mailboxes.0.insert((account.clone(), waiting.message.id), waiting.clone());
        let kept = self.mailboxes.beyond(&waiting, bounds);
        self.ledger.dropped.extend(kept.dropped.iter().copied());
        let at = shared.now();
        self.ledger.note_kept(waiting.message.id, at);
        for id in kept.replaced.iter().chain(&kept.dropped) {
            self.ledger.note_removed(*id, at);
            self.remove(&account, *id, shared);
        }
        kept
    }
}

impl Mailbox for Port {
    async fn keep(&self, waiting: Waiting, bounds: MailboxBounds) -> Result<Kept, Unavailable> {
        self.call("keep", move |state, shared| state.keep(waiting, bounds, shared)).await
    }

    async fn waiting(
        &self,
        account: &BareJid,
        of: Option<&BTreeSet<RegistrationId>>,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<Waiting>, Unavailable> {
        self.call("waiting", move |state, _| {
            let behind = |one: &&Waiting| after.is_none_or(|after| one.message.id > after);
            let wanted = |one: &&Waiting| of.is_none_or(|of| of.contains(&one.message.registration));
            state.mailboxes.of(account).filter(behind).filter(wanted).take(max).cloned().collect()
        })
        .await
    }

    async fn find(&self, account: &BareJid, message: MessageId) -> Result<Option<Waiting>, Unavailable> {
        self.call("find_waiting", move |state, _| state.mailboxes.0.get(&(account.clone(), message)).cloned())
            .await
    }

    async fn remove(&self, messages: Vec<(BareJid, MessageId)>) -> Result<(), Unavailable> {
        self.call("remove", move |state, shared| {
            for (account, id) in &messages {
                state.remove(account, *id, shared);
            }
        })
        .await
    }

    async fn note_asked(
        &self,
        account: &BareJid,
        message: MessageId,
        asked_at: DateTime<Utc>,
    ) -> Result<(), Unavailable> {
        self.call("note_asked", move |state, _| {
            if let Some(waiting) = state.mailboxes.0.get_mut(&(account.clone(), message)) {
                waiting.asked_at = Some(asked_at);
            }
        })
        .await
    }

    async fn clear(
        &self,
        account: &BareJid,
        registration: RegistrationId,
        epoch: Epoch,
    ) -> Result<usize, Unavailable> {
        self.call("clear", move |state, shared| {
            let over =
                |one: &&Waiting| one.message.registration == registration && one.message.epoch <= epoch;
            let over: Vec<MessageId> =
                state.mailboxes.of(account).filter(over).map(|one| one.message.id).collect();
            over.iter().filter(|id| state.remove(account, **id, shared).is_some()).count()
        })
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
        self.call("recipients", move |state, _| {
            let mut all: BTreeMap<Registrant, usize> = BTreeMap::new();
            for ((account, _), waiting) in &state.mailboxes.0 {
                *all.entry((account.clone(), waiting.message.registration)).or_default() += 1;
            }
            let behind = all.into_iter().filter(|(one, _)| after.as_ref().is_none_or(|after| one > after));
            let found: Vec<(Registrant, usize)> = behind.take(max).collect();
            let next = found.last().filter(|_| found.len() >= max).map(|(one, _)| one.clone());
            (found, next)
        })
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
