//! The ports that the ingress uses. The relay and an operator use them as well.

use std::{collections::BTreeSet, future::Future};

use chrono::{DateTime, TimeDelta, Utc};
use jid::{BareJid, FullJid};

use super::{Consistency, Registered, Renewal, Revocation, Unavailable};
use crate::{
    marker::Marker,
    message::{MessageId, PushMessage},
    registration::{Epoch, Registration, RegistrationId, Target},
    tenant::Roster,
};

/// The registrations' store.
pub trait Registrations: Clone + Send + Sync + 'static {
    /// Reads the row of a registration, living or not.
    fn find(
        &self,
        id: RegistrationId,
        consistency: Consistency,
    ) -> impl Future<Output = Result<Option<Registration>, Unavailable>> + Send;

    /// Reads the rows of several registrations, living or not, in as few reads as the store allows. Their order is
    /// arbitrary.
    fn find_all(
        &self,
        ids: BTreeSet<RegistrationId>,
        consistency: Consistency,
    ) -> impl Future<Output = Result<Vec<Registration>, Unavailable>> + Send;

    /// Replaces the present row by that of [`Registration::renew`], atomically, and returns the new row once it is
    /// durable. Returns the present row instead where `renewal` lets it stand.
    ///
    /// A registration that does not live yet is refused if its account has `account_max`
    /// ([`registrations_counted`](crate::bounds::registrations_counted)). A predecessor's endpoints do not count, and
    /// are not refused.
    fn register(
        &self,
        target: Target,
        now: DateTime<Utc>,
        lifetime: TimeDelta,
        renewal: Renewal,
        account_max: usize,
    ) -> impl Future<Output = Result<Registered, Unavailable>> + Send;

    /// Ends a life because its application is gone: `recipient` said so in its answer to a push that was sent at
    /// `asked_at`.
    ///
    /// A later life goes on. So does a life that was renewed after `asked_at`: the distributor has changed its mind
    /// since. A life that names another full JID goes on, too: that JID may have the application.
    fn revoke(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        recipient: &FullJid,
        asked_at: DateTime<Utc>,
    ) -> impl Future<Output = Result<Revocation, Unavailable>> + Send;
}

/// The marker, which the registrations' store has beside the registrations.
pub trait Markers: Clone + Send + Sync + 'static {
    /// Reads the marker; `None`: no relay has ever used this store. The read shows every write that was durable before.
    fn marker(&self) -> impl Future<Output = Result<Option<Marker>, Unavailable>> + Send;
}

/// The tenants, which the registrations' store has beside the registrations.
pub trait Tenants: Clone + Send + Sync + 'static {
    /// Reads the roster; an empty one of version 0 if there is none. The read shows every write that was durable
    /// before.
    fn roster(&self) -> impl Future<Output = Result<Roster, Unavailable>> + Send;
}

/// The registrations' store, with all that the ingress uses of it.
pub trait Store: Registrations + Markers + Tenants {}

impl<S: Registrations + Markers + Tenants> Store for S {}

/// The ingress's side of the queue.
pub trait QueueWriter: Clone + Send + Sync + 'static {
    /// Queues a push. Returns once the push is durable, or settled.
    fn send(&self, message: PushMessage) -> impl Future<Output = Result<(), NotQueued>> + Send;

    /// Queues several pushes, in as few steps as the queue allows. Returns once all are durable. After an error, some
    /// of them may be in the queue.
    fn send_all(&self, messages: Vec<PushMessage>) -> impl Future<Output = Result<(), NotQueued>> + Send;
}

/// Why a push was not queued.
#[derive(Debug, thiserror::Error)]
pub enum NotQueued {
    /// The queue holds as many pushes of the registration as it may.
    #[error("the queue holds as many pushes of one registration as it may")]
    TooMany,
    /// The queue does not accept the push at present.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// The mailboxes, from which senders withdraw pushes.
pub trait Withdrawals: Clone + Send + Sync + 'static {
    /// Removes a push. Returns whether it was there and had not expired by `now`. One that has expired may stay, so
    /// that the relay removes and counts it.
    fn withdraw(
        &self,
        account: &BareJid,
        message: MessageId,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<bool, Unavailable>> + Send;
}
