//! The entries of the queue that this process holds: it receives them, keeps them hidden from others, and settles them.

use std::{
    collections::BTreeSet,
    fmt, iter,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, stream};
use push::{
    MessageId, PushMessage,
    ports::{Delivery, Settlement, Unavailable},
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    held::{Arrival, HeldEntries, SqsCopy},
    pace::Gist,
    requests::{Attributes, BATCH_MAX, QueueSender, Undone},
};

/// Most calls at a time for one round of settlements.
const CALLS_MAX: usize = 16;

/// A queue, its dead-letter queue, and the held entries of the queue.
#[derive(Clone)]
pub(crate) struct Entries {
    queue: QueueSender,
    dead_letters: QueueSender,
    held: Arc<Mutex<HeldEntries>>,
    visibility: Duration,
    /// Number of receives at which an entry is queued afresh. Soon after, SQS would move it to the dead-letter queue.
    receives_max: u32,
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entries({:?})", self.queue)
    }
}

impl Entries {
    pub(crate) fn new(queue: QueueSender, dead_letters: QueueSender, attributes: &Attributes) -> Self {
        Self {
            queue,
            dead_letters,
            held: Arc::default(),
            visibility: attributes.visibility,
            // A tenth of the receives is left for those that end in a crash.
            receives_max: attributes.receives_max - attributes.receives_max / 10,
        }
    }

    fn held(&self) -> MutexGuard<'_, HeldEntries> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls once, for at most `wait`. Returns the pushes, oldest first, which are held from now on.
    pub(crate) async fn poll(&self, wait: Duration) -> Result<Answer, Unavailable> {
        let began = Instant::now();
        let messages = self.queue.receive(wait, self.visibility).await?;
        let gist = Gist { entries: messages.len(), took: began.elapsed(), ages: ages(&messages, now()) };
        let visible_at = Instant::now() + self.visibility;
        let mut deliveries = Vec::with_capacity(messages.len());
        for message in messages {
            deliveries.extend(self.admit(message, visible_at).await);
        }
        deliveries.sort_by_key(|delivery| delivery.message.accepted_at);
        Ok(Answer { deliveries, gist })
    }

    /// Returns the push of an entry, unless it is held or settled already, or the entry is no push.
    async fn admit(&self, entry: Message, visible_at: Instant) -> Option<Delivery<MessageId>> {
        let receives = receives(&entry);
        let sqs_id = entry.message_id.unwrap_or_default();
        let receipt = entry.receipt_handle.unwrap_or_default();
        let body = entry.body.unwrap_or_default();
        let message = match PushMessage::from_entry(body.as_bytes()) {
            Ok(message) => message,
            Err(error) => {
                tracing::error!(entry = sqs_id, %error, "a queue entry cannot be read; it goes to the dead-letter queue");
                self.bury(&sqs_id, receipt, body).await;
                return None;
            }
        };
        let id = message.id;
        let worn = (receives >= self.receives_max).then_some(body);
        let copy = SqsCopy { sqs_id, receipt: receipt.clone(), worn };
        let arrival = self.held().note_arrival(id, copy, visible_at);
        match arrival {
            Arrival::New => {
                Some(Delivery { receipt: id, is_first: receives == 1, message: Arc::new(message) })
            }
            Arrival::Held => None,
            Arrival::Settled => {
                // If the deletion fails, the entry comes again, and is recognized again.
                if let Err(error) = self.queue.delete(vec![receipt]).await {
                    let error = Unavailable::from(error);
                    tracing::warn!(%error, "a second copy of a settled push is still in the queue");
                }
                None
            }
        }
    }

    /// Moves an entry that is no push to the dead-letter queue. If that fails, the entry comes again.
    async fn bury(&self, sqs_id: &str, receipt: String, body: String) {
        let moved = async {
            self.dead_letters.send_entry(body, Duration::ZERO).await?;
            Ok(self.queue.delete(vec![receipt]).await?)
        };
        let moved: Result<(), Unavailable> = moved.await;
        if let Err(error) = moved {
            tracing::error!(entry = sqs_id, %error, "it could not be moved, and will come again");
        }
    }

    /// Settles pushes that are held. Others are settled already.
    pub(crate) async fn settle(&self, settlements: Vec<Settlement<MessageId>>) -> Result<(), Unavailable> {
        let (mut done, mut back, mut afresh) = (Vec::new(), Vec::new(), Vec::new());
        let now = now();
        for settlement in settlements {
            match settlement {
                Settlement::Delete(id) => done.extend(self.copies(id)),
                Settlement::Postpone(id, until) => {
                    let hidden = (until - now).to_std().unwrap_or(Duration::ZERO);
                    // The push stops being held before SQS shows it, since it may be received again before the call
                    // returns.
                    for copy in self.held().take(id) {
                        let worn = copy.worn.is_some();
                        if worn { &mut afresh } else { &mut back }.push((id, copy, hidden));
                    }
                }
            }
        }
        let deleting = in_batches(done, |batch| self.delete(batch));
        let showing = in_batches(back, |batch| self.give_back(batch));
        let queueing = in_batches(afresh, |batch| self.queue_afresh(batch));
        let (deleted, shown, queued) = tokio::join!(deleting, showing, queueing);
        deleted.and(shown).and(queued)
    }

    fn copies(&self, id: MessageId) -> Vec<(MessageId, SqsCopy)> {
        self.held().copies(id).iter().map(|copy| (id, copy.clone())).collect()
    }

    async fn delete(&self, batch: Vec<(MessageId, SqsCopy)>) -> Result<(), Unavailable> {
        let (ids, receipts): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|(id, copy)| (id, copy.receipt)).unzip();
        let deleted = self.queue.delete(receipts).await;
        // A push with a copy that is left stays held.
        let left: BTreeSet<MessageId> = undone(&deleted, &ids).copied().collect();
        ids.into_iter().filter(|id| !left.contains(id)).for_each(|id| self.held().note_settled(id));
        Ok(deleted?)
    }

    async fn give_back(&self, batch: Vec<(MessageId, SqsCopy, Duration)>) -> Result<(), Unavailable> {
        let hide = batch.iter().map(|(_, copy, hidden)| (copy.receipt.clone(), *hidden)).collect();
        let shown = self.queue.hide(hide).await;
        undone(&shown, &batch).for_each(|(id, copy, _)| self.hold_again(*id, copy.clone()));
        Ok(shown?)
    }

    /// Replaces worn entries by new ones, whose receives SQS counts from 0.
    async fn queue_afresh(&self, batch: Vec<(MessageId, SqsCopy, Duration)>) -> Result<(), Unavailable> {
        let mut outcome = Ok(());
        for (id, copy, hidden) in batch {
            let moved = async {
                // The entry is sent before it is deleted: a crash in between leaves two copies, not none.
                self.queue.send_entry(copy.worn.clone().unwrap_or_default(), hidden).await?;
                Ok(self.queue.delete(vec![copy.receipt.clone()]).await?)
            };
            let moved: Result<(), Unavailable> = moved.await;
            if let Err(error) = moved {
                self.hold_again(id, copy);
                outcome = Err(error);
            }
        }
        outcome
    }

    /// Holds a push again that could not be given back. It is visible now, so the next tick retries.
    fn hold_again(&self, id: MessageId, copy: SqsCopy) {
        self.held().note_arrival(id, copy, Instant::now());
    }

    /// Keeps the held entries hidden from others, until the future is dropped.
    pub(crate) async fn keep_hidden(self) {
        let mut ticks = interval(self.visibility / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let running_out = self.held().running_out(Instant::now(), self.visibility / 2);
            let extended = in_batches(running_out, |batch| self.extend(batch)).await;
            if let Err(error) = extended {
                tracing::warn!(%error, "pushes that are being delivered may be received a second time");
            }
        }
    }

    async fn extend(&self, batch: Vec<(MessageId, SqsCopy)>) -> Result<(), Unavailable> {
        let hide = batch.iter().map(|(_, copy)| (copy.receipt.clone(), self.visibility)).collect();
        let visible_at = Instant::now() + self.visibility;
        let hidden = self.queue.hide(hide).await;
        let left: BTreeSet<MessageId> = undone(&hidden, &batch).map(|(id, _)| *id).collect();
        let extended = batch.iter().filter(|(id, _)| !left.contains(id));
        extended.for_each(|(id, _)| self.held().note_extended(*id, visible_at));
        Ok(hidden?)
    }
}

/// Returns the items of a batch that a call has left undone.
fn undone<'a, T>(outcome: &'a Result<(), Undone>, batch: &'a [T]) -> impl Iterator<Item = &'a T> {
    let items = batch.iter().enumerate();
    let left = items.filter(|(position, _)| outcome.as_ref().is_err_and(|undone| undone.has(*position)));
    left.map(|(_, item)| item)
}

/// The answer to a poll.
pub(crate) struct Answer {
    pub(crate) deliveries: Vec<Delivery<MessageId>>,
    pub(crate) gist: Gist,
}

fn attribute(entry: &Message, name: MessageSystemAttributeName) -> Option<&str> {
    entry.attributes()?.get(&name).map(String::as_str)
}

fn receives(entry: &Message) -> u32 {
    let count = attribute(entry, MessageSystemAttributeName::ApproximateReceiveCount);
    count.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Returns the ages of the oldest and of the youngest entry that was received for the first time.
fn ages(entries: &[Message], now: DateTime<Utc>) -> Option<(TimeDelta, TimeDelta)> {
    let sent = |entry: &Message| {
        let sent = attribute(entry, MessageSystemAttributeName::SentTimestamp)?;
        Some(now - DateTime::from_timestamp_millis(sent.parse().ok()?)?)
    };
    let ages = || entries.iter().filter(|entry| receives(entry) == 1).filter_map(sent);
    ages().max().zip(ages().min())
}

/// Makes one call for each [`BATCH_MAX`] items, several at a time. Returns the last failure.
async fn in_batches<T, F>(items: Vec<T>, call: impl Fn(Vec<T>) -> F) -> Result<(), Unavailable>
where
    F: Future<Output = Result<(), Unavailable>>,
{
    let mut items = items.into_iter();
    let batches = iter::from_fn(|| {
        let batch: Vec<T> = items.by_ref().take(BATCH_MAX).collect();
        (!batch.is_empty()).then_some(batch)
    });
    let calls = stream::iter(batches).map(call).buffer_unordered(CALLS_MAX);
    calls.fold(Ok(()), async |all, one| one.and(all)).await
}

#[expect(
    clippy::disallowed_methods,
    reason = "a release names a moment, and SQS wants to know how far off it is"
)]
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}
