//! The queue's state in memory: how much it holds, of whom, and what the relay has of it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use push::{PushMessage, RegistrationId, ports::Delivery};
use tokio::sync::Notify;

use super::{
    backlog::Backlog,
    shares::{Reservation, Shares},
    unwritten::Sending,
};

/// See the module. A push counts from the moment it is taken, whether it has a row yet or not, until it is settled and
/// has no row: the next process would find nothing of it.
pub(crate) struct Known {
    pub(crate) backlog: Mutex<Backlog>,
    shares: Shares,
    depth: AtomicU64,
    /// Rung when something may have become due.
    pub(crate) arrivals: Notify,
}

impl Known {
    /// The state that an earlier process left: pushes by registration, and in all.
    pub(crate) fn of(shares: HashMap<RegistrationId, u64>, depth: u64) -> Self {
        Self {
            backlog: Mutex::default(),
            shares: Shares::of(shares),
            depth: AtomicU64::new(depth),
            arrivals: Notify::new(),
        }
    }

    pub(crate) fn depth(&self) -> u64 {
        self.depth.load(Ordering::Relaxed)
    }

    /// Places for pushes of these registrations, one each, unless one of them has as many as it may: `None`.
    pub(crate) fn reserve(&self, ids: Vec<RegistrationId>, max: u64) -> Option<Reservation<'_>> {
        self.shares.reserve(ids, max)
    }

    /// Takes pushes that have places.
    pub(crate) fn count(&self, reservation: Reservation<'_>) {
        self.depth.fetch_add(reservation.confirm(), Ordering::Relaxed);
    }

    /// Hands a push on that has no row yet, if nothing older waits; returns whether the relay gets it.
    pub(crate) fn hand_on(&self, seq: i64, message: &Arc<PushMessage>, now: DateTime<Utc>) -> bool {
        let delivery = || Delivery { receipt: seq, is_first: true, message: Arc::clone(message) };
        self.backlog.lock().offer(delivery, now)
    }

    /// Notes that a push will be handed on when its row is there.
    pub(crate) fn await_row(&self) {
        self.backlog.lock().note_coming();
    }

    /// A push was settled that has no row, and will have none.
    pub(crate) fn settle_unwritten(&self, seq: i64, registration: RegistrationId) {
        self.backlog.lock().forget(seq);
        self.give_back(Some(registration));
    }

    /// Notes that a push was settled that has a row, or gets one by the commit that is under way; returns whether it
    /// was not settled before.
    pub(crate) fn settle_written(&self, seq: i64) -> bool {
        self.backlog.lock().leave(seq)
    }

    /// Rows are on disk.
    pub(crate) fn note_written(&self, sending: &Sending) {
        let mut backlog = self.backlog.lock();
        let mut came = false;
        for _ in sending.rows().filter(|(_, row)| !row.is_handed_on) {
            backlog.note_come(true);
            came = true;
        }
        drop(backlog);
        if came {
            self.arrivals.notify_one();
        }
    }

    /// Rows could not be written. The relay may have their pushes all the same, and settle them later.
    pub(crate) fn note_refused(&self, sending: &Sending) {
        let mut backlog = self.backlog.lock();
        for (seq, row) in sending.rows() {
            if row.is_handed_on {
                backlog.forget(seq);
            } else {
                backlog.note_come(false);
            }
            self.give_back(Some(row.message.registration));
        }
    }

    /// A row is deleted; whose it was, if there was one and that is known.
    pub(crate) fn note_deleted(&self, seq: i64, row: Option<Option<RegistrationId>>) {
        self.backlog.lock().forget(seq);
        if let Some(registration) = row {
            self.give_back(registration);
        }
    }

    fn give_back(&self, registration: Option<RegistrationId>) {
        self.depth.fetch_sub(1, Ordering::Relaxed);
        if let Some(registration) = registration {
            self.shares.give_back(&[registration]);
        }
    }
}
