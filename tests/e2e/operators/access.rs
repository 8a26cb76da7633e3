//! A user is taken off the access list: the operator is told, and pushes wait.

use std::fs;

use e2e::{FaultProxy, Kind, Phone, SOON, Upwire, User, XmppServer, folder, hashed, http};
use tokio_xmpp::parsers::stanza_error::DefinedCondition;

use crate::cloud::Cloud;
use crate::mailbox::{everything_is_read, nothing_is_left, post, restart};

const LAPSING: &str = "upwire_registrations_lapsing";

async fn who_is_taken_off_lapses_and_the_log_says_so(server: &XmppServer, upwire: e2e::UpwireBuilder) {
    let acl = folder("access").join("acl");
    fs::write(&acl, "localhost").unwrap();
    let mut upwire = upwire.set("UPWIRE_ACL_FILE", acl.display()).start_ready().await;
    let (user, other) = (server.user().await, server.user().await);
    let phone = Phone::connect(server, &user, "phone").await;
    for app in ["one", "two"] {
        phone.endpoint(&upwire.component.jid, app).await;
    }
    upwire.metric_is(LAPSING, 0.0).await;

    fs::write(&acl, other.jid.to_string()).unwrap();
    upwire.hang_up();
    let domain = format!("\"domain\":\"{}\"", user.jid.domain());
    let line = upwire.log_line(&["WARN", "registrations lapse", &domain, "\"registrations\":2"]).await;
    assert!(line.contains("\"first\":\"20") && !line.contains(user.jid.node().unwrap().as_str()), "{line}");
    upwire.metric_is(LAPSING, 2.0).await;
    let refused = phone.register(&upwire.component.jid, &hashed("one"), &hashed("1")).await.unwrap_err();
    assert_eq!(refused.defined_condition, DefinedCondition::Forbidden);

    // A restart counts anew. A list that has the users again ends the lapse.
    upwire.terminate();
    upwire.wait_exit(SOON).await;
    upwire.start_again();
    upwire.ready().await;
    upwire.metric_is(LAPSING, 2.0).await;
    fs::write(&acl, "localhost").unwrap();
    upwire.hang_up();
    upwire.metric_is(LAPSING, 0.0).await;
    let endpoint = phone.endpoint(&upwire.component.jid, "one").await;
    assert_eq!(http::post(&endpoint, "back").await.status, 201);
    assert_eq!(phone.next_push(SOON).await.body, b"back");
}

/// The endpoint does not end either: it is as before when the list has its user again.
async fn a_push_for_a_user_off_the_list_waits_until_the_list_has_the_user_again(server: &XmppServer) {
    let acl = folder("access").join("acl");
    fs::write(&acl, "localhost").unwrap();
    let mut upwire = Upwire::on(server).set("UPWIRE_ACL_FILE", acl.display()).start_ready().await;
    let component = upwire.component.jid.clone();
    let (user, other) = (server.user().await, server.user().await);
    let phone = Phone::connect(server, &user, "phone").await;
    let listed = Phone::connect(server, &other, "phone").await;
    phone.greet(&component).await;
    let endpoint = phone.endpoint(&component, "app").await;
    let listed_endpoint = listed.endpoint(&component, "app").await;
    listed.disconnect().await;

    fs::write(&acl, other.jid.to_string()).unwrap();
    upwire.hang_up();
    // The relay has the list by then.
    upwire.metric_is(LAPSING, 1.0).await;
    post(&endpoint, &[], "while off the list").await;
    upwire.mailbox_holds(1).await;
    upwire.queue_empties().await;
    phone.greet(&component).await;
    everything_is_read(&phone, &component).await;
    listed_gets_what_waits(server, &upwire, &other, &listed_endpoint).await;
    phone.has_got_nothing("its user is off the list");

    // Nothing arrives after a restart either, at which all that waits is tried.
    restart(&mut upwire).await;
    upwire.metric_is(LAPSING, 1.0).await;
    phone.greet(&component).await;
    listed_gets_what_waits(server, &upwire, &other, &listed_endpoint).await;
    phone.has_got_nothing("its user is off the list");
    upwire.mailbox_holds(1).await;
    assert_eq!(http::get(&endpoint).await.status, 200);
    upwire.never_counted("upwire_registrations_revoked_total").await;
    upwire.never_counted("upwire_pushes_revoked_total").await;

    fs::write(&acl, "localhost").unwrap();
    upwire.hang_up();
    upwire.metric_is(LAPSING, 0.0).await;
    phone.greet(&component).await;
    phone.has_got(&["while off the list"]).await;
    nothing_is_left(&upwire).await;
    assert_eq!(phone.endpoint(&component, "app").await, endpoint);
}

/// Pushes stay in line while the XMPP server is away.
async fn a_push_in_line_waits_when_the_list_loses_its_user(server: &XmppServer) {
    let acl = folder("access").join("acl");
    fs::write(&acl, "localhost").unwrap();
    let way = FaultProxy::to(server.component_port).await;
    let upwire = Upwire::beside(&way.address(), server.component()).set("UPWIRE_ACL_FILE", acl.display());
    let mut upwire = upwire.start_ready().await;
    let component = upwire.component.jid.clone();
    let (user, other) = (server.user().await, server.user().await);
    let phone = Phone::connect(server, &user, "phone").await;
    let listed = Phone::connect(server, &other, "phone").await;
    let endpoint = phone.endpoint(&component, "app").await;
    let listed_endpoint = listed.endpoint(&component, "app").await;
    way.cut();
    upwire.unready().await;
    post(&endpoint, &[], "in line").await;
    post(&listed_endpoint, &[], "in another line").await;

    fs::write(&acl, other.jid.to_string()).unwrap();
    upwire.hang_up();
    upwire.mailbox_holds(1).await;
    way.mend();
    upwire.ready().await;
    phone.greet(&component).await;
    everything_is_read(&phone, &component).await;
    post(&listed_endpoint, &[], "after that").await;
    listed.has_got(&["in another line", "after that"]).await;
    upwire.queue_empties().await;
    upwire.mailbox_holds(1).await;
    phone.has_got_nothing("its user is off the list");

    fs::write(&acl, "localhost").unwrap();
    upwire.hang_up();
    phone.has_got(&["in line"]).await;
    nothing_is_left(&upwire).await;
    assert_eq!(phone.endpoint(&component, "app").await, endpoint);
}

/// Delivers a waiting push to a listed user whose phone greets. A phone that greeted before would have got its pushes
/// earlier.
async fn listed_gets_what_waits(server: &XmppServer, upwire: &Upwire, user: &User, endpoint: &str) {
    post(endpoint, &[], "for one on the list").await;
    upwire.mailbox_holds(2).await;
    let listed = Phone::connect(server, user, "phone").await;
    listed.greet(&upwire.component.jid).await;
    listed.has_got(&["for one on the list"]).await;
    upwire.mailbox_holds(1).await;
    upwire.queue_empties().await;
    listed.disconnect().await;
}

async fn who_is_taken_off_the_list_lapses_and_the_log_says_so(server: &XmppServer) {
    who_is_taken_off_lapses_and_the_log_says_so(server, Upwire::on(server)).await;
}

on_each_server!(
    who_is_taken_off_the_list_lapses_and_the_log_says_so,
    a_push_for_a_user_off_the_list_waits_until_the_list_has_the_user_again,
    a_push_in_line_waits_when_the_list_loses_its_user,
);

#[tokio::test]
async fn who_is_taken_off_the_list_of_a_relay_lapses_and_the_log_says_so() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    who_is_taken_off_lapses_and_the_log_says_so(server, cloud.relay_on(server)).await;
}
