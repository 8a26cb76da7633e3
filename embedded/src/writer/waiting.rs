//! The writes that wait for the next commit, and its time.

use std::time::{Duration, Instant};

use push::usage::{self, Usage};

use super::commit::{Batch, Write};
use crate::entries::unwritten::Unwritten;

/// From the beginning of one commit to that of the next, where that one has nothing but pushes while others are settled.
pub(super) const PACE: Duration = Duration::from_millis(10);
/// Longest wait of usage for a commit, where nothing else is committed.
const USAGE_LINGER: Duration = Duration::from_secs(5);

/// The writes that wait for the next commit.
pub(super) struct Waiting {
    pub(super) unwritten: Unwritten,
    pub(super) writes: Vec<Write>,
    /// Rows of the queue.
    pub(super) deletions: Vec<i64>,
    /// The usage of tenants that is committed with these, or is final already.
    pub(super) usage: Usage,
    /// When that is committed at the latest.
    pub(super) usage_until: Option<Instant>,
    /// Somebody waits for one of the writes.
    pub(super) is_hasty: bool,
    /// When what lingers is written at the latest.
    pub(super) linger_until: Option<Instant>,
    /// When the last commit began.
    pub(super) begun: Instant,
    /// A push was settled since.
    pub(super) settles: bool,
    /// The last commit stands. While none does, nothing is handed on before its own.
    pub(super) stands: bool,
    /// The number of the queue's next row. It is never that of a row that was rolled back: the holder of that push may
    /// yet settle it.
    pub(super) next_seq: i64,
    /// Until when the thread sleeps, unless it is woken.
    pub(super) sleeps_until: Option<Instant>,
    /// Nobody is left to add anything.
    pub(super) is_closed: bool,
    /// The thread has died.
    pub(super) is_dead: bool,
}

impl Waiting {
    /// When the next commit is to begin.
    pub(super) fn due(&self) -> Option<Instant> {
        let pause = if self.settles { PACE } else { Duration::ZERO };
        let pushes = (!self.unwritten.is_empty()).then(|| self.begun + pause);
        let hasty = self.is_hasty.then_some(self.begun);
        [pushes, hasty, self.linger_until, self.usage_until].into_iter().flatten().min()
    }

    pub(super) fn linger(&mut self, how_long: Duration) {
        if self.linger_until.is_none() {
            self.linger_until = Some(Instant::now() + how_long);
        }
    }

    /// Adds usage that has become final, or does with the deletions that are here.
    pub(super) fn add_usage(&mut self, usage: Usage) {
        if !usage.is_empty() {
            usage::add(&mut self.usage, usage);
            self.usage_until.get_or_insert(Instant::now() + USAGE_LINGER);
        }
    }

    pub(super) fn take(&mut self) -> Batch {
        (self.is_hasty, self.settles) = (false, false);
        (self.linger_until, self.usage_until) = (None, None);
        Batch {
            sendings: self.unwritten.take(),
            writes: std::mem::take(&mut self.writes),
            deletions: std::mem::take(&mut self.deletions),
            usage: std::mem::take(&mut self.usage),
        }
    }
}
