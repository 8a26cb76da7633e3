//! The pushes that the relay holds: in line for a recipient, or sent and unanswered.
//!
//! Pure bookkeeping: it decides which push may go next and which answer counts, and does neither
//! send nor wait.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use chrono::{DateTime, Utc};
use push::{MessageId, PushMessage, RegistrationId, ports::Delivery};
use tokio::time::Instant;
use tokio_xmpp::jid::{FullJid, Jid};

/// Most unanswered pushes to one JID; a hot one must not stall the rest (xmpp-servers.md).
pub(crate) const IN_FLIGHT_PER_JID_MAX: usize = 16;
/// What a JID starts with; each answer doubles it up to the maximum, a push without one halves it.
const IN_FLIGHT_PER_JID_INITIAL: usize = 4;
/// Most unanswered pushes in all.
pub(crate) const IN_FLIGHT_MAX: usize = 1024;
/// Most notes of what was sent when; beyond it, those of settled pushes are dropped.
const SENT_MAX: usize = 4 * IN_FLIGHT_MAX;
/// Most pushes in line for one JID, beside those in flight; a further one waits in the queue until
/// about its turn.
const LINE_MAX: usize = 512;
/// How far apart the answers of a JID are taken to be before they are known.
const ANSWER_INTERVAL_INITIAL: Duration = Duration::from_millis(5);
/// The most that one pause adds to what is known: it may have been the server's, or the stream's.
const ANSWER_INTERVAL_MAX: Duration = Duration::from_millis(50);
/// The longest that a push waits for its turn: what is known may be wrong.
const TURN_MAX: Duration = Duration::from_secs(10);
/// A JID whose oldest push has been unanswered for so long holds up nobody else: its line goes back
/// to the queue, and its place in flight is given up when all places are taken.
const SLOW_AFTER: Duration = Duration::from_secs(2);

/// A push that was sent.
#[derive(Debug)]
pub(crate) struct InFlight<Receipt> {
    pub(crate) delivery: Delivery<Receipt>,
    pub(crate) asked_at: DateTime<Utc>,
    sent: Instant,
}

#[derive(Debug)]
struct Recipient<Receipt> {
    line: VecDeque<Delivery<Receipt>>,
    /// In the order in which they were sent.
    in_flight: VecDeque<MessageId>,
    window: usize,
    /// Whether it stands in `Pending::ready`.
    ready: bool,
    answered_at: Option<Instant>,
    /// How far apart answers come while there is something to answer: a moving average.
    answer_interval: Duration,
    /// When the last push that found the line full is to come back.
    last_turn: Instant,
}

/// Why a push does not wait in line.
#[derive(Debug)]
pub(crate) enum Refused<Receipt> {
    /// Its recipient does not answer.
    Slow(Delivery<Receipt>),
    /// The line is full; its turn comes after this long.
    LineFull(Delivery<Receipt>, Duration),
}

/// All pushes that were received from the queue and are not settled.
#[derive(Debug)]
pub(crate) struct Pending<Receipt> {
    recipients: HashMap<FullJid, Recipient<Receipt>>,
    in_flight: HashMap<MessageId, InFlight<Receipt>>,
    /// Recipients that have a line and room in their window, each once; served in turn.
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

    /// Whether a push of this registration was sent and is unanswered.
    pub(crate) fn asks(&self, registration: RegistrationId) -> bool {
        self.in_flight.values().any(|push| push.delivery.message.registration == registration)
    }

    /// Puts a push in its recipient's line.
    ///
    /// # Errors
    /// Gives the push back if it would wait behind a slow or an overlong line.
    pub(crate) fn admit(
        &mut self,
        delivery: Delivery<Receipt>,
        now: Instant,
    ) -> Result<(), Refused<Receipt>> {
        let jid = delivery.message.recipient.clone();
        let slow = self.is_slow(&jid, now);
        let recipient = self.recipients.entry(jid.clone()).or_insert_with(|| Recipient::new(now));
        if slow && recipient.is_full() {
            return Err(Refused::Slow(delivery));
        }
        if recipient.line.len() >= LINE_MAX {
            return Err(Refused::LineFull(delivery, recipient.take_turn(now)));
        }
        recipient.line.push_back(delivery);
        self.make_ready(&jid);
        Ok(())
    }

    /// The next push that may be sent, or nothing while every window is full.
    pub(crate) fn next(&mut self) -> Option<Delivery<Receipt>> {
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return None;
        }
        while let Some(jid) = self.ready.pop_front() {
            let Some(recipient) = self.recipients.get_mut(&jid) else { continue };
            recipient.ready = false;
            if !recipient.is_full()
                && let Some(delivery) = recipient.line.pop_front()
            {
                return Some(delivery);
            }
        }
        None
    }

    /// Notes that a push from [`Pending::next`] goes out now.
    pub(crate) fn sent(&mut self, delivery: Delivery<Receipt>, asked_at: DateTime<Utc>, now: Instant) {
        let id = delivery.message.id;
        if let Some(recipient) = self.recipients.get_mut(&delivery.message.recipient) {
            recipient.in_flight.push_back(id);
        }
        self.make_ready(&delivery.message.recipient);
        self.in_flight.insert(id, InFlight { delivery, asked_at, sent: now });
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
    /// was sent to somebody else.
    pub(crate) fn answered(&mut self, id: MessageId, from: &Jid, now: Instant) -> Option<InFlight<Receipt>> {
        let asked = &self.in_flight.get(&id)?.delivery.message.recipient;
        if from != asked {
            return None;
        }
        let answered = self.take(id)?;
        if let Some(recipient) = self.recipients.get_mut(&answered.delivery.message.recipient) {
            recipient.note_answer(now);
        }
        self.resize(&answered.delivery.message.recipient, |window| (window * 2).min(IN_FLIGHT_PER_JID_MAX));
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
                self.resize(&push.delivery.message.recipient, |window| (window / 2).max(1));
                overdue.push(push);
            }
        }
        overdue
    }

    /// Takes the lines of recipients that have become slow.
    pub(crate) fn slow_lines(&mut self, now: Instant) -> Vec<Delivery<Receipt>> {
        let slow = |recipient: &Recipient<Receipt>| {
            recipient.is_full() && is_unanswered_for_long(&self.in_flight, recipient, now)
        };
        let slow =
            self.recipients.values_mut().filter(|recipient| !recipient.line.is_empty() && slow(recipient));
        slow.flat_map(|recipient| recipient.line.drain(..)).collect()
    }

    /// Takes all that was sent to a session that has ended, and all that is in line for it.
    pub(crate) fn session_ended(
        &mut self,
        jid: &FullJid,
    ) -> (Vec<InFlight<Receipt>>, VecDeque<Delivery<Receipt>>) {
        let Some(recipient) = self.recipients.remove(jid) else { return Default::default() };
        if recipient.ready {
            self.ready.retain(|ready| ready != jid);
        }
        let sent = recipient.in_flight.iter().filter_map(|id| self.in_flight.remove(id)).collect();
        (sent, recipient.line)
    }

    /// Puts all that was sent back at the head of its line: the stream it went out on is gone.
    pub(crate) fn stream_ended(&mut self) {
        self.sent.clear();
        let jids: Vec<FullJid> = self.recipients.keys().cloned().collect();
        for jid in jids {
            if let Some(recipient) = self.recipients.get_mut(&jid) {
                recipient.answered_at = None;
                for id in recipient.in_flight.drain(..).rev() {
                    if let Some(push) = self.in_flight.remove(&id) {
                        recipient.line.push_front(push.delivery);
                    }
                }
            }
            self.make_ready(&jid);
        }
    }

    /// Takes whatever is in line.
    pub(crate) fn lines(&mut self) -> Vec<Delivery<Receipt>> {
        self.ready.clear();
        let lines = self.recipients.values_mut().flat_map(|recipient| {
            recipient.ready = false;
            recipient.line.drain(..)
        });
        lines.collect()
    }

    /// Takes whatever is unanswered.
    pub(crate) fn unanswered(&mut self) -> Vec<Delivery<Receipt>> {
        self.in_flight.drain().map(|(_, push)| push.delivery).collect()
    }

    fn take(&mut self, id: MessageId) -> Option<InFlight<Receipt>> {
        let push = self.in_flight.remove(&id)?;
        let jid = &push.delivery.message.recipient;
        if let Some(recipient) = self.recipients.get_mut(jid) {
            recipient.in_flight.retain(|other| *other != id);
        }
        Some(push)
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
            && !recipient.line.is_empty()
            && !recipient.is_full()
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

impl<Receipt> Recipient<Receipt> {
    fn new(now: Instant) -> Self {
        Self {
            line: VecDeque::new(),
            in_flight: VecDeque::new(),
            window: IN_FLIGHT_PER_JID_INITIAL,
            ready: false,
            answered_at: None,
            answer_interval: ANSWER_INTERVAL_INITIAL,
            last_turn: now,
        }
    }

    fn note_answer(&mut self, now: Instant) {
        if let Some(last) = self.answered_at.filter(|_| !self.line.is_empty()) {
            let interval = now.duration_since(last).min(ANSWER_INTERVAL_MAX);
            self.answer_interval = (self.answer_interval * 7 + interval) / 8;
        }
        self.answered_at = Some(now);
    }

    /// How long a push stays in the queue that finds the line full: each one half an answer longer
    /// than the one before, so that they come back in order, and rather too early than too late.
    fn take_turn(&mut self, now: Instant) -> Duration {
        let step = self.answer_interval / 2;
        let turn = self.last_turn.max(now + step * LINE_MAX as u32) + step;
        self.last_turn = turn.min(now + TURN_MAX);
        self.last_turn.duration_since(now)
    }

    fn is_full(&self) -> bool {
        self.in_flight.len() >= self.window
    }

    fn is_idle(&self) -> bool {
        self.line.is_empty() && self.in_flight.is_empty()
    }
}

#[cfg(test)]
mod tests;
