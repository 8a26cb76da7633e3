//! The writes that wait for the next commit, and the time at which it is due.

use std::time::{Duration, Instant};

use push::usage::{self, Usage};

use super::commit::{Batch, Write};
use crate::entries::unwritten::Unwritten;

/// Shortest time between the beginnings of two commits, if the second has nothing but pushes and others are being
/// settled.
pub(super) const PACE: Duration = Duration::from_millis(10);
/// Longest wait of usage for a commit, if nothing else is committed.
const USAGE_LINGER: Duration = Duration::from_secs(5);

/// The writes that wait for the next commit.
pub(super) struct Waiting {
    pub(super) unwritten: Unwritten,
    pub(super) writes: Vec<Write>,
    /// Rows of the queue to delete.
    pub(super) deletions: Vec<i64>,
    /// The usage of tenants: of these deletions, and of pushes that never had a row.
    pub(super) usage: Usage,
    /// Latest time for the commit of the usage.
    pub(super) usage_until: Option<Instant>,
    /// True if a caller waits for one of the writes.
    pub(super) is_hasty: bool,
    /// Latest time for the commit of the lingering writes.
    pub(super) linger_until: Option<Instant>,
    /// Beginning of the last commit.
    pub(super) begun: Instant,
    /// True if a push was settled since.
    pub(super) settles: bool,
    /// True if the last commit succeeded. While commits fail, no push is handed on before its own commit.
    pub(super) stands: bool,
    /// The `seq` of the queue's next row. The `seq` of a row that was rolled back is not used again, since the relay
    /// may still settle that push.
    pub(super) next_seq: i64,
    /// Time until which the thread sleeps, unless it is woken.
    pub(super) sleeps_until: Option<Instant>,
    /// True if no callers are left.
    pub(super) is_closed: bool,
    /// True if the thread has ended.
    pub(super) is_dead: bool,
}

impl Waiting {
    /// Returns the time at which the next commit has to begin.
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

    /// Adds usage to the next commit.
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
