//! DynamoDB throttles the partition of one account, or one row. All other accounts go on.

use std::future::ready;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws::MailboxTable;
use e2e::{Emulator, Kind, Phone, SOON, XmppServer, eventually, hashed, http};
use futures::future::{Either, join_all, select};
use push::Target;
use push::ports::{Kept, Mailbox};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::start::reading_in_between;
use super::{Cloud, UNDER_LOAD, phones};
use crate::ports::mailbox::{account, ids, plain};
use crate::ports::{WEEK, at, at_most, target};

const THROTTLED: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
    "message":"The level of configured provisioned throughput for the table was exceeded."}"#;
const FULL: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ItemCollectionSizeLimitExceededException",
    "message":"Collection size exceeded."}"#;

/// A proxy to DynamoDB that throttles some calls while it is switched on.
struct Throttle {
    endpoint: String,
    on: Arc<AtomicBool>,
    throttled: Arc<AtomicUsize>,
    passed: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Throttle {
    /// Throttles the calls that `meant` chooses by their target and their body.
    async fn of_calls(
        endpoint: &str,
        meant: impl Fn(&str, &str) -> bool + Clone + Send + Sync + 'static,
    ) -> Self {
        let on = Arc::new(AtomicBool::new(true));
        let (throttled, passed) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let switch = Arc::clone(&on);
        let counts = [Arc::clone(&passed), Arc::clone(&throttled)];
        let refuse = move |target: String, body: String| {
            let refused = switch.load(Ordering::Relaxed) && meant(&target, &body);
            counts[usize::from(refused)].fetch_add(1, Ordering::Relaxed);
            ready(refused.then(|| THROTTLED.to_owned()))
        };
        let (endpoint, server) = reading_in_between(endpoint.to_owned(), refuse).await;
        Self { endpoint, on, throttled, passed, server }
    }

    /// Throttles the writes to the mailbox of an account.
    async fn of_mailbox(endpoint: &str, account: String) -> Self {
        // Registrations are in another table, and have no entry.
        let is_write = |target: &str, body: &str| target.ends_with(".PutItem") && body.contains("\"entry\"");
        Self::of_calls(endpoint, move |target, body| is_write(target, body) && body.contains(&account)).await
    }

    fn end(&self) {
        self.on.store(false, Ordering::Relaxed);
    }

    fn throttled(&self) -> usize {
        self.throttled.load(Ordering::Relaxed)
    }

    /// Returns the number of calls that were not throttled.
    fn passed(&self) -> usize {
        self.passed.load(Ordering::Relaxed)
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// With the SDK's adaptive retries, the other accounts came down to one call in 2 s, ten times too slow for this test.
#[tokio::test]
async fn an_account_that_is_throttled_slows_no_other() {
    const OTHERS: u8 = 8;
    const PUSHES_EACH: i64 = 40;
    let emulator = Emulator::shared().await;
    let table = emulator.mailbox_table().await;
    let throttle = Throttle::of_mailbox(&emulator.endpoint, "romeo@".to_owned()).await;
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
    let throttle = Throttle::of_mailbox(&cloud.emulator.endpoint, romeo.jid.to_string()).await;
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
    // The first attempts are throttled. Then the relay leaves the account alone for a while.
    eventually(SOON, "writes are throttled", async || throttle.throttled() >= 3).await;
    let phone = Phone::connect(server, &juliet, "phone").await;
    for number in 0..5 {
        phone.wait_for_body(&format!("push {number}")).await;
    }

    throttle.end();
    cloud.queue_empties().await;
    let phone = Phone::connect(server, &romeo, "phone").await;
    for number in 0..5 {
        phone.wait_for_body(&format!("push {number}")).await;
    }
    cloud.mailbox_empties().await;
}

/// With adaptive retries, 16 of these 20 got no answer.
#[tokio::test]
async fn others_register_while_an_account_is_throttled() {
    const OTHERS: usize = 20;
    /// Number of throttles after which adaptive retries stopped all calls of a relay.
    const THROTTLES: usize = 121;
    /// Longest wait for an answer. A relay that loses its lease on a busy machine never answers, so the phone asks
    /// again.
    const ASKED_AGAIN: Duration = Duration::from_secs(60);
    let _turn = UNDER_LOAD.acquire().await;
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    let romeo = server.user().await;
    let mut users = Vec::new();
    for _ in 0..OTHERS {
        users.push(server.user().await);
    }
    let account = romeo.jid.to_string();
    let throttle = Throttle::of_calls(&cloud.emulator.endpoint, move |_, body| body.contains(&account)).await;
    let relay =
        cloud.relay_on(server).set("AWS_ENDPOINT_URL_DYNAMODB", &throttle.endpoint).start_ready().await;
    let component = &relay.component.jid;
    let phone = Phone::connect(server, &romeo, "phone").await;
    let register = async |phone: &Phone, application: &str| loop {
        let asked = phone.try_register(component, &hashed(application), &hashed("1"), ASKED_AGAIN);
        if let Some(answer) = asked.await {
            return answer;
        }
    };
    let refused = join_all((0..8).map(async |number| {
        loop {
            register(&phone, &format!("app {number}")).await.unwrap_err();
        }
    }));
    let others = async {
        let others =
            join_all(users.iter().map(async |user| Phone::connect(server, user, "phone").await)).await;
        eventually(SOON, "throttled for long", async || throttle.throttled() >= THROTTLES).await;
        let answers = join_all(others.iter().map(|other| register(other, "app")));
        let answers = timeout(SOON, answers).await.expect("an answer to each of the others");
        let before = throttle.throttled();
        eventually(SOON, "throttled all the while", async || throttle.throttled() > before).await;
        answers
    };
    let Either::Right((answers, _)) = select(Box::pin(refused), Box::pin(others)).await else {
        unreachable!("the throttled account tries for ever")
    };
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), OTHERS, "{answers:?}");

    throttle.end();
    let registers = async || register(&phone, "app").await.is_ok();
    eventually(SOON, "the account that was throttled registers, too", registers).await;
}

/// With adaptive retries, an environment refused pushes without a call for 20 min after a throttle.
#[tokio::test]
async fn a_function_that_was_throttled_makes_the_calls_of_all_later_pushes() {
    const LATER: usize = 40;
    /// Most calls that a busy machine holds up for as long as the function waits.
    const HELD_UP_MAX: usize = LATER / 10;
    let _turn = UNDER_LOAD.acquire().await;
    let server = XmppServer::shared(Kind::Prosody).await;
    let key = Arc::<OnceLock<String>>::default();
    let row = Arc::clone(&key);
    let stage = Emulator::shared_stage().await;
    let throttle =
        Throttle::of_calls(&stage.endpoint, move |_, body| row.get().is_some_and(|id| body.contains(id)));
    let throttle = throttle.await;
    let cloud = Cloud::with([("AWS_ENDPOINT_URL_DYNAMODB", throttle.endpoint.clone())]).await;
    let relay = cloud.relay_on(server).start_ready().await;
    let (phones, endpoints) = phones(server, &relay).await;
    let romeo = Target {
        recipient: phones[0].jid().clone(),
        application: hashed("app").parse().unwrap(),
        instance: hashed("1").parse().unwrap(),
        vapid: None,
        legacy: None,
    };
    key.set(romeo.registration_id().to_string()).unwrap();

    let held_up = AtomicUsize::new(0);
    let accepted = async |endpoint: &str| {
        eventually(SOON, "201", async || {
            let before = throttle.passed();
            let status = http::post(endpoint, "later").await.status;
            held_up.fetch_add(usize::from(status == 503 && throttle.passed() == before), Ordering::Relaxed);
            status == 201
        })
        .await;
    };
    for number in 0..LATER {
        // Each environment of the function is throttled from time to time.
        if number % 2 == 0 {
            assert_eq!(http::post(&endpoints[0], "throttled").await.status, 503);
        }
        accepted(&endpoints[1 + number % 2]).await;
    }
    assert!(throttle.throttled() >= LATER / 2);
    throttle.end();
    for _ in 0..LATER {
        accepted(&endpoints[0]).await;
    }
    let held_up = held_up.into_inner();
    assert!(held_up <= HELD_UP_MAX, "{held_up} pushes were refused without a call");
}

/// DynamoDB takes no more pushes of an account. Here 30 pushes fill it, instead of 10 GB.
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

    // No push is left that could make room. The new push goes back to the queue, and no call is repeated for ever.
    mailbox.remove(staying.iter().map(|push| (account.clone(), push.message.id)).collect()).await.unwrap();
    count.store(FILLING as usize, Ordering::Relaxed);
    let refused = timeout(SOON, mailbox.keep(last.clone(), at_most(1000))).await.expect("an answer");
    assert!(refused.unwrap_err().to_string().contains("ItemCollectionSizeLimitExceeded"));
    server.abort();
}
