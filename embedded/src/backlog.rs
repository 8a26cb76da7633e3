//! What is known of the queue without reading it.

use std::collections::{HashSet, VecDeque};

use chrono::{DateTime, Utc};
use push::ports::{Delivery, Settlement};

/// Most pushes that are handed on from memory; further ones are read from the file.
const FRESH_MAX: usize = 512;

/// What is known of the queue without reading it. To begin with nothing is: what an earlier process
/// left may be due at once.
#[derive(Default)]
pub(crate) struct Backlog {
    /// The rows that were handed on and are not settled, by `seq`; those in `fresh` too.
    pub(crate) claimed: HashSet<i64>,
    /// Pushes that came when no other was due, oldest first.
    pub(crate) fresh: VecDeque<Delivery<i64>>,
    /// No unclaimed row is due before this moment, in Unix milliseconds.
    pub(crate) next_due_at: i64,
}

impl Backlog {
    /// Takes a push whose row was written, unless an older one waits in the file.
    pub(crate) fn offer(&mut self, delivery: Delivery<i64>, now: DateTime<Utc>) -> bool {
        let first = self.next_due_at > now.timestamp_millis() && self.fresh.len() < FRESH_MAX;
        if first {
            self.claimed.insert(delivery.receipt);
            self.fresh.push_back(delivery);
        }
        first
    }

    pub(crate) fn settled(&mut self, settlement: &Settlement<i64>) {
        match settlement {
            Settlement::Delete(seq) => {
                self.claimed.remove(seq);
            }
            Settlement::Release(seq, due_at) | Settlement::Postpone(seq, due_at) => {
                self.unclaim(*seq, due_at.timestamp_millis());
            }
        }
    }

    pub(crate) fn unclaim(&mut self, seq: i64, due_at: i64) {
        self.claimed.remove(&seq);
        self.waits(due_at);
    }

    /// Notes a row in the file that is due at this moment.
    pub(crate) fn waits(&mut self, due_at: i64) {
        self.next_due_at = self.next_due_at.min(due_at);
    }
}
