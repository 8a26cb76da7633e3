//! Judges each push that the relay sends by the stanzas that the relay got before, and by the changes of mailboxes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use push::{Epoch, MessageId, PushMessage, RegistrationId};
use tokio_xmpp::jid::{BareJid, FullJid};

use crate::{
    calls::{Shared, State},
    ledger::{Ledger, Life as Living},
    pipe::Life,
};

/// Most time that the relay takes to act on a stanza.
const TO_ACT: Duration = Duration::from_secs(1);
/// Most time from the relay's decision to send until the stanza has left, if nothing holds it up.
const TO_CROSS: Duration = Duration::from_millis(10);
/// Most time that a stanza waits in the stream.
const TO_WRITE: TimeDelta = TimeDelta::seconds(5);
/// Most time that an XMPP server keeps a session. A push that went out unanswered may arrive until then.
const HIBERNATION_MAX: Duration = Duration::from_secs(15 * 60);
/// Least time that a push is in flight. An answer that comes sooner is in time.
const IN_FLIGHT_AT_LEAST: Duration = Duration::from_millis(1900);
/// Most time after trouble until the relay has made good. It tries again after 5 s to make a fate durable.
const TO_RECOVER: Duration = Duration::from_secs(6);
/// Most time after a connection until a sweep has found a push that waits, and the relay has sent it.
const TO_SWEEP: Duration = Duration::from_secs(12);
/// Most time after the timeout of answers until the relay has given up all pushes that are overdue.
const TO_GIVE_UP: Duration = Duration::from_millis(700);
/// Most time that the row of a registration names another full JID than the one that takes its pushes.
const TO_FOLLOW: Duration = Duration::from_secs(6);
/// Time between two moves of a registration, and a margin. A move that fails counts.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(61);
/// Least time between two writes of such moves: the first may be written late.
const FOLLOW_INTERVAL_LEAST: Duration = Duration::from_secs(55);
/// Most time that a push waits in the line of a slow phone after it was read from the mailbox.
const IN_LINE_MAX: Duration = Duration::from_secs(120);

/// A push on its way to a full JID.
#[derive(Debug, Clone)]
pub(crate) struct Sending {
    pub(crate) id: MessageId,
    pub(crate) to: FullJid,
    /// Number of the stream that it goes by.
    pub(crate) link: u64,
    pub(crate) life: Life,
    pub(crate) at: Duration,
    /// Time of the relay's wall clock.
    pub(crate) wall: DateTime<Utc>,
}

/// The pushes that were sent, and the events that judge them.
#[derive(Debug, Default)]
pub(crate) struct Sendings {
    /// The last sending of each push to each full JID.
    last: BTreeMap<(MessageId, FullJid), Sending>,
    /// Moments at which the relay last heard from an account, or answered a registration of it.
    signs: BTreeMap<BareJid, Duration>,
    /// Moments at which the relay last got a stanza of [`Said::There`] from a full JID.
    there: BTreeMap<FullJid, Duration>,
    /// Moments at which the relay was last told that a full JID's session had ended.
    gone: BTreeMap<FullJid, Duration>,
    /// Moments at which the relay was told of a push's first result, with no other relay connected.
    results: BTreeMap<MessageId, Duration>,
    /// The last move of each life of a registration: the life of a relay that made it, and the moment.
    moved: BTreeMap<(RegistrationId, Epoch), (Life, Duration)>,
    /// Full JIDs that took a push of a registration in time.
    takers: BTreeSet<(RegistrationId, FullJid)>,
    /// The first push of a registration that was taken in time and is not checked yet, with its taker and the moment.
    taken: BTreeMap<RegistrationId, (MessageId, FullJid, Duration)>,
    /// Refusals of a registration, with their stream and moment. A full JID that comes anew leaves the list.
    refusals: BTreeMap<(RegistrationId, FullJid), (u64, Duration)>,
    /// Moments at which pushes that waited were replaced by later ones, or dropped.
    removed: BTreeMap<MessageId, Duration>,
    /// Moments at which pushes that waited, and were not in the queue, were withdrawn.
    withdrawn: BTreeMap<MessageId, Duration>,
    /// Moments at which pushes were last put into the mailbox.
    kept: BTreeMap<MessageId, Duration>,
    /// Moment since which the component has exactly one stream, or last had.
    connected_at: Duration,
    /// Pushes that were not answered on their stream since they were last sent.
    unanswered: BTreeMap<MessageId, Sending>,
}

/// The meaning of a phone's stanza that came to a relay.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Said {
    /// A presence, a request to register, or another stanza without the id of a push.
    There,
    Gone,
    Result(MessageId),
    /// The phone does not hold the registration.
    Refusal(MessageId),
    Failure(MessageId),
}

impl Sendings {
    /// Returns whether the session of a full JID ended after a push was sent there, and the relay was told by `until`.
    /// The push may have come to the next session, of which the relay did not know.
    pub(crate) fn has_ended(&self, asked: &[(Duration, FullJid)], until: Duration) -> bool {
        asked.iter().any(|(sent, to)| self.gone.get(to).is_some_and(|gone| gone >= sent && *gone <= until))
    }

    /// Returns whether no other full JID of its account was ever asked to take a push.
    fn is_alone(&self, jid: &FullJid) -> bool {
        self.last.keys().all(|(_, other)| other == jid || other.to_bare() != jid.to_bare())
    }
}

impl Ledger {
    /// Notes a stanza of a phone that came to a relay by this stream. `alone`: no other relay is connected. A relay
    /// gives a push up after `patience`.
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
        // The relay that asked may not hear of an answer on another stream.
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

    /// Notes that the relay answers a registration: only now does it count on the full JID's session.
    pub(crate) fn answer_registration(&mut self, to: &FullJid, at: Duration) {
        self.sendings.signs.insert(to.to_bare(), at);
    }

    /// Notes that the component has exactly one stream from now on.
    pub(crate) fn note_connected(&mut self, at: Duration) {
        self.sendings.connected_at = at;
    }

    pub(crate) fn note_kept(&mut self, id: MessageId, at: Duration) {
        self.sendings.kept.insert(id, at);
    }

    /// Notes that a push was withdrawn. The relay may still send it from a line, or if a copy is in the queue
    /// (docs/senders.md, "Withdrawing").
    pub(crate) fn note_withdrawn(&mut self, id: MessageId, is_queued: bool, at: Duration) {
        self.dropped.insert(id);
        if !is_queued {
            self.sendings.withdrawn.insert(id, at);
        }
    }

    pub(crate) fn note_removed(&mut self, id: MessageId, at: Duration) {
        self.sendings.removed.insert(id, at);
    }

    /// Returns whether all trouble of an account had ended before this moment, and was made good.
    fn is_quiet_since(&self, at: Duration, account: &BareJid) -> bool {
        self.excused_until(account) + TO_RECOVER <= at
    }

    /// Returns whether nothing since this moment could make a relay forget a stanza.
    pub(crate) fn has_no_trouble_since(&self, at: Duration) -> bool {
        self.trouble_until + TO_RECOVER <= at
    }

    /// Notes and judges a push that is sent. `fresh`: no pause came between the decision to send it and now.
    pub(crate) fn send(&mut self, sending: Sending, fresh: bool) {
        let Sending { id, to, at, .. } = &sending;
        let Some(push) = self.pushes.get_mut(id) else {
            return self.violate("only pushes that were posted are sent", *at, format!("{id} to {to}"));
        };
        push.sent.push((*at, to.clone()));
        let message = push.message.clone();
        let fresh = fresh && !self.locked.contains_key(&to.to_bare());
        if fresh && let Some(invariant) = self.broken_by(&sending, &message) {
            self.violate(invariant, *at, format!("{id} of {} to {to}", message.registration));
        }
        if fresh && let Some(waits) = self.overtaken_by(&message, to, sending.wall) {
            self.violate("a push that waits goes first", *at, format!("{id} before {waits} to {to}"));
        }
        // The relay had decided to send it before it was told of the result, and takes that for one in time.
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
            return Some("no push is sent after its expiry");
        }
        if acted_on(sendings.results.get(id)) {
            return Some("no push is sent after its result");
        }
        if acted_on(sendings.removed.get(id)) {
            return Some("no push is sent after it was replaced or dropped");
        }
        let withdrawn = sendings.withdrawn.get(id);
        if withdrawn.is_some_and(|since| quiet_since(*since) && *at > *since + IN_LINE_MAX) {
            return Some("no push is sent after it was withdrawn");
        }
        let refused = sendings.refusals.get(&(message.registration, to.clone()));
        if acted_on(refused.filter(|(of, _)| of == link).map(|(_, told)| told)) {
            return Some("a full JID that does not hold a registration is not asked again");
        }
        let sign = sendings.signs.get(&to.to_bare()).copied().unwrap_or_default();
        let again = sendings.last.get(&(*id, to.clone())).filter(|last| last.link == *link);
        if again.is_some_and(|last| sign < last.at && quiet_since(last.at) && *at - last.at < HIBERNATION_MAX)
        {
            return Some("no push is sent twice without a sign of life");
        }
        None
    }

    /// Returns a push of the same registration that was in the mailbox before this one was posted, and was sent to
    /// nobody. `None` also if another full JID of the account was asked: each has its own order.
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

    /// Checks a move of a registration to this full JID.
    pub(crate) fn check_follow(
        &mut self,
        (registration, epoch): (RegistrationId, Epoch),
        to: &FullJid,
        life: Life,
        at: Duration,
    ) {
        let before = self.sendings.moved.insert((registration, epoch), (life, at));
        if before.is_some_and(|(by, moved)| by == life && at - moved < FOLLOW_INTERVAL_LEAST)
            && self.is_quiet_since(at.saturating_sub(FOLLOW_INTERVAL), &to.to_bare())
        {
            self.violate("a registration moves at most once a minute", at, registration.to_string());
        }
        if !self.sendings.takers.contains(&(registration, to.clone())) {
            self.violate("only a timely answer moves a registration", at, format!("{registration} to {to}"));
        }
    }
}

impl State {
    /// Checks that a sweep after the last connection has found each push that waited before and is not in flight, if
    /// its recipient was there before, still is, and answers.
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

    /// Checks that registrations have followed the phones that take their pushes.
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
                let detail = format!("{registration} to {to}, which took {id} at {at:?}");
                self.ledger.violate("a registration follows its phone", now, detail);
            }
        }
    }

    /// Checks that no push is in flight for longer than it may be.
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
            self.ledger.violate("a push that nobody answers is given up", now, detail);
        }
    }
}
