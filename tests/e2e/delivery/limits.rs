//! One phone never delays another, and the unanswered pushes of a phone are bounded.

use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::{Answer, Load, Phone, SOON, Upwire, XmppServer, http};

use crate::mailbox::NEVER_SECONDS;

const UNANSWERED_PER_JID_MAX: usize = 16;

async fn the_end_of_a_session_settles_what_is_pending_for_it(server: &XmppServer) {
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let other = Phone::connect(server, &server.user().await, "phone").await;
    phone.greet(&upwire.component.jid).await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    let others = other.endpoint(&upwire.component.jid, "app").await;
    phone.set_answer(Answer::Silent);
    other.set_answer(Answer::Silent);
    let ledger = Load::start(&[endpoint, others], 4).finish().await;
    let first = phone.wait_for_pushes(4, SOON).await;
    let unanswered = other.wait_for_pushes(4, SOON).await;

    phone.take_leave(&upwire.component.jid).await;
    upwire.metric_reaches("upwire_pushes_retried_total", 4.0).await;
    // The pushes to the other phone are still pending.
    upwire.metric_is("upwire_pushes_in_flight", 4.0).await;
    upwire.mailbox_holds(4).await;
    phone.set_answer(Answer::Result);
    phone.greet(&upwire.component.jid).await;
    for push in &unanswered {
        other.answer(push, Answer::Result).await;
    }
    upwire.mailbox_holds(0).await;
    upwire.queue_empties().await;
    let ids = |pushes: &[e2e::Push]| {
        let mut ids: Vec<_> = pushes.iter().map(|push| push.id.clone()).collect();
        ids.sort_unstable();
        ids
    };
    let all = phone.has_got_count(8).await;
    assert_eq!(ids(&all[4..]), ids(&first));
    other.has_got_count(4).await;
    ledger.arrives(&[&phone, &other]).await;
}

async fn a_session_that_is_closed_takes_nothing_with_it(server: &XmppServer) {
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS).start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(&upwire.component.jid).await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    phone.set_answer(Answer::Silent);
    let ledger = Load::start(&[endpoint], 4).finish().await;
    phone.wait_for_pushes(4, SOON).await;
    phone.disconnect().await;
    upwire.metric_reaches("upwire_pushes_retried_total", 4.0).await;

    upwire.mailbox_holds(4).await;
    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(&upwire.component.jid).await;
    ledger.arrives(&[&phone]).await;
    upwire.mailbox_holds(0).await;
    upwire.metric_is("upwire_pushes_delivered_total", 4.0).await;
}

async fn a_silent_phone_with_hundreds_of_pushes_delays_no_other(server: &XmppServer) {
    const QUEUED: usize = 500;
    const LIVELY: usize = 50;
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS).start_ready().await;
    let hot = Phone::connect(server, &server.user().await, "phone").await;
    let lively = Phone::connect(server, &server.user().await, "phone").await;
    let lively_endpoint = lively.endpoint(&upwire.component.jid, "app").await;
    hot.set_answer(Answer::Silent);
    let ledger = Load::start(&[hot.endpoint(&upwire.component.jid, "app").await], QUEUED).finish().await;

    // While the phone answers, the relay widens its window to the most that any phone gets.
    let answered = AtomicUsize::new(0);
    hot.answer_by(move |_| {
        if answered.fetch_add(1, Ordering::Relaxed) < QUEUED / 5 { Answer::Result } else { Answer::Silent }
    });
    hot.answer_all().await;
    upwire.metric_reaches("upwire_pushes_in_flight", UNANSWERED_PER_JID_MAX as f64).await;

    for number in 0..LIVELY {
        let body = format!("lively {number}");
        assert_eq!(http::post_patiently(&lively_endpoint, &[], body.clone()).await.status, 201);
        assert_eq!(lively.next_push(SOON).await.body, body.as_bytes());
    }
    let waits = "what the hot phone has not got waits still";
    upwire
        .metric_becomes("upwire_pushes_delivered_total", waits, |delivered| delivered < QUEUED as f64)
        .await;
    upwire.metric_is("upwire_pushes_in_flight", UNANSWERED_PER_JID_MAX as f64).await;

    hot.set_answer(Answer::Result);
    hot.answer_all().await;
    assert_eq!(ledger.arrives(&[&hot]).await, 0, "each has come once");
    upwire.queue_empties().await;
}

async fn many_phones_that_are_gone_delay_no_other(server: &XmppServer) {
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS).start_ready().await;
    let user = server.user().await;
    let mut endpoints = Vec::new();
    for number in 0..8 {
        let phone = Phone::connect(server, &user, &format!("phone {number}")).await;
        endpoints.push(phone.endpoint(&upwire.component.jid, &format!("app {number}")).await);
        phone.disconnect().await;
    }
    Load::start(&endpoints, 50).finish().await;
    let lively = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = lively.endpoint(&upwire.component.jid, "app").await;
    let ledger = Load::start(&[endpoint], 50).finish().await;
    assert_eq!(ledger.arrives(&[&lively]).await, 0);
    upwire.metric_reaches("upwire_pushes_delivered_total", 50.0).await;
    // The mailbox has more pushes if a sender got a 503 and posted again.
    upwire.metric_reaches("upwire_mailbox_depth", 400.0).await;
    upwire.queue_empties().await;
}

on_each_server!(
    the_end_of_a_session_settles_what_is_pending_for_it,
    a_session_that_is_closed_takes_nothing_with_it,
    a_silent_phone_with_hundreds_of_pushes_delays_no_other,
    many_phones_that_are_gone_delay_no_other,
);
