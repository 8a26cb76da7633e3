//! Judges each push that the relay sends by the stanzas that it got on the same stream.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use push::{MessageId, PushMessage, RegistrationId};
use tokio_xmpp::jid::{BareJid, FullJid};

use crate::{
    calls::{Shared, State},
    ledger::{Ledger, Life as Living},
    pipe::Life,
};

/// The most time that the relay takes to act on what it was told.
const TO_ACT: Duration = Duration::from_secs(1);
/// The most time from the relay's decision to the stream, where nothing holds the stanza up.
const TO_CROSS: Duration = Duration::from_millis(10);
/// The most time that a stanza lies in the stream.
const TO_WRITE: TimeDelta = TimeDelta::seconds(5);
/// XMPP servers keep no session for longer: what went out unanswered may still arrive.
const HIBERNATION_MAX: Duration = Duration::from_secs(15 * 60);
/// An answer that comes sooner finds its push in flight: nothing is given up before.
const IN_FLIGHT_AT_LEAST: Duration = Duration::from_millis(1900);
/// The delay before a failed write into the mailbox is retried.
const TO_RECOVER: Duration = Duration::from_secs(6);
/// The most time until a sweep has found somebody, and the relay has tried.
const TO_SWEEP: Duration = Duration::from_secs(12);
/// The most time until the relay has put aside all that was in flight at one moment.
const TO_GIVE_UP: Duration = Duration::from_millis(700);
/// The most time that the row of a registration names another full JID than the one that takes its pushes.
const TO_FOLLOW: Duration = Duration::from_secs(6);
/// A registration is moved at most once in this time, even if that fails.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(61);
/// The same, where the first move took its time until it was written.
const FOLLOW_INTERVAL_LEAST: Duration = Duration::from_secs(55);
/// The most time that a push which was read waits in the line of a phone that takes its time.
const IN_LINE_MAX: Duration = Duration::from_secs(120);

/// A push on its way to a full JID.
#[derive(Debug, Clone)]
pub(crate) struct Sending {
    pub(crate) id: MessageId,
    pub(crate) to: FullJid,
    /// The stream that it goes by.
    pub(crate) link: u64,
    pub(crate) life: Life,
    pub(crate) at: Duration,
    /// The relay's clock.
    pub(crate) wall: DateTime<Utc>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Sendings {
    /// The last sending of each push to each full JID.
    last: BTreeMap<(MessageId, FullJid), Sending>,
    /// When the relay heard of an account last.
    signs: BTreeMap<BareJid, Duration>,
    /// When the relay heard of a full JID's session, or of a registration by it, last.
    there: BTreeMap<FullJid, Duration>,
    /// When the relay was told of the end of a full JID's session last.
    gone: BTreeMap<FullJid, Duration>,
    /// When the relay was told of a push's first result.
    results: BTreeMap<MessageId, Duration>,
    /// Which life of a relay moved a registration last, and when.
    moved: BTreeMap<RegistrationId, (Life, Duration)>,
    /// Full JIDs that took a push of a registration in time.
    takers: BTreeSet<(RegistrationId, FullJid)>,
    /// The last push of a registration that was taken in time, by whom, and when.
    taken: BTreeMap<RegistrationId, (MessageId, FullJid, Duration)>,
    /// Refusals of a registration, with their stream and moment. A full JID that comes anew leaves the list.
    refusals: BTreeMap<(RegistrationId, FullJid), (u64, Duration)>,
    /// When a push that waited gave way to a later one, or to the bounds of its mailbox.
    removed: BTreeMap<MessageId, Duration>,
    /// When the sender of a push that waited withdrew it.
    withdrawn: BTreeMap<MessageId, Duration>,
    /// When a push came into its mailbox.
    kept: BTreeMap<MessageId, Duration>,
    /// When the stream of the relay came up last.
    connected_at: Duration,
    /// Pushes that nobody has answered since they were sent last.
    unanswered: BTreeMap<MessageId, Sending>,
}

/// A phone's words that the relay was told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Said {
    /// It is there: a presence, or a registration.
    There,
    Gone,
    Result(MessageId),
    /// It does not hold the registration.
    Refusal(MessageId),
    Failure(MessageId),
}

impl Sendings {
    /// Returns whether the relay was told between these moments that the session had ended of somebody who was asked.
    /// A push that it sent a moment before may have come to the next session, of which it could not know.
    pub(crate) fn has_ended(&self, asked: &[(Duration, FullJid)], until: Duration) -> bool {
        asked.iter().any(|(sent, to)| self.gone.get(to).is_some_and(|gone| gone >= sent && *gone <= until))
    }

    /// No other full JID of its account was asked to take anything.
    fn is_alone(&self, jid: &FullJid) -> bool {
        self.last.keys().all(|(_, other)| other == jid || other.to_bare() != jid.to_bare())
    }
}

impl Ledger {
    /// A phone has said something, and the relay that has this stream was told. It gives a push up after `patience`.
    pub(crate) fn hear(
        &mut self,
        from: &FullJid,
        said: Said,
        (link, alone): (u64, bool),
        at: Duration,
        patience: Duration,
    ) {
        let sendings = &mut self.sendings;
        sendings.signs.insert(from.to_bare(), at);
        let id = match said {
            Said::There => {
                sendings.there.insert(from.clone(), at);
                return sendings.refusals.retain(|(_, jid), _| jid != from);
            }
            Said::Gone => {
                sendings.gone.insert(from.clone(), at);
                return;
            }
            Said::Result(id) | Said::Refusal(id) | Said::Failure(id) => id,
        };
        let Some(sending) = sendings.last.get(&(id, from.clone())) else { return };
        let (sent, same) = (sending.at, sending.link == link);
        // Where the server has another relay's stream as well, the one that asked may hear nothing of it.
        if same {
            sendings.unanswered.remove(&id);
        } else {
            self.note_trouble(at + patience);
        }
        let Some(registration) = self.registration_of(id) else { return };
        let sendings = &mut self.sendings;
        let came = sendings.there.get(from).copied().unwrap_or_default();
        match said {
            Said::Result(_) => {
                if alone && !sendings.results.contains_key(&id) {
                    sendings.results.insert(id, at);
                    if self.pushes.get(&id).is_some_and(|push| push.gone_at.is_none()) {
                        self.leaving.insert(id, at);
                    }
                    if same && at - sent < IN_FLIGHT_AT_LEAST {
                        sendings.taken.entry(registration).or_insert_with(|| (id, from.clone(), at));
                    }
                }
                if at - sent < patience + TO_GIVE_UP {
                    sendings.takers.insert((registration, from.clone()));
                }
            }
            Said::Refusal(_)
                if same
                    && alone
                    && at - sent < IN_FLIGHT_AT_LEAST
                    && came < sent
                    && !sendings.results.contains_key(&id) =>
            {
                sendings.refusals.insert((registration, from.clone()), (link, at));
            }
            _ => {}
        }
    }

    /// The relay answers a registration: only now does it count on its session.
    pub(crate) fn answer_registration(&mut self, to: &FullJid, at: Duration) {
        self.sendings.signs.insert(to.to_bare(), at);
    }

    /// The relay has a stream again, and no other relay has one.
    pub(crate) fn note_connected(&mut self, at: Duration) {
        self.sendings.connected_at = at;
    }

    pub(crate) fn note_kept(&mut self, id: MessageId, at: Duration) {
        self.sendings.kept.insert(id, at);
    }

    /// Its sender takes it back. The relay sends a push that it has read all the same, as long as that is in line, and
    /// one of which a crash has left a copy in the queue (docs/senders.md, "Withdrawing").
    pub(crate) fn note_withdrawn(&mut self, id: MessageId, is_queued: bool, at: Duration) {
        self.dropped.insert(id);
        if !is_queued {
            self.sendings.withdrawn.insert(id, at);
        }
    }

    pub(crate) fn note_removed(&mut self, id: MessageId, at: Duration) {
        self.sendings.removed.insert(id, at);
    }

    /// Nothing that excuses anything has happened to an account since, nor is it being made good.
    fn is_quiet_since(&self, at: Duration, account: &BareJid) -> bool {
        self.excused_until(account) + TO_RECOVER <= at
    }

    /// Nothing has happened since that makes the relay forget what it was told.
    pub(crate) fn has_no_trouble_since(&self, at: Duration) -> bool {
        self.trouble_until + TO_RECOVER <= at
    }

    /// A push is sent; `fresh`: no pause came between the decision and now.
    pub(crate) fn send(&mut self, sending: Sending, fresh: bool) {
        let Sending { id, to, at, .. } = &sending;
        let Some(push) = self.pushes.get_mut(id) else {
            return self.violate("only what was accepted is sent", *at, format!("{id} to {to}"));
        };
        push.sent.push((*at, to.clone()));
        let message = push.message.clone();
        let fresh = fresh && !self.locked.contains_key(&to.to_bare());
        if fresh && let Some(invariant) = self.broken_by(&sending, &message) {
            self.violate(invariant, *at, format!("{id} of {} to {to}", message.registration));
        }
        if fresh && let Some(waits) = self.overtaken_by(&message, to, sending.wall) {
            self.violate("what waits goes first", *at, format!("{id} before {waits} to {to}"));
        }
        // It was sent before the relay was told: to that, the late result is one in time.
        if self.sendings.results.get(id).is_some_and(|told| *at - *told <= TO_CROSS) {
            self.sendings.takers.insert((message.registration, to.clone()));
        }
        self.sendings.unanswered.insert(*id, sending.clone());
        self.sendings.last.insert((*id, to.clone()), sending);
    }

    fn broken_by(&self, sending: &Sending, message: &PushMessage) -> Option<&'static str> {
        let Sending { id, to, link, at, wall, .. } = sending;
        let sendings = &self.sendings;
        let quiet_since = |moment: Duration| self.is_quiet_since(moment, &to.to_bare());
        let acted_on =
            |told: Option<&Duration>| told.is_some_and(|told| quiet_since(*told) && *at > *told + TO_ACT);
        if message.is_expired(*wall - TO_WRITE) {
            return Some("nothing is sent after its time");
        }
        if acted_on(sendings.results.get(id)) {
            return Some("nothing is sent after its result");
        }
        if acted_on(sendings.removed.get(id)) {
            return Some("what was replaced or dropped is not sent");
        }
        let withdrawn = sendings.withdrawn.get(id);
        if withdrawn.is_some_and(|since| quiet_since(*since) && *at > *since + IN_LINE_MAX) {
            return Some("what was withdrawn is not sent");
        }
        let refused = sendings.refusals.get(&(message.registration, to.clone()));
        if acted_on(refused.filter(|(of, _)| of == link).map(|(_, told)| told)) {
            return Some("who does not hold a registration is not asked again");
        }
        let sign = sendings.signs.get(&to.to_bare()).copied().unwrap_or_default();
        let again = sendings.last.get(&(*id, to.clone())).filter(|last| last.link == *link);
        if again.is_some_and(|last| sign < last.at && quiet_since(last.at) && *at - last.at < HIBERNATION_MAX)
        {
            return Some("nothing is sent twice without a sign of life");
        }
        None
    }

    /// A push of the same registration that waited in the mailbox before this one was posted, and that nobody was asked
    /// to take yet. With another full JID in the account, each has its own order.
    fn overtaken_by(&self, message: &PushMessage, to: &FullJid, wall: DateTime<Utc>) -> Option<MessageId> {
        let in_order = !message.is_immediate() && self.sendings.is_alone(to);
        let push = self.pushes.get(&message.id).filter(|_| in_order)?;
        let waits = self.sendings.kept.range(..message.id).find(|(id, kept)| {
            **kept < push.offered_at
                && self.is_quiet_since(**kept, &to.to_bare())
                && self.pushes.get(*id).is_some_and(|other| {
                    other.message.registration == message.registration
                        && other.message.epoch == message.epoch
                        && other.message.urgency == message.urgency
                        && other.sent.is_empty()
                        && other.gone_at.is_none()
                        && !other.message.is_expired(wall)
                })
        });
        waits.map(|(id, _)| *id)
    }

    /// A relay has a registration follow a phone to this full JID.
    pub(crate) fn check_follow(
        &mut self,
        registration: RegistrationId,
        to: &FullJid,
        life: Life,
        at: Duration,
    ) {
        let before = self.sendings.moved.insert(registration, (life, at));
        if before.is_some_and(|(by, moved)| by == life && at - moved < FOLLOW_INTERVAL_LEAST)
            && self.is_quiet_since(at.saturating_sub(FOLLOW_INTERVAL), &to.to_bare())
        {
            self.violate("a registration moves at most once a minute", at, registration.to_string());
        }
        if !self.sendings.takers.contains(&(registration, to.clone())) {
            self.violate("only who takes a push in time is followed", at, format!("{registration} to {to}"));
        }
    }
}

impl State {
    /// Looks for what a sweep should have found after a connection: it waited before, for somebody who was there, is it
    /// there and answers, and to whom nothing may be on its way.
    pub(crate) fn check_sweep(&mut self, present: &BTreeMap<FullJid, Duration>, shared: &Shared) {
        let now = shared.now();
        let Sendings { connected_at, kept, unanswered, .. } = &self.ledger.sendings;
        let connected = *connected_at;
        if now - connected < TO_SWEEP || self.ledger.trouble_until > connected {
            return;
        }
        let passed_over = kept.iter().find(|(id, kept)| {
            let push = self.ledger.pushes.get(id).filter(|push| {
                push.gone_at.is_none() && push.sent.last().is_none_or(|(sent, _)| *sent < connected)
            });
            let row = push.and_then(|push| self.rows.row(push.message.registration));
            let recipient = row.map(|row| row.target.recipient.clone());
            **kept < connected
                && !unanswered.contains_key(id)
                && push.is_some_and(|push| !push.message.is_expired(shared.wall() + TO_WRITE))
                && push.is_some_and(|push| self.rows.life_of(&push.message, shared.wall()) == Living::Lives)
                && recipient.is_some_and(|jid| {
                    present.get(&jid).is_some_and(|since| *since < connected)
                        && self.ledger.sendings.is_alone(&jid)
                        && !self.ledger.locked.contains_key(&jid.to_bare())
                        && self.ledger.excused_until(&jid.to_bare()) <= connected
                })
        });
        if let Some((id, _)) = passed_over {
            let detail = id.to_string();
            self.ledger.violate("a sweep follows each connection", now, detail);
        }
    }

    /// Looks for registrations that should have followed the phone that takes their pushes.
    pub(crate) fn check_following(&mut self, shared: &Shared) {
        let now = shared.now();
        let (due, taken) = std::mem::take(&mut self.ledger.sendings.taken)
            .into_iter()
            .partition(|(_, (.., at))| now - *at > TO_FOLLOW);
        self.ledger.sendings.taken = taken;
        let due: BTreeMap<_, _> = due;
        for (registration, (id, to, at)) in due {
            let Some(push) = self.ledger.pushes.get(&id) else { continue };
            let row = self.rows.unchanged_since(registration, at.saturating_sub(FOLLOW_INTERVAL), shared);
            let stays = row.is_some_and(|row| {
                row.target.recipient != to && row.epoch == push.message.epoch && row.lives(shared.wall())
            });
            if stays && self.ledger.excused_until(&to.to_bare()) + FOLLOW_INTERVAL <= at {
                let detail = format!("{registration} to {to}, who took {id} at {at:?}");
                self.ledger.violate("a registration follows its phone", now, detail);
            }
        }
    }

    /// Looks for what should be in flight no more.
    pub(crate) fn check_flight(&mut self, shared: &Shared) {
        let now = shared.now();
        let given_up_by = shared.plan.ack_timeout + TO_GIVE_UP;
        let overdue = self.ledger.sendings.unanswered.values().find(|sending| {
            let sign = self.ledger.sendings.signs.get(&sending.to.to_bare()).copied().unwrap_or_default();
            now - sending.at > given_up_by
                && sign < sending.at
                && self.ledger.sendings.is_alone(&sending.to)
                && self.ledger.is_quiet_since(sending.at, &sending.to.to_bare())
                && self.entries.is_held_by(sending.id, sending.life)
        });
        if let Some(Sending { id, to, .. }) = overdue {
            let detail = format!("{id} to {to}");
            self.ledger.violate("what nobody answers is given up", now, detail);
        }
    }
}
