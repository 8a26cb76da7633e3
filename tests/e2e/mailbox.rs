//! Pushes for a phone that is away: they come when the phone shows that it is back.

use std::time::Duration;

use e2e::{Answer, Phone, Push, SOON, Upwire, User, XmppServer, eventually, http};
use tokio_xmpp::jid::BareJid;
use tokio_xmpp::parsers::ping::Ping;
use tokio_xmpp::{IqRequest, IqResponse};

/// Longer than any test: what happens before it, happens for another reason.
pub(crate) const NEVER_SECONDS: u32 = 3600;
/// Pushes that are sent at once to a phone that has not answered anything yet.
const WINDOW_INITIAL: usize = 4;

pub(crate) async fn post(endpoint: &str, headers: &[(&str, &str)], body: &str) {
    let accepted = http::post_with(endpoint, headers, body.to_owned()).await;
    assert_eq!(accepted.status, 201, "{}", accepted.text());
}

/// Posts so many pushes one after the other, and returns their bodies.
pub(crate) async fn post_some(endpoint: &str, name: &str, count: usize) -> Vec<String> {
    let bodies: Vec<_> = (0..count).map(|number| format!("{name} {number}")).collect();
    for body in &bodies {
        post(endpoint, &[], body).await;
    }
    bodies
}

pub(crate) fn bodies(pushes: &[Push]) -> Vec<String> {
    pushes.iter().map(|push| String::from_utf8(push.body.clone()).unwrap()).collect()
}

pub(crate) fn ids(pushes: &[Push]) -> Vec<&str> {
    pushes.iter().map(|push| &*push.id).collect()
}

/// Waits until nothing is left that could be delivered, or delivered again.
pub(crate) async fn nothing_is_left(upwire: &Upwire) {
    upwire.queue_empties().await;
    upwire.mailbox_holds(0).await;
    // Everything that was sent is answered.
    upwire.metric_is("upwire_pushes_in_flight", 0.0).await;
}

/// Returns when the push server has read all that the phone sent before: a stream is in order.
pub(crate) async fn everything_is_read(phone: &Phone, component: &BareJid) {
    let pong = phone.request(component, IqRequest::Get(Ping.into())).await;
    assert!(matches!(pong, IqResponse::Result(None)), "{pong:?}");
}

pub(crate) async fn restart(upwire: &mut Upwire) {
    upwire.kill();
    upwire.start_again();
    upwire.ready().await;
}

/// A phone that sends presence and answers nothing, and its endpoint.
pub(crate) async fn silent_phone(
    server: &XmppServer,
    upwire: &Upwire,
    user: &User,
    resource: &str,
) -> (Phone, String) {
    let phone = Phone::connect(server, user, resource).await;
    phone.greet(&upwire.component.jid).await;
    let endpoint = phone.endpoint(&upwire.component.jid, resource).await;
    // When this is answered, all is over that presence and registration have brought about.
    post(&endpoint, &[], "hello").await;
    phone.next_push(SOON).await;
    upwire.queue_empties().await;
    phone.set_answer(Answer::Silent);
    (phone, endpoint)
}

/// The session of a silent phone ends, to which so many pushes were posted. They wait, beside what waits for others,
/// and nothing tries it again before it says that it is back.
pub(crate) async fn leaves(upwire: &Upwire, phone: Phone, posted: usize, others: usize) {
    for _ in 0..posted.min(WINDOW_INITIAL) {
        phone.next_push(SOON).await;
    }
    // The line of a phone that is slow is given up.
    upwire.mailbox_holds(others + posted.saturating_sub(WINDOW_INITIAL)).await;
    phone.disconnect().await;
    upwire.mailbox_holds(others + posted).await;
    upwire.queue_empties().await;
}

/// An upwire, and an endpoint with so many pushes that wait for its phone, which has left.
pub(crate) async fn left(server: &XmppServer, user: &User, count: usize) -> (Upwire, String, Vec<String>) {
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS).start_ready().await;
    let (phone, endpoint) = silent_phone(server, &upwire, user, "phone").await;
    let posted = post_some(&endpoint, "push", count).await;
    leaves(&upwire, phone, count, 0).await;
    (upwire, endpoint, posted)
}

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
    // More than three pages of sixteen.
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
    // It holds nothing, and refuses what it is asked to take: that ends no registration.
    let phone = Phone::connect(server, &user, "another").await;
    phone.greet(&upwire.component.jid).await;
    everything_is_read(&phone, &upwire.component.jid).await;
    phone.has_got_nothing("it has no registration yet");
    assert_eq!(phone.endpoint(&upwire.component.jid, "phone").await, endpoint);
    posted.extend(post_some(&endpoint, "new", 1).await);
    nothing_is_left(&upwire).await;
    // A push that was being tried at the first resource comes when that has failed, and others may come before.
    phone.has_got_in_any_order(&posted).await;
}

/// It holds for what waited, too.
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

/// ejabberd may tell of the end of the old session after the beginning of the new one.
async fn what_waits_comes_in_every_session_that_takes_the_place_of_one_that_sleeps(server: &XmppServer) {
    let user = server.user().await;
    let (upwire, _, posted) = left(server, &user, 3).await;
    for _ in 0..30 {
        let phone = Phone::connect_to_answer(server, &user, "phone", Answer::Silent).await;
        phone.greet(&upwire.component.jid).await;
        // Beside them, the server may hand over what it held for the session before.
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
