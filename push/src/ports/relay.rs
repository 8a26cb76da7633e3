//! The ports that the relay uses, beside those of the [ingress](super::ingress).

use std::{fmt, future::Future, sync::Arc};

use chrono::{DateTime, Utc};
use jid::{BareJid, FullJid};

use super::{Markers, Page, Registrant, Registrations, Unavailable};
use crate::{
    marker::Marker,
    message::PushMessage,
    registration::{Epoch, Registration, RegistrationId},
    usage::Tally,
};

mod mailbox;

pub use mailbox::{Kept, Mailbox, Trimmed, Waiting};

/// The writes to the registrations' store that only the relay makes.
pub trait RelayRegistrations: Registrations + Accounts {
    /// Moves a life from one full JID to another of the same account, because its phone has come back under the other.
    /// Returns whether the life was moved. The time of its renewal and its expiry stay as they are.
    ///
    /// The row stays as it is if it has another epoch, has been revoked, or names another full JID than `from`.
    fn follow(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        from: &FullJid,
        to: &FullJid,
    ) -> impl Future<Output = Result<bool, Unavailable>> + Send;

    /// Notes that the senders of this life are over their rate until that moment ([`Registration::throttled_until`]). A
    /// row with another epoch stays as it is.
    fn throttle(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        until: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;
}

/// The marker, as the active relay writes it.
pub trait MarkerWriter: Markers {
    /// Replaces the marker. Returns once the write is durable.
    fn set_marker(&self, marker: &Marker) -> impl Future<Output = Result<(), Unavailable>> + Send;
}

/// Most full JIDs that are remembered for an account.
pub const SEEN_MAX: usize = 4;

/// A full JID of an account that was seen lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The full JID.
    pub jid: FullJid,
    /// The moment at which it last greeted or first answered, to the millisecond.
    pub seen_at: DateTime<Utc>,
    /// True if its session has ended since.
    pub ended: bool,
}

/// An account, as the store knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Its living registrations, in any order.
    pub registrations: Vec<Registration>,
    /// The full JIDs that were seen lately, in the order of [`Accounts::note_seen`].
    pub seen: Vec<Seen>,
}

/// Facts about an account (bare JID), rather than about one of its registrations. The registrations' store has them.
pub trait Accounts: Clone + Send + Sync + 'static {
    /// Reads an account as of `now`. Its registrations may be a second old.
    fn account(
        &self,
        account: &BareJid,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<Account, Unavailable>> + Send;

    /// Replaces the list of full JIDs seen lately, the latest first. Entries beyond [`SEEN_MAX`] are left out. Nothing
    /// is written for an account without a registration that lives at `now`.
    fn note_seen(
        &self,
        account: &BareJid,
        seen: Vec<Seen>,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Reads a page of the registrations of all accounts that live at `now`: behind `after`, or from the beginning, in
    /// an order of the store's own. A page has at least `max` of them, but for the last one, which says `None` instead
    /// of where to go on.
    ///
    /// For counting only: rows may be a second old, and registrations that are stored meanwhile may be missing.
    fn living(
        &self,
        after: Option<Registrant>,
        max: usize,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<Page<Registration>, Unavailable>> + Send;
}

/// A push that was received and is not yet settled. The queue gives it to nobody else before it is settled. If this
/// process dies, the next one receives it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery<Receipt> {
    /// The queue's name for the push.
    pub receipt: Receipt,
    /// True if this is the first receive, as far as the queue knows.
    pub is_first: bool,
    /// The push.
    pub message: Arc<PushMessage>,
}

/// The end of a received push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement<Receipt> {
    /// Deletes the push: its fate is durable elsewhere.
    Delete(Receipt),
    /// Leaves the push in the queue, to be received again at this moment.
    Postpone(Receipt, DateTime<Utc>),
}

/// The relay's side of the queue.
pub trait QueueReader: Clone + Send + Sync + 'static {
    /// The queue's name for a received push.
    type Receipt: Clone + fmt::Debug + Send + Sync + 'static;

    /// Receives the oldest pushes that are due, at most `max`. Waits for a bounded time if none is due, and may return
    /// none.
    fn receive(
        &self,
        max: usize,
    ) -> impl Future<Output = Result<Vec<Delivery<Self::Receipt>>, Unavailable>> + Send;

    /// Settles received pushes. Returns once postponements are durable. A deletion may become durable later, but before
    /// `close` returns: a crash in between delivers the push again, as a crash before the settlement would.
    fn settle(
        &self,
        settlements: Vec<Settlement<Self::Receipt>>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Settles likewise. A store that keeps usage takes the counts of these pushes, and makes them durable in the same
    /// step.
    fn settle_counted(
        &self,
        settlements: Vec<Settlement<Self::Receipt>>,
        counts: &Tally,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send {
        let _ = counts;
        self.settle(settlements)
    }

    /// Ends receiving. Pushes that were taken from the queue, and that `receive` has not returned, go back at once for
    /// another process. Pushes that it has returned are still to be settled.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// The name of a holder of a lease: random bytes, made anew by each process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(pub [u8; 16]);

/// A lease as the store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenure {
    /// The holder; `None` after a [`Lease::release`].
    pub holder: Option<Holder>,
    /// Grows with every renewal. A lease has lapsed when its count has stood still for a term. So a waiting relay needs
    /// no clock that agrees with the holder's.
    pub count: u64,
}

/// The right to be the active relay: one process has it at a time.
pub trait Lease: Clone + Send + Sync + 'static {
    /// Reads the lease; `None`: nobody ever had it. The read shows every write that was durable before.
    fn look(&self) -> impl Future<Output = Result<Option<Tenure>, Unavailable>> + Send;

    /// Takes over or renews the lease, on condition that it still is as it was `seen`. `None`: it has changed.
    fn take(
        &self,
        holder: Holder,
        seen: Option<Tenure>,
    ) -> impl Future<Output = Result<Option<Tenure>, Unavailable>> + Send;

    /// Gives the lease back, if this holder has it.
    fn release(&self, holder: Holder) -> impl Future<Output = Result<(), Unavailable>> + Send;
}
