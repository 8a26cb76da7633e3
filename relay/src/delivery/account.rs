//! One account (bare JID): its full JIDs, and which of them gets the pushes of each registration.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ptr,
    time::Duration,
};

use push::{
    Epoch, MessageId, RegistrationId,
    ports::{self, SEEN_MAX, Seen},
};
use tokio::time::Instant;
use tokio_xmpp::jid::FullJid;

use super::{Now, phone::Phone, routes::Routes};

/// Most full JIDs that an account remembers, unless more of them are busy.
const PHONES_MAX: usize = 32;
/// Most registrations that an account remembers. The mailbox is read for these alone, so they are more than the
/// 100,000 that a setting allows at most.
const NAMED_MAX: usize = 131_072;
/// Most cues of an account that are taken at once. One more may be taken for each second that has passed.
const CUES_BURST: f64 = 20.0;
/// Least time between two writes of an account's full JIDs seen lately.
const SEEN_INTERVAL: Duration = Duration::from_secs(60);
/// Least time between two moves of one registration.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(60);

/// State of the question to the store about an account.
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
    /// The last time at which the registration moved, or may have moved.
    moved_at: Option<Instant>,
    /// The move that is under way.
    moving: Option<Move>,
    /// The full JID of a move that seemed to fail, and may still have been written.
    in_doubt: Option<FullJid>,
}

/// A move of a registration to another full JID, as it was decided.
#[derive(Debug, Clone)]
struct Move {
    /// The full JIDs that the registration may name. The move is made from these alone.
    from: Vec<FullJid>,
    at: Instant,
}

/// A token bucket for an account's cues.
#[derive(Debug, Default)]
struct Cues {
    spent: f64,
    at: Option<Instant>,
}

/// The full JIDs seen lately, as far as the store has to learn of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SeenNews {
    /// The store has them already, or no registration of the account is known.
    None,
    /// The last write was less than a minute ago.
    Later,
    Write(Vec<Seen>),
}

/// One account, as far as this process knows it.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) phones: BTreeMap<FullJid, Phone>,
    named: BTreeMap<RegistrationId, Named>,
    pub(crate) look: Look,
    /// True while a page of the account's mailbox is on its way.
    pub(crate) page_asked: bool,
    /// Number of full JIDs whose mailboxes are being read.
    pub(crate) readings: usize,
    /// Full JIDs that wait for a page or a look that is on its way.
    pub(crate) blocked: VecDeque<FullJid>,
    pub(crate) in_flight: usize,
    /// Pushes in the mailbox that went out unanswered, while that is being written to the store. `true`: the write is
    /// done, but a page that was read before it is still on its way.
    asked: BTreeMap<MessageId, bool>,
    /// Pushes that have left the mailbox since the page that is on its way was requested.
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

    /// Makes room for another full JID by forgetting an idle one: rather one whose session has ended, and then one that
    /// was never seen, or was seen longest ago.
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

    /// Notes that a push in the mailbox went out, and that this is being written to the store.
    pub(crate) fn note_asked(&mut self, id: MessageId) {
        self.asked.insert(id, false);
    }

    /// Notes that the write is done: pages that are requested from now on show it.
    pub(crate) fn note_asked_written(&mut self, id: MessageId) {
        if self.page_asked {
            self.asked.insert(id, true);
        } else {
            self.asked.remove(&id);
        }
    }

    /// Returns whether a push went out lately, which a page that was read before may not show.
    pub(crate) fn was_asked(&self, id: MessageId) -> bool {
        self.asked.contains_key(&id)
    }

    /// Notes that a push has left the mailbox.
    pub(crate) fn note_gone(&mut self, id: MessageId) {
        if self.page_asked {
            self.gone.insert(id);
        }
    }

    /// Returns whether a push has left the mailbox, which a page that was read before may not show.
    pub(crate) fn is_gone(&self, id: MessageId) -> bool {
        self.gone.contains(&id)
    }

    /// Forgets what the page on its way did not show: the page has come, and was taken.
    pub(crate) fn forget_page(&mut self) {
        self.asked.retain(|_, written| !*written);
        self.gone.clear();
    }

    /// Returns the full JID that a registration names, if it is known.
    pub(crate) fn named(&self, registration: RegistrationId) -> Option<&FullJid> {
        self.named.get(&registration).map(|named| &named.recipient)
    }

    pub(crate) fn epoch(&self, registration: RegistrationId) -> Option<Epoch> {
        self.named.get(&registration).map(|named| named.epoch)
    }

    /// Returns all known registrations, each with the full JID that it names.
    pub(crate) fn all_named(&self) -> impl Iterator<Item = (RegistrationId, &FullJid)> {
        self.named.iter().map(|(id, named)| (*id, &named.recipient))
    }

    /// Returns whether any registration names this full JID.
    pub(crate) fn names(&self, jid: &FullJid) -> bool {
        self.names_beyond(jid, &BTreeSet::new())
    }

    /// Returns whether a registration other than these names this full JID.
    pub(crate) fn names_beyond(&self, jid: &FullJid, these: &BTreeSet<RegistrationId>) -> bool {
        self.all_named().any(|(id, named)| named == jid && !these.contains(&id))
    }

    /// Notes the full JID that a registration names. Returns the one that it named before.
    pub(crate) fn note_recipient(
        &mut self,
        registration: RegistrationId,
        epoch: Epoch,
        recipient: FullJid,
    ) -> Option<FullJid> {
        if self.named.len() >= NAMED_MAX && !self.named.contains_key(&registration) {
            return None;
        }
        if self.named.get(&registration).is_some_and(|named| {
            named.moving.is_none() && named.epoch == epoch && named.recipient == recipient
        }) {
            return Some(recipient);
        }
        let before = self.named.remove(&registration);
        let mut named = Named { recipient, epoch, moved_at: None, moving: None, in_doubt: None };
        if let Some(before) = before.as_ref().filter(|before| before.epoch == epoch) {
            named.moved_at = before.moved_at;
            if let Some(moving) =
                before.moving.as_ref().filter(|moving| moving.from.contains(&named.recipient))
            {
                // The full JID that the move is from is back, so the move may still be made.
                named.moved_at = Some(moving.at);
                named.in_doubt = Some(before.recipient.clone());
            } else if before.recipient == named.recipient {
                named.in_doubt = before.in_doubt.clone();
            }
        }
        self.named.insert(registration, named);
        before.map(|before| before.recipient)
    }

    /// Forgets a registration if its known life is this one or an earlier one. A later life may have begun.
    pub(crate) fn forget_registration(&mut self, registration: RegistrationId, epoch: Epoch) {
        if self.epoch(registration).is_some_and(|known| known <= epoch) {
            self.named.remove(&registration);
        }
    }

    /// Takes what the store knows. The things that this process has seen itself are newer, and stay.
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

    /// Returns the full JID that a push goes to: the one that its registration names, unless that one is to be replaced
    /// and another may stand in. The stand-in is the one seen last that has not refused the registration. [`Routes`]
    /// answers this for many registrations at once.
    pub(crate) fn route<'a>(
        &'a self,
        registration: RegistrationId,
        named: &'a FullJid,
        now: Now,
    ) -> &'a FullJid {
        let Some(phone) = self.phones.get(named).filter(|phone| phone.is_to_be_replaced(now)) else {
            return named;
        };
        // The cheap checks come first: an account may have thousands of full JIDs.
        let others = self.phones.iter().filter(|(_, other)| {
            other.may_replace(phone)
                && other.takes_pushes(now)
                && !other.is_barred(registration, now)
                && !ptr::eq(*other, phone)
        });
        others.max_by_key(|(_, other)| other.seen_at()).map_or(named, |(jid, _)| jid)
    }

    /// Returns the routes of all registrations at this moment.
    pub(crate) fn routes(&self, now: Now) -> Routes<'_> {
        Routes::new(&self.phones, now)
    }

    /// Returns the registrations whose pushes go to this full JID now.
    pub(crate) fn routed_to(&self, reader: &FullJid, now: Now) -> BTreeSet<RegistrationId> {
        let routes = self.routes(now);
        let to_reader = self.all_named().filter(|(id, named)| routes.route(*id, named) == reader);
        to_reader.map(|(id, _)| id).collect()
    }

    /// Makes a registration follow its phone to another full JID. Returns the full JIDs that it may name now; `None` if
    /// it stays: it moved less than a minute ago, names this full JID already, or is not known.
    pub(crate) fn follow(
        &mut self,
        registration: RegistrationId,
        to: &FullJid,
        now: Now,
    ) -> Option<Vec<FullJid>> {
        let named = self.named.get_mut(&registration)?;
        if named.recipient == *to && named.in_doubt.is_none() {
            return None;
        }
        let last = named.moved_at.max(named.moving.as_ref().map(|moving| moving.at));
        if last.is_some_and(|last| now.monotonic.duration_since(last) < FOLLOW_INTERVAL) {
            return None;
        }
        let known = std::mem::replace(&mut named.recipient, to.clone());
        let from = [Some(known), named.in_doubt.take()].into_iter().flatten();
        let from: Vec<FullJid> = from.filter(|from| from != to).collect();
        named.moving = Some(Move { from: from.clone(), at: now.monotonic });
        Some(from)
    }

    /// Notes that a move is made: the next one may come a minute later.
    pub(crate) fn note_moved(&mut self, registration: RegistrationId, now: Now) {
        if let Some(named) = self.named.get_mut(&registration) {
            (named.moved_at, named.moving) = (Some(now.monotonic), None);
        }
    }

    /// Takes a cue if the bucket has one. Returns whether it had.
    pub(crate) fn take_cue(&mut self, now: Now) -> bool {
        let passed = self.cues.at.map_or(Duration::ZERO, |at| now.monotonic.duration_since(at));
        let spent = (self.cues.spent - passed.as_secs_f64()).max(0.0);
        let taken = spent + 1.0 <= CUES_BURST;
        self.cues = Cues { spent: if taken { spent + 1.0 } else { spent }, at: Some(now.monotonic) };
        taken
    }

    /// Returns the full JIDs seen lately, if they are to be written now.
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

    /// Notes that the last write of the full JIDs seen lately has failed.
    pub(crate) fn forget_stored_seen(&mut self) {
        self.stored_seen.clear();
    }

    /// Returns the full JIDs seen lately, latest first. Those whose session has ended come last.
    fn seen(&self) -> Vec<Seen> {
        let seen = self.phones.iter().filter_map(|(jid, phone)| {
            Some(Seen { jid: jid.clone(), seen_at: phone.seen_at()?, ended: phone.has_ended() })
        });
        let mut seen: Vec<Seen> = seen.collect();
        seen.sort_by(|one, other| (one.ended, other.seen_at).cmp(&(other.ended, one.seen_at)));
        seen.truncate(SEEN_MAX);
        seen
    }

    /// Returns whether nothing is held or under way for the account.
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
