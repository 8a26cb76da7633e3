//! The pushes that the relay holds: in line for a recipient, or sent and unanswered.
//!
//! Pure bookkeeping: it decides which push may go next and which answer counts, and does neither
//! send nor wait.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use chrono::{DateTime, Utc};
use push::{MessageId, PushMessage, RegistrationId};
use tokio::time::Instant;
use tokio_xmpp::jid::{FullJid, Jid};

use recipient::Recipient;
pub(crate) use recipient::{Doubt, Gate, LINE_MAX};

mod recipient;

/// Most unanswered pushes to one JID; a hot one must not stall the rest (xmpp-servers.md).
pub(crate) const IN_FLIGHT_PER_JID_MAX: usize = 16;
/// Most unanswered pushes in all.
pub(crate) const IN_FLIGHT_MAX: usize = 1024;
/// Most notes of what was sent when; beyond it, those of settled pushes are dropped.
const SENT_MAX: usize = 4 * IN_FLIGHT_MAX;
/// A JID whose oldest push has been unanswered for so long holds up nobody else: its line goes to the
/// mailbox, and its place in flight is given up when all places are taken.
const SLOW_AFTER: Duration = Duration::from_secs(2);

/// Where a push that the relay holds is kept durably, until its fate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin<Receipt> {
    /// In the queue, which released it so many times before.
    Queue { receipt: Receipt, attempts: u32 },
    /// In the mailbox of its account.
    Mailbox,
}

/// A push that the relay holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held<Receipt> {
    pub(crate) origin: Origin<Receipt>,
    pub(crate) message: PushMessage,
}

/// A push that was sent.
#[derive(Debug)]
pub(crate) struct InFlight<Receipt> {
    pub(crate) push: Held<Receipt>,
    pub(crate) asked_at: DateTime<Utc>,
    sent: Instant,
}

/// Why a push does not wait in line.
#[derive(Debug)]
pub(crate) enum Refused<Receipt> {
    /// Its recipient does not answer.
    Slow(Held<Receipt>),
    /// The line is full; its turn comes after this long.
    LineFull(Held<Receipt>, Duration),
}

/// All pushes that were received and are not settled.
#[derive(Debug)]
pub(crate) struct Pending<Receipt> {
    recipients: HashMap<FullJid, Recipient<Receipt>>,
    in_flight: HashMap<MessageId, InFlight<Receipt>>,
    /// Recipients that have a push which may go and room in their window, each once; served in turn.
    ready: VecDeque<FullJid>,
    /// Every push sent, oldest first; those settled since are skipped.
    sent: VecDeque<(Instant, MessageId)>,
}

impl<Receipt> Pending<Receipt> {
    pub(crate) fn new() -> Self {
        Self {
            recipients: HashMap::new(),
            in_flight: HashMap::new(),
            ready: VecDeque::new(),
            sent: VecDeque::new(),
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// How many pushes to this JID are unanswered.
    pub(crate) fn in_flight_to(&self, jid: &FullJid) -> usize {
        self.recipients.get(jid).map_or(0, |recipient| recipient.in_flight.len())
    }

    /// How many pushes in line for this JID its gate lets pass, counted up to `max`.
    pub(crate) fn in_line_that_pass(&self, jid: &FullJid, max: usize) -> usize {
        self.recipients.get(jid).map_or(0, |recipient| recipient.count_passing(max))
    }

    /// To whom this push was sent, if it is unanswered.
    pub(crate) fn in_flight_towards(&self, id: MessageId) -> Option<&FullJid> {
        self.in_flight.get(&id).map(|sent| &sent.push.message.recipient)
    }

    /// Notes that a push in flight waits in the mailbox, too. If it came from the queue, its copy there is returned,
    /// and needed no more.
    pub(crate) fn is_in_mailbox(&mut self, id: MessageId) -> Option<Held<Receipt>> {
        let push = &mut self.in_flight.get_mut(&id)?.push;
        let origin = std::mem::replace(&mut push.origin, Origin::Mailbox);
        let message = push.message.clone();
        matches!(origin, Origin::Queue { .. }).then_some(Held { origin, message })
    }

    /// Whether this push is held, and the mailbox has it.
    pub(crate) fn holds_from_mailbox(&self, jid: &FullJid, id: MessageId) -> bool {
        let in_flight = self.in_flight.get(&id).map(|sent| &sent.push);
        let in_line = || self.recipients.get(jid).and_then(|recipient| recipient.in_line(id));
        in_flight.or_else(in_line).is_some_and(|push| matches!(push.origin, Origin::Mailbox))
    }

    /// Whether a push of this registration was sent and is unanswered.
    pub(crate) fn asks(&self, registration: RegistrationId) -> bool {
        self.in_flight.values().any(|sent| sent.push.message.registration == registration)
    }

    /// Puts a push in its recipient's line.
    ///
    /// # Errors
    /// Gives a push from the queue back if it would wait behind a slow or an overlong line. What
    /// comes from the mailbox is bounded by who reads it.
    pub(crate) fn admit(&mut self, push: Held<Receipt>, now: Instant) -> Result<(), Refused<Receipt>> {
        let jid = push.message.recipient.clone();
        let slow = self.is_slow(&jid, now);
        let recipient = self.recipients.entry(jid.clone()).or_insert_with(|| Recipient::new(now));
        if matches!(push.origin, Origin::Queue { .. }) {
            if slow && recipient.is_full() {
                return Err(Refused::Slow(push));
            }
            if recipient.line_len() >= LINE_MAX {
                return Err(Refused::LineFull(push, recipient.take_turn(now)));
            }
        }
        recipient.line_up(push);
        self.make_ready(&jid);
        Ok(())
    }

    /// Says how far the line of a JID may go.
    pub(crate) fn set_gate(&mut self, jid: &FullJid, gate: Gate, now: Instant) {
        if gate == Gate::Open {
            if let Some(recipient) = self.recipients.get_mut(jid) {
                recipient.gate = gate;
            }
            self.forget_idle(jid);
        } else {
            self.recipients.entry(jid.clone()).or_insert_with(|| Recipient::new(now)).gate = gate;
        }
        self.make_ready(jid);
    }

    /// The next push that may be sent, or nothing while every window is full.
    pub(crate) fn next(&mut self) -> Option<Held<Receipt>> {
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return None;
        }
        while let Some(jid) = self.ready.pop_front() {
            let Some(recipient) = self.recipients.get_mut(&jid) else { continue };
            recipient.ready = false;
            if let Some(push) = recipient.take_next() {
                return Some(push);
            }
        }
        None
    }

    /// Notes that a push from [`Pending::next`] goes out now.
    pub(crate) fn sent(&mut self, push: Held<Receipt>, asked_at: DateTime<Utc>, now: Instant) {
        let id = push.message.id;
        if let Some(recipient) = self.recipients.get_mut(&push.message.recipient) {
            recipient.in_flight.push_back(id);
        }
        self.make_ready(&push.message.recipient);
        self.in_flight.insert(id, InFlight { push, asked_at, sent: now });
        self.sent.push_back((now, id));
        if self.sent.len() > SENT_MAX {
            let in_flight = &self.in_flight;
            self.sent.retain(|(sent, id)| in_flight.get(id).is_some_and(|push| push.sent == *sent));
        }
    }

    /// Notes that a push from [`Pending::next`] does not go out.
    pub(crate) fn dropped(&mut self, message: &PushMessage) {
        self.make_ready(&message.recipient);
        self.forget_idle(&message.recipient);
    }

    /// Takes the push that `from` answers. Nothing, if it was never sent, is settled already, or
    /// was sent to somebody else. An error in place of whoever is away says nothing of how fast it answers.
    pub(crate) fn answered(
        &mut self,
        id: MessageId,
        from: &Jid,
        is_there: bool,
        now: Instant,
    ) -> Option<InFlight<Receipt>> {
        let asked = &self.in_flight.get(&id)?.push.message.recipient;
        if from != asked {
            return None;
        }
        let answered = self.take(id)?;
        let jid = &answered.push.message.recipient;
        if is_there && let Some(recipient) = self.recipients.get_mut(jid) {
            recipient.note_answer(answered.sent, now);
        }
        let wider = |window: usize| if is_there { (window * 2).min(IN_FLIGHT_PER_JID_MAX) } else { window };
        self.resize(jid, wider);
        Some(answered)
    }

    /// Takes every push that has been unanswered since before `deadline`, and while all places are
    /// taken those that have been unanswered for long.
    pub(crate) fn overdue(&mut self, deadline: Instant, now: Instant) -> Vec<InFlight<Receipt>> {
        let mut overdue = Vec::new();
        while let Some((sent, id)) = self.sent.front().copied() {
            let given_up = self.in_flight.len() >= IN_FLIGHT_MAX && now.duration_since(sent) >= SLOW_AFTER;
            let current = self.in_flight.get(&id).is_some_and(|in_flight| in_flight.sent == sent);
            if current && sent > deadline && !given_up {
                break;
            }
            self.sent.pop_front();
            if let Some(push) = current.then(|| self.take(id)).flatten() {
                self.resize(&push.push.message.recipient, |window| (window / 2).max(1));
                overdue.push(push);
            }
        }
        overdue
    }

    /// Notes that the delivery of a push has failed: nothing more goes to its recipient until what is
    /// in flight to it is answered, and it is known whether it is there at all.
    pub(crate) fn doubt(&mut self, failed: &InFlight<Receipt>, now: Instant) {
        let jid = failed.push.message.recipient.clone();
        let recipient = self.recipients.entry(jid).or_insert_with(|| Recipient::new(now));
        let doubt = recipient.doubt.get_or_insert_with(|| Doubt {
            failed: Vec::new(),
            since: failed.sent,
            proven: false,
        });
        doubt.failed.push(failed.push.message.id);
    }

    /// Whether it is not known that a recipient is there, since a push to it has failed.
    pub(crate) fn is_in_doubt(&self, jid: &FullJid) -> bool {
        self.recipients.get(jid).is_some_and(|recipient| recipient.doubt.is_some())
    }

    /// Ends the doubt about a recipient to which nothing is in flight any more.
    pub(crate) fn conclude(&mut self, jid: &FullJid) -> Option<Doubt> {
        let recipient = self.recipients.get_mut(jid)?;
        if !recipient.in_flight.is_empty() {
            return None;
        }
        let doubt = recipient.doubt.take()?;
        self.make_ready(jid);
        self.forget_idle(jid);
        Some(doubt)
    }

    /// The recipients that have become slow, with something in line.
    pub(crate) fn slow(&self, now: Instant) -> Vec<FullJid> {
        let slow = |recipient: &Recipient<Receipt>| {
            recipient.line_len() > 0
                && recipient.is_full()
                && is_unanswered_for_long(&self.in_flight, recipient, now)
        };
        self.recipients.iter().filter(|(_, recipient)| slow(recipient)).map(|(jid, _)| jid.clone()).collect()
    }

    /// Takes what is in line for a recipient.
    pub(crate) fn take_line(&mut self, jid: &FullJid) -> Vec<Held<Receipt>> {
        let Some(recipient) = self.recipients.get_mut(jid) else { return Vec::new() };
        recipient.gate = Gate::Open;
        let line = recipient.take_line();
        self.forget_idle(jid);
        line
    }

    /// Takes one push out of a recipient's line.
    pub(crate) fn take_from_line(&mut self, jid: &FullJid, id: MessageId) -> Option<Held<Receipt>> {
        let taken = self.recipients.get_mut(jid)?.take_from_line(id);
        self.make_ready(jid);
        self.forget_idle(jid);
        taken
    }

    /// Takes all that was sent to a session that has ended.
    pub(crate) fn session_ended(&mut self, jid: &FullJid) -> Vec<InFlight<Receipt>> {
        let Some(recipient) = self.recipients.get_mut(jid) else { return Vec::new() };
        recipient.doubt = None;
        let sent = recipient.in_flight.drain(..).filter_map(|id| self.in_flight.remove(&id)).collect();
        self.forget_idle(jid);
        sent
    }

    /// Puts all that was sent back in its line: the stream it went out on is gone.
    pub(crate) fn stream_ended(&mut self) {
        self.sent.clear();
        let jids: Vec<FullJid> = self.recipients.keys().cloned().collect();
        for jid in jids {
            if let Some(recipient) = self.recipients.get_mut(&jid) {
                recipient.answered_at = None;
                recipient.doubt = None;
                let sent: Vec<MessageId> = recipient.in_flight.drain(..).collect();
                let sent = sent.into_iter().filter_map(|id| self.in_flight.remove(&id));
                sent.for_each(|sent| recipient.line_up(sent.push));
            }
            self.make_ready(&jid);
            self.forget_idle(&jid);
        }
    }

    /// Takes what came from mailboxes out of the lines; whose lines those are.
    pub(crate) fn forget_what_waits(&mut self) -> Vec<FullJid> {
        let of_mailboxes = self.recipients.iter_mut().filter_map(|(jid, recipient)| {
            let all = recipient.line_len();
            recipient.leave_what_waits();
            (recipient.line_len() < all).then(|| jid.clone())
        });
        of_mailboxes.collect()
    }

    /// Takes whatever is in line.
    pub(crate) fn lines(&mut self) -> Vec<Held<Receipt>> {
        self.ready.clear();
        let lines = self.recipients.values_mut().flat_map(|recipient| {
            recipient.ready = false;
            recipient.take_line()
        });
        lines.collect()
    }

    /// Takes whatever is unanswered.
    pub(crate) fn unanswered(&mut self) -> Vec<Held<Receipt>> {
        self.in_flight.drain().map(|(_, sent)| sent.push).collect()
    }

    fn take(&mut self, id: MessageId) -> Option<InFlight<Receipt>> {
        let taken = self.in_flight.remove(&id)?;
        if let Some(recipient) = self.recipients.get_mut(&taken.push.message.recipient) {
            recipient.in_flight.retain(|other| *other != id);
        }
        Some(taken)
    }

    fn resize(&mut self, jid: &FullJid, resize: impl FnOnce(usize) -> usize) {
        if let Some(recipient) = self.recipients.get_mut(jid) {
            recipient.window = resize(recipient.window);
        }
        self.make_ready(jid);
        self.forget_idle(jid);
    }

    fn make_ready(&mut self, jid: &FullJid) {
        if let Some(recipient) = self.recipients.get_mut(jid)
            && !recipient.ready
            && recipient.may_send()
        {
            recipient.ready = true;
            self.ready.push_back(jid.clone());
        }
    }

    fn forget_idle(&mut self, jid: &FullJid) {
        if self.recipients.get(jid).is_some_and(Recipient::is_idle) {
            self.recipients.remove(jid);
        }
    }

    fn is_slow(&self, jid: &FullJid, now: Instant) -> bool {
        self.recipients
            .get(jid)
            .is_some_and(|recipient| is_unanswered_for_long(&self.in_flight, recipient, now))
    }
}

fn is_unanswered_for_long<Receipt>(
    in_flight: &HashMap<MessageId, InFlight<Receipt>>,
    recipient: &Recipient<Receipt>,
    now: Instant,
) -> bool {
    let oldest = recipient.in_flight.front().and_then(|id| in_flight.get(id));
    oldest.is_some_and(|push| now.duration_since(push.sent) >= SLOW_AFTER)
}

#[cfg(test)]
mod tests;
