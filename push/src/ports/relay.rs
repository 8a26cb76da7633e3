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

/// The registrations' store, where lives go on as their phones and senders do.
pub trait RelayRegistrations: Registrations + Accounts {
    /// Moves a life from one full JID to another of the same account, because its phone has come back under that
    /// one; returns whether it was moved. Its renewal and its expiry stay as they are.
    ///
    /// Nothing happens to another life, to one that has been revoked, nor to one that names another full JID than
    /// `from`.
    fn follow(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        from: &FullJid,
        to: &FullJid,
    ) -> impl Future<Output = Result<bool, Unavailable>> + Send;

    /// Notes that the senders of this life are over their rate until that moment
    /// ([`Registration::throttled_until`]). Nothing happens to another life.
    fn throttle(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        until: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;
}

/// The marker, as the active relay writes it.
pub trait MarkerWriter: Markers {
    /// Replaces the marker; returns once that is durable.
    fn set_marker(&self, marker: &Marker) -> impl Future<Output = Result<(), Unavailable>> + Send;
}

/// Most full JIDs that are remembered of an account.
pub const SEEN_MAX: usize = 4;

/// A full JID of an account that was seen lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The full JID.
    pub jid: FullJid,
    /// Its last sign of life, in milliseconds.
    pub seen_at: DateTime<Utc>,
    /// Its session has ended since.
    pub ended: bool,
}

/// An account, as the store knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Its registrations that live, in any order.
    pub registrations: Vec<Registration>,
    /// Its full JIDs that were seen lately, in the order of [`Accounts::note_seen`].
    pub seen: Vec<Seen>,
}

/// Facts of an account (bare JID) rather than of one of its registrations; the registrations' store has them.
pub trait Accounts: Clone + Send + Sync + 'static {
    /// The account as it is at `now`. Its registrations may be a second old.
    fn account(
        &self,
        account: &BareJid,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<Account, Unavailable>> + Send;

    /// Replaces the list of full JIDs seen lately, the latest first; those beyond [`SEEN_MAX`] are left out. Nothing
    /// is written for an account of which no registration lives at `now`.
    fn note_seen(
        &self,
        account: &BareJid,
        seen: Vec<Seen>,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// The registrations of all accounts that live at `now`, behind `after` or from the beginning, in an order of the
    /// store's own, at least `max` of them unless there are no more; then `None` instead of where to go on.
    ///
    /// For counting: they may be a second old, and it may miss what was stored meanwhile.
    fn living(
        &self,
        after: Option<Registrant>,
        max: usize,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<Page<Registration>, Unavailable>> + Send;
}

/// A push that was received and not yet settled. Until then the queue gives it to nobody else;
/// if this process dies, the next one receives it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery<Receipt> {
    /// By which the queue knows it.
    pub receipt: Receipt,
    /// The queue gives it for the first time, as far as the queue knows.
    pub is_first: bool,
    /// The push.
    pub message: Arc<PushMessage>,
}

/// The end of a received push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement<Receipt> {
    /// Its fate is durable elsewhere: delivered, expired or revoked.
    Delete(Receipt),
    /// Its turn has not come; it stays, and is received again at this moment.
    Postpone(Receipt, DateTime<Utc>),
}

/// The relay's side of the queue.
pub trait QueueReader: Clone + Send + Sync + 'static {
    /// By which the queue knows a received push.
    type Receipt: Clone + fmt::Debug + Send + Sync + 'static;

    /// The oldest pushes that are due, at most `max` of them; waits for one to come, for a bounded
    /// time, and may return none.
    fn receive(
        &self,
        max: usize,
    ) -> impl Future<Output = Result<Vec<Delivery<Self::Receipt>>, Unavailable>> + Send;

    /// Settles received pushes; returns once that is durable. A deletion may become so later, but before `close`
    /// returns: a crash meanwhile has the push delivered again, as one before the settlement would.
    fn settle(
        &self,
        settlements: Vec<Settlement<Self::Receipt>>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// The same; a store that keeps usage takes the counts of these pushes, and makes them durable in the same step.
    fn settle_counted(
        &self,
        settlements: Vec<Settlement<Self::Receipt>>,
        counts: &Tally,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send {
        let _ = counts;
        self.settle(settlements)
    }

    /// Ends receiving: whatever was taken from the queue and not yet returned goes back at once, for
    /// another process. The pushes that were returned are still to be settled.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// The name of a holder of a lease: chance, made anew by each process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(pub [u8; 16]);

/// A lease as the store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenure {
    /// The holder; nobody, after a [`Lease::release`].
    pub holder: Option<Holder>,
    /// Grows with every renewal. A lease whose count stands still for as long as one lasts has lapsed: whoever
    /// waits for it needs no clock that agrees with the holder's.
    pub count: u64,
}

/// The right to be the active relay: one process has it at a time.
pub trait Lease: Clone + Send + Sync + 'static {
    /// The present term; `None`: nobody ever had one. It shows every write that was durable before.
    fn look(&self) -> impl Future<Output = Result<Option<Tenure>, Unavailable>> + Send;

    /// Takes it over or renews it, on condition that it still stands as it was `seen`. `None`: it does not.
    fn take(
        &self,
        holder: Holder,
        seen: Option<Tenure>,
    ) -> impl Future<Output = Result<Option<Tenure>, Unavailable>> + Send;

    /// Gives it back, if this holder has it.
    fn release(&self, holder: Holder) -> impl Future<Output = Result<(), Unavailable>> + Send;
}
