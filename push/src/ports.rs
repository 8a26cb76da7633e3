//! Ports: the store and the queue that Upwire needs. SQLite and AWS each have an adapter.

use std::{collections::BTreeSet, error::Error, fmt, future::Future};

use chrono::{DateTime, TimeDelta, Utc};
use jid::{BareJid, FullJid};

use crate::{Epoch, Marker, Registration, RegistrationId, Target};

mod mailbox;
pub mod operator;
mod queue;
pub mod tenants;

pub use mailbox::{Kept, Mailbox, Trimmed, Waiting};
pub use queue::{Delivery, NotQueued, QueueReader, QueueWriter, Settlement};
pub use tenants::Tenants;

/// The store or the queue could not do its part; nothing was promised to anyone.
#[derive(Debug)]
pub struct Unavailable(Box<dyn Error + Send + Sync>);

impl Unavailable {
    /// Wraps what the adapter was told. The text must hold no secret and no address.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Unavailable {}

/// How fresh a row has to be. A store that has but one copy gives the freshest either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// It may be seconds old: cheaper, and enough to accept a push.
    Eventual,
    /// It shows every write that was durable before: whoever refuses for good asks so.
    Strong,
}

/// Whether a renewal is written that changes little ([`Registration::needs_renewal`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// It is not: the row stands as it is, and costs nothing.
    WhereNeeded,
    /// It is, so that it outlives whatever was asked of the distributor before.
    Always,
}

/// The marker of the registrations' store, which has it beside them.
pub trait Markers: Clone + Send + Sync + 'static {
    /// The marker; `None`: no relay has ever begun here. It shows every write that was durable before.
    fn marker(&self) -> impl Future<Output = Result<Option<Marker>, Unavailable>> + Send;

    /// Replaces the marker; returns once that is durable.
    fn set_marker(&self, marker: &Marker) -> impl Future<Output = Result<(), Unavailable>> + Send;
}

/// The registrations' store.
pub trait Registrations: Markers + Tenants {
    /// The row of a registration, living or not.
    fn find(
        &self,
        id: RegistrationId,
        consistency: Consistency,
    ) -> impl Future<Output = Result<Option<Registration>, Unavailable>> + Send;

    /// The rows of several registrations, living or not, in any order, in as few reads as the store allows.
    fn find_all(
        &self,
        ids: BTreeSet<RegistrationId>,
        consistency: Consistency,
    ) -> impl Future<Output = Result<Vec<Registration>, Unavailable>> + Send;

    /// Stores what [`Registration::renew`] makes of the present row, atomically, and returns it
    /// once it is durable; or returns the present row, where `renewal` lets it stand.
    ///
    /// A registration that does not live yet is refused where its account has `account_max`
    /// ([`registrations_counted`](crate::bounds::registrations_counted)). Endpoints of a predecessor neither count
    /// nor are they refused.
    fn register(
        &self,
        target: Target,
        now: DateTime<Utc>,
        lifetime: TimeDelta,
        renewal: Renewal,
        account_max: usize,
    ) -> impl Future<Output = Result<Registered, Unavailable>> + Send;

    /// Ends a life because its application is gone, as `recipient` answered to a push sent at `asked_at`.
    ///
    /// Nothing happens to a later life, nor to one renewed after `asked_at`: the distributor has
    /// changed its mind since. Nor to one that names another full JID: that one may hold the application.
    fn revoke(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        recipient: &FullJid,
        asked_at: DateTime<Utc>,
    ) -> impl Future<Output = Result<Revocation, Unavailable>> + Send;

    /// Moves a life from one full JID to another of the same account, because its phone has come back under that
    /// one; whether it was moved. Its renewal and its expiry stay as they are.
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

/// The outcome of [`Registrations::register`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// It lives, by this row.
    Stored(Registration),
    /// A life of it begins, by this row.
    Begun(Registration),
    /// Its account has as many registrations as it may: nothing was stored.
    AccountFull,
}

impl Registered {
    /// The row; `None`: the account is full.
    #[must_use]
    pub fn stored(self) -> Option<Registration> {
        match self {
            Self::Stored(row) | Self::Begun(row) => Some(row),
            Self::AccountFull => None,
        }
    }
}

/// The outcome of [`Registrations::revoke`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// The life has ended now.
    Revoked,
    /// It was over before.
    OverBefore,
    /// It goes on: it was renewed since, or it names another full JID.
    GoesOn,
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
        after: Option<Recipient>,
        max: usize,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<Page<Registration>, Unavailable>> + Send;
}

/// How far [`Mailbox::recipients`] or [`Accounts::living`] has come: whom the last that it returned is for.
pub type Recipient = (BareJid, RegistrationId);

/// A page, and where to go on; `None`: nowhere.
pub type Page<T> = (Vec<T>, Option<Recipient>);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_is_full_has_no_row() {
        let row = crate::testing::registration("juliet@example.com/phone", DateTime::UNIX_EPOCH);
        for registered in [Registered::Stored(row.clone()), Registered::Begun(row.clone())] {
            assert_eq!(registered.stored().as_ref(), Some(&row));
        }
        assert_eq!(Registered::AccountFull.stored(), None);
        assert_eq!(Unavailable::new("the disk is full").to_string(), "the disk is full");
    }
}
