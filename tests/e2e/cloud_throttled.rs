//! DynamoDB throttles the partition of one account; all others go on.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aws::MailboxTable;
use e2e::{Emulator, Kind, Phone, SOON, XmppServer, eventually, http};
use futures::future::{join_all, select};
use push::ports::Mailbox;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::cloud::Cloud;
use crate::cloud_start::reading_in_between;
use crate::contract::{WEEK, at, at_most, target};
use crate::contract_mailbox::plain;

const THROTTLED: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
    "message":"The level of configured provisioned throughput for the table was exceeded."}"#;

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
    const PUSHES_EACH: i64 = 100;
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
    assert!(throttle.throttled() > 100, "all the while: {}", throttle.throttled());
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
    eventually(SOON, "writes are throttled", async || throttle.throttled() >= 20).await;
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
