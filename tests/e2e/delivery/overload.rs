//! Overload: a registration over its rate, and a full queue. Senders are told to wait, and accepted pushes arrive.

use std::collections::BTreeSet;
use std::slice::from_ref;
use std::time::Duration;

use e2e::{FaultProxy, Kind, Load, Phone, SOON, Upwire, Ways, XmppServer, http, time_passes};

use crate::cloud::Cloud;

const RATE: &str = "5/1";
const BURST: usize = 5;
/// Most pushes until the relay notices that the burst is used up. It sees only the pushes that it delivers, so each is
/// posted after the one before has arrived.
const NOTICED_MAX: usize = 200;
const QUEUE_MAX: usize = 10;

/// The pushes that were accepted before a 429, and the wait that it named.
struct Told {
    accepted: BTreeSet<Vec<u8>>,
    wait: Duration,
}

/// Sends one push after the other, each after the one before has arrived, until a 429. `ways` are the function's to
/// AWS, and count the calls of each answer.
async fn send_until_told(phone: &Phone, endpoint: &str, ways: Option<&Ways>) -> Told {
    let mut accepted = BTreeSet::new();
    for number in 0..NOTICED_MAX {
        let body = format!("push {number} to {endpoint}");
        let calls_before = ways.map(Ways::calls);
        let response = http::post(endpoint, body.clone()).await;
        let calls = ways.zip(calls_before).map(|(ways, before)| ways.calls_since(&before));
        let once = calls.as_ref().is_none_or(|calls| calls.values().all(|count| *count == 1));
        match (response.status, calls) {
            // On a busy machine, the emulator may be too slow for a call. The call is made again, or given up.
            (503, Some(_)) => continue,
            (429, Some(_)) if !once => continue,
            (429, Some(calls)) => assert!(calls.keys().eq(["GetItem"]), "{calls:?}"),
            (_, Some(calls)) => assert!(calls.keys().eq(["GetItem", "SendMessage"]), "{calls:?}"),
            (_, None) => {}
        }
        if response.status == 429 {
            let wait = response.header("retry-after").and_then(|wait| wait.parse().ok());
            let wait = Duration::from_secs(wait.expect("Retry-After, in whole seconds"));
            assert!(wait > Duration::ZERO, "{}", response.text());
            assert_eq!(response.json()["status"], 429);
            return Told { accepted, wait };
        }
        assert_eq!(response.status, 201, "{}", response.text());
        accepted.insert(body.clone().into_bytes());
        phone.wait_for_body(body).await;
    }
    panic!(
        "{NOTICED_MAX} pushes came to no 429 at a rate of {RATE}, of which {} were accepted",
        accepted.len()
    )
}

fn bodies(phone: &Phone) -> BTreeSet<Vec<u8>> {
    phone.pushes().into_iter().map(|push| push.body).collect()
}

#[tokio::test]
async fn senders_over_the_rate_are_told_for_how_long_to_wait() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).set("UPWIRE_RATE", RATE).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "chatty").await;
    let other = phone.endpoint(&upwire.component.jid, "quiet").await;
    let told = send_until_told(&phone, &endpoint, None).await;
    assert!(told.accepted.len() >= BURST, "a burst passes");
    println!("{} accepted, then {:?}", told.accepted.len(), told.wait);
    for number in 0..BURST {
        assert_eq!(http::post(&other, format!("quiet {number}")).await.status, 201, "each for itself");
    }
    let throttled = [("reason", "throttled")];
    upwire.metric_is_where("upwire_pushes_refused_total", &throttled, 1.0).await;

    time_passes(told.wait).await;
    assert_eq!(http::post(&endpoint, "after the wait").await.status, 201, "who waits as told is let in");
    let count = told.accepted.len() + BURST + 1;
    phone.wait_for_pushes(count, SOON).await;
    upwire.queue_empties().await;
    phone.has_got_count(count).await;
    let arrived = bodies(&phone);
    assert!(arrived.is_superset(&told.accepted) && arrived.len() == count);
    upwire.metric_is_where("upwire_pushes_refused_total", &throttled, 1.0).await;
    upwire.metric_reaches("upwire_registrations_throttled_total", 1.0).await;
}

/// The relay marks the registration's row, which the function reads anyway.
#[tokio::test]
async fn the_function_tells_senders_to_wait_at_the_cost_of_one_read() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    let relay = cloud.relay_on(server).set("UPWIRE_RATE", RATE).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&relay.component.jid, "app").await;
    let told = send_until_told(&phone, &endpoint, Some(&cloud.ingress_ways)).await;
    assert!(told.accepted.len() >= BURST, "a burst passes");
    println!("{} accepted, then {:?}", told.accepted.len(), told.wait);
    relay.metric_reaches("upwire_registrations_throttled_total", 1.0).await;
    time_passes(told.wait).await;
    let let_in = http::post_patiently(&endpoint, &[], "after the wait").await;
    assert_eq!(let_in.status, 201, "who waits as told is let in");
    phone.wait_for_body("after the wait").await;
    cloud.queue_empties().await;
    assert!(bodies(&phone).is_superset(&told.accepted));
    cloud.queue_empties().await;
}

#[tokio::test]
async fn no_rate_is_no_limit() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).set("UPWIRE_RATE", "off").start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    // The default rate lets fewer pushes through. Each push waits until the one before has arrived.
    for number in 0..80 {
        assert_eq!(http::post(&endpoint, format!("push {number}")).await.status, 201);
        phone.wait_for_pushes(number + 1, SOON).await;
    }
}

/// Nothing leaves the queue while the XMPP server is out of reach.
#[tokio::test]
async fn a_full_queue_is_told_to_senders_and_grows_no_further() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let way = FaultProxy::to(server.component_port).await;
    let mut upwire = Upwire::on(server)
        .set("UPWIRE_XMPP_SERVER", way.address())
        .set("UPWIRE_QUEUE_MAX", QUEUE_MAX)
        .start_ready()
        .await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    way.cut();
    upwire.unready().await;
    let mut accepted = BTreeSet::new();
    for number in 0..3 * QUEUE_MAX {
        let body = format!("push {number}");
        let response = http::post(&endpoint, body.clone()).await;
        if number < QUEUE_MAX {
            assert_eq!(response.status, 201, "{}", response.text());
            accepted.insert(body.into_bytes());
        } else {
            assert_eq!(response.status, 503);
            let after = response.header("retry-after").and_then(|after| after.parse::<u32>().ok());
            assert!(after.is_some_and(|after| after > 0), "Retry-After, in whole seconds");
        }
    }
    upwire.metric_is("upwire_queue_depth", QUEUE_MAX as f64).await;
    // Senders post a refused push again.
    let load = Load::start(from_ref(&endpoint), 50);
    way.mend();
    upwire.ready().await;
    let ledger = load.finish().await;
    ledger.arrives(&[&phone]).await;
    upwire.queue_empties().await;
    phone.wait_for_pushes(QUEUE_MAX + 50, SOON).await;
    assert!(bodies(&phone).is_superset(&accepted));
    assert_eq!(bodies(&phone).len(), QUEUE_MAX + 50, "and nothing that was refused");
}

/// Nothing leaves the queue while the XMPP server is out of reach.
#[tokio::test]
async fn a_registration_that_fills_its_part_of_the_queue_takes_no_room_from_others() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let way = FaultProxy::to(server.component_port).await;
    let mut upwire = Upwire::on(server)
        .set("UPWIRE_XMPP_SERVER", way.address())
        // In one minute, the rate lets the burst and three more pushes through.
        .set("UPWIRE_RATE", "5/0.05")
        .start_ready()
        .await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let loud = phone.endpoint(&upwire.component.jid, "loud").await;
    let quiet = phone.endpoint(&upwire.component.jid, "quiet").await;
    way.cut();
    upwire.unready().await;
    let mut accepted = 0;
    for number in 0..20 {
        let response = http::post(&loud, format!("push {number}")).await;
        if response.status == 201 {
            accepted += 1;
            continue;
        }
        assert_eq!(response.status, 429, "{}", response.text());
        let after = response.header("retry-after").and_then(|after| after.parse::<u32>().ok());
        assert!(after.is_some_and(|after| after > 0), "Retry-After, in whole seconds");
    }
    assert!((5..=8).contains(&accepted), "{accepted} were accepted");
    assert_eq!(http::post(&quiet, "another's").await.status, 201);
    way.mend();
    upwire.ready().await;
    phone.wait_for_pushes(accepted + 1, SOON).await;
    upwire.queue_empties().await;
    assert_eq!(bodies(&phone).len(), accepted + 1);
}
