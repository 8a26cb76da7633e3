//! One recipient: its line, its window, and how far its line may go.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use push::{MessageId, PushMessage};
use tokio::time::Instant;

use super::{Held, Origin};

/// What a JID starts with; each answer doubles it up to the maximum, a push without one halves it.
const IN_FLIGHT_PER_JID_INITIAL: usize = 4;
/// Most pushes in line for one JID, beside those in flight; a further one waits in the queue until
/// about its turn.
pub(crate) const LINE_MAX: usize = 512;
/// How far apart the answers of a JID are taken to be before they are known.
const ANSWER_INTERVAL_INITIAL: Duration = Duration::from_millis(5);
/// The most that one pause adds to what is known: it may have been the server's, or the stream's.
const ANSWER_INTERVAL_MAX: Duration = Duration::from_millis(50);
/// The longest that a push waits for its turn: what is known may be wrong.
pub(super) const TURN_MAX: Duration = Duration::from_secs(10);

/// How far a line may go: what waits in the mailbox and is not read yet goes before what is younger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Nothing that waits in the mailbox is known.
    Open,
    /// Up to this push the mailbox was read.
    UpTo(MessageId),
    /// Nothing of it was read yet.
    Shut,
}

/// Pushes have failed, and it is not known whether their recipient is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Doubt {
    pub(crate) failed: Vec<MessageId>,
    /// When the push was sent that failed first.
    pub(super) since: Instant,
    /// A push that was sent no earlier has been answered: it is there.
    pub(crate) proven: bool,
}

/// The place of a push in its line: what is to be delivered now or never goes before all.
type Place = (bool, MessageId);

fn place(message: &PushMessage) -> Place {
    (!message.is_immediate(), message.id)
}

#[derive(Debug)]
pub(super) struct Recipient<Receipt> {
    line: BTreeMap<Place, Held<Receipt>>,
    pub(super) gate: Gate,
    pub(super) doubt: Option<Doubt>,
    /// In the order in which they were sent.
    pub(super) in_flight: VecDeque<MessageId>,
    pub(super) window: usize,
    /// Whether it stands in `Pending::ready`.
    pub(super) ready: bool,
    pub(super) answered_at: Option<Instant>,
    /// How far apart answers come while there is something to answer: a moving average.
    answer_interval: Duration,
    /// When the last push that found the line full is to come back.
    last_turn: Instant,
}

impl<Receipt> Recipient<Receipt> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            line: BTreeMap::new(),
            gate: Gate::Open,
            doubt: None,
            in_flight: VecDeque::new(),
            window: IN_FLIGHT_PER_JID_INITIAL,
            ready: false,
            answered_at: None,
            answer_interval: ANSWER_INTERVAL_INITIAL,
            last_turn: now,
        }
    }

    pub(super) fn line_len(&self) -> usize {
        self.line.len()
    }

    pub(super) fn count_passing(&self, max: usize) -> usize {
        self.line.keys().take_while(|place| self.passes(**place)).take(max).count()
    }

    pub(super) fn in_line(&self, id: MessageId) -> Option<&Held<Receipt>> {
        self.line.get(&(true, id)).or_else(|| self.line.get(&(false, id)))
    }

    pub(super) fn line_up(&mut self, push: Held<Receipt>) {
        self.line.insert(place(&push.message), push);
    }

    pub(super) fn take_line(&mut self) -> Vec<Held<Receipt>> {
        std::mem::take(&mut self.line).into_values().collect()
    }

    /// Keeps in line what came from the queue alone.
    pub(super) fn leave_what_waits(&mut self) {
        self.line.retain(|_, push| !matches!(push.origin, Origin::Mailbox));
    }

    pub(super) fn take_from_line(&mut self, id: MessageId) -> Option<Held<Receipt>> {
        self.line.remove(&(true, id)).or_else(|| self.line.remove(&(false, id)))
    }

    pub(super) fn may_send(&self) -> bool {
        self.doubt.is_none()
            && !self.is_full()
            && self.line.first_key_value().is_some_and(|(place, _)| self.passes(*place))
    }

    fn passes(&self, (waits, id): Place) -> bool {
        match self.gate {
            Gate::Open => true,
            Gate::UpTo(read) => !waits || id <= read,
            Gate::Shut => !waits,
        }
    }

    /// The first in line, if it may go.
    pub(super) fn take_next(&mut self) -> Option<Held<Receipt>> {
        if !self.may_send() {
            return None;
        }
        self.line.pop_first().map(|(_, push)| push)
    }

    /// Notes a result, or that the application of a push is gone: either way somebody is there.
    pub(super) fn note_answer(&mut self, sent: Instant, now: Instant) {
        if let Some(doubt) = self.doubt.as_mut().filter(|doubt| sent >= doubt.since) {
            doubt.proven = true;
        }
        if let Some(last) = self.answered_at.filter(|_| !self.line.is_empty()) {
            let interval = now.duration_since(last).min(ANSWER_INTERVAL_MAX);
            self.answer_interval = (self.answer_interval * 7 + interval) / 8;
        }
        self.answered_at = Some(now);
    }

    /// How long a push stays in the queue that finds the line full: each one half an answer longer
    /// than the one before, so that they come back in order, and rather too early than too late.
    pub(super) fn take_turn(&mut self, now: Instant) -> Duration {
        let step = self.answer_interval / 2;
        let turn = self.last_turn.max(now + step * LINE_MAX as u32) + step;
        self.last_turn = turn.min(now + TURN_MAX);
        self.last_turn.duration_since(now)
    }

    pub(super) fn is_full(&self) -> bool {
        self.in_flight.len() >= self.window
    }

    pub(super) fn is_idle(&self) -> bool {
        self.line.is_empty() && self.in_flight.is_empty() && self.gate == Gate::Open && self.doubt.is_none()
    }
}
