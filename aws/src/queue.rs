//! The queue on SQS: long polls, batches of ten, and pushes that stay hidden while they are held.

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

/// Time for which one poll waits for a push: as long as SQS allows, since each costs money.
const POLL: Duration = Duration::from_secs(20);
/// Delay in which settlements gather, since nobody waits for them: ten cost as much as one.
const LINGER: Duration = Duration::from_millis(100);

/// Longest wait of a stop for the answers to polls.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// The reading end of a queue that has a dead-letter queue.
#[derive(Clone)]
pub struct Queue(Arc<Shared>);

struct Shared {
    entries: Entries,
    polls: Mutex<Polls>,
    /// Ends with the last clone of the queue.
    _keeper: JoinSet<()>,
}

struct Polls {
    running: JoinSet<Result<Answer, Unavailable>>,
    pace: Pace,
    /// Received and not returned yet, oldest first.
    ready: VecDeque<Delivery<MessageId>>,
    /// The next poll starts no sooner.
    next: Instant,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.entries)
    }
}

impl Queue {
    /// Opens the queue at this URL, after finding out whether it and its dead-letter queue are there and
    /// whether these credentials may read it. A received entry stays hidden from others for as long as it is
    /// held, and for the queue's own `VisibilityTimeout` after this process dies.
    ///
    /// # Errors
    /// Why not, and the mend.
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

    /// Each action of the relay on the queue at this URL and on its dead-letter queue, and whether it is allowed.
    /// Changes nothing. The list ends where a call fails for another reason.
    pub async fn permissions(config: &SdkConfig, url: &str) -> Vec<Permission> {
        let queue = QueueSender::new(config, url);
        let mut inquiry = queue.inquiry();
        // The list has the reason as its last.
        let _ = queue.inquire_all(&mut inquiry).await;
        inquiry.permissions()
    }
}

impl QueueReader for Queue {
    /// The push's own id: SQS may have several entries of one push.
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
            // Dropped here, as at a stop, it loses nothing: the polls go on, and `close` looks after them.
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
        // Entries that are in the queue are answered at once. A poll that waits longer waits for one to come;
        // should that come just when it is cut off, it shows again after the queue's visibility timeout.
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
