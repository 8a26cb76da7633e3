//! The pushes that a phone has received. Tests wait for them, because a busy machine may delay any push.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;

use super::{Answer, Phone, Push};

/// Longest wait for pushes. Generous: two cores run servers, clients and other tests at once, and delays of retries add
/// up.
const DEADLINE: Duration = Duration::from_secs(120);

impl Phone {
    /// Waits for the next push that this function has not returned yet.
    pub async fn next_push(&self, deadline: Duration) -> Push {
        let read = self.read.fetch_add(1, Ordering::Relaxed);
        let what = format!("push number {} arrives", read + 1);
        self.wait_for(deadline, &what, |inbox| inbox.pushes.len() > read).await;
        self.inbox.borrow().pushes[read].clone()
    }

    /// Returns all pushes so far in order, duplicates included. More may be on their way.
    pub fn pushes(&self) -> Vec<Push> {
        self.inbox.borrow().pushes.clone()
    }

    /// Waits until this number of pushes has come, and returns all pushes.
    pub async fn wait_for_pushes(&self, count: usize, deadline: Duration) -> Vec<Push> {
        let what = format!("{count} pushes have arrived");
        self.wait_for(deadline, &what, |inbox| inbox.pushes.len() >= count).await;
        self.pushes()
    }

    /// Waits until a push with this body has come.
    pub async fn wait_for_body(&self, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let what = format!("{:?} arrives", String::from_utf8_lossy(body));
        self.wait_for(DEADLINE, &what, |inbox| inbox.pushes.iter().any(|push| push.body == body)).await;
    }

    /// Waits until these bodies have come in this order, each as often as it stands here. Fails if others came.
    pub async fn has_got<B: AsRef<[u8]>>(&self, bodies: &[B]) -> Vec<Push> {
        let pushes = self.at_least(bodies.len()).await;
        assert_eq!(texts(pushes.iter().map(|push| &push.body)), texts(bodies), "what {} has got", self.jid);
        pushes
    }

    /// Waits as `has_got` does, for any order.
    pub async fn has_got_in_any_order<B: AsRef<[u8]>>(&self, bodies: &[B]) {
        let pushes = self.at_least(bodies.len()).await;
        let (mut arrived, mut expected) = (texts(pushes.iter().map(|push| &push.body)), texts(bodies));
        arrived.sort_unstable();
        expected.sort_unstable();
        assert_eq!(arrived, expected, "what {} has got, sorted", self.jid);
    }

    /// Waits until this number of pushes has come. Fails if more came.
    pub async fn has_got_count(&self, count: usize) -> Vec<Push> {
        let pushes = self.at_least(count).await;
        assert_eq!(
            pushes.len(),
            count,
            "{} has got {:?}",
            self.jid,
            texts(pushes.iter().map(|push| &push.body))
        );
        pushes
    }

    /// Asserts that nothing has come. This proves something only after an event that comes later than a push would.
    pub fn has_got_nothing(&self, why: &str) {
        let pushes = self.pushes();
        assert_eq!(pushes, [], "{}: {why}", self.jid);
    }

    /// Answers all pushes that have come so far. A second answer has no effect.
    pub async fn answer_all(&self) {
        for push in self.pushes() {
            self.answer(&push, Answer::Result).await;
        }
    }

    /// Returns the pushes once this number has come, or when the deadline has passed.
    async fn at_least(&self, count: usize) -> Vec<Push> {
        let mut inbox = self.inbox.subscribe();
        drop(timeout(DEADLINE, inbox.wait_for(|inbox| inbox.pushes.len() >= count)).await);
        self.pushes()
    }
}

fn texts(bodies: impl IntoIterator<Item: AsRef<[u8]>>) -> Vec<String> {
    bodies.into_iter().map(|body| String::from_utf8_lossy(body.as_ref()).into_owned()).collect()
}
