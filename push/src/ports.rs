//! What Upwire needs of a store and of a queue; SQLite and AWS each have an adapter.

use std::{error::Error, fmt, future::Future};

use chrono::{DateTime, TimeDelta, Utc};

use crate::{Epoch, PushMessage, Registration, RegistrationId, Target};

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

/// The registrations' store.
pub trait Registrations: Clone + Send + Sync + 'static {
    /// The row of a registration, living or not.
    fn find(
        &self,
        id: RegistrationId,
        consistency: Consistency,
    ) -> impl Future<Output = Result<Option<Registration>, Unavailable>> + Send;

    /// Stores what [`Registration::renew`] makes of the present row, atomically, and returns it
    /// once it is durable; or returns the present row, where `renewal` lets it stand.
    fn register(
        &self,
        target: Target,
        now: DateTime<Utc>,
        lifetime: TimeDelta,
        renewal: Renewal,
    ) -> impl Future<Output = Result<Registration, Unavailable>> + Send;

    /// Ends a life because its application is gone, as the answer to a push sent at `asked_at` said.
    ///
    /// Nothing happens to a later life, nor to one renewed after `asked_at`: the distributor has
    /// changed its mind since.
    fn revoke(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        asked_at: DateTime<Utc>,
    ) -> impl Future<Output = Result<Revocation, Unavailable>> + Send;
}

/// What came of [`Registrations::revoke`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// The life has ended now.
    Revoked,
    /// It was over before.
    OverBefore,
    /// It goes on: it was renewed since.
    Renewed,
}

/// The ingress's side of the queue.
pub trait QueueWriter: Clone + Send + Sync + 'static {
    /// Queues a push; returns once it is durable.
    fn send(&self, message: PushMessage) -> impl Future<Output = Result<(), Unavailable>> + Send;
}

/// A push that was received and not yet settled. Until then the queue gives it to nobody else;
/// if this process dies, the next one receives it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery<Receipt> {
    /// By which the queue knows it.
    pub receipt: Receipt,
    /// How often it was released before. A queue that counts otherwise may count what was postponed too.
    pub attempts: u32,
    /// The push.
    pub message: PushMessage,
}

/// What becomes of a received push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement<Receipt> {
    /// Its fate is durable elsewhere: delivered, expired or revoked.
    Delete(Receipt),
    /// It could not be delivered; it stays, and is received again at this moment.
    Release(Receipt, DateTime<Utc>),
    /// The same for one whose turn it was not: that is no reason to wait longer when it fails.
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

    /// Settles received pushes; returns once that is durable.
    fn settle(
        &self,
        settlements: Vec<Settlement<Self::Receipt>>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Ends receiving: whatever was taken from the queue and not yet returned goes back at once, for
    /// another process. What was returned is still to be settled.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}
