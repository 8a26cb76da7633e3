//! The number of concurrent polls, and the start of the next one. It is the smallest number that keeps up with the
//! pushes.
//!
//! While the queue has less than some thousand entries, SQS answers with fewer than asked for, even if there are more.
//! So the size of an answer does not tell whether more wait; the age of its entries does.

use std::time::Duration;

use chrono::TimeDelta;

use crate::requests::BATCH_MAX;

/// Most concurrent polls.
const POLLS_MAX: usize = 16;
/// Delay before the next poll after an answer that was neither full nor late. Pushes gather meanwhile: ten cost as much
/// as one.
const GATHER: Duration = Duration::from_millis(50);
/// Age beyond which an entry has waited for a poll, rather than for others to gather.
const BEHIND: TimeDelta = TimeDelta::milliseconds(120);
/// Duration of a poll beyond which its push was sent just now, so that the push's age is the difference of the clocks.
const WAITED: Duration = Duration::from_millis(300);

/// The state of the queue, as an answer shows it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gist {
    /// Number of entries in the answer.
    pub(crate) entries: usize,
    /// Duration of the poll.
    pub(crate) took: Duration,
    /// The ages of the oldest and of the youngest entry that was received for the first time, as the difference of our
    /// clock and SQS's. Other entries were hidden for a while, so their ages tell nothing.
    pub(crate) ages: Option<(TimeDelta, TimeDelta)>,
}

/// The pace of the polls.
#[derive(Debug)]
pub(crate) struct Pace {
    wanted: usize,
    /// Lead of our clock over SQS's, including the network delay.
    ahead: TimeDelta,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { wanted: 1, ahead: TimeDelta::zero() }
    }

    /// Returns the number of concurrent polls that there should be.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted
    }

    /// Notes an answer. Returns the delay before the next poll.
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

    /// Notes that a poll has failed.
    pub(crate) fn failed(&mut self) {
        self.wanted = 1;
    }
}

#[cfg(test)]
mod tests;
