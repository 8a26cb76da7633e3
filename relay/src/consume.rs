//! The relay's side of the queue: receives what there is room for, and settles what is decided.

use std::{sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use chrono::{DateTime, Utc};
use futures::future::join_all;
use push::{
    Epoch, PushMessage, RegistrationId,
    ports::{Consistency, Delivery, QueueReader, Registrations, Revocation, Settlement, Unavailable},
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::measures::REGISTRATIONS_REVOKED;

/// Most pushes that the relay holds: in line, in flight, or waiting to be settled.
pub(crate) const HELD_MAX: usize = 4096;
/// Most pushes in one receive, and settlements in one call.
const BATCH_MAX: usize = 256;

/// What was decided about a push, to be made durable.
#[derive(Debug)]
pub(crate) enum Fate<Receipt> {
    /// Delivered or expired: it leaves the queue.
    Done(Receipt),
    /// It could not be delivered, and stays in the queue until this moment.
    Later(Receipt, DateTime<Utc>),
    /// The same for one whose turn it was not.
    Postponed(Receipt, DateTime<Utc>),
    /// Its application is gone, as the answer to the push sent at `asked_at` said: the
    /// registration is revoked, and only then does the push leave the queue.
    Revoke {
        receipt: Receipt,
        registration: RegistrationId,
        epoch: Epoch,
        asked_at: DateTime<Utc>,
        retry_at: DateTime<Utc>,
        /// Dropped when the fate is decided.
        undecided: Arc<()>,
    },
}

/// Backs off from a store that does not answer: until it does.
fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_jitter()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(10))
        .without_max_times()
}

/// Receives while there is room, until `stop`.
pub(crate) async fn receive<Q: QueueReader, R: Registrations>(
    queue: Q,
    registrations: R,
    room: Arc<Semaphore>,
    deliveries: mpsc::Sender<Delivery<Q::Receipt>>,
    stop: CancellationToken,
) {
    let receiving = async {
        while let Ok(first) = room.acquire().await {
            first.forget();
            let more = room.available_permits().min(BATCH_MAX - 1);
            let more = room.try_acquire_many(more as u32).map_or(0, |permits| {
                let count = permits.num_permits();
                permits.forget();
                count
            });
            let max = 1 + more;
            let receive = || queue.receive(max);
            let received = receive.retry(backoff()).notify(report).await.unwrap_or_default();
            room.add_permits(max - received.len());
            for mut delivery in received {
                if delivery.attempts > 0 {
                    follow(&registrations, &mut delivery.message).await;
                }
                if deliveries.send(delivery).await.is_err() {
                    return;
                }
            }
        }
    };
    stop.run_until_cancelled(receiving).await;
}

/// Sends a push that failed before to where its distributor has registered since.
async fn follow<R: Registrations>(registrations: &R, message: &mut PushMessage) {
    match registrations.find(message.registration, Consistency::Eventual).await {
        Ok(Some(registration)) => message.recipient = registration.target.recipient,
        Ok(None) => {}
        Err(error) => report(&error, Duration::ZERO),
    }
}

/// Makes fates durable in batches, until there are no more to come.
pub(crate) async fn settle<Q: QueueReader, R: Registrations>(
    queue: Q,
    registrations: R,
    room: Arc<Semaphore>,
    mut fates: mpsc::Receiver<Fate<Q::Receipt>>,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while fates.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let settlements = join_all(batch.drain(..).map(|fate| decide(&registrations, fate))).await;
        let settle = || queue.settle(settlements.clone());
        // Retried until it succeeds: pushes stay with this process, which alone could settle them.
        let settled = settle.retry(backoff()).notify(report).await;
        debug_assert!(settled.is_ok(), "retried without end");
        room.add_permits(settlements.len());
    }
    // Last of all: until then, what is given back may be taken once more by a poll that is still under way.
    queue.close().await;
}

async fn decide<Receipt, R: Registrations>(registrations: &R, fate: Fate<Receipt>) -> Settlement<Receipt> {
    match fate {
        Fate::Done(receipt) => Settlement::Delete(receipt),
        Fate::Later(receipt, at) => Settlement::Release(receipt, at),
        Fate::Postponed(receipt, at) => Settlement::Postpone(receipt, at),
        Fate::Revoke { receipt, registration, epoch, asked_at, retry_at, undecided: _undecided } => {
            match registrations.revoke(registration, epoch, asked_at).await {
                Ok(Revocation::Revoked) => {
                    metrics::counter!(REGISTRATIONS_REVOKED).increment(1);
                    tracing::info!(%registration, "an application is gone; its registration is revoked");
                    Settlement::Delete(receipt)
                }
                Ok(Revocation::OverBefore) => Settlement::Delete(receipt),
                Ok(Revocation::Renewed) => Settlement::Release(receipt, retry_at),
                Err(error) => {
                    report(&error, Duration::ZERO);
                    Settlement::Release(receipt, retry_at)
                }
            }
        }
    }
}

fn report(error: &Unavailable, _: Duration) {
    tracing::error!(%error, "the queue or the store does not answer; trying again");
}
