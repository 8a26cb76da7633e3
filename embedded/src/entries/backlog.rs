//! The state of the queue that this process has in memory.

use std::collections::{BTreeSet, HashMap, VecDeque};

use chrono::{DateTime, Utc};
use push::ports::Delivery;

/// Most pushes that wait in memory to be handed on. Further ones are read from the file.
const FRESH_MAX: usize = 512;

/// The state of the queue in memory. Rows are read once, in their order. A row that was read and is not claimed is
/// postponed.
#[derive(Default)]
pub(crate) struct Backlog {
    /// The claimed rows by `seq`, including those of `fresh`. `true`: the push is settled, and a later commit deletes
    /// its row.
    claims: HashMap<i64, bool>,
    /// Pushes that came while no older one waited, oldest first.
    pub(crate) fresh: VecDeque<Delivery<i64>>,
    /// The `seq` of the last row that was read; `None`: none was read.
    pub(crate) read_up_to: Option<i64>,
    /// True if no row after `read_up_to` is left to read. False at the start, since an earlier process may have left
    /// rows.
    pub(crate) is_read: bool,
    /// The rows that were read and are due later, by their due time in Unix milliseconds.
    postponed: BTreeSet<(i64, i64)>,
    /// Number of rows on their way to the disk that were not handed on. No later push overtakes them.
    coming: usize,
}

impl Backlog {
    /// Takes a push whose row is on its way to the disk, and returns whether it was taken. The push is refused while an
    /// older one waits in the file or is on its way there, or while `FRESH_MAX` wait in memory.
    pub(crate) fn offer(&mut self, delivery: impl FnOnce() -> Delivery<i64>, now: DateTime<Utc>) -> bool {
        let is_first = self.next_due_at() > now.timestamp_millis() && self.coming == 0;
        let is_taken = is_first && self.fresh.len() < FRESH_MAX;
        if is_taken {
            let delivery = delivery();
            self.claim(delivery.receipt);
            self.fresh.push_back(delivery);
        }
        is_taken
    }

    /// Returns the earliest moment at which an unclaimed row may be due, in Unix milliseconds.
    pub(crate) fn next_due_at(&self) -> i64 {
        let postponed = self.postponed.first().map_or(i64::MAX, |(due_at, _)| *due_at);
        if self.is_read { postponed } else { i64::MIN }
    }

    /// Makes the rows that are due after `latest` due at `now`, both in Unix milliseconds.
    pub(crate) fn hasten(&mut self, now: i64, latest: i64) {
        let late = self.postponed.split_off(&(latest + 1, i64::MIN));
        self.postponed.extend(late.into_iter().map(|(_, seq)| (now, seq)));
    }

    pub(crate) fn claim(&mut self, seq: i64) {
        self.claims.insert(seq, false);
    }

    pub(crate) fn is_claimed(&self, seq: i64) -> bool {
        self.claims.contains_key(&seq)
    }

    /// Notes that the row of a push is to be deleted. Returns whether this is new.
    pub(crate) fn leave(&mut self, seq: i64) -> bool {
        self.claims.get_mut(&seq).is_none_or(|is_leaving| !std::mem::replace(is_leaving, true))
    }

    /// Notes that the row is deleted, or will never be written.
    pub(crate) fn forget(&mut self, seq: i64) {
        self.claims.remove(&seq);
    }

    /// Releases the claim on a row, and makes the row due at `due_at`, in Unix milliseconds.
    pub(crate) fn postpone(&mut self, seq: i64, due_at: i64) {
        self.claims.remove(&seq);
        self.postponed.insert((due_at, seq));
    }

    /// Takes the postponed row that has been due for longest.
    pub(crate) fn take_due(&mut self, now: DateTime<Utc>) -> Option<i64> {
        let due = self.postponed.first().filter(|(due_at, _)| *due_at <= now.timestamp_millis()).copied()?;
        self.postponed.remove(&due);
        Some(due.1)
    }

    /// Notes a row on its way to the disk that was not handed on.
    pub(crate) fn note_coming(&mut self) {
        self.coming += 1;
    }

    /// Notes that a row which was not handed on is written, or could not be.
    pub(crate) fn note_come(&mut self, is_there: bool) {
        self.coming -= 1;
        if is_there {
            self.is_read = false;
        }
    }
}
