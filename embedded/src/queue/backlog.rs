//! What is known of the queue without reading it.

use std::collections::{HashMap, VecDeque};

use chrono::{DateTime, Utc};
use push::{RegistrationId, ports::Delivery};

/// Most pushes that are handed on from memory; further ones are read from the file.
const FRESH_MAX: usize = 512;

/// A push that was handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Whose share of the queue it counts to. `None`: to nobody's; its row is of an earlier layout.
    pub(crate) registration: Option<RegistrationId>,
    /// It is settled; its row leaves with the next commit.
    pub(crate) is_leaving: bool,
}

/// What is known of the queue without reading it. To begin with nothing is: what an earlier process
/// left may be due at once.
#[derive(Default)]
pub(crate) struct Backlog {
    /// The rows that were handed on and are there still, by `seq`; those in `fresh` too.
    claims: HashMap<i64, Claim>,
    /// Pushes that came when no other was due, oldest first.
    pub(crate) fresh: VecDeque<Delivery<i64>>,
    /// No unclaimed row is due before this moment, in Unix milliseconds.
    pub(crate) next_due_at: i64,
    /// Rows on their way to the disk that were not handed on: nothing overtakes them.
    coming: usize,
}

impl Backlog {
    /// Takes a push whose row is on its way to the disk, unless an older one waits in the file or comes into it.
    pub(crate) fn offer(&mut self, delivery: impl FnOnce() -> Delivery<i64>, now: DateTime<Utc>) -> bool {
        let is_first = self.next_due_at > now.timestamp_millis() && self.coming == 0;
        let is_taken = is_first && self.fresh.len() < FRESH_MAX;
        if is_taken {
            let delivery = delivery();
            self.claim(delivery.receipt, Some(delivery.message.registration));
            self.fresh.push_back(delivery);
        }
        is_taken
    }

    pub(crate) fn claim(&mut self, seq: i64, registration: Option<RegistrationId>) {
        self.claims.insert(seq, Claim { registration, is_leaving: false });
    }

    pub(crate) fn is_claimed(&self, seq: i64) -> bool {
        self.claims.contains_key(&seq)
    }

    /// Notes that the row of a claimed push is to leave, and returns the claim as it was.
    pub(crate) fn leave(&mut self, seq: i64) -> Option<Claim> {
        let claim = self.claims.get_mut(&seq)?;
        Some(std::mem::replace(claim, Claim { is_leaving: true, ..*claim }))
    }

    /// Notes that there is no such row any more, or that there never will be.
    pub(crate) fn is_gone(&mut self, seq: i64) {
        self.claims.remove(&seq);
    }

    /// Notes that a row may be handed on again, from that moment on.
    pub(crate) fn unclaim(&mut self, seq: i64, due_at: i64) {
        self.claims.remove(&seq);
        self.waits(due_at);
    }

    /// Notes a row in the file that is due at this moment.
    pub(crate) fn waits(&mut self, due_at: i64) {
        self.next_due_at = self.next_due_at.min(due_at);
    }

    /// Notes a row on its way to the disk that was not handed on.
    pub(crate) fn comes(&mut self) {
        self.coming += 1;
    }

    /// Notes that such a row is there, and due at this moment; `None`: it could not be written.
    pub(crate) fn came(&mut self, due_at: Option<i64>) {
        self.coming -= 1;
        if let Some(due_at) = due_at {
            self.waits(due_at);
        }
    }
}
