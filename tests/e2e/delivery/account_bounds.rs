//! The bounds of one account: its registrations, and the pushes that wait for it.

use e2e::{Phone, SOON, Upwire, XmppServer, hashed, http};
use tokio_xmpp::parsers::stanza_error::{DefinedCondition, ErrorType};

use crate::mailbox::{nothing_is_left, post_some};

async fn registrations_beyond_the_bound_are_told_to_wait(server: &XmppServer) {
    let upwire = Upwire::on(server).set("UPWIRE_ACCOUNT_REGISTRATIONS_MAX", 2).start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let component = &upwire.component.jid;
    let register = async |phone: &Phone, app| phone.register(component, &hashed(app), &hashed("1")).await;
    let first = register(&phone, "first").await.unwrap().endpoint;
    register(&phone, "second").await.unwrap();
    let refused = register(&phone, "third").await.unwrap_err();
    assert_eq!(
        (refused.type_, refused.defined_condition),
        (ErrorType::Wait, DefinedCondition::ResourceConstraint)
    );
    let text = refused.texts.values().next().map(String::as_str);
    assert_eq!(text, Some("your account may have no more than 2 registrations, and has no room for another"));

    let tablet = Phone::connect(server, &user, "tablet").await;
    assert!(register(&tablet, "third").await.is_err(), "it is the account's bound");
    assert_eq!(register(&tablet, "first").await.unwrap().endpoint, first, "what lives is renewed");
    let other = Phone::connect(server, &server.user().await, "phone").await;
    assert!(register(&other, "third").await.is_ok());
    assert_eq!(http::post(&first, "still here").await.status, 201);
    assert_eq!(tablet.next_push(SOON).await.body, b"still here");
}

async fn of_more_than_may_wait_for_an_account_the_fullest_registration_loses_its_oldest(server: &XmppServer) {
    let upwire = Upwire::on(server).set("UPWIRE_ACCOUNT_MAILBOX_MAX", 4).start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let quiet = phone.endpoint(&upwire.component.jid, "quiet").await;
    let loud = phone.endpoint(&upwire.component.jid, "loud").await;
    phone.disconnect().await;
    let mut expected = post_some(&quiet, "quiet", 2).await;
    expected.extend(post_some(&loud, "loud", 5).await.split_off(3));
    upwire.queue_empties().await;
    upwire.mailbox_holds(4).await;

    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(&upwire.component.jid).await;
    nothing_is_left(&upwire).await;
    phone.has_got(&expected).await;
}

on_each_server!(
    registrations_beyond_the_bound_are_told_to_wait,
    of_more_than_may_wait_for_an_account_the_fullest_registration_loses_its_oldest,
);
