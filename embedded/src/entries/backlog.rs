//! State of the queue that is known without reading it.

use std::collections::{BTreeSet, HashMap, VecDeque};

use chrono::{DateTime, Utc};
use push::ports::Delivery;

/// Most pushes that are handed on from memory; further ones are read from the file.
const FRESH_MAX: usize = 512;

/// State of the queue that is known without reading it. Rows are read once, in their order; a row that was read and
/// is not claimed is due later.
#[derive(Default)]
pub(crate) struct Backlog {
    /// The rows that were handed on and are there still, by `seq`, with those of `fresh`. `true`: the push is settled,
    /// and its row leaves with the next commit.
    claims: HashMap<i64, bool>,
    /// Pushes that came when no other was due, oldest first.
    pub(crate) fresh: VecDeque<Delivery<i64>>,
    /// The last row that was read; `None`: none was.
    pub(crate) read_up_to: Option<i64>,
    /// True if no row after `read_up_to` is left to read; false at the start: an earlier process may have left rows.
    pub(crate) is_read: bool,
    /// The rows that were read and are due at a moment, in Unix milliseconds.
    postponed: BTreeSet<(i64, i64)>,
    /// Rows on their way to the disk that were not handed on: nothing overtakes them.
    coming: usize,
}

impl Backlog {
    /// Takes a push whose row is on its way to the disk; returns whether it was taken. It is not while an older one
    /// waits in the file or comes into it, or `FRESH_MAX` are held.
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

    /// Notes that the row of a push is to leave; returns whether that was not noted before.
    pub(crate) fn leave(&mut self, seq: i64) -> bool {
        self.claims.get_mut(&seq).is_none_or(|is_leaving| !std::mem::replace(is_leaving, true))
    }

    /// Notes that there is no such row any more, or that there never will be.
    pub(crate) fn forget(&mut self, seq: i64) {
        self.claims.remove(&seq);
    }

    /// Notes that a row that was read is handed on at that moment, in Unix milliseconds, and no sooner.
    pub(crate) fn postpone(&mut self, seq: i64, due_at: i64) {
        self.claims.remove(&seq);
        self.postponed.insert((due_at, seq));
    }

    /// The row that has been due for longest, of those that were postponed.
    pub(crate) fn take_due(&mut self, now: DateTime<Utc>) -> Option<i64> {
        let due = self.postponed.first().filter(|(due_at, _)| *due_at <= now.timestamp_millis()).copied()?;
        self.postponed.remove(&due);
        Some(due.1)
    }

    /// Notes a row on its way to the disk that was not handed on.
    pub(crate) fn note_coming(&mut self) {
        self.coming += 1;
    }

    /// Notes that such a row is there, or that it could not be written.
    pub(crate) fn note_come(&mut self, is_there: bool) {
        self.coming -= 1;
        if is_there {
            self.is_read = false;
        }
    }
}
