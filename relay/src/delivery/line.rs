//! The line of one full JID: the pushes that wait for their turn, its window, and how far the line may go.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use push::{MessageId, PushMessage};
use tokio::time::Instant;

use crate::mutants::{Mutant, mutant};

/// Most unanswered pushes to one full JID; a hot one must not stall the rest (RFC 6120 sets no bound; servers queue).
pub(crate) const IN_FLIGHT_PER_JID_MAX: usize = 16;
/// Places of a new full JID. Each answer doubles them up to the maximum; silence leaves one.
const IN_FLIGHT_PER_JID_INITIAL: usize = 4;
/// Most pushes in line for one full JID, beside those in flight; a further one waits in the queue until about its turn.
pub(crate) const LINE_MAX: usize = 512;
/// The assumed time between two answers of a full JID before it is known.
const ANSWER_INTERVAL_INITIAL: Duration = Duration::from_millis(5);
/// The most that one pause adds to what is known: the server or the stream may have caused it.
const ANSWER_INTERVAL_MAX: Duration = Duration::from_millis(50);
/// The longest wait for a turn: the known interval may be wrong.
const TURN_MAX: Duration = Duration::from_secs(10);

/// The bound up to which a line may go: what waits in the mailbox and was not read yet goes before what is younger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Nothing is known to wait in the mailbox.
    Open,
    /// The mailbox was read up to this push.
    UpTo(MessageId),
    /// Nothing of the mailbox was read yet.
    Shut,
}

/// Pushes have failed, and nobody knows whether their recipient is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suspicion {
    pub(crate) failed: Vec<MessageId>,
    /// When the push was sent that failed first.
    since: Instant,
    /// A push that was sent no earlier has been answered: the recipient is there.
    pub(crate) proven: bool,
}

/// The place of a push in its line: `TTL: 0` goes before all.
type Place = (bool, MessageId);

fn place(message: &PushMessage) -> Place {
    (!message.is_immediate(), message.id)
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Line {
    places: BTreeSet<Place>,
    gate: Gate,
    suspicion: Option<Suspicion>,
    /// In the order in which they were sent.
    in_flight: VecDeque<(MessageId, Instant)>,
    /// The start of the current session, as the relay heard of it. Pushes that were sent before say nothing of it.
    since: Option<Instant>,
    window: usize,
    answered_at: Option<Instant>,
    /// The time between two answers while there is something to answer: a moving average.
    answer_interval: Duration,
    /// When the last push that found the line full is to come back.
    last_turn: Option<Instant>,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            places: BTreeSet::new(),
            gate: Gate::Open,
            suspicion: None,
            in_flight: VecDeque::new(),
            since: None,
            window: IN_FLIGHT_PER_JID_INITIAL,
            answered_at: None,
            answer_interval: ANSWER_INTERVAL_INITIAL,
            last_turn: None,
        }
    }
}

impl Line {
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = MessageId> {
        self.places.iter().map(|(_, id)| *id)
    }

    pub(crate) fn is_overlong(&self) -> bool {
        self.places.len() >= LINE_MAX
    }

    /// Returns how many pushes the gate lets pass, counted up to `max`.
    pub(crate) fn count_passing(&self, max: usize) -> usize {
        self.places.iter().take_while(|place| self.passes(**place)).take(max).count()
    }

    pub(crate) fn insert(&mut self, message: &PushMessage) {
        self.places.insert(place(message));
    }

    /// Takes a push out; returns whether it was in the line.
    pub(crate) fn remove(&mut self, id: MessageId) -> bool {
        self.places.remove(&(true, id)) || self.places.remove(&(false, id))
    }

    pub(crate) fn set_gate(&mut self, gate: Gate) {
        self.gate = gate;
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.gate == Gate::Shut
    }

    pub(crate) fn may_send(&self) -> bool {
        self.suspicion.is_none() && !self.is_full() && self.first().is_some()
    }

    fn passes(&self, (waits, id): Place) -> bool {
        match self.gate {
            _ if mutant(Mutant::GateIgnored) => true,
            Gate::Open => true,
            Gate::UpTo(read) => !waits || id <= read,
            Gate::Shut => !waits,
        }
    }

    /// The first in line, if the gate lets it pass.
    pub(crate) fn first(&self) -> Option<MessageId> {
        self.places.first().filter(|place| self.passes(**place)).map(|(_, id)| *id)
    }

    /// The first in line goes out now.
    pub(crate) fn send_first(&mut self, now: Instant) {
        if let Some((_, id)) = self.places.pop_first() {
            self.in_flight.push_back((id, now));
        }
    }

    /// Notes a new session. Pushes that the one before left unanswered fill no window and count as no silence. A full
    /// JID that was silent for so long that a push was given up still gets one at a time.
    pub(crate) fn begin_session(&mut self, now: Instant) {
        self.since = Some(now);
        self.suspicion = None;
    }

    /// Returns whether a push sent then went to the session of now.
    pub(crate) fn is_of_session(&self, sent: Instant) -> bool {
        self.since.is_none_or(|since| sent >= since)
    }

    /// Unanswered pushes that went out in the current session.
    fn unanswered(&self) -> impl Iterator<Item = &(MessageId, Instant)> {
        self.in_flight.iter().skip_while(|(_, sent)| !self.is_of_session(*sent))
    }

    /// Unanswered pushes that went out in earlier sessions.
    pub(crate) fn left_by_earlier_sessions(&self) -> impl Iterator<Item = MessageId> {
        self.in_flight.iter().take_while(|(_, sent)| !self.is_of_session(*sent)).map(|(id, _)| *id)
    }

    /// The pushes of the session of now that are in flight.
    pub(crate) fn ids_in_flight(&self) -> impl Iterator<Item = MessageId> {
        self.unanswered().map(|(id, _)| *id)
    }

    /// Returns how many pushes of the session of now are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.unanswered().count()
    }

    /// Pushes of this session that have been unanswered for at least so long.
    pub(crate) fn silent_for(&self, time: Duration, now: Instant) -> impl Iterator<Item = MessageId> {
        self.unanswered().take_while(move |(_, sent)| now.duration_since(*sent) >= time).map(|(id, _)| *id)
    }

    /// When the oldest unanswered push of this session was sent.
    pub(crate) fn oldest_in_flight(&self) -> Option<Instant> {
        self.unanswered().next().map(|(_, sent)| *sent)
    }

    /// Returns whether an answer has come lately.
    pub(crate) fn has_answered_within(&self, time: Duration, now: Instant) -> bool {
        self.answered_at.is_some_and(|at| now.duration_since(at) < time)
    }

    /// Takes a push out of flight; when it was sent.
    pub(crate) fn land(&mut self, id: MessageId) -> Option<Instant> {
        let at = self.in_flight.iter().position(|(other, _)| *other == id)?;
        self.in_flight.remove(at).map(|(_, sent)| sent)
    }

    /// Takes everything out of flight, with what is known by it.
    pub(crate) fn land_all(&mut self) -> Vec<MessageId> {
        self.suspicion = None;
        self.in_flight.drain(..).map(|(id, _)| id).collect()
    }

    /// The stream that answers would come by is gone.
    pub(crate) fn forget_pace(&mut self) {
        self.answered_at = None;
    }

    /// Notes that a push sent then has failed: nothing more goes out until the rest is answered.
    pub(crate) fn suspect(&mut self, id: MessageId, sent: Instant) {
        let suspicion = self.suspicion.get_or_insert_with(|| Suspicion {
            failed: Vec::new(),
            since: sent,
            proven: false,
        });
        suspicion.failed.push(id);
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspicion.is_some()
    }

    /// Ends the suspicion when nothing is in flight any more.
    pub(crate) fn conclude(&mut self) -> Option<Suspicion> {
        if self.in_flight() == 0 { self.suspicion.take() } else { None }
    }

    /// Notes an answer of somebody who is there, to a push sent then.
    pub(crate) fn note_answer(&mut self, sent: Instant, now: Instant) {
        if let Some(suspicion) = self.suspicion.as_mut().filter(|suspicion| sent >= suspicion.since) {
            suspicion.proven = true;
        }
        if let Some(last) = self.answered_at.filter(|_| !self.places.is_empty()) {
            let interval = now.duration_since(last).min(ANSWER_INTERVAL_MAX);
            self.answer_interval = (self.answer_interval * 7 + interval) / 8;
        }
        self.answered_at = Some(now);
        self.window = (self.window * 2).clamp(IN_FLIGHT_PER_JID_INITIAL, IN_FLIGHT_PER_JID_MAX);
        if self.is_idle() {
            // The next burst finds out anew how much at once is well.
            *self = Self::default();
        }
    }

    /// Leaves one place until the full JID answers.
    pub(crate) fn narrow_to_one(&mut self) {
        self.window = 1;
    }

    /// Takes a turn for a push that finds the line full; returns how long it stays in the queue: each half an answer
    /// longer than the one before, so that they come back in order, and rather too early than too late.
    pub(crate) fn take_turn(&mut self, now: Instant) -> Duration {
        let step = self.answer_interval / 2;
        let turn = self.last_turn.unwrap_or(now).max(now + step * LINE_MAX as u32) + step;
        let turn = turn.min(now + TURN_MAX);
        self.last_turn = Some(turn);
        turn.duration_since(now)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.in_flight() >= self.window
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.places.is_empty()
            && self.in_flight.is_empty()
            && self.gate == Gate::Open
            && self.suspicion.is_none()
    }
}

#[cfg(test)]
mod tests;
