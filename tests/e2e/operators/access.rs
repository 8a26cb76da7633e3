//! The word to the operator when somebody is taken off the access list.

use std::fs;

use e2e::{Kind, Phone, SOON, Upwire, XmppServer, folder, hashed, http};
use tokio_xmpp::parsers::stanza_error::DefinedCondition;

use crate::cloud::Cloud;

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

    // A restart counts anew, and a list that has them again ends it.
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

async fn who_is_taken_off_the_list_lapses_and_the_log_says_so(server: &XmppServer) {
    who_is_taken_off_lapses_and_the_log_says_so(server, Upwire::on(server)).await;
}

on_each_server!(who_is_taken_off_the_list_lapses_and_the_log_says_so);

#[tokio::test]
async fn who_is_taken_off_the_list_of_a_relay_lapses_and_the_log_says_so() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    who_is_taken_off_lapses_and_the_log_says_so(server, cloud.relay_on(server)).await;
}
