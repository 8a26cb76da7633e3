//! The behaviours of stored pushes that the tests of autopush, Mozilla's push service, check.
//! `http::push_message_resource` has the withdrawal of a push.

use std::time::Duration;

use e2e::{Answer, Phone, SOON, Upwire, User, XmppServer, hashed, http, time_passes_until};
use tokio::time::Instant;
use tokio_xmpp::parsers::stanza_error::DefinedCondition;

use super::{
    NEVER_SECONDS, bodies, ids, leaves, left, nothing_is_left, post, post_some, restart, silent_phone,
};

const NEWS: &[(&str, &str)] = &[("Topic", "news")];

async fn of_a_topic_only_the_newest_arrives_and_all_else_is_untouched(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let mail = phone.endpoint(&upwire.component.jid, "mail").await;
    let chat = phone.endpoint(&upwire.component.jid, "chat").await;
    phone.disconnect().await;
    for (endpoint, headers, body) in [
        (&mail, NEWS, "replaced at first"),
        (&mail, &[], "no topic"),
        (&mail, &[("Topic", "weather")], "another topic"),
        (&chat, NEWS, "another registration"),
        (&mail, &[("Topic", "news"), ("Urgency", "high")], "replaced in the end"),
        (&mail, &[], "no topic either"),
        (&mail, NEWS, "the newest"),
    ] {
        post(endpoint, headers, body).await;
    }
    upwire.queue_empties().await;
    upwire.mailbox_holds(5).await;
    upwire.metric_is("upwire_mailbox_replaced_total", 2.0).await;

    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(&upwire.component.jid).await;
    nothing_is_left(&upwire).await;
    let expected = ["another registration", "another topic", "no topic", "no topic either", "the newest"];
    phone.has_got_in_any_order(&expected).await;
}

async fn a_topic_that_was_acknowledged_is_not_sent_again(server: &XmppServer) {
    let mut upwire = Upwire::on(server).start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    phone.disconnect().await;
    post(&endpoint, NEWS, "old").await;
    upwire.mailbox_holds(1).await;

    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(&upwire.component.jid).await;
    nothing_is_left(&upwire).await;
    phone.has_got(&["old"]).await;
    phone.disconnect().await;
    restart(&mut upwire).await;

    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(&upwire.component.jid).await;
    post(&endpoint, NEWS, "new").await;
    phone.wait_for_pushes(1, SOON).await;
    nothing_is_left(&upwire).await;
    phone.has_got(&["new"]).await;
}

async fn what_is_unanswered_comes_again_in_every_session_until_it_is_answered(server: &XmppServer) {
    let user = server.user().await;
    let (upwire, endpoint, posted) = left(server, &user, 3).await;
    let component = &upwire.component.jid;
    let mut first = None;
    for closes in [true, false, true, false] {
        let phone = Phone::connect_to_answer(server, &user, "phone", Answer::Silent).await;
        phone.greet(component).await;
        let pushes = phone.wait_for_pushes(3, SOON).await;
        assert_eq!(bodies(&pushes), posted);
        assert_eq!(pushes, *first.get_or_insert(pushes.clone()), "under the same ids");
        if closes {
            phone.disconnect().await;
        } else {
            // The session is not closed. The next one takes its place.
            phone.cut();
        }
    }
    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(component).await;
    phone.wait_for_pushes(3, SOON).await;
    nothing_is_left(&upwire).await;
    phone.disconnect().await;

    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(component).await;
    let later = post_some(&endpoint, "later", 1).await;
    phone.wait_for_pushes(1, SOON).await;
    nothing_is_left(&upwire).await;
    phone.has_got(&later).await;
}

async fn of_several_only_those_that_were_not_acknowledged_come_again(server: &XmppServer) {
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS).start_ready().await;
    let user = server.user().await;
    let (phone, endpoint) = silent_phone(server, &upwire, &user, "phone").await;
    let posted = post_some(&endpoint, "push", 4).await;
    let mut pushes = Vec::new();
    for _ in 0..4 {
        pushes.push(phone.next_push(SOON).await);
    }
    for acknowledged in [0, 2] {
        phone.answer(&pushes[acknowledged], Answer::Result).await;
    }
    // The count includes the first push, which the phone answered before.
    upwire.metric_reaches("upwire_pushes_delivered_total", 3.0).await;
    phone.disconnect().await;
    upwire.mailbox_holds(2).await;

    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(&upwire.component.jid).await;
    nothing_is_left(&upwire).await;
    let again = phone.has_got(&[&posted[1], &posted[3]]).await;
    assert_eq!(ids(&again), [&*pushes[1].id, &*pushes[3].id]);
}

async fn a_topic_whose_time_has_run_out_does_not_come_and_nor_does_what_it_replaced(server: &XmppServer) {
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS).start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    phone.disconnect().await;
    post(&endpoint, NEWS, "replaced").await;
    post(&endpoint, &[], "kept").await;
    upwire.mailbox_holds(2).await;
    post(&endpoint, &[("Topic", "news"), ("TTL", "15")], "too late").await;
    let too_late = Instant::now() + Duration::from_secs(15);
    upwire.metric_reaches("upwire_mailbox_replaced_total", 1.0).await;
    time_passes_until(too_late).await;

    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(&upwire.component.jid).await;
    phone.wait_for_pushes(1, SOON).await;
    nothing_is_left(&upwire).await;
    phone.has_got(&["kept"]).await;
}

async fn ttl_0_never_waits_neither_with_others_nor_behind_them(server: &XmppServer) {
    let user = server.user().await;
    let (upwire, endpoint, posted) = left(server, &user, 3).await;
    post(&endpoint, &[("TTL", "0")], "never").await;
    upwire.metric_reaches("upwire_pushes_expired_total", 1.0).await;
    upwire.queue_empties().await;
    upwire.mailbox_holds(3).await;

    let phone = Phone::connect(server, &user, "phone").await;
    post(&endpoint, &[("TTL", "0")], "now").await;
    nothing_is_left(&upwire).await;
    phone.has_got_in_any_order(&[&posted[..], &["now".to_owned()]].concat()).await;
}

async fn of_what_waits_what_has_expired_is_left_out(server: &XmppServer) {
    let mut upwire = Upwire::on(server).start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    phone.disconnect().await;
    let mut expected = Vec::new();
    for number in 0..40 {
        let (ttl, body) = (if number % 3 == 0 { "3600" } else { "5" }, format!("push {number}"));
        post(&endpoint, &[("TTL", ttl)], &body).await;
        if ttl == "3600" {
            expected.push(body);
        }
    }
    let expired = Instant::now() + Duration::from_secs(5);
    upwire.queue_empties().await;
    // The relay reads the waiting pushes when the short TTL has run out and the phone is online.
    upwire.kill();
    let phone = Phone::connect(server, &user, "phone").await;
    time_passes_until(expired).await;
    upwire.start_again();
    upwire.ready().await;
    phone.wait_for_pushes(expected.len(), SOON).await;
    nothing_is_left(&upwire).await;
    phone.has_got(&expected).await;
}

async fn of_more_than_may_wait_the_newest_arrive_and_the_log_says_so(server: &XmppServer) {
    let mut upwire = Upwire::on(server).set("UPWIRE_MAILBOX_MAX", 5).start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    let other = phone.endpoint(&upwire.component.jid, "another app").await;
    phone.disconnect().await;
    let of_other = post_some(&other, "another registration's", 2).await;
    let posted = post_some(&endpoint, "push", 8).await;
    upwire.queue_empties().await;
    upwire.mailbox_holds(7).await;
    upwire.metric_is("upwire_mailbox_dropped_total", 3.0).await;
    upwire.log_lines(&["WARN", "\"dropped\":1", "\"max\":5"], 3).await;
    // The log names no user.
    upwire.never_logged(&[user.name()]);

    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(&upwire.component.jid).await;
    nothing_is_left(&upwire).await;
    let expected = [&of_other[..], &posted[3..]].concat();
    phone.has_got_in_any_order(&expected).await;
}

async fn a_registration_that_is_revoked_takes_along_what_waits_for_it_and_nothing_else(server: &XmppServer) {
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS).start_ready().await;
    let user = server.user().await;
    let (phone, here) = silent_phone(server, &upwire, &user, "phone").await;
    let gone = phone.endpoint(&upwire.component.jid, "gone").await;
    let mut expected = Vec::new();
    for number in 0..4 {
        expected.extend(post_some(&here, &format!("round {number}, here"), 1).await);
        post_some(&gone, &format!("round {number}, gone"), 1).await;
    }
    leaves(&upwire, phone, 8, 0).await;

    let phone = Phone::connect_to_answer(server, &user, "phone", Answer::Silent).await;
    phone.greet(&upwire.component.jid).await;
    let pushes = phone.wait_for_pushes(2, SOON).await;
    phone.answer(&pushes[1], Answer::Error(DefinedCondition::ItemNotFound)).await;
    upwire.metric_reaches("upwire_registrations_revoked_total", 1.0).await;
    upwire.mailbox_holds(4).await;

    phone.set_answer(Answer::Result);
    phone.answer_all().await;
    expected.extend(post_some(&here, "later", 1).await);
    assert_eq!(http::post(&gone, "later").await.status, 410);
    nothing_is_left(&upwire).await;
    phone.wait_for_body("later 0").await;
    let mut pushes = phone.pushes();
    pushes.retain(|push| push.application != hashed("gone"));
    assert_eq!(bodies(&pushes), expected);
}

/// Lifetime of a registration in seconds. The least is 10.
const LIFETIME: u64 = 20;

/// Starts an upwire with short lifetimes, and leaves pushes that wait. Returns the upwire, the endpoint, and the moment
/// at which the registration has lapsed.
async fn with_short_lives(server: &XmppServer, user: &User) -> (Upwire, String, Instant) {
    let upwire = Upwire::on(server).set("UPWIRE_REGISTRATION_TTL", LIFETIME).start_ready().await;
    let phone = Phone::connect(server, user, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    let lapsed = Instant::now() + Duration::from_secs(LIFETIME);
    phone.disconnect().await;
    post_some(&endpoint, "for a life that is over", 3).await;
    upwire.mailbox_holds(3).await;
    upwire.queue_empties().await;
    (upwire, endpoint, lapsed)
}

async fn what_waits_for_a_life_that_has_lapsed_does_not_come_in_the_next(server: &XmppServer) {
    let user = server.user().await;
    let (upwire, lapsed_endpoint, lapsed) = with_short_lives(server, &user).await;
    time_passes_until(lapsed).await;
    let phone = Phone::connect(server, &user, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    assert_ne!(endpoint, lapsed_endpoint);
    let new = post_some(&endpoint, "new", 1).await;
    phone.wait_for_pushes(1, SOON).await;
    nothing_is_left(&upwire).await;
    phone.has_got(&new).await;
}

async fn a_sweep_clears_what_waits_for_a_life_that_has_lapsed(server: &XmppServer) {
    let user = server.user().await;
    let (mut upwire, _, lapsed) = with_short_lives(server, &user).await;
    upwire.kill();
    time_passes_until(lapsed).await;
    upwire.start_again();
    upwire.ready().await;
    nothing_is_left(&upwire).await;
    upwire.metric_reaches("upwire_pushes_revoked_total", 3.0).await;
}

on_each_server!(
    of_a_topic_only_the_newest_arrives_and_all_else_is_untouched,
    a_topic_that_was_acknowledged_is_not_sent_again,
    what_is_unanswered_comes_again_in_every_session_until_it_is_answered,
    of_several_only_those_that_were_not_acknowledged_come_again,
    a_topic_whose_time_has_run_out_does_not_come_and_nor_does_what_it_replaced,
    ttl_0_never_waits_neither_with_others_nor_behind_them,
    of_what_waits_what_has_expired_is_left_out,
    of_more_than_may_wait_the_newest_arrive_and_the_log_says_so,
    a_registration_that_is_revoked_takes_along_what_waits_for_it_and_nothing_else,
    what_waits_for_a_life_that_has_lapsed_does_not_come_in_the_next,
    a_sweep_clears_what_waits_for_a_life_that_has_lapsed,
);
