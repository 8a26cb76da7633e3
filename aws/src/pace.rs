//! The number of polls at a time, and the start of the next one: as few as keep up with what comes.
//!
//! SQS answers a poll with fewer entries than asked for while the queue holds less than some thousand, however many
//! there are. So the size of an answer does not say whether more is there; the age of what it brings does.

use std::time::Duration;

use chrono::TimeDelta;

use crate::requests::BATCH_MAX;

/// Most polls at a time.
const POLLS_MAX: usize = 16;
/// After an answer that was neither full nor late, the next poll lets pushes gather: ten cost as much as one.
const GATHER: Duration = Duration::from_millis(50);
/// Entries that are older than this have waited for a poll, and not for others to gather.
const BEHIND: TimeDelta = TimeDelta::milliseconds(120);
/// A push that comes to a poll that has waited so long was sent just now: its age is the difference of the clocks.
const WAITED: Duration = Duration::from_millis(300);

/// The state of the queue, as an answer shows it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gist {
    /// Number of entries that it brought.
    pub(crate) entries: usize,
    /// Time that the poll took.
    pub(crate) took: Duration,
    /// The age of the oldest and of the youngest entry that came for the first time, by our clock and SQS's; others
    /// were hidden meanwhile.
    pub(crate) ages: Option<(TimeDelta, TimeDelta)>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pace {
    wanted: usize,
    /// Lead of our clock over SQS's, with the way there.
    ahead: TimeDelta,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { wanted: 1, ahead: TimeDelta::zero() }
    }

    /// Returns how many polls there should be.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted
    }

    /// Takes note of an answer; returns what the next poll waits before it starts.
    pub(crate) fn note(&mut self, gist: Gist) -> Duration {
        if gist.entries == 0 {
            self.wanted = 1;
            return Duration::ZERO;
        }
        if let Some((_, youngest)) = gist.ages {
            self.ahead = if gist.took >= WAITED { youngest } else { self.ahead.min(youngest) };
        }
        let is_behind = gist.ages.is_some_and(|(oldest, _)| oldest - self.ahead > BEHIND);
        if gist.entries >= BATCH_MAX || is_behind {
            self.wanted = (self.wanted + 1).min(POLLS_MAX);
            Duration::ZERO
        } else {
            self.wanted = (self.wanted - 1).max(1);
            GATHER
        }
    }

    /// A poll has failed.
    pub(crate) fn failed(&mut self) {
        self.wanted = 1;
    }
}

#[cfg(test)]
mod tests;
