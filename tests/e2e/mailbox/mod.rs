//! Pushes that wait: when they come, in which order, and whose late answers settle them.

mod autopush;
mod away;
mod greetings;
mod late;

use e2e::{Answer, Phone, Push, SOON, Upwire, User, XmppServer, http};
use tokio_xmpp::jid::BareJid;
use tokio_xmpp::parsers::ping::Ping;
use tokio_xmpp::{IqRequest, IqResponse};

/// An answer timeout in seconds that is longer than any test, so that it explains nothing that happens in one.
pub(crate) const NEVER_SECONDS: u32 = 3600;
/// Number of pushes that are sent at once to a phone that has not answered anything yet.
const WINDOW_INITIAL: usize = 4;

pub(crate) async fn post(endpoint: &str, headers: &[(&str, &str)], body: &str) {
    let accepted = http::post_with(endpoint, headers, body.to_owned()).await;
    assert_eq!(accepted.status, 201, "{}", accepted.text());
}

/// Posts this number of pushes one after the other. Returns their bodies.
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
    // Every push that was sent is answered.
    upwire.metric_is("upwire_pushes_in_flight", 0.0).await;
}

/// Returns when the push server has read everything that the phone sent before: a stream is in order.
pub(crate) async fn everything_is_read(phone: &Phone, component: &BareJid) {
    let pong = phone.request(component, IqRequest::Get(Ping.into())).await;
    assert!(matches!(pong, IqResponse::Result(None)), "{pong:?}");
}

pub(crate) async fn restart(upwire: &mut Upwire) {
    upwire.kill();
    upwire.start_again();
    upwire.ready().await;
}

/// Connects a phone that sends presence, and then answers nothing. Returns the phone and its endpoint.
pub(crate) async fn silent_phone(
    server: &XmppServer,
    upwire: &Upwire,
    user: &User,
    resource: &str,
) -> (Phone, String) {
    let phone = Phone::connect(server, user, resource).await;
    phone.greet(&upwire.component.jid).await;
    let endpoint = phone.endpoint(&upwire.component.jid, resource).await;
    // Once this push is answered, all effects of the presence and the registration are over.
    post(&endpoint, &[], "hello").await;
    phone.next_push(SOON).await;
    upwire.queue_empties().await;
    phone.set_answer(Answer::Silent);
    (phone, endpoint)
}

/// Ends the session of a silent phone, to which `posted` pushes were posted. They wait, beside those that wait for
/// others. Nothing tries the phone again before it says that it is back.
pub(crate) async fn leaves(upwire: &Upwire, phone: Phone, posted: usize, others: usize) {
    for _ in 0..posted.min(WINDOW_INITIAL) {
        phone.next_push(SOON).await;
    }
    // The relay gives up the line of a slow phone.
    upwire.mailbox_holds(others + posted.saturating_sub(WINDOW_INITIAL)).await;
    phone.disconnect().await;
    upwire.mailbox_holds(others + posted).await;
    upwire.queue_empties().await;
}

/// Starts an upwire with this number of pushes that wait for a phone that has left. Returns the upwire, the phone's
/// endpoint, and the bodies.
pub(crate) async fn left(server: &XmppServer, user: &User, count: usize) -> (Upwire, String, Vec<String>) {
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS).start_ready().await;
    let (phone, endpoint) = silent_phone(server, &upwire, user, "phone").await;
    let posted = post_some(&endpoint, "push", count).await;
    leaves(&upwire, phone, count, 0).await;
    (upwire, endpoint, posted)
}
