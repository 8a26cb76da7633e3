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
}

/// The marker, which the registrations' store has beside them.
pub trait Markers: Clone + Send + Sync + 'static {
    /// The marker; `None`: no relay has ever begun here. It shows every write that was durable before.
    fn marker(&self) -> impl Future<Output = Result<Option<Marker>, Unavailable>> + Send;
}

/// The tenants, which the registrations' store has beside them.
pub trait Tenants: Clone + Send + Sync + 'static {
    /// The roster; an empty one of version 0 where there is none. It shows every write that was
    /// durable before.
    fn roster(&self) -> impl Future<Output = Result<Roster, Unavailable>> + Send;
}

/// The registrations' store with all that the ingress reads of it.
pub trait Store: Registrations + Markers + Tenants {}

impl<S: Registrations + Markers + Tenants> Store for S {}

/// The ingress's side of the queue.
pub trait QueueWriter: Clone + Send + Sync + 'static {
    /// Queues a push; returns once it is durable, or settled.
    fn send(&self, message: PushMessage) -> impl Future<Output = Result<(), NotQueued>> + Send;

    /// Queues pushes together, in as few steps as the queue allows; returns once all are durable. After an error
    /// some of them may be in the queue.
    fn send_all(&self, messages: Vec<PushMessage>) -> impl Future<Output = Result<(), NotQueued>> + Send;
}

/// Why a push was not queued.
#[derive(Debug, thiserror::Error)]
pub enum NotQueued {
    /// The queue holds as many of its registration as it may.
    #[error("the queue holds as many pushes of one registration as it may")]
    TooMany,
    /// The queue does not take it now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// The mailboxes, from which senders withdraw.
pub trait Withdrawals: Clone + Send + Sync + 'static {
    /// Removes one push; returns whether it was there, and had not expired by `now`.
    fn withdraw(
        &self,
        account: &BareJid,
        message: MessageId,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<bool, Unavailable>> + Send;
}
