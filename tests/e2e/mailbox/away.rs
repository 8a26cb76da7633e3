//! Pushes for a phone that is away come when the phone shows that it is back.

use std::time::Duration;

use e2e::{Answer, Phone, SOON, Upwire, XmppServer, eventually};

use super::{
    NEVER_SECONDS, bodies, everything_is_read, leaves, left, nothing_is_left, post, post_some, silent_phone,
};

async fn what_waits_comes_when_the_phone_greets(server: &XmppServer) {
    let user = server.user().await;
    let (upwire, _, posted) = left(server, &user, 6).await;
    let phone = Phone::connect(server, &user, "phone").await;
    everything_is_read(&phone, &upwire.component.jid).await;
    phone.has_got_nothing("nothing has said that it is back");
    phone.greet(&upwire.component.jid).await;
    nothing_is_left(&upwire).await;
    phone.has_got(&posted).await;
}

async fn what_waits_comes_at_a_renewal_without_presence(server: &XmppServer) {
    let user = server.user().await;
    let (upwire, endpoint, posted) = left(server, &user, 6).await;
    let phone = Phone::connect(server, &user, "phone").await;
    assert_eq!(phone.endpoint(&upwire.component.jid, "phone").await, endpoint);
    nothing_is_left(&upwire).await;
    phone.has_got(&posted).await;
}

async fn what_waits_comes_before_a_new_push_to_a_phone_without_presence(server: &XmppServer) {
    let user = server.user().await;
    let (upwire, endpoint, mut posted) = left(server, &user, 6).await;
    let phone = Phone::connect(server, &user, "phone").await;
    posted.extend(post_some(&endpoint, "new", 1).await);
    phone.wait_for_pushes(posted.len(), SOON).await;
    nothing_is_left(&upwire).await;
    phone.has_got(&posted).await;
}

async fn what_waits_comes_after_a_restart_to_a_phone_without_presence(server: &XmppServer) {
    let mut upwire = Upwire::on(server).start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    phone.disconnect().await;
    let posted = post_some(&endpoint, "push", 6).await;
    upwire.mailbox_holds(6).await;
    upwire.queue_empties().await;
    upwire.kill();
    let phone = Phone::connect(server, &user, "phone").await;
    upwire.start_again();
    upwire.ready().await;
    nothing_is_left(&upwire).await;
    phone.has_got(&posted).await;
}

async fn the_most_urgent_comes_first_and_then_the_oldest(server: &XmppServer) {
    let user = server.user().await;
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS).start_ready().await;
    let (phone, first) = silent_phone(server, &upwire, &user, "phone").await;
    let mut endpoints = vec![first];
    for application in ["chat", "calls"] {
        endpoints.push(phone.endpoint(&upwire.component.jid, application).await);
    }
    let mut posted = Vec::new();
    for (place, urgency) in
        [(3, "very-low"), (1, "normal"), (0, "high"), (2, "low"), (1, "normal"), (0, "high"), (3, "very-low")]
    {
        for (number, endpoint) in endpoints.iter().enumerate() {
            let body = format!("{urgency} {} to {number}", posted.len());
            post(endpoint, &[("Urgency", urgency)], &body).await;
            posted.push((place, body));
        }
    }
    leaves(&upwire, phone, posted.len(), 0).await;

    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(&upwire.component.jid).await;
    nothing_is_left(&upwire).await;
    posted.sort_by_key(|(place, _)| *place);
    phone.has_got(&posted.into_iter().map(|(_, body)| body).collect::<Vec<_>>()).await;
}

async fn what_comes_new_while_much_waits_comes_behind_it(server: &XmppServer) {
    // This is more than three pages of 16 pushes.
    const WAITING: usize = 60;
    let user = server.user().await;
    let (upwire, endpoint, mut posted) = left(server, &user, WAITING).await;
    let phone = Phone::connect(server, &user, "phone").await;
    phone.set_answer(Answer::DelayedBy(Duration::from_millis(100)));
    phone.greet(&upwire.component.jid).await;
    phone.wait_for_pushes(1, SOON).await;
    posted.extend(post_some(&endpoint, "new", 10).await);
    phone.wait_for_pushes(posted.len(), SOON).await;
    nothing_is_left(&upwire).await;
    phone.has_got(&posted).await;
}

async fn what_waits_for_one_phone_does_not_hold_up_another_of_the_account(server: &XmppServer) {
    const WAITING: usize = 40;
    let user = server.user().await;
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS).start_ready().await;
    let (away, endpoint) = silent_phone(server, &upwire, &user, "away").await;
    let posted_away = post_some(&endpoint, "to the one that is away", WAITING).await;
    leaves(&upwire, away, WAITING, 0).await;
    let (here, endpoint) = silent_phone(server, &upwire, &user, "here").await;
    let mut posted_here = post_some(&endpoint, "to the one that is here", 6).await;
    leaves(&upwire, here, 6, WAITING).await;

    let here = Phone::connect(server, &user, "here").await;
    here.greet(&upwire.component.jid).await;
    here.wait_for_pushes(6, SOON).await;
    posted_here.extend(post_some(&endpoint, "new", 2).await);
    here.wait_for_pushes(8, SOON).await;
    upwire.mailbox_holds(WAITING).await;
    here.has_got(&posted_here).await;

    let away = Phone::connect(server, &user, "away").await;
    away.greet(&upwire.component.jid).await;
    nothing_is_left(&upwire).await;
    away.has_got(&posted_away).await;
    here.has_got_count(8).await;
}

async fn what_waits_follows_its_registration_to_another_resource(server: &XmppServer) {
    let user = server.user().await;
    let (upwire, endpoint, mut posted) = left(server, &user, 20).await;
    // The phone holds no target, and refuses every push. This ends no registration.
    let phone = Phone::connect(server, &user, "another").await;
    phone.greet(&upwire.component.jid).await;
    everything_is_read(&phone, &upwire.component.jid).await;
    phone.has_got_nothing("it has no registration yet");
    assert_eq!(phone.endpoint(&upwire.component.jid, "phone").await, endpoint);
    posted.extend(post_some(&endpoint, "new", 1).await);
    nothing_is_left(&upwire).await;
    // A push that was being tried at the first resource comes after that has failed. Others may come before it.
    phone.has_got_in_any_order(&posted).await;
}

/// The bound of unanswered pushes holds for waiting pushes, too.
async fn no_more_than_sixteen_of_what_waits_are_unanswered(server: &XmppServer) {
    const UNANSWERED_MAX: usize = 16;
    const WAITING: usize = 60;
    let user = server.user().await;
    let (upwire, _, posted) = left(server, &user, WAITING).await;
    let phone = Phone::connect_to_answer(server, &user, "phone", Answer::Silent).await;
    phone.greet(&upwire.component.jid).await;
    for answered in 0..WAITING {
        let pushes = phone.wait_for_pushes(answered + 1, SOON).await;
        assert!(pushes.len() - answered <= UNANSWERED_MAX, "{} are unanswered", pushes.len() - answered);
        if answered == WAITING / 2 {
            phone.wait_for_pushes(answered + UNANSWERED_MAX, SOON).await;
            upwire.metric_is("upwire_pushes_in_flight", UNANSWERED_MAX as f64).await;
        }
        phone.answer(&pushes[answered], Answer::Result).await;
    }
    nothing_is_left(&upwire).await;
    phone.has_got(&posted).await;
}

/// ejabberd may report the end of the old session after the beginning of the new one.
async fn what_waits_comes_in_every_session_that_takes_the_place_of_one_that_sleeps(server: &XmppServer) {
    let user = server.user().await;
    let (upwire, _, posted) = left(server, &user, 3).await;
    for _ in 0..30 {
        let phone = Phone::connect_to_answer(server, &user, "phone", Answer::Silent).await;
        phone.greet(&upwire.component.jid).await;
        // The server may also deliver the pushes that it held for the session before.
        let all_came = async || {
            let came = bodies(&phone.wait_for_pushes(3, SOON).await);
            posted.iter().all(|body| came.contains(body))
        };
        eventually(SOON, "the phone has got all that waits", all_came).await;
        phone.cut();
    }
    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(&upwire.component.jid).await;
    phone.wait_for_pushes(3, SOON).await;
    nothing_is_left(&upwire).await;
}

on_each_server!(
    what_waits_comes_when_the_phone_greets,
    what_waits_comes_at_a_renewal_without_presence,
    what_waits_comes_before_a_new_push_to_a_phone_without_presence,
    what_waits_comes_after_a_restart_to_a_phone_without_presence,
    the_most_urgent_comes_first_and_then_the_oldest,
    what_comes_new_while_much_waits_comes_behind_it,
    what_waits_for_one_phone_does_not_hold_up_another_of_the_account,
    what_waits_follows_its_registration_to_another_resource,
    no_more_than_sixteen_of_what_waits_are_unanswered,
    what_waits_comes_in_every_session_that_takes_the_place_of_one_that_sleeps,
);
