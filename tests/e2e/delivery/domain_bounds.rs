//! The bounds of one domain that the access list does not name.

use e2e::{Kind, Phone, SOON, Upwire, UpwireBuilder, XmppServer, hashed, http};
use tokio_xmpp::parsers::stanza_error::{DefinedCondition, ErrorType};

use crate::cloud::Cloud;
use crate::mailbox::{nothing_is_left, post_some};

async fn registrations_of_a_domain_beyond_its_bound_are_told_to_wait(server: &XmppServer) {
    let bounded =
        |list: &str| Upwire::on(server).set("UPWIRE_ACL", list).set("UPWIRE_DOMAIN_REGISTRATIONS_MAX", 2);
    let mut upwire = bounded("*").start_ready().await;
    let component = upwire.component.jid.clone();
    let (one, other) = (server.user().await, server.user().await);
    let one = Phone::connect(server, &one, "phone").await;
    let other = Phone::connect(server, &other, "phone").await;
    let register = async |phone: &Phone, app| phone.register(&component, &hashed(app), &hashed("1")).await;
    let first = register(&one, "first").await.unwrap().endpoint;
    let second = register(&other, "second").await.unwrap().endpoint;
    for phone in [&one, &other] {
        let refused = register(phone, "third").await.unwrap_err();
        assert_eq!(
            (refused.type_, refused.defined_condition),
            (ErrorType::Wait, DefinedCondition::ResourceConstraint)
        );
        let text = refused.texts.values().next().map(String::as_str);
        assert_eq!(
            text,
            Some("your domain may have no more than 2 registrations, and has no room for another")
        );
    }
    assert_eq!(register(&one, "first").await.unwrap().endpoint, first, "what lives is renewed");

    // After a restart, upwire counts them.
    crate::mailbox::restart(&mut upwire).await;
    upwire.log_line(&["the registrations are counted"]).await;
    assert_eq!(register(&other, "second").await.unwrap().endpoint, second);
    assert!(register(&other, "third").await.is_err());
    assert_eq!(http::post(&first, "still here").await.status, 201);
    assert_eq!(one.next_push(SOON).await.body, b"still here");
}

async fn a_domain_that_is_named_has_no_bound_of_its_own(server: &XmppServer) {
    let user = server.user().await;
    let upwire = Upwire::on(server)
        .set("UPWIRE_ACL", format!("*, {}", user.jid.domain()))
        .set("UPWIRE_DOMAIN_REGISTRATIONS_MAX", 1)
        .set("UPWIRE_DOMAIN_MAILBOX_MAX", 1)
        .start_ready()
        .await;
    let phone = Phone::connect(server, &user, "phone").await;
    let mut expected = Vec::new();
    let mut endpoints = Vec::new();
    for app in ["one", "two"] {
        endpoints.push(phone.endpoint(&upwire.component.jid, app).await);
    }
    phone.disconnect().await;
    for endpoint in &endpoints {
        expected.extend(post_some(endpoint, "push", 2).await);
    }
    upwire.queue_empties().await;
    upwire.mailbox_holds(4).await;
    upwire.never_counted("upwire_mailbox_dropped_total").await;
}

/// Checks that of two accounts that are away, the fuller one loses its oldest pushes.
async fn the_fullest_account_gives(server: &XmppServer, upwire: UpwireBuilder) {
    let upwire = upwire.set("UPWIRE_ACL", "*").set("UPWIRE_DOMAIN_MAILBOX_MAX", 4).start_ready().await;
    let component = &upwire.component.jid;
    let (quiet_user, loud_user) = (server.user().await, server.user().await);
    let quiet = Phone::connect(server, &quiet_user, "phone").await;
    let loud = Phone::connect(server, &loud_user, "phone").await;
    let of_quiet = quiet.endpoint(component, "app").await;
    let of_loud = loud.endpoint(component, "app").await;
    quiet.disconnect().await;
    loud.disconnect().await;
    let quiets = post_some(&of_quiet, "quiet", 2).await;
    let louds = post_some(&of_loud, "loud", 6).await.split_off(4);
    upwire.metric_is("upwire_mailbox_kept_total", 8.0).await;
    upwire.metric_is("upwire_mailbox_dropped_total", 4.0).await;

    for (user, expected) in [(&quiet_user, quiets), (&loud_user, louds)] {
        let phone = Phone::connect(server, user, "phone").await;
        phone.greet(component).await;
        phone.has_got(&expected).await;
    }
}

async fn of_more_than_may_wait_for_a_domain_its_fullest_account_loses_the_oldest(server: &XmppServer) {
    the_fullest_account_gives(server, Upwire::on(server)).await;
}

async fn a_sweep_finds_what_is_too_much(server: &XmppServer) {
    let open = Upwire::on(server).set("UPWIRE_ACL", "*");
    let mut upwire = open.start_ready().await;
    let (quiet_user, loud_user) = (server.user().await, server.user().await);
    let mut expected = Vec::new();
    for (user, count, left) in [(&quiet_user, 1, 1), (&loud_user, 5, 2)] {
        let phone = Phone::connect(server, user, "phone").await;
        let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
        phone.disconnect().await;
        expected.push((user, post_some(&endpoint, "push", count).await.split_off(count - left)));
    }
    upwire.queue_empties().await;
    upwire.mailbox_holds(6).await;
    upwire.kill();
    let upwire = Upwire::as_component(server, upwire.component.clone())
        .set("UPWIRE_DATABASE", upwire.database().display())
        .set("UPWIRE_ACL", "*")
        .set("UPWIRE_DOMAIN_MAILBOX_MAX", 3)
        .start_ready()
        .await;
    upwire.mailbox_holds(3).await;
    upwire.metric_is("upwire_mailbox_dropped_total", 3.0).await;
    for (user, expected) in &expected {
        let phone = Phone::connect(server, user, "phone").await;
        phone.greet(&upwire.component.jid).await;
        phone.has_got(expected).await;
    }
    nothing_is_left(&upwire).await;
}

on_each_server!(
    registrations_of_a_domain_beyond_its_bound_are_told_to_wait,
    a_domain_that_is_named_has_no_bound_of_its_own,
    of_more_than_may_wait_for_a_domain_its_fullest_account_loses_the_oldest,
    a_sweep_finds_what_is_too_much,
);

#[tokio::test]
async fn of_more_than_may_wait_for_a_domain_on_aws_its_fullest_account_loses_the_oldest() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    the_fullest_account_gives(server, cloud.relay_on(server)).await;
}
