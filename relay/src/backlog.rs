//! The relay's lag behind the queue: the age of what it received last, and the time since then.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use push::{
    Clock,
    ports::{Delivery, QueueReader, Settlement, Unavailable},
};
use tokio::time::Instant;

/// Time without a push after which a queue counts as empty.
const EMPTY_AFTER: Duration = Duration::from_secs(2);

/// The relay's lag behind the queue. All clones know the same.
#[derive(Debug, Clone)]
pub struct Backlog {
    clock: Clock,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// The age of what was received last.
    age: Duration,
    /// The time since which the relay receives, or since which it does not.
    since: Instant,
    receives: bool,
    /// The greatest age since `peak` was last called.
    peak: Duration,
}

/// A queue whose reader is watched.
#[derive(Debug, Clone)]
pub struct WatchedQueue<Q> {
    queue: Q,
    backlog: Backlog,
}

impl Backlog {
    /// Returns the backlog of a relay that has received nothing yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let seen = Seen { age: Duration::ZERO, since: Instant::now(), receives: true, peak: Duration::ZERO };
        Self { clock, seen: Arc::new(Mutex::new(seen)) }
    }

    /// Watches a queue, whose reader begins anew.
    pub fn watch<Q>(&self, queue: Q) -> WatchedQueue<Q> {
        self.note(Duration::ZERO, true);
        WatchedQueue { queue, backlog: self.clone() }
    }

    /// Returns how long pushes that are received now have waited, as far as that is known.
    pub(crate) fn age(&self) -> Duration {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).age()
    }

    /// Returns the greatest age since the last call.
    pub(crate) fn peak(&self) -> Duration {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let age = seen.age();
        std::mem::take(&mut seen.peak).max(age)
    }

    /// Leaves out the time up to now, if nothing is received: the reason is not a lack of room.
    pub(crate) fn rest(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.receives {
            seen.since = Instant::now();
        }
    }

    pub(crate) fn note(&self, age: Duration, receives: bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Seen { age, since: Instant::now(), receives, peak: seen.peak.max(age) };
    }

    fn begin(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // A receive that was given up goes on with this one.
        if !seen.receives {
            *seen = Seen { since: Instant::now(), receives: true, ..*seen };
        }
    }
}

impl Seen {
    fn age(&self) -> Duration {
        match (self.receives, self.since.elapsed()) {
            (true, elapsed) if elapsed > EMPTY_AFTER => Duration::ZERO,
            (true, _) => self.age,
            // While the relay has no room for more, the rest grows old.
            (false, elapsed) => self.age + elapsed,
        }
    }
}

/// Returns the median age of the pushes that were received for the first time. A few old pushes, which wait for their
/// turn to one phone, are no sign that the relay is behind. Pushes that were received before have been put off
/// meanwhile.
fn median_age<R>(deliveries: &[Delivery<R>], now: DateTime<Utc>) -> Duration {
    let first = deliveries.iter().filter(|delivery| delivery.is_first);
    let mut ages: Vec<_> = first.map(|delivery| now - delivery.message.accepted_at).collect();
    ages.sort_unstable();
    ages.get(ages.len() / 2).and_then(|age| age.to_std().ok()).unwrap_or_default()
}

impl<Q: QueueReader> QueueReader for WatchedQueue<Q> {
    type Receipt = Q::Receipt;

    async fn receive(&self, max: usize) -> Result<Vec<Delivery<Q::Receipt>>, Unavailable> {
        self.backlog.begin();
        let received = self.queue.receive(max).await;
        let age = match &received {
            Ok(deliveries) => median_age(deliveries, self.backlog.clock.now()),
            Err(_) => self.backlog.age(),
        };
        self.backlog.note(age, false);
        received
    }

    async fn settle(&self, settlements: Vec<Settlement<Q::Receipt>>) -> Result<(), Unavailable> {
        self.queue.settle(settlements).await
    }

    async fn close(&self) {
        self.queue.close().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use chrono::TimeDelta;
    use push::testing;

    use super::*;

    /// Gives pushes that were accepted the given number of seconds ago, then nothing more.
    #[derive(Clone)]
    struct Queue(Arc<Mutex<Vec<Answer>>>);

    type Answer = Vec<(i64, bool)>;

    impl QueueReader for Queue {
        type Receipt = ();

        async fn receive(&self, _: usize) -> Result<Vec<Delivery<()>>, Unavailable> {
            let next = self.0.lock().unwrap().pop();
            let Some(next) = next else { return pending().await };
            Ok(next.into_iter().map(|(ago, is_first)| delivery(ago, is_first)).collect())
        }

        async fn settle(&self, _: Vec<Settlement<()>>) -> Result<(), Unavailable> {
            Ok(())
        }
    }

    fn delivery(ago: i64, is_first: bool) -> Delivery<()> {
        let accepted_at = DateTime::UNIX_EPOCH - TimeDelta::seconds(ago);
        let registration = testing::registration("juliet@example.com/phone", accepted_at);
        let message = testing::push(0, &registration, accepted_at);
        Delivery { receipt: (), is_first, message: Arc::new(message) }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_as_far_behind_as_half_of_what_came_last_is_old() {
        let backlog = Backlog::new(Clock::new(|| DateTime::UNIX_EPOCH));
        let given = vec![
            vec![(5, true), (6, true), (7, true)],
            vec![(900, false), (1, true), (900, true), (1, true)],
        ];
        let queue = backlog.watch(Queue(Arc::new(Mutex::new(given))));
        assert_eq!(backlog.age(), Duration::ZERO);
        queue.receive(10).await.unwrap();
        assert_eq!(backlog.age(), seconds(1));
        queue.receive(10).await.unwrap();
        assert_eq!(backlog.age(), seconds(6));
        tokio::time::advance(seconds(60)).await;
        assert_eq!(backlog.age(), seconds(66), "there is no room for more");

        let waiting = tokio::spawn(async move { queue.receive(10).await });
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(backlog.age(), seconds(6));
        tokio::time::advance(seconds(3)).await;
        assert_eq!(backlog.age(), Duration::ZERO, "nothing is there");
        assert_eq!((backlog.peak(), backlog.peak()), (seconds(6), Duration::ZERO));
        waiting.abort();
    }
}
