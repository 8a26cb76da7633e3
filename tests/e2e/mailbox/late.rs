//! Answers that come late: after their time, after a restart, from a session that slept, or from somebody else.

use e2e::{Answer, Phone, RawClient, SOON, Upwire, User, XmppServer, http};
use tokio_xmpp::parsers::stanza_error::DefinedCondition;

use super::{NEVER_SECONDS, everything_is_read, ids, nothing_is_left, post, post_some, restart};

const GONE: Answer = Answer::Error(DefinedCondition::ItemNotFound);

/// Starts an upwire that waits 1 s for answers, and a phone that gives none. Returns both, and the phone's endpoint.
pub(super) async fn hasty(server: &XmppServer, user: &User) -> (Upwire, Phone, String) {
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", 1).start_ready().await;
    let phone = Phone::connect(server, user, "phone").await;
    phone.set_answer(Answer::Silent);
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    (upwire, phone, endpoint)
}

/// Does the same as `hasty`, with a phone whose session sleeps. The XMPP server holds one push for it, which also waits
/// in the mailbox.
async fn asleep(server: &XmppServer, user: &User) -> (Upwire, Phone, String) {
    let (upwire, phone, endpoint) = hasty(server, user).await;
    phone.set_answer(Answer::Result);
    phone.cut();
    post(&endpoint, &[], "held by the server").await;
    upwire.mailbox_holds(1).await;
    upwire.queue_empties().await;
    (upwire, phone, endpoint)
}

async fn a_result_after_its_time_settles_exactly_that_push(server: &XmppServer) {
    let (upwire, phone, endpoint) = hasty(server, &server.user().await).await;
    post_some(&endpoint, "push", 3).await;
    let pushes = phone.wait_for_pushes(3, SOON).await;
    upwire.mailbox_holds(3).await;
    upwire.queue_empties().await;
    phone.answer(&pushes[1], Answer::Result).await;
    upwire.mailbox_holds(2).await;
    upwire.metric_reaches("upwire_pushes_delivered_total", 1.0).await;

    phone.set_answer(Answer::Result);
    upwire.mailbox_holds(0).await;
    nothing_is_left(&upwire).await;
    upwire.metric_is("upwire_pushes_delivered_total", 3.0).await;
}

async fn a_client_that_resumes_its_session_gets_nothing_twice(server: &XmppServer) {
    let server = XmppServer::patient(server.kind).await;
    let (upwire, phone, _) = asleep(server, &server.user().await).await;
    phone.reconnect().await;
    nothing_is_left(&upwire).await;
    everything_is_read(&phone, &upwire.component.jid).await;
    phone.has_got(&["held by the server"]).await;
    assert_eq!(phone.sessions_resumed(), 1);
    upwire.metric_is("upwire_pushes_delivered_total", 1.0).await;
}

async fn a_client_that_resumes_its_session_after_kill_9_gets_nothing_twice(server: &XmppServer) {
    let server = XmppServer::patient(server.kind).await;
    let (mut upwire, phone, endpoint) = asleep(server, &server.user().await).await;
    restart(&mut upwire).await;
    phone.reconnect().await;
    nothing_is_left(&upwire).await;
    post(&endpoint, &[], "later").await;
    phone.wait_for_pushes(2, SOON).await;
    nothing_is_left(&upwire).await;
    phone.has_got(&["held by the server", "later"]).await;
    assert_eq!(phone.sessions_resumed(), 1);
    upwire.metric_is("upwire_pushes_delivered_total", 2.0).await;
}

async fn what_the_server_held_for_a_session_that_has_ended_comes_in_the_next(server: &XmppServer) {
    let server = XmppServer::patient(server.kind).await;
    let user = server.user().await;
    let (upwire, _asleep, _) = asleep(server, &user).await;
    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(&upwire.component.jid).await;
    nothing_is_left(&upwire).await;
    phone.has_got(&["held by the server"]).await;
}

/// The exception to the rule that nothing comes twice: the queue does not say that the push went out.
async fn what_was_unanswered_at_kill_9_comes_at_most_twice_to_a_sleeping_client(server: &XmppServer) {
    let server = XmppServer::patient(server.kind).await;
    let mut upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    phone.cut();
    post(&endpoint, &[], "once or twice").await;
    upwire.metric_reaches("upwire_pushes_in_flight", 1.0).await;
    restart(&mut upwire).await;
    upwire.metric_reaches("upwire_pushes_in_flight", 1.0).await;
    phone.reconnect().await;
    nothing_is_left(&upwire).await;
    everything_is_read(&phone, &upwire.component.jid).await;
    let pushes = phone.wait_for_pushes(1, SOON).await;
    assert!((1..=2).contains(&pushes.len()), "{pushes:?}");
    assert!(pushes.iter().all(|push| *push == pushes[0]), "under one id");
    upwire.metric_is("upwire_pushes_delivered_total", 1.0).await;
}

async fn a_result_settles_what_an_earlier_process_had_sent(server: &XmppServer) {
    let (mut upwire, phone, endpoint) = hasty(server, &server.user().await).await;
    post(&endpoint, &[], "asked by an earlier process").await;
    let push = phone.next_push(SOON).await;
    upwire.mailbox_holds(1).await;
    upwire.queue_empties().await;
    restart(&mut upwire).await;
    phone.answer(&push, Answer::Result).await;
    nothing_is_left(&upwire).await;
    let pushes = phone.pushes();
    assert!(pushes.iter().all(|other| *other == push), "at most again under its id");
    upwire.metric_is("upwire_pushes_delivered_total", 1.0).await;
}

async fn an_error_after_a_result_changes_nothing(server: &XmppServer) {
    let (upwire, phone, endpoint) = hasty(server, &server.user().await).await;
    let component = &upwire.component.jid;
    post_some(&endpoint, "push", 2).await;
    let pushes = phone.wait_for_pushes(2, SOON).await;
    upwire.mailbox_holds(2).await;
    phone.answer(&pushes[0], Answer::Result).await;
    upwire.mailbox_holds(1).await;
    for error in [GONE, Answer::Error(DefinedCondition::RecipientUnavailable)] {
        phone.answer(&pushes[0], error).await;
    }
    everything_is_read(&phone, component).await;
    phone.set_answer(Answer::Result);
    post_some(&endpoint, "later", 1).await;
    nothing_is_left(&upwire).await;
    upwire.metric_is("upwire_pushes_delivered_total", 3.0).await;
    upwire.never_counted("upwire_registrations_revoked_total").await;
}

async fn a_late_item_not_found_revokes_and_clears(server: &XmppServer) {
    let server = XmppServer::patient(server.kind).await;
    let (upwire, phone, endpoint) = asleep(server, &server.user().await).await;
    post(&endpoint, &[], "behind it").await;
    upwire.mailbox_holds(2).await;
    phone.set_answer(GONE);
    phone.reconnect().await;
    upwire.metric_reaches("upwire_registrations_revoked_total", 1.0).await;
    upwire.metric_reaches("upwire_pushes_revoked_total", 2.0).await;
    nothing_is_left(&upwire).await;
    assert_eq!(http::post(&endpoint, "anyone?").await.status, 410);
    let anew = phone.endpoint(&upwire.component.jid, "app").await;
    assert_ne!(anew, endpoint);
    phone.set_answer(Answer::Result);
    post(&anew, &[], "welcome back").await;
    phone.wait_for_body("welcome back").await;
    nothing_is_left(&upwire).await;
}

/// A registration follows a late refusal before the refusal is durable. In either order, the phone gets an endpoint
/// that lives.
async fn a_registration_right_behind_a_late_item_not_found_is_answered_by_an_endpoint_that_lives(
    server: &XmppServer,
) {
    let server = XmppServer::patient(server.kind).await;
    for _ in 0..8 {
        let (upwire, phone, _) = asleep(server, &server.user().await).await;
        phone.set_answer(Answer::Silent);
        phone.reconnect().await;
        let push = phone.next_push(SOON).await;
        phone.set_answer(Answer::Result);
        phone.answer(&push, GONE).await;
        let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
        nothing_is_left(&upwire).await;
        assert_eq!(http::post(&endpoint, "anyone?").await.status, 201);
    }
}

async fn nobody_elses_answer_settles_what_waits(server: &XmppServer) {
    let server = XmppServer::patient(server.kind).await;
    let user = server.user().await;
    let (upwire, phone, endpoint) = hasty(server, &user).await;
    let component = &upwire.component.jid;
    post(&endpoint, &[], "for the phone alone").await;
    let push = phone.next_push(SOON).await;
    phone.cut();
    upwire.mailbox_holds(1).await;
    upwire.queue_empties().await;

    let mut other = RawClient::connect(server, &server.user().await, "phone").await;
    let id = &push.id;
    let gone = "<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    for answer in [
        format!("<iq type='error' id='{id}' to='{component}'>{gone}</iq>"),
        format!("<iq type='result' id='{id}' to='{component}'/>"),
        format!("<presence to='{component}'/>"),
        format!("<iq type='get' id='sync' to='{component}'><ping xmlns='urn:xmpp:ping'/></iq>"),
    ] {
        other.send(answer).await.unwrap();
    }
    other.read_until("sync", SOON).await.unwrap();
    upwire.metric_is("upwire_mailbox_depth", 1.0).await;

    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(component).await;
    phone.wait_for_pushes(1, SOON).await;
    nothing_is_left(&upwire).await;
    assert_eq!(ids(&phone.has_got_count(1).await), [id]);
    assert_eq!(http::post(&endpoint, "and more").await.status, 201);
    upwire.never_counted("upwire_registrations_revoked_total").await;
}

on_each_server!(
    a_result_after_its_time_settles_exactly_that_push,
    a_client_that_resumes_its_session_gets_nothing_twice,
    a_client_that_resumes_its_session_after_kill_9_gets_nothing_twice,
    what_the_server_held_for_a_session_that_has_ended_comes_in_the_next,
    what_was_unanswered_at_kill_9_comes_at_most_twice_to_a_sleeping_client,
    a_result_settles_what_an_earlier_process_had_sent,
    an_error_after_a_result_changes_nothing,
    a_late_item_not_found_revokes_and_clears,
    a_registration_right_behind_a_late_item_not_found_is_answered_by_an_endpoint_that_lives,
    nobody_elses_answer_settles_what_waits,
);
