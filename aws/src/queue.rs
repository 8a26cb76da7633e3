//! The queue on SQS, with long polls and batches of ten. Pushes stay hidden while they are held.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use aws_types::SdkConfig;
use push::{
    MessageId,
    ports::{Delivery, QueueReader, Settlement, Unavailable},
};
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    entries::{Answer, Entries, now},
    error::CannotStart,
    pace::Pace,
    permission::{Permission, all_allowed},
    requests::{BATCH_MAX, QueueSender},
};

/// Time for which a poll waits for a push: the longest that SQS allows, since each poll is billed.
const POLL: Duration = Duration::from_secs(20);
/// Delay in which settlements gather: a batch of ten costs as much as one, and nobody waits for them.
const LINGER: Duration = Duration::from_millis(100);

/// Longest wait of a stop for the answers to polls.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// The reading end of a queue that has a dead-letter queue.
#[derive(Clone)]
pub struct Queue(Arc<Shared>);

struct Shared {
    entries: Entries,
    polls: Mutex<Polls>,
    /// The task that keeps entries hidden. Ends with the last clone of the queue.
    _keeper: JoinSet<()>,
}

struct Polls {
    running: JoinSet<Result<Answer, Unavailable>>,
    pace: Pace,
    /// Pushes that were received and not returned yet, oldest first.
    ready: VecDeque<Delivery<MessageId>>,
    /// Earliest start of the next poll.
    next: Instant,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.entries)
    }
}

impl Queue {
    /// Opens the queue at this URL. Checks first that the queue and its dead-letter queue exist, and that the
    /// credentials may use them. A received entry stays hidden from others while it is held, and for the queue's own
    /// `VisibilityTimeout` after this process dies.
    ///
    /// # Errors
    /// The problem, and the remedy.
    pub async fn open(config: &SdkConfig, url: &str) -> Result<Self, CannotStart> {
        let queue = QueueSender::new(config, url);
        let attributes = queue.attributes().await?;
        let dead_letters = queue.dead_letters(&attributes).await?;
        let mut inquiry = queue.inquiry();
        let _ = queue.inquire(&mut inquiry).await;
        let _ = dead_letters.inquire_send(&mut inquiry).await;
        all_allowed(inquiry.permissions())?;
        let entries = Entries::new(queue, dead_letters, &attributes);
        let mut keeper = JoinSet::new();
        keeper.spawn(entries.clone().keep_hidden());
        let polls = Polls {
            running: JoinSet::new(),
            pace: Pace::new(),
            ready: VecDeque::new(),
            next: Instant::now(),
        };
        Ok(Self(Arc::new(Shared { entries, polls: Mutex::new(polls), _keeper: keeper })))
    }

    /// Returns each action of the relay on the queue at this URL and on its dead-letter queue, and whether it is
    /// allowed. Changes nothing. The list ends at a call that fails for another reason.
    pub async fn permissions(config: &SdkConfig, url: &str) -> Vec<Permission> {
        let queue = QueueSender::new(config, url);
        let mut inquiry = queue.inquiry();
        // The last element of the list has the reason.
        let _ = queue.inquire_all(&mut inquiry).await;
        inquiry.permissions()
    }
}

impl QueueReader for Queue {
    /// The push's own id, since SQS may have several entries of one push.
    type Receipt = MessageId;

    async fn receive(&self, max: usize) -> Result<Vec<Delivery<MessageId>>, Unavailable> {
        let mut polls = self.0.polls.lock().await;
        if polls.ready.is_empty() {
            while polls.running.len() < polls.pace.wanted() {
                let start = polls.next;
                let entries = self.0.entries.clone();
                polls.running.spawn(async move {
                    sleep_until(start).await;
                    entries.poll(POLL).await
                });
            }
            // Dropping the future here, as a stop does, loses nothing: the polls go on, and `close` collects them.
            let answer =
                polls.running.join_next().await.map(|ended| ended.map_err(Unavailable::new).flatten());
            if let Some(answer) = answer {
                polls.take(answer)?;
            }
        }
        let count = polls.ready.len().min(max);
        Ok(polls.ready.drain(..count).collect())
    }

    async fn settle(&self, settlements: Vec<Settlement<MessageId>>) -> Result<(), Unavailable> {
        if settlements.len() < BATCH_MAX {
            sleep(LINGER).await;
        }
        self.0.entries.settle(settlements).await
    }

    async fn close(&self) {
        let mut polls = self.0.polls.lock().await;
        // SQS answers at once while the queue has entries, so a poll that still waits has none. An entry that comes
        // just as the poll is aborted shows again after the queue's visibility timeout.
        while let Ok(Some(ended)) = timeout(LAST_ANSWERS, polls.running.join_next()).await {
            polls
                .ready
                .extend(ended.ok().and_then(Result::ok).into_iter().flat_map(|answer| answer.deliveries));
        }
        polls.running.shutdown().await;
        let now = now();
        let back =
            polls.ready.drain(..).map(|delivery| Settlement::Postpone(delivery.receipt, now)).collect();
        if let Err(error) = self.0.entries.settle(back).await {
            tracing::warn!(%error, "some pushes show in the queue again only after its visibility timeout");
        }
    }
}

impl Polls {
    fn take(&mut self, answer: Result<Answer, Unavailable>) -> Result<(), Unavailable> {
        let Answer { deliveries, gist } = answer.inspect_err(|_| self.pace.failed())?;
        let delay = self.pace.note(gist);
        if !delay.is_zero() {
            self.next = Instant::now() + delay;
        }
        self.ready.extend(deliveries);
        Ok(())
    }
}
