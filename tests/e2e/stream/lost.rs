//! The stream to an XMPP server that goes away, comes back or hangs.

use std::slice::from_ref;
use std::time::Duration;

use e2e::{Answer, Kind, Load, Phone, SOON, Upwire, XmppServer, http};

async fn what_was_accepted_survives_the_servers_restart(kind: Kind) {
    let mut server = XmppServer::start(kind).await;
    let mut upwire = Upwire::on(&server).set("UPWIRE_ACK_TIMEOUT", 5).start_ready().await;
    let phone = Phone::connect(&server, &server.user().await, "phone").await;
    let silent = Phone::connect(&server, &server.user().await, "phone").await;
    for phone in [&phone, &silent] {
        phone.greet(&upwire.component.jid).await;
    }
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    let silent_endpoint = silent.endpoint(&upwire.component.jid, "app").await;
    silent.set_answer(Answer::Silent);
    assert_eq!(http::post(&silent_endpoint, "unanswered").await.status, 201);
    let unanswered = silent.next_push(SOON).await;

    phone.set_answer(Answer::DelayedBy(Duration::from_millis(20)));
    let before = Load::start(from_ref(&endpoint), 400);
    phone.wait_for_pushes(50, SOON).await;
    server.kill();
    upwire.unready().await;
    let while_killed = Load::start(from_ref(&endpoint), 100).finish().await;
    server.start_again().await;
    upwire.ready().await;
    // All pushes may have come already.
    phone.wait_for_pushes((phone.pushes().len() + 50).min(500), SOON).await;
    server.stop().await;
    upwire.unready().await;
    let while_stopped = Load::start(from_ref(&endpoint), 100).finish().await;
    server.start_again().await;
    upwire.ready().await;

    for ledger in [before.finish().await, while_killed, while_stopped] {
        ledger.arrives(&[&phone]).await;
    }
    silent.set_answer(Answer::Result);
    upwire.mailbox_holds(0).await;
    upwire.queue_empties().await;
    let again = silent.wait_for_pushes(2, SOON).await;
    assert!(again.iter().all(|push| *push == unanswered), "what was unanswered is resent under the same id");
    upwire.metric_is("upwire_xmpp_reconnects_total", 2.0).await;
}

#[tokio::test]
async fn what_was_accepted_survives_the_restart_of_prosody() {
    what_was_accepted_survives_the_servers_restart(Kind::Prosody).await;
}

#[tokio::test]
async fn what_was_accepted_survives_the_restart_of_ejabberd() {
    what_was_accepted_survives_the_servers_restart(Kind::Ejabberd).await;
}

async fn a_server_that_stops_in_order_is_no_error(kind: Kind) {
    let mut server = XmppServer::start(kind).await;
    let mut upwire = Upwire::on(&server).start_ready().await;
    server.stop().await;
    let notice = upwire.log_line(&["the XMPP server has closed the stream"]).await;
    assert!(notice.contains("INFO"), "{notice}");
    server.start_again().await;
    upwire.ready().await;
    upwire.terminate();
    upwire.wait_exit(SOON).await;
    // Only the next line counts: a busy machine may keep the server away for longer than a restart takes.
    let log = upwire.log();
    let next = log.lines().skip_while(|line| *line != notice).nth(1).unwrap_or_default();
    assert!(!next.contains("ERROR"), "{log}");
}

#[tokio::test]
async fn prosody_that_stops_in_order_is_no_error() {
    a_server_that_stops_in_order_is_no_error(Kind::Prosody).await;
}

#[tokio::test]
async fn ejabberd_that_stops_in_order_is_no_error() {
    a_server_that_stops_in_order_is_no_error(Kind::Ejabberd).await;
}

/// A hanging server keeps its connections up, so only silence tells. An idle server is silent, too, and keeps its
/// stream because it answers when asked.
#[tokio::test]
async fn a_server_that_hangs_is_left_and_one_that_is_idle_is_not() {
    let mut hanging = XmppServer::start(Kind::Prosody).await;
    let idle = [XmppServer::shared(Kind::Prosody).await, XmppServer::shared(Kind::Ejabberd).await];
    let idle = idle.map(|server| Upwire::on(server).start_ready());
    let idle = futures::future::join_all(idle).await;
    let mut upwire = Upwire::on(&hanging).start_ready().await;
    hanging.pause();
    upwire.log_line(&["nothing came from the server", "mend", "global_routes"]).await;
    upwire.unready().await;
    for upwire in idle {
        upwire.metric_is("upwire_xmpp_stream_up", 1.0).await;
        upwire.never_counted("upwire_xmpp_reconnects_total").await;
    }
    hanging.unpause();
    upwire.ready().await;
}
