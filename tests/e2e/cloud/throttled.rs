//! DynamoDB throttles the partition of one account; all others go on.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aws::MailboxTable;
use e2e::{Emulator, Kind, Phone, SOON, XmppServer, eventually, http};
use futures::future::{join_all, select};
use push::ports::{Kept, Mailbox};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Cloud;
use super::start::reading_in_between;
use crate::ports::mailbox::{account, ids, plain};
use crate::ports::{WEEK, at, at_most, target};

const THROTTLED: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
    "message":"The level of configured provisioned throughput for the table was exceeded."}"#;
const FULL: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ItemCollectionSizeLimitExceededException",
    "message":"Collection size exceeded."}"#;

/// A way to DynamoDB on which the writes of one account are throttled for as long as the switch is on.
struct Throttle {
    endpoint: String,
    on: Arc<AtomicBool>,
    throttled: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Throttle {
    async fn of(account: String, endpoint: String) -> Self {
        let (on, throttled) = (Arc::new(AtomicBool::new(true)), Arc::<AtomicUsize>::default());
        let (switch, count) = (Arc::clone(&on), Arc::clone(&throttled));
        let refuse = move |target: String, body: String| {
            // Of its mailbox: its registrations are in another table.
            let write = target.ends_with(".PutItem") && body.contains("\"entry\"");
            let refused = switch.load(Ordering::Relaxed) && write && body.contains(&account);
            count.fetch_add(usize::from(refused), Ordering::Relaxed);
            ready(refused.then(|| THROTTLED.to_owned()))
        };
        let (endpoint, server) = reading_in_between(endpoint, refuse).await;
        Self { endpoint, on, throttled, server }
    }

    fn throttled(&self) -> usize {
        self.throttled.load(Ordering::Relaxed)
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Adaptive retries took the others to one call in two seconds at last: these would be ten times too slow.
#[tokio::test]
async fn an_account_that_is_throttled_slows_no_other() {
    const OTHERS: u8 = 8;
    const PUSHES_EACH: i64 = 40;
    let emulator = Emulator::shared().await;
    let table = emulator.mailbox_table().await;
    let throttle = Throttle::of("romeo@".to_owned(), emulator.endpoint.clone()).await;
    let mailbox = MailboxTable::new(&Emulator::config_at(&throttle.endpoint), &table);
    let registration = |user: &str| push::Registration::renew(None, target(user, "phone"), at(0), WEEK);

    let busy = registration("romeo");
    let throttled = join_all((0..4).map(async |_| {
        loop {
            mailbox.keep(plain(&busy, 1), at_most(1000)).await.unwrap_err();
        }
    }));
    let others = join_all((0..OTHERS).map(async |number| {
        let registration = registration(&format!("user{number}"));
        for second in 0..PUSHES_EACH {
            mailbox.keep(plain(&registration, second), at_most(1000)).await.unwrap();
        }
    }));
    let both = select(Box::pin(throttled), Box::pin(others));
    timeout(SOON, both).await.expect("the others keep their rate");
    assert!(throttle.throttled() > 40, "all the while: {}", throttle.throttled());
}

#[tokio::test]
async fn a_push_whose_write_is_throttled_goes_back_alone() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    let (romeo, juliet) = (server.user().await, server.user().await);
    let throttle = Throttle::of(romeo.jid.to_string(), cloud.emulator.endpoint.clone()).await;
    let relay =
        cloud.relay_on(server).set("AWS_ENDPOINT_URL_DYNAMODB", &throttle.endpoint).start_ready().await;
    let component = relay.component.jid.clone();
    let absent = async |user| {
        let phone = Phone::connect(server, user, "phone").await;
        let endpoint = phone.endpoint(&component, "app").await;
        phone.leave(SOON).await;
        endpoint
    };
    let (to_romeo, to_juliet) = (absent(&romeo).await, absent(&juliet).await);
    for number in 0..5 {
        for endpoint in [&to_romeo, &to_juliet] {
            assert_eq!(http::post_patiently(endpoint, &[], format!("push {number}")).await.status, 201);
        }
    }
    // The first attempts; then the account is left alone for a while.
    eventually(SOON, "writes are throttled", async || throttle.throttled() >= 3).await;
    let phone = Phone::connect(server, &juliet, "phone").await;
    for number in 0..5 {
        phone.wait_for_body(&format!("push {number}")).await;
    }

    throttle.on.store(false, Ordering::Relaxed);
    cloud.queue_empties().await;
    let phone = Phone::connect(server, &romeo, "phone").await;
    for number in 0..5 {
        phone.wait_for_body(&format!("push {number}")).await;
    }
    cloud.mailbox_empties().await;
}

/// DynamoDB takes no more of an account: 30 pushes fill it here, in the place of 10 GB.
#[tokio::test]
async fn an_account_of_which_no_more_is_taken_loses_its_oldest() {
    const FILLING: i64 = 30;
    let emulator = Emulator::shared().await;
    let table = emulator.mailbox_table().await;
    let count = Arc::<AtomicUsize>::default();
    let taken = Arc::clone(&count);
    let refuse = move |target: String, body: String| {
        if target.ends_with(".BatchWriteItem") {
            taken.fetch_sub(body.matches("DeleteRequest").count(), Ordering::Relaxed);
        }
        let refused =
            target.ends_with(".PutItem") && taken.fetch_add(1, Ordering::Relaxed) >= FILLING as usize;
        taken.fetch_sub(usize::from(refused), Ordering::Relaxed);
        ready(refused.then(|| FULL.to_owned()))
    };
    let (endpoint, server) = reading_in_between(emulator.endpoint.clone(), refuse).await;
    let mailbox = MailboxTable::new(&Emulator::config_at(&endpoint), &table);
    let registration = push::Registration::renew(None, target("romeo", "phone"), at(0), WEEK);
    let pushes: Vec<_> = (0..=FILLING).map(|second| plain(&registration, second)).collect();
    let (last, first) = pushes.split_last().unwrap();
    for push in first {
        assert_eq!(mailbox.keep(push.clone(), at_most(1000)).await.unwrap(), Kept::default());
    }

    let kept = mailbox.keep(last.clone(), at_most(1000)).await.unwrap();
    let (dropped, staying) = pushes.split_at(kept.dropped.len());
    assert_eq!((kept.replaced.len(), &kept.dropped), (0, &ids(dropped)));
    assert!(!dropped.is_empty() && staying.contains(last));
    let account = account(&registration);
    assert_eq!(mailbox.waiting(&account, None, None, 100).await.unwrap(), staying);

    // Nothing is left that could make room: the push goes back to the queue, and no call is repeated without end.
    mailbox.remove(staying.iter().map(|push| (account.clone(), push.message.id)).collect()).await.unwrap();
    count.store(FILLING as usize, Ordering::Relaxed);
    let refused = timeout(SOON, mailbox.keep(last.clone(), at_most(1000))).await.expect("an answer");
    assert!(refused.unwrap_err().to_string().contains("ItemCollectionSizeLimitExceeded"));
    server.abort();
}
