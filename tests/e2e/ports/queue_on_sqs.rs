//! SQS, unlike SQLite, delivers twice, shows an entry again that takes long, counts receives, and may hold entries that
//! others sent.

use std::time::Duration;

use aws::{Queue, QueueSender};
use chrono::{DateTime, Utc};
use e2e::{Emulator, Queues, SOON};
use push::ports::{Delivery, QueueReader, QueueWriter, Settlement};
use push::{MessageId, PushMessage, testing};
use tokio::time::timeout;

const VISIBILITY: Duration = Duration::from_secs(4);
/// Visibility timeout of entries that are held. They are hidden anew at half of it, for which a busy emulator takes its
/// time.
const VISIBILITY_HELD: Duration = Duration::from_secs(16);
const RECEIVES_MAX: u32 = 1000;

struct Bench {
    emulator: &'static Emulator,
    urls: Queues,
    sender: QueueSender,
    queue: Queue,
}

impl Bench {
    async fn new(receives_max: u32) -> Self {
        Self::that_hides_for(VISIBILITY, receives_max).await
    }

    async fn that_hides_for(visibility: Duration, receives_max: u32) -> Self {
        let emulator = Emulator::shared().await;
        let urls = emulator.queue(visibility, receives_max).await;
        let queue = Queue::open(&emulator.config(), &urls.url).await.unwrap();
        Self { emulator, sender: QueueSender::new(&emulator.config(), &urls.url), urls, queue }
    }

    async fn receive_one(&self) -> Delivery<MessageId> {
        timeout(SOON, first_of(&self.queue)).await.expect("a push is due")
    }

    async fn empties(&self) {
        self.emulator.queue_holds(&self.urls.url, 0).await;
    }
}

/// Polls until a delivery comes.
async fn first_of(queue: &Queue) -> Delivery<MessageId> {
    loop {
        if let Some(delivery) = queue.receive(10).await.unwrap().pop() {
            return delivery;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a release names a moment of the queue's own clock")]
fn now() -> DateTime<Utc> {
    Utc::now()
}

fn message(number: u8) -> PushMessage {
    let registration = testing::registration("juliet@example.com/phone", DateTime::UNIX_EPOCH);
    testing::push(number.into(), &registration, DateTime::UNIX_EPOCH)
}

#[tokio::test]
async fn what_is_no_push_goes_to_the_dead_letter_queue_and_blocks_nothing() {
    let bench = Bench::new(RECEIVES_MAX).await;
    let newer = message(1).to_entry().replacen("\"v\":1", "\"v\":2", 1);
    let poison = ["not JSON", "{}", "\u{2603}", &newer];
    for entry in poison {
        bench.emulator.send(&bench.urls.url, entry).await;
    }
    bench.sender.send(message(2)).await.unwrap();
    let delivery = bench.receive_one().await;
    assert_eq!(*delivery.message, message(2));
    bench.queue.settle(vec![Settlement::Delete(delivery.receipt)]).await.unwrap();
    bench.empties().await;
    bench.emulator.queue_holds(&bench.urls.dead_letters, poison.len() as u64).await;
    // The entries are as they came.
    bench.emulator.queue_shows(&bench.urls.dead_letters, &poison).await;
}

#[tokio::test]
async fn a_push_that_was_queued_twice_is_delivered_once() {
    let bench = Bench::new(RECEIVES_MAX).await;
    for _ in 0..3 {
        bench.sender.send(message(1)).await.unwrap();
    }
    let delivery = bench.receive_one().await;
    bench.queue.settle(vec![Settlement::Delete(delivery.receipt)]).await.unwrap();
    bench.sender.send(message(1)).await.unwrap();
    bench.sender.send(message(2)).await.unwrap();
    assert_eq!(bench.receive_one().await.message.id, message(2).id, "settled lately: not again");
    bench.queue.settle(vec![Settlement::Delete(message(2).id)]).await.unwrap();
    bench.empties().await;
}

#[tokio::test]
async fn what_is_held_for_long_stays_hidden_from_others() {
    let bench = Bench::that_hides_for(VISIBILITY_HELD, RECEIVES_MAX).await;
    bench.sender.send(message(1)).await.unwrap();
    let delivery = bench.receive_one().await;
    let another = Queue::open(&bench.emulator.config(), &bench.urls.url).await.unwrap();
    let stolen = timeout(5 * VISIBILITY_HELD / 2, first_of(&another)).await;
    assert!(stolen.is_err(), "it showed: {stolen:?}");
    bench.queue.settle(vec![Settlement::Delete(delivery.receipt)]).await.unwrap();
    bench.empties().await;
}

#[tokio::test]
async fn what_is_given_back_shows_at_once() {
    let bench = Bench::new(RECEIVES_MAX).await;
    let hour = Duration::from_secs(3600);
    let urls = bench.emulator.queue(hour, RECEIVES_MAX).await;
    let open = async || Queue::open(&bench.emulator.config(), &urls.url).await.unwrap();
    let (queue, sender) = (open().await, QueueSender::new(&bench.emulator.config(), &urls.url));
    for number in 1..=3 {
        sender.send(message(number)).await.unwrap();
    }
    // One entry is returned, and the others may only have been received.
    let mut returned = Vec::new();
    while returned.is_empty() {
        returned = timeout(SOON, queue.receive(1)).await.unwrap().unwrap();
    }
    let back = returned.into_iter().map(|delivery| Settlement::Postpone(delivery.receipt, now())).collect();
    queue.close().await;
    queue.settle(back).await.unwrap();
    drop(queue);

    let (next, mut received) = (open().await, 0);
    while received < 3 {
        received += timeout(SOON, next.receive(10)).await.expect("not after an hour").unwrap().len();
    }
}

#[tokio::test]
async fn a_push_that_was_tried_too_often_for_sqs_is_queued_afresh() {
    let receives_max = 4;
    let bench = Bench::new(receives_max).await;
    bench.sender.send(message(1)).await.unwrap();
    for _ in 0..4 * receives_max {
        let delivery = bench.receive_one().await;
        assert_eq!(*delivery.message, message(1));
        bench.queue.settle(vec![Settlement::Postpone(delivery.receipt, now())]).await.unwrap();
    }
    let delivery = bench.receive_one().await;
    bench.queue.settle(vec![Settlement::Delete(delivery.receipt)]).await.unwrap();
    bench.empties().await;
    // The push is no poison.
    bench.emulator.queue_holds(&bench.urls.dead_letters, 0).await;
}

#[tokio::test]
async fn settling_twice_does_no_harm() {
    let bench = Bench::new(RECEIVES_MAX).await;
    bench.sender.send(message(1)).await.unwrap();
    let receipt = bench.receive_one().await.receipt;
    for _ in 0..2 {
        bench.queue.settle(vec![Settlement::Delete(receipt)]).await.unwrap();
    }
    bench.empties().await;
}

#[tokio::test]
async fn a_queue_without_a_dead_letter_queue_is_refused() {
    let emulator = Emulator::shared().await;
    let urls = emulator.queue(VISIBILITY, RECEIVES_MAX).await;
    let refused = Queue::open(&emulator.config(), &urls.dead_letters).await.unwrap_err().to_string();
    assert!(refused.starts_with("the queue has no dead-letter queue; "), "{refused}");
    let refused =
        Queue::open(&emulator.config(), &format!("{}-not", urls.url)).await.unwrap_err().to_string();
    assert!(refused.contains("UPWIRE_QUEUE_URL"), "{refused}");
}
