//! One account (bare JID): its full JIDs, and which of them gets the pushes of which registration.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ptr,
    time::Duration,
};

use chrono::{DateTime, Utc};
use push::{
    Epoch, MessageId, Registration, RegistrationId,
    ports::{self, SEEN_MAX, Seen},
};
use tokio::time::Instant;
use tokio_xmpp::jid::FullJid;

use super::{Now, phone::Phone, routes::Routes};

/// Idle full JIDs that an account remembers.
const PHONES_MAX: usize = 32;
/// Registrations that an account remembers; the store knows them all.
const NAMED_MAX: usize = 1024;
/// Cues of an account that are taken at once, and one more each second.
const CUES_BURST: f64 = 20.0;
/// The least time between two writes of the full JIDs seen lately.
const SEEN_INTERVAL: Duration = Duration::from_secs(60);
/// The least time between two moves of one registration.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(60);

/// The store's answer about an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Look {
    #[default]
    Unknown,
    Asked,
    Known,
}

/// The life of a registration, as far as delivery knows it.
#[derive(Debug, Clone)]
struct Named {
    recipient: FullJid,
    epoch: Epoch,
    followed_at: Option<Instant>,
    /// The last renewal whose answer has come.
    renewed_at: Option<DateTime<Utc>>,
    /// Whom the row may name, by a move that seemed to fail: its write may have come later.
    perhaps: Option<FullJid>,
}

/// Cues that may be taken: a token bucket.
#[derive(Debug, Default)]
struct Cues {
    spent: f64,
    at: Option<Instant>,
}

/// The news of who was seen that the store is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SeenNews {
    /// The store knows, or has no registration to know it for.
    None,
    /// It was told less than a minute ago.
    Later,
    Write(Vec<Seen>),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) phones: BTreeMap<FullJid, Phone>,
    named: BTreeMap<RegistrationId, Named>,
    pub(crate) look: Look,
    /// A page of its mailbox is on its way.
    pub(crate) page_asked: bool,
    /// Full JIDs whose mailboxes are being read.
    pub(crate) readings: usize,
    /// Those that wait for a page or a look that is on its way.
    pub(crate) blocked: VecDeque<FullJid>,
    pub(crate) in_flight: usize,
    /// Pushes that wait and went out unanswered, while that is being written; `true`: it is written, and a page that
    /// was read before is on its way.
    asked: BTreeMap<MessageId, bool>,
    /// Pushes that have left the mailbox since the page was read that is on its way.
    gone: BTreeSet<MessageId>,
    cues: Cues,
    stored_seen: Vec<FullJid>,
    seen_noted_at: Option<Instant>,
}

impl Account {
    pub(crate) fn phone(&mut self, jid: &FullJid) -> &mut Phone {
        if !self.phones.contains_key(jid) {
            self.forget_phones();
            self.phones.insert(jid.clone(), Phone::default());
        }
        self.phones.get_mut(jid).expect("it was just inserted")
    }

    /// Keeps the number of idle full JIDs bounded; those that were never seen, or seen longest ago, go first.
    fn forget_phones(&mut self) {
        if self.phones.len() < PHONES_MAX {
            return;
        }
        let idle = self.phones.iter().filter(|(_, phone)| phone.is_idle());
        let last = idle.min_by_key(|(_, phone)| (!phone.has_ended(), phone.seen_at()));
        if let Some(last) = last.map(|(jid, _)| jid.clone()) {
            self.phones.remove(&last);
        }
    }

    /// It is being written that a push which waits went out.
    pub(crate) fn note_asked(&mut self, id: MessageId) {
        self.asked.insert(id, false);
    }

    /// It is written: whatever is read from now on tells of it.
    pub(crate) fn note_asked_written(&mut self, id: MessageId) {
        if self.page_asked {
            self.asked.insert(id, true);
        } else {
            self.asked.remove(&id);
        }
    }

    /// Returns whether a push went out lately, though a page that was read does not tell.
    pub(crate) fn was_asked(&self, id: MessageId) -> bool {
        self.asked.contains_key(&id)
    }

    /// Notes that a push has left the mailbox.
    pub(crate) fn note_gone(&mut self, id: MessageId) {
        if self.page_asked {
            self.gone.insert(id);
        }
    }

    /// Returns whether a push has left the mailbox, though a page that was read has it.
    pub(crate) fn is_gone(&self, id: MessageId) -> bool {
        self.gone.contains(&id)
    }

    /// The page that was read before has come, and was looked at.
    pub(crate) fn forget_page(&mut self) {
        self.asked.retain(|_, written| !*written);
        self.gone.clear();
    }

    /// The full JID that a registration names, as far as is known.
    pub(crate) fn named(&self, registration: RegistrationId) -> Option<&FullJid> {
        self.named.get(&registration).map(|named| &named.recipient)
    }

    pub(crate) fn epoch(&self, registration: RegistrationId) -> Option<Epoch> {
        self.named.get(&registration).map(|named| named.epoch)
    }

    /// Whom all registrations name.
    pub(crate) fn all_named(&self) -> impl Iterator<Item = (RegistrationId, &FullJid)> {
        self.named.iter().map(|(id, named)| (*id, &named.recipient))
    }

    /// Returns whether a registration names it.
    pub(crate) fn names(&self, jid: &FullJid) -> bool {
        self.names_beyond(jid, &BTreeSet::new())
    }

    /// Returns whether a registration names it that is not among these.
    pub(crate) fn names_beyond(&self, jid: &FullJid, these: &BTreeSet<RegistrationId>) -> bool {
        self.all_named().any(|(id, named)| named == jid && !these.contains(&id))
    }

    /// Notes whom a registration names; whom it named before.
    pub(crate) fn note_recipient(
        &mut self,
        registration: RegistrationId,
        epoch: Epoch,
        recipient: FullJid,
    ) -> Option<FullJid> {
        if self.named.len() >= NAMED_MAX && !self.named.contains_key(&registration) {
            return None;
        }
        let before = self.named.remove(&registration);
        let mut named = Named { recipient, epoch, followed_at: None, renewed_at: None, perhaps: None };
        if let Some(before) = &before {
            let undone = before.followed_at.is_some() && before.recipient != named.recipient;
            let perhaps = if undone { Some(&before.recipient) } else { before.perhaps.as_ref() };
            named.perhaps = perhaps.cloned();
            (named.followed_at, named.renewed_at) = (before.followed_at, before.renewed_at);
        }
        self.named.insert(registration, named);
        before.map(|before| before.recipient)
    }

    /// Notes whom a registration names since a renewal; returns whom it named before. A renewal after which a later one
    /// was answered changes nothing: the store has the later one.
    pub(crate) fn note_renewal(&mut self, row: &Registration, now: Now) -> Option<FullJid> {
        let id = row.target.registration_id();
        let known = self.named.get(&id).filter(|named| named.epoch >= row.epoch);
        // A clock that went back makes no renewal an earlier one.
        let later =
            known.and_then(|named| named.renewed_at).filter(|at| *at > row.renewed_at && *at <= now.wall);
        if later.is_some() {
            return None;
        }
        let before = self.note_recipient(id, row.epoch, row.target.recipient.clone());
        if let Some(named) = self.named.get_mut(&id) {
            named.renewed_at = Some(row.renewed_at);
        }
        before
    }

    /// Lives of a registration up to this one are over; a later one may have begun.
    pub(crate) fn forget_registration(&mut self, registration: RegistrationId, epoch: Epoch) {
        if self.epoch(registration).is_some_and(|known| known <= epoch) {
            self.named.remove(&registration);
        }
    }

    /// Takes what the store knows; what this process has seen since is newer.
    pub(crate) fn recall(&mut self, stored: ports::Account) {
        for row in stored.registrations {
            let id = row.target.registration_id();
            if !self.named.contains_key(&id) {
                self.note_recipient(id, row.epoch, row.target.recipient);
            }
        }
        self.stored_seen = stored.seen.iter().map(|seen| seen.jid.clone()).collect();
        for seen in stored.seen {
            self.phone(&seen.jid).recall(seen.seen_at, seen.ended);
        }
        self.look = Look::Known;
    }

    /// Where a push goes: to the full JID that its registration names, unless something speaks against it and
    /// another is there: the one seen last that has not refused the registration. For many of them at once: [`Routes`].
    pub(crate) fn route<'a>(
        &'a self,
        registration: RegistrationId,
        named: &'a FullJid,
        now: Now,
    ) -> &'a FullJid {
        let Some(phone) = self.phones.get(named).filter(|phone| phone.is_to_be_replaced(now)) else {
            return named;
        };
        // The cheap questions come first: an account may have full JIDs by the thousand.
        let others = self.phones.iter().filter(|(_, other)| {
            other.may_replace(phone)
                && other.takes_pushes(now)
                && !other.is_barred(registration, now)
                && !ptr::eq(*other, phone)
        });
        others.max_by_key(|(_, other)| other.seen_at()).map_or(named, |(jid, _)| jid)
    }

    /// Where pushes go now.
    pub(crate) fn routes(&self, now: Now) -> Routes<'_> {
        Routes::new(&self.phones, now)
    }

    /// The registrations whose pushes go to this full JID now.
    pub(crate) fn routed_to(&self, reader: &FullJid, now: Now) -> BTreeSet<RegistrationId> {
        let routes = self.routes(now);
        let to_reader = self.all_named().filter(|(id, named)| routes.route(*id, named) == reader);
        to_reader.map(|(id, _)| id).collect()
    }

    /// Notes that a registration follows its phone to another full JID; whom it named, unless it moved lately.
    pub(crate) fn follow(&mut self, registration: RegistrationId, to: &FullJid, now: Now) -> Option<FullJid> {
        let named = self.named.get_mut(&registration)?;
        if named.followed_at.is_some_and(|at| now.monotonic.duration_since(at) < FOLLOW_INTERVAL) {
            return None;
        }
        let perhaps = named.perhaps.take().filter(|perhaps| perhaps != to);
        if named.recipient == *to {
            return perhaps;
        }
        named.followed_at = Some(now.monotonic);
        Some(std::mem::replace(&mut named.recipient, to.clone()))
    }

    /// Takes a cue if one may be taken now; returns whether it did.
    pub(crate) fn take_cue(&mut self, now: Now) -> bool {
        let passed = self.cues.at.map_or(Duration::ZERO, |at| now.monotonic.duration_since(at));
        let spent = (self.cues.spent - passed.as_secs_f64()).max(0.0);
        let taken = spent + 1.0 <= CUES_BURST;
        self.cues = Cues { spent: if taken { spent + 1.0 } else { spent }, at: Some(now.monotonic) };
        taken
    }

    /// The full JIDs seen lately, if they are to be written.
    pub(crate) fn take_seen(&mut self, now: Now) -> SeenNews {
        if self.seen_noted_at.is_some_and(|at| now.monotonic.duration_since(at) < SEEN_INTERVAL) {
            return SeenNews::Later;
        }
        let seen = self.seen();
        let jids: Vec<FullJid> = seen.iter().map(|seen| seen.jid.clone()).collect();
        if jids == self.stored_seen || self.named.is_empty() {
            return SeenNews::None;
        }
        self.stored_seen = jids;
        self.seen_noted_at = Some(now.monotonic);
        SeenNews::Write(seen)
    }

    /// Notes that the store does not have what it was told of them.
    pub(crate) fn forget_stored_seen(&mut self) {
        self.stored_seen.clear();
    }

    /// Latest first; those whose session has ended last.
    fn seen(&self) -> Vec<Seen> {
        let seen = self.phones.iter().filter_map(|(jid, phone)| {
            Some(Seen { jid: jid.clone(), seen_at: phone.seen_at()?, ended: phone.has_ended() })
        });
        let mut seen: Vec<Seen> = seen.collect();
        seen.sort_by(|one, other| (one.ended, other.seen_at).cmp(&(other.ended, one.seen_at)));
        seen.truncate(SEEN_MAX);
        seen
    }

    /// Nothing is held or under way for it.
    pub(crate) fn is_idle(&self) -> bool {
        self.look != Look::Asked
            && !self.page_asked
            && self.blocked.is_empty()
            && self.in_flight == 0
            && self.asked.is_empty()
            && self.phones.values().all(Phone::is_idle)
    }
}

#[cfg(test)]
mod tests;
