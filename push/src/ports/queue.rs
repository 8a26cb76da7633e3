//! The queue between the ingress and the relay.

use std::{fmt, future::Future, sync::Arc};

use chrono::{DateTime, Utc};

use super::Unavailable;
use crate::{PushMessage, usage::Tally};

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
