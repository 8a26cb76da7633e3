//! The line of one full JID: the pushes that wait for their turn, the window, and the gate.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use push::{MessageId, PushMessage};
use tokio::time::Instant;

use crate::mutants::{Mutant, mutant};

/// Most unanswered pushes to one full JID, so that a busy one does not stall the rest. RFC 6120 sets no bound, and
/// servers queue.
pub(crate) const IN_FLIGHT_PER_JID_MAX: usize = 16;
/// Initial window of a full JID. Each answer doubles the window up to the maximum; silence narrows it to one.
const IN_FLIGHT_PER_JID_INITIAL: usize = 4;
/// Most pushes in line for one full JID, beside those in flight. A further push stays in the queue until about its
/// turn.
pub(crate) const LINE_MAX: usize = 512;
/// Assumed time between two answers of a full JID, before one is measured.
const ANSWER_INTERVAL_INITIAL: Duration = Duration::from_millis(5);
/// Most that one pause counts in the average: the server or the stream may have caused it.
const ANSWER_INTERVAL_MAX: Duration = Duration::from_millis(50);
/// Longest wait for a turn, because the average may be wrong.
const TURN_MAX: Duration = Duration::from_secs(10);

/// The bound up to which a line may go. Pushes in the mailbox that were not read yet go before younger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Nothing is known to wait in the mailbox.
    Open,
    /// The mailbox was read up to this push: pushes behind it wait.
    UpTo(MessageId),
    /// The mailbox was not read yet: every push waits, but for those of `TTL: 0`.
    Shut,
}

/// Pushes have failed, and it is not known whether the full JID is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suspicion {
    pub(crate) failed: Vec<MessageId>,
    /// The failed pushes that were not answered.
    pub(crate) unanswered: Vec<MessageId>,
    /// The time at which the push that failed first was sent.
    since: Instant,
    /// True if a push that was sent at `since` or later has been answered: the full JID is there.
    pub(crate) proven: bool,
}

/// The key by which a line is sorted. A push of `TTL: 0` goes before all others.
type LineKey = (bool, MessageId);

fn line_key(message: &PushMessage) -> LineKey {
    (!message.is_immediate(), message.id)
}

/// The line of one full JID.
#[derive(Debug)]
pub(crate) struct Line {
    /// The pushes that wait for their turn.
    keys: BTreeSet<LineKey>,
    gate: Gate,
    suspicion: Option<Suspicion>,
    /// Pushes in flight, in the order in which they were sent.
    in_flight: VecDeque<(MessageId, Instant)>,
    /// The start of the current session. Pushes that were sent before it say nothing of this session.
    since: Option<Instant>,
    window: usize,
    answered_at: Option<Instant>,
    /// Moving average of the time between two answers, while pushes wait in line.
    answer_interval: Duration,
    /// The latest moment at which a push that found the line full comes back from the queue.
    last_turn: Option<Instant>,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            keys: BTreeSet::new(),
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
        self.keys.is_empty()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = MessageId> {
        self.keys.iter().map(|(_, id)| *id)
    }

    pub(crate) fn is_line_full(&self) -> bool {
        self.keys.len() >= LINE_MAX
    }

    /// Counts the pushes that the gate lets pass, up to `max`.
    pub(crate) fn count_passing(&self, max: usize) -> usize {
        self.keys.iter().take_while(|key| self.passes(**key)).take(max).count()
    }

    pub(crate) fn insert(&mut self, message: &PushMessage) {
        self.keys.insert(line_key(message));
    }

    /// Removes a push. Returns whether it was in the line.
    pub(crate) fn remove(&mut self, id: MessageId) -> bool {
        self.keys.remove(&(true, id)) || self.keys.remove(&(false, id))
    }

    pub(crate) fn set_gate(&mut self, gate: Gate) {
        self.gate = gate;
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.gate == Gate::Shut
    }

    pub(crate) fn may_send(&self) -> bool {
        !self.awaits_answer() && self.first().is_some()
    }

    /// Returns whether nothing goes out before an answer to a push in flight.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.is_suspect() || self.is_window_full()
    }

    fn passes(&self, (waits, id): LineKey) -> bool {
        match self.gate {
            _ if mutant(Mutant::GateIgnored) => true,
            Gate::Open => true,
            Gate::UpTo(read) => !waits || id <= read,
            Gate::Shut => !waits,
        }
    }

    /// Returns the first push in line, if the gate lets it pass.
    pub(crate) fn first(&self) -> Option<MessageId> {
        self.keys.first().filter(|key| self.passes(**key)).map(|(_, id)| *id)
    }

    /// Moves the first push in line into flight.
    pub(crate) fn send_first(&mut self, now: Instant) {
        if let Some((_, id)) = self.keys.pop_first() {
            self.in_flight.push_back((id, now));
        }
    }

    /// Notes a new session. Pushes that an earlier session left unanswered no longer fill the window, and no longer
    /// count as silence. The window stays as it is: a full JID whose silence has narrowed it to one still gets one push
    /// at a time.
    pub(crate) fn begin_session(&mut self, now: Instant) {
        self.since = Some(now);
        self.suspicion = None;
    }

    /// Returns whether a push that was sent at this moment went to the current session.
    pub(crate) fn is_of_session(&self, sent: Instant) -> bool {
        self.since.is_none_or(|since| sent >= since)
    }

    /// Returns the unanswered pushes that went out in the current session.
    fn unanswered(&self) -> impl Iterator<Item = &(MessageId, Instant)> {
        self.in_flight.iter().skip_while(|(_, sent)| !self.is_of_session(*sent))
    }

    /// Returns the unanswered pushes that went out in earlier sessions.
    pub(crate) fn left_by_earlier_sessions(&self) -> impl Iterator<Item = MessageId> {
        self.in_flight.iter().take_while(|(_, sent)| !self.is_of_session(*sent)).map(|(id, _)| *id)
    }

    /// Returns the pushes of the current session that are in flight.
    pub(crate) fn ids_in_flight(&self) -> impl Iterator<Item = MessageId> {
        self.unanswered().map(|(id, _)| *id)
    }

    /// Counts the pushes of the current session that are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.unanswered().count()
    }

    /// Returns the pushes of the current session that have been unanswered for `time` or longer.
    pub(crate) fn silent_for(&self, time: Duration, now: Instant) -> impl Iterator<Item = MessageId> {
        self.unanswered().take_while(move |(_, sent)| now.duration_since(*sent) >= time).map(|(id, _)| *id)
    }

    /// Returns the time at which the oldest unanswered push of the current session was sent.
    pub(crate) fn oldest_in_flight(&self) -> Option<Instant> {
        self.unanswered().next().map(|(_, sent)| *sent)
    }

    /// Returns whether the last answer came less than `time` ago.
    pub(crate) fn has_answered_within(&self, time: Duration, now: Instant) -> bool {
        self.answered_at.is_some_and(|at| now.duration_since(at) < time)
    }

    /// Takes a push out of flight. Returns the time at which it was sent.
    pub(crate) fn land(&mut self, id: MessageId) -> Option<Instant> {
        let at = self.in_flight.iter().position(|(other, _)| *other == id)?;
        self.in_flight.remove(at).map(|(_, sent)| sent)
    }

    /// Takes all pushes out of flight, and drops the suspicion.
    pub(crate) fn land_all(&mut self) -> Vec<MessageId> {
        self.suspicion = None;
        self.in_flight.drain(..).map(|(id, _)| id).collect()
    }

    /// Forgets the time of the last answer: the stream is gone, and a pause that it caused must not count.
    pub(crate) fn forget_pace(&mut self) {
        self.answered_at = None;
    }

    /// Notes that a push sent at this moment has failed, by an answer or without one. Nothing more goes out until the
    /// rest is answered.
    pub(crate) fn suspect(&mut self, id: MessageId, sent: Instant, answered: bool) {
        let suspicion = self.suspicion.get_or_insert_with(|| Suspicion {
            failed: Vec::new(),
            unanswered: Vec::new(),
            since: sent,
            proven: false,
        });
        suspicion.failed.push(id);
        if !answered {
            suspicion.unanswered.push(id);
        }
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspicion.is_some()
    }

    /// Ends the suspicion, if nothing of the current session is in flight any more.
    pub(crate) fn conclude(&mut self) -> Option<Suspicion> {
        if self.in_flight() == 0 { self.suspicion.take() } else { None }
    }

    /// Notes an answer to a push that was sent at this moment: the full JID is there.
    pub(crate) fn note_answer(&mut self, sent: Instant, now: Instant) {
        if let Some(suspicion) = self.suspicion.as_mut().filter(|suspicion| sent >= suspicion.since) {
            suspicion.proven = true;
        }
        if let Some(last) = self.answered_at.filter(|_| !self.keys.is_empty()) {
            let interval = now.duration_since(last).min(ANSWER_INTERVAL_MAX);
            self.answer_interval = (self.answer_interval * 7 + interval) / 8;
        }
        self.answered_at = Some(now);
        self.window = (self.window * 2).clamp(IN_FLIGHT_PER_JID_INITIAL, IN_FLIGHT_PER_JID_MAX);
        if self.is_idle() {
            // The next burst finds its window anew.
            *self = Self::default();
        }
    }

    /// Narrows the window to one push, until the full JID answers.
    pub(crate) fn narrow_to_one(&mut self) {
        self.window = 1;
    }

    /// Returns how long a push that finds the line full stays in the queue. Each push comes back half an answer
    /// interval after the one before: in order, and rather too early than too late.
    pub(crate) fn requeue_delay(&mut self, now: Instant) -> Duration {
        let step = self.answer_interval / 2;
        let turn = self.last_turn.unwrap_or(now).max(now + step * LINE_MAX as u32) + step;
        let turn = turn.min(now + TURN_MAX);
        self.last_turn = Some(turn);
        turn.duration_since(now)
    }

    fn is_window_full(&self) -> bool {
        self.in_flight() >= self.window
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.keys.is_empty()
            && self.in_flight.is_empty()
            && self.gate == Gate::Open
            && self.suspicion.is_none()
    }
}

#[cfg(test)]
mod tests;
