//! Pushes to a phone that sends presence and acknowledges nothing.

use e2e::{Answer, SOON, XmppServer, eventually};

use super::late::hasty;
use super::{bodies, everything_is_read, nothing_is_left, post_some};

async fn who_greets_and_never_acknowledges_gets_one_push_for_each_presence(server: &XmppServer) {
    const WAITING: usize = 6;
    const GREETINGS: usize = 3;
    let (upwire, phone, endpoint) = hasty(server, &server.user().await).await;
    let component = upwire.component.jid.clone();
    phone.leave_pings_unanswered();
    phone.greet(&component).await;
    let posted = post_some(&endpoint, "push", WAITING).await;
    // Each push goes out once without a presence: the first at once, and the others when the phone is tried again.
    for came in WAITING..=WAITING + GREETINGS {
        if came > WAITING {
            phone.greet(&component).await;
        }
        phone.wait_for_pushes(came, SOON).await;
        upwire.metric_is("upwire_pushes_retried_total", came as f64).await;
        upwire.metric_is("upwire_pushes_in_flight", 0.0).await;
        upwire.mailbox_holds(WAITING).await;
        upwire.queue_empties().await;
        everything_is_read(&phone, &component).await;
        phone.has_got_count(came).await;
    }
    upwire.never_counted("upwire_pushes_delivered_total").await;

    phone.set_answer(Answer::Result);
    phone.greet(&component).await;
    nothing_is_left(&upwire).await;
    // A push comes more than once if its answer came too late.
    eventually(SOON, "the phone has got all that waited", async || {
        let came = bodies(&phone.pushes()[WAITING + GREETINGS..]);
        posted.iter().all(|body| came.contains(body))
    })
    .await;
    upwire.metric_is("upwire_pushes_delivered_total", WAITING as f64).await;
    upwire.never_counted("upwire_registrations_revoked_total").await;
}

on_each_server!(who_greets_and_never_acknowledges_gets_one_push_for_each_presence);
