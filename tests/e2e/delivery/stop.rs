//! Stopping: pushes in flight are finished, all others are kept, and a second signal stops at once.

use std::fs;
use std::time::Duration;

use e2e::{Answer, Kind, Load, Phone, SOON, Upwire, XmppServer, folder, http};

async fn phone(server: &XmppServer, upwire: &Upwire) -> (Phone, String) {
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    (phone, endpoint)
}

async fn with_an_unanswered_push(server: &XmppServer) -> (Upwire, Phone) {
    let upwire = Upwire::on(server).start_ready().await;
    let (phone, endpoint) = phone(server, &upwire).await;
    phone.set_answer(Answer::Silent);
    assert_eq!(http::post(&endpoint, "unanswered").await.status, 201);
    phone.next_push(SOON).await;
    (upwire, phone)
}

async fn a_stop_in_mid_load_exits_0_and_loses_nothing(server: &XmppServer) {
    let mut upwire = Upwire::on(server).start_ready().await;
    let (phone, endpoint) = phone(server, &upwire).await;
    phone.set_answer(Answer::DelayedBy(Duration::from_millis(20)));
    let load = Load::start(&[endpoint], 400);
    let mut log = String::new();
    for (count, by_ctrl_c) in [(100, false), (200, true)] {
        load.accepted(count).await;
        if by_ctrl_c {
            upwire.interrupt()
        } else {
            upwire.terminate()
        }
        assert_eq!(upwire.wait_exit(SOON).await.code(), Some(0));
        log = upwire.log();
        upwire.start_again();
        upwire.ready().await;
    }
    let ledger = load.finish().await;
    let twice = ledger.arrives(&[&phone]).await;
    let unanswered = unanswered_at_stops(&log);
    assert!(twice <= unanswered, "{twice} came twice, and {unanswered} were unanswered when it stopped");
    upwire.queue_empties().await;
}

/// Counts the pushes that were unanswered at the stops. There are none, unless the XMPP server was too busy to pass on
/// the answers for as long as a stop may take.
fn unanswered_at_stops(log: &str) -> usize {
    let counts = log.lines().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        line["unanswered"].as_u64()
    });
    counts.sum::<u64>() as usize
}

async fn a_stop_takes_the_answers_to_what_is_in_flight(server: &XmppServer) {
    let mut upwire = Upwire::on(server).start_ready().await;
    let (phone, endpoint) = phone(server, &upwire).await;
    phone.set_answer(Answer::Silent);
    assert_eq!(http::post(&endpoint, "in flight").await.status, 201);
    let push = phone.next_push(SOON).await;
    upwire.terminate();
    upwire.log_line(&["stopping"]).await;
    phone.answer(&push, Answer::Result).await;
    assert_eq!(upwire.wait_exit(SOON).await.code(), Some(0));

    phone.set_answer(Answer::Result);
    upwire.start_again();
    upwire.ready().await;
    assert_eq!(http::post(&endpoint, "after").await.status, 201);
    phone.wait_for_pushes(2, SOON).await;
    upwire.queue_empties().await;
    // The answered push did not come back.
    phone.has_got_count(2).await;
}

async fn a_silent_phone_does_not_hold_up_a_stop_for_ever(server: &XmppServer) {
    let (mut upwire, phone) = with_an_unanswered_push(server).await;
    upwire.terminate();
    assert_eq!(upwire.wait_exit(SOON).await.code(), Some(0), "after its ten seconds");

    phone.set_answer(Answer::Result);
    upwire.start_again();
    upwire.ready().await;
    upwire.queue_empties().await;
    // The push was kept, and came again.
    phone.has_got_count(2).await;
}

async fn a_second_signal_stops_at_once(server: &XmppServer) {
    let (mut upwire, _phone) = with_an_unanswered_push(server).await;
    upwire.terminate();
    upwire.log_line(&["stopping"]).await;
    upwire.interrupt();
    assert_eq!(upwire.wait_exit(SOON).await.code(), Some(1), "not the 0 of a stop that finished");
}

async fn a_stop_without_an_xmpp_server_exits_0(server: &XmppServer) {
    let nowhere = format!("127.0.0.1:{}", e2e::free_port());
    let mut upwire = Upwire::on(server).set("UPWIRE_XMPP_SERVER", nowhere).start();
    upwire.log_line(&["cannot connect"]).await;
    upwire.terminate();
    assert_eq!(upwire.wait_exit(SOON).await.code(), Some(0));
}

on_each_server!(
    a_stop_in_mid_load_exits_0_and_loses_nothing,
    a_stop_takes_the_answers_to_what_is_in_flight,
    a_silent_phone_does_not_hold_up_a_stop_for_ever,
    a_second_signal_stops_at_once,
    a_stop_without_an_xmpp_server_exits_0,
);

/// docs/operations.md relies on this for backups.
#[tokio::test]
async fn after_a_stop_the_file_alone_is_the_whole_database() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut upwire = Upwire::on(server).start_ready().await;
    let (phone, endpoint) = phone(server, &upwire).await;
    phone.disconnect().await;
    assert_eq!(http::post(&endpoint, "waits").await.status, 201);
    upwire.mailbox_holds(1).await;
    upwire.terminate();
    assert_eq!(upwire.wait_exit(SOON).await.code(), Some(0));
    let copy = folder("backup").join("copy.db");
    fs::copy(upwire.database(), &copy).unwrap();
    let restored = Upwire::as_component(server, upwire.component.clone());
    let restored = restored.set("UPWIRE_DATABASE", copy.display()).start_ready().await;
    restored.mailbox_holds(1).await;
    let endpoint = endpoint.replace(&upwire.public_url, &restored.public_url);
    assert_eq!(http::post(&endpoint, "to the copy").await.status, 201);
}
