//! Pushes that have come to a phone: waited for, because a push is on its way for as long as a busy machine lets it be.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;

use super::{Answer, Phone, Push};

/// Generous: two cores run servers, clients and other tests at once, and delays of retries add up.
const DEADLINE: Duration = Duration::from_secs(120);

impl Phone {
    /// The next push that this has not returned yet.
    pub async fn next_push(&self, deadline: Duration) -> Push {
        let read = self.read.fetch_add(1, Ordering::Relaxed);
        let what = format!("push number {} arrives", read + 1);
        self.wait_for(deadline, &what, |inbox| inbox.pushes.len() > read).await;
        self.inbox.borrow().pushes[read].clone()
    }

    /// All pushes so far, in order, each as often as it came: more may be on their way.
    pub fn pushes(&self) -> Vec<Push> {
        self.inbox.borrow().pushes.clone()
    }

    /// Waits until so many pushes have come, and returns all.
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

    /// Waits until these bodies have come and no others, in this order, each as often as it stands here.
    pub async fn has_got<B: AsRef<[u8]>>(&self, bodies: &[B]) -> Vec<Push> {
        let pushes = self.at_least(bodies.len()).await;
        assert_eq!(texts(pushes.iter().map(|push| &push.body)), texts(bodies), "what {} has got", self.jid);
        pushes
    }

    /// The same, in any order.
    pub async fn has_got_in_any_order<B: AsRef<[u8]>>(&self, bodies: &[B]) {
        let pushes = self.at_least(bodies.len()).await;
        let (mut arrived, mut expected) = (texts(pushes.iter().map(|push| &push.body)), texts(bodies));
        arrived.sort_unstable();
        expected.sort_unstable();
        assert_eq!(arrived, expected, "what {} has got, sorted", self.jid);
    }

    /// Waits until so many pushes have come, and no more.
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

    /// Nothing has come. To be asked after an event that comes later than what must not have come: until then, it
    /// proves nothing.
    pub fn has_got_nothing(&self, why: &str) {
        let pushes = self.pushes();
        assert_eq!(pushes, [], "{}: {why}", self.jid);
    }

    /// Answers all that has come so far; a second answer does nothing.
    pub async fn answer_all(&self) {
        for push in self.pushes() {
            self.answer(&push, Answer::Result).await;
        }
    }

    /// The pushes there are when so many have come, or when the deadline has passed.
    async fn at_least(&self, count: usize) -> Vec<Push> {
        let mut inbox = self.inbox.subscribe();
        drop(timeout(DEADLINE, inbox.wait_for(|inbox| inbox.pushes.len() >= count)).await);
        self.pushes()
    }
}

fn texts(bodies: impl IntoIterator<Item: AsRef<[u8]>>) -> Vec<String> {
    bodies.into_iter().map(|body| String::from_utf8_lossy(body.as_ref()).into_owned()).collect()
}
