//! DynamoDB fails the removals from one account's mailbox in three ways. All other accounts go on.

use e2e::{Kind, Phone, SOON, Trouble, TroubledWay, XmppServer, eventually, http};
use futures::future::join_all;

use super::Cloud;

const OTHERS: usize = 6;
const PUSHES_EACH: usize = 4;

/// Checks that the pushes of one account stay in the store, while all pushes of the others leave it. Counts show this,
/// not a clock.
async fn all_but_one_go_on(trouble: Trouble) {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    let romeo = server.user().await;
    let way = TroubledWay::to(&cloud.emulator.endpoint, romeo.jid.as_str(), trouble);
    way.switch(true);
    let (endpoint, proxy) = way.open().await;
    let relay = cloud.relay_on(server).set("AWS_ENDPOINT_URL_DYNAMODB", &endpoint).start_ready().await;
    let component = relay.component.jid.clone();
    let mut users = vec![romeo];
    for _ in 0..OTHERS {
        users.push(server.user().await);
    }
    for user in &users {
        let phone = Phone::connect(server, user, "phone").await;
        let endpoint = phone.endpoint(&component, "app").await;
        phone.leave(SOON).await;
        for number in 0..PUSHES_EACH {
            assert_eq!(http::post_patiently(&endpoint, &[], format!("push {number}")).await.status, 201);
        }
    }
    // The store is read, because a push whose write is answered too late is kept and not counted.
    let all = PUSHES_EACH * users.len();
    eventually(SOON, "all pushes wait", async || cloud.waiting().await == all as u64).await;
    cloud.queue_empties().await;

    let phones = join_all(users.iter().map(async |user| {
        let phone = Phone::connect(server, user, "phone").await;
        phone.greet(&component).await;
        for number in 0..PUSHES_EACH {
            phone.wait_for_body(&format!("push {number}")).await;
        }
        phone
    }));
    let phones = phones.await;
    eventually(SOON, "all that the others had has left", async || {
        cloud.waiting().await == PUSHES_EACH as u64
    })
    .await;
    eventually(SOON, "the one account has met its trouble", async || way.met() > 0).await;

    way.switch(false);
    cloud.mailbox_empties().await;
    for phone in phones {
        phone.has_got_count(PUSHES_EACH).await;
    }
    proxy.abort();
}

#[tokio::test]
async fn an_account_whose_removals_are_throttled_holds_up_no_other() {
    all_but_one_go_on(Trouble::Throttled).await;
}

#[tokio::test]
async fn an_account_whose_removals_are_slow_holds_up_no_other() {
    all_but_one_go_on(Trouble::Slow).await;
}

#[tokio::test]
async fn an_account_whose_answers_are_cut_holds_up_no_other() {
    all_but_one_go_on(Trouble::Cut).await;
}
