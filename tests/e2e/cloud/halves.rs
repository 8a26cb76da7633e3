//! The two halves as they run on AWS: the function's binary behind a Runtime API, the queue and the tables on an
//! emulator, the relay, a real XMPP server, and phones.

use std::collections::BTreeSet;
use std::slice::from_ref;
use std::time::Duration;

use e2e::{Answer, Kind, Load, Phone, Proxy, SOON, XmppServer, eventually, http, time_passes};
use serde_json::json;
use tokio_xmpp::parsers::stanza_error::DefinedCondition;

use super::{Cloud, UNDER_LOAD, calls, costing, phones};

async fn a_push_goes_the_whole_way_and_costs_what_it_should(server: &XmppServer) {
    let cloud = Cloud::new().await;
    let relay = cloud.relay_on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&relay.component.jid, "app").await;
    assert!(endpoint.starts_with(&format!("{}/push/", cloud.function.url)), "{endpoint}");

    let headers = [("TTL", "60"), ("TTL", "86400"), ("content-encoding", "aes128gcm")];
    let answer = costing(&cloud.ingress_ways, [("GetItem", 1), ("SendMessage", 1)], async || {
        http::post_with(&endpoint, &headers, &b"\x00\xff binary"[..]).await
    })
    .await;
    assert_eq!((answer.status, answer.header("ttl")), (201, Some("60")), "{}", answer.text());
    assert!(answer.header("location").unwrap().contains("/message/"));
    assert_eq!(phone.next_push(SOON).await.body, b"\x00\xff binary");
    cloud.queue_empties().await;

    let before = cloud.ingress_ways.calls();
    let (base, token) = endpoint.rsplit_once('/').unwrap();
    let forged = format!("{base}/{}", http::forged(token));
    assert_eq!(http::post(&forged, "forged").await.status, 404);
    assert_eq!(http::post(&format!("{forged}?a=<b>\"{{"), "forged, with a query").await.status, 404);
    assert_eq!(http::post(&endpoint, "").await.status, 400);
    assert_eq!(http::post(&endpoint, vec![0; 4097]).await.status, 413);
    assert_eq!(http::get(&endpoint).await.json(), json!({"unifiedpush": {"version": 1}}));
    assert_eq!(http::send("DELETE", &endpoint, &[], "").await.status, 405);
    // Each environment reads the marker before its first 404.
    let cost: BTreeSet<_> = cloud.ingress_ways.calls_since(&before).into_keys().collect();
    assert_eq!(cost, ["GetItem".to_owned()].into());
    let before = cloud.ingress_ways.calls();
    let elsewhere = format!("{base}/nothing-of-ours");
    assert_eq!(http::post(&elsewhere, "no token").await.status, 404);
    assert_eq!(cloud.ingress_ways.calls_since(&before), calls([]), "refused by its form alone");
}

async fn an_application_that_is_gone_ends_its_endpoint_for_good(server: &XmppServer) {
    let cloud = Cloud::new().await;
    let relay = cloud.relay_on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&relay.component.jid, "app").await;
    phone.set_answer(Answer::Error(DefinedCondition::ItemNotFound));
    assert_eq!(http::post_patiently(&endpoint, &[], "anyone there?").await.status, 201);
    eventually(SOON, "410", async || http::post(&endpoint, "and now?").await.status == 410).await;

    let asked_twice_once_strongly = [("GetItem", 2)];
    let gone = costing(&cloud.ingress_ways, asked_twice_once_strongly, async || {
        http::post(&endpoint, "still gone").await
    })
    .await;
    assert_eq!((gone.status, gone.header("cache-control")), (410, Some("max-age=86400")));

    phone.set_answer(Answer::Result);
    let next = phone.endpoint(&relay.component.jid, "app").await;
    assert_ne!(next, endpoint);
    assert_eq!(http::post_patiently(&next, &[], "welcome back").await.status, 201);
    phone.wait_for_body("welcome back").await;
}

/// The SDK repeats a call that the emulator answers slowly. So the phone registers until one registration costs exactly
/// this.
async fn a_renewal_that_changes_little_costs_one_read(server: &XmppServer) {
    let cloud = Cloud::new().await;
    let relay = cloud.relay_on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let registering = async |application: &str| {
        let before = cloud.relay_ways.calls();
        let endpoint = phone.endpoint(&relay.component.jid, application).await;
        let calls = cloud.relay_ways.calls_since(&before);
        (endpoint, ["GetItem", "PutItem"].map(|call| calls.get(call).copied().unwrap_or_default()))
    };
    let mut applications = (0..).map(|number| format!("app {number}"));
    let first = async || registering(&applications.next().unwrap()).await.1 == [1, 1];
    eventually(SOON, "a registration that costs a read and a write", first).await;

    let (endpoint, _) = registering("app").await;
    let renewal = async || {
        let (renewed, [reads, writes]) = registering("app").await;
        assert_eq!((renewed.as_str(), writes), (endpoint.as_str(), 0));
        reads == 1
    };
    eventually(SOON, "a renewal that costs a read", renewal).await;
}

/// Cuts ways under load for 20 s and, if senders should be told, until one of them gets a 503. Every push that got a
/// 201 arrives.
async fn outage(cut: impl Fn(&Cloud) -> Vec<&Proxy>, senders_are_told: bool) {
    let _turn = UNDER_LOAD.acquire().await;
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    let relay = cloud.relay_on(server).start_ready().await;
    let (phones, endpoints) = phones(server, &relay).await;
    let phones: Vec<&Phone> = phones.iter().collect();
    let load = Load::start(&endpoints, 150);
    load.accepted(150).await;
    let ways = cut(&cloud);
    ways.iter().for_each(|way| way.cut());
    let meanwhile = Load::start(&endpoints, 10);
    time_passes(Duration::from_secs(20)).await;
    if senders_are_told {
        meanwhile.is_refused().await;
    }
    ways.iter().for_each(|way| way.mend());
    let refused = load.refused() + meanwhile.refused();
    let (ledger, late) = (load.finish().await, meanwhile.finish().await);
    assert_eq!((ledger.len(), late.len()), (450, 30));
    ledger.arrives(&phones).await;
    late.arrives(&phones).await;
    cloud.queue_empties().await;
    println!("{} pushes, {refused} times 503, 0 lost", ledger.len() + late.len());
}

#[tokio::test]
async fn a_queue_out_of_reach_is_told_to_senders_and_loses_nothing() {
    outage(|cloud| vec![&cloud.ingress_ways.queue, &cloud.relay_ways.queue], true).await;
}

#[tokio::test]
async fn a_table_out_of_reach_is_told_to_senders_and_loses_nothing() {
    outage(|cloud| vec![&cloud.ingress_ways.table, &cloud.relay_ways.table], true).await;
}

#[tokio::test]
async fn a_relay_cut_off_from_aws_loses_nothing() {
    outage(|cloud| vec![&cloud.relay_ways.queue, &cloud.relay_ways.table], false).await;
}

#[tokio::test]
async fn nothing_accepted_is_lost_by_kill_9() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let _turn = UNDER_LOAD.acquire().await;
    let cloud = Cloud::new().await;
    let mut relay = cloud.relay_on(server).start_ready().await;
    let (phones, endpoints) = phones(server, &relay).await;
    phones[0].set_answer(Answer::DelayedBy(Duration::from_secs(1)));
    let phones: Vec<&Phone> = phones.iter().collect();
    let load = Load::start(&endpoints, 150);
    let mut undelivered = 0;
    for third in 1..=2 {
        load.accepted(third * 150).await;
        load.is_in_mid_delivery(&phones).await;
        relay.kill();
        undelivered += load.ledger().missing(&phones).len();
        relay.start_again();
        relay.ready().await;
    }
    phones[0].set_answer(Answer::Result);
    let ledger = load.finish().await;
    let twice = ledger.arrives(&phones).await;
    cloud.queue_empties().await;
    assert!(undelivered > 0, "no kill came in mid-delivery");
    println!("{} pushes, two kills, 0 lost, {twice} came more than once", ledger.len());
}

async fn a_stop_gives_everything_back_at_once(server: &XmppServer) {
    const PUSHES: usize = 20;
    const POLLED_MAX: usize = 10;
    let cloud = Cloud::new().await;
    let mut relay = cloud.relay_on(server).set("UPWIRE_ACK_TIMEOUT", 600).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&relay.component.jid, "app").await;
    phone.set_answer(Answer::Silent);
    Load::start(from_ref(&endpoint), PUSHES).finish().await;
    phone.next_push(SOON).await;
    relay.terminate();
    assert_eq!(relay.wait_exit(SOON).await.code(), Some(0));
    let hidden =
        json!({"QueueUrl": cloud.queues.url, "AttributeNames": ["ApproximateNumberOfMessagesNotVisible"]});
    let attributes = cloud.emulator.call("AmazonSQS.GetQueueAttributes", hidden).await;
    let hidden = attributes["Attributes"]["ApproximateNumberOfMessagesNotVisible"].as_str().unwrap();
    // The last poll may receive some of the returned entries once more, if the emulator answers it slowly.
    assert!(hidden.parse::<usize>().unwrap() <= POLLED_MAX, "{hidden} of {PUSHES} are hidden");
}

async fn poison_goes_to_the_dead_letter_queue_and_blocks_nothing(server: &XmppServer) {
    let cloud = Cloud::new().await;
    let mut relay = cloud.relay_on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&relay.component.jid, "app").await;
    for poison in ["{", r#"{"v":9,"recipient":"juliet@example.com/secret"}"#] {
        cloud.emulator.send(&cloud.queues.url, poison).await;
    }
    assert_eq!(http::post_patiently(&endpoint, &[], "after the poison").await.status, 201);
    assert_eq!(phone.next_push(SOON).await.body, b"after the poison");
    relay.log_line(&["version 9", "dead-letter queue"]).await;
    relay.log_line(&["malformed at line 1", "dead-letter queue"]).await;
    relay.never_logged(&["juliet@example.com/secret"]);
    cloud.emulator.queue_holds(&cloud.queues.dead_letters, 2).await;
    cloud.queue_empties().await;
}

on_each_server!(
    a_push_goes_the_whole_way_and_costs_what_it_should,
    an_application_that_is_gone_ends_its_endpoint_for_good,
    a_renewal_that_changes_little_costs_one_read,
    a_stop_gives_everything_back_at_once,
    poison_goes_to_the_dead_letter_queue_and_blocks_nothing,
);
