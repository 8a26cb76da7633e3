//! The queue's counts in memory, and the pushes that the relay has.

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

/// The queue's state in memory. A push counts from its acceptance until it is settled and has no row.
pub(crate) struct Known {
    pub(crate) backlog: Mutex<Backlog>,
    shares: Shares,
    depth: AtomicU64,
    /// Notified when a push may have become due.
    pub(crate) arrivals: Notify,
}

impl Known {
    /// Makes the state for the rows that an earlier process left: pushes by registration, and in all.
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

    /// Reserves a place for a push of each of these registrations; `None`: one of them has as many as it may.
    pub(crate) fn reserve(&self, ids: Vec<RegistrationId>, max: u64) -> Option<Reservation<'_>> {
        self.shares.reserve(ids, max)
    }

    /// Counts pushes that have places.
    pub(crate) fn count(&self, reservation: Reservation<'_>) {
        self.depth.fetch_add(reservation.confirm(), Ordering::Relaxed);
    }

    /// Hands on a push that has no row yet, unless an older one waits. Returns whether the relay gets it.
    pub(crate) fn hand_on(&self, seq: i64, message: &Arc<PushMessage>, now: DateTime<Utc>) -> bool {
        let delivery = || Delivery { receipt: seq, is_first: true, message: Arc::clone(message) };
        self.backlog.lock().offer(delivery, now)
    }

    /// Notes that a push will be handed on when its row is written.
    pub(crate) fn await_row(&self) {
        self.backlog.lock().note_coming();
    }

    /// Notes the settlement of a push that has no row, and will get none.
    pub(crate) fn settle_unwritten(&self, seq: i64, registration: RegistrationId) {
        self.backlog.lock().forget(seq);
        self.give_back(Some(registration));
    }

    /// Notes the settlement of a push that has a row, or gets one by the commit under way. Returns whether this is new.
    pub(crate) fn settle_written(&self, seq: i64) -> bool {
        self.backlog.lock().leave(seq)
    }

    /// Notes that rows are on disk.
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

    /// Notes that rows could not be written. The relay may still have their pushes, and settle them later.
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

    /// Notes the deletion of a row. `row` is its registration, if there was a row and it names one.
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
