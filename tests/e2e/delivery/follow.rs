//! A phone that comes back under another resource, and does not register again, gets its pushes there.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::{Answer, Kind, Phone, SOON, Settings, Upwire, User, XmppServer, hashed};
use tokio::sync::OnceCell;
use tokio_xmpp::parsers::stanza_error::DefinedCondition;

use crate::mailbox::{NEVER_SECONDS, nothing_is_left, post, restart};
use crate::operators::said;

const SOON_TO_EXPIRE: &[(&str, &str)] = &[("TTL", "60")];

/// Starts an upwire, and a phone that greets and registers as `Conv.AAAA`. Returns both, and the phone's endpoint.
async fn registered(server: &XmppServer, user: &User) -> (Upwire, Phone, String) {
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS).start_ready().await;
    let phone = Phone::connect(server, user, "Conv.AAAA").await;
    phone.greet(&upwire.component.jid).await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    post(&endpoint, &[], "to the first resource").await;
    phone.has_got(&["to the first resource"]).await;
    upwire.queue_empties().await;
    (upwire, phone, endpoint)
}

/// Connects the same device under another resource, which greets.
async fn comes_back(server: &XmppServer, upwire: &Upwire, user: &User) -> Phone {
    let phone = Phone::connect_as(server, user, "Conv.BBBB", "Conv.AAAA").await;
    phone.greet(&upwire.component.jid).await;
    phone
}

async fn a_phone_under_another_resource_gets_its_pushes_at_once_and_from_then_on(server: &XmppServer) {
    let user = server.user().await;
    let (mut upwire, phone, endpoint) = registered(server, &user).await;
    phone.disconnect().await;
    let phone = comes_back(server, &upwire, &user).await;
    post(&endpoint, SOON_TO_EXPIRE, "to the second resource").await;
    phone.has_got(&["to the second resource"]).await;
    nothing_is_left(&upwire).await;

    upwire.log_line(&["follows its phone"]).await;
    restart(&mut upwire).await;
    post(&endpoint, SOON_TO_EXPIRE, "after a restart").await;
    phone.has_got(&["to the second resource", "after a restart"]).await;
}

async fn a_push_that_waits_goes_to_the_resource_that_greets(server: &XmppServer) {
    let user = server.user().await;
    let (upwire, phone, endpoint) = registered(server, &user).await;
    phone.disconnect().await;
    post(&endpoint, &[], "while nobody is there").await;
    upwire.mailbox_holds(1).await;
    let phone = comes_back(server, &upwire, &user).await;
    phone.has_got(&["while nobody is there"]).await;
    nothing_is_left(&upwire).await;
}

/// Returns a server on which a session may hibernate for longer than any test takes.
async fn patient(kind: Kind) -> &'static XmppServer {
    static PROSODY: OnceCell<XmppServer> = OnceCell::const_new();
    static EJABBERD: OnceCell<XmppServer> = OnceCell::const_new();
    let server = match kind {
        Kind::Prosody => &PROSODY,
        Kind::Ejabberd => &EJABBERD,
    };
    let settings = Settings { hibernation: Duration::from_secs(600), ..Settings::default() };
    server.get_or_init(|| XmppServer::start_with(kind, settings)).await
}

async fn while_the_first_session_sleeps_the_second_gets_the_push(server: &XmppServer) {
    let server = patient(server.kind).await;
    let user = server.user().await;
    let (upwire, asleep, endpoint) = registered(server, &user).await;
    asleep.cut();
    let phone = comes_back(server, &upwire, &user).await;
    post(&endpoint, SOON_TO_EXPIRE, "to the one that is awake").await;
    phone.has_got(&["to the one that is awake"]).await;
    upwire.queue_empties().await;
    upwire.mailbox_holds(0).await;
    post(&endpoint, SOON_TO_EXPIRE, "at once").await;
    phone.has_got(&["to the one that is awake", "at once"]).await;
}

#[tokio::test]
async fn a_restart_between_presence_and_push_changes_nothing() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let user = server.user().await;
    let (mut upwire, phone, endpoint) = registered(server, &user).await;
    upwire.log_line(&["seen lately"]).await;
    phone.disconnect().await;
    let phone = comes_back(server, &upwire, &user).await;
    // The relay writes the full JIDs of an account at most once in a minute.
    upwire.log_lines(&["seen lately"], 2).await;
    restart(&mut upwire).await;
    post(&endpoint, SOON_TO_EXPIRE, "after the restart").await;
    phone.has_got(&["after the restart"]).await;
}

async fn two_devices_of_one_account_disturb_each_other_in_no_way(server: &XmppServer) {
    let user = server.user().await;
    let (upwire, first, endpoint) = registered(server, &user).await;
    let second = Phone::connect(server, &user, "tablet").await;
    second.greet(&upwire.component.jid).await;
    let others = second.endpoint(&upwire.component.jid, "another app").await;
    first.disconnect().await;
    post(&endpoint, &[], "for the phone that is off").await;
    upwire.mailbox_holds(1).await;
    for number in 0..10 {
        post(&others, &[], &format!("for the tablet {number}")).await;
    }
    let bodies: Vec<_> = (0..10).map(|number| format!("for the tablet {number}")).collect();
    second.has_got(&bodies).await;

    let first = Phone::connect(server, &user, "Conv.AAAA").await;
    first.greet(&upwire.component.jid).await;
    first.has_got(&["for the phone that is off"]).await;
    nothing_is_left(&upwire).await;
    second.has_got(&bodies).await;
    let renewed = first.register(&upwire.component.jid, &hashed("app"), &hashed("1")).await.unwrap();
    assert_eq!(renewed.endpoint, endpoint, "no refusal of the tablet has ended it");
    first.wait_for_pushes(1, SOON).await;
}

/// Connects the same device under another resource. It answers neither pushes nor pings.
async fn silent(server: &XmppServer, user: &User, resource: &str) -> Phone {
    let phone = Phone::connect_as(server, user, resource, "Conv.AAAA").await;
    phone.set_answer(Answer::Silent);
    phone.leave_pings_unanswered();
    phone
}

/// A push to a phone that came back under another resource is given up, and waits. The phone answers after that.
async fn a_late_result_from_another_resource_settles_and_does_not_move_the_registration(server: &XmppServer) {
    let user = server.user().await;
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", 1).start_ready().await;
    let component = upwire.component.jid.clone();
    let first = Phone::connect(server, &user, "Conv.AAAA").await;
    first.greet(&component).await;
    let endpoint = first.endpoint(&component, "app").await;
    first.disconnect().await;

    let third = silent(server, &user, "Conv.CCCC").await;
    let second = silent(server, &user, "Conv.BBBB").await;
    second.greet(&component).await;
    for (number, body) in ["waits when it is answered", "is asked of another, too"].into_iter().enumerate() {
        post(&endpoint, &[], body).await;
        let push = second.next_push(SOON).await;
        upwire.mailbox_holds(1).await;
        upwire.queue_empties().await;
        upwire.metric_is("upwire_pushes_in_flight", 0.0).await;
        if number == 1 {
            third.greet(&component).await;
            third.next_push(SOON).await;
        }
        second.answer(&push, Answer::Result).await;
        nothing_is_left(&upwire).await;
        upwire.metric_is("upwire_pushes_delivered_total", (number + 1) as f64).await;
    }

    // Fates are settled in order: the push to the bystander is settled after the others.
    let bystander = Phone::connect(server, &server.user().await, "phone").await;
    let others = bystander.endpoint(&component, "app").await;
    post(&others, &[], "later").await;
    bystander.has_got(&["later"]).await;
    nothing_is_left(&upwire).await;
    upwire.never_logged(&["follows its phone"]);
    let names = |resource: &str| {
        let database = BTreeMap::from([("UPWIRE_DATABASE", upwire.database().display().to_string())]);
        let account = user.jid.to_string();
        let rows = said(&["registrations", "list", "--json", "--account", &account], &database);
        rows.contains(&format!("{account}/{resource}"))
    };
    assert!(names("Conv.AAAA") && !names("Conv.BBBB") && !names("Conv.CCCC"));
}

/// A device refuses a push that it does not hold. This ends no endpoint, and bars the device from this registration
/// alone.
async fn a_device_that_refused_a_registration_is_not_asked_again_before_its_next_presence(
    server: &XmppServer,
) {
    let user = server.user().await;
    let (upwire, phone, endpoint) = registered(server, &user).await;
    let component = upwire.component.jid.clone();
    let tablet = Phone::connect(server, &user, "tablet").await;
    tablet.hold(&hashed("app"), &hashed("1"));
    tablet.answer_by(|push| match push.application == hashed("app") {
        true => Answer::Error(DefinedCondition::ItemNotFound),
        false => Answer::Result,
    });
    tablet.greet(&component).await;
    let own = tablet.endpoint(&component, "another app").await;
    phone.disconnect().await;
    post(&endpoint, &[], "refused").await;
    tablet.has_got(&["refused"]).await;
    upwire.mailbox_holds(1).await;

    post(&endpoint, &[], "not asked for").await;
    upwire.mailbox_holds(2).await;
    post(&own, &[], "for the tablet").await;
    tablet.has_got(&["refused", "for the tablet"]).await;
    // The phone that is away is tried again and again, and the tablet is not.
    upwire.metric_reaches("upwire_pushes_retried_total", 4.0).await;
    post(&own, &[], "later").await;
    tablet.has_got(&["refused", "for the tablet", "later"]).await;
    upwire.mailbox_holds(2).await;

    tablet.greet(&component).await;
    tablet.wait_for_pushes(4, SOON).await;
    upwire.mailbox_holds(2).await;
    let phone = Phone::connect(server, &user, "Conv.AAAA").await;
    phone.greet(&component).await;
    phone.has_got(&["refused", "not asked for"]).await;
    nothing_is_left(&upwire).await;
    upwire.never_counted("upwire_registrations_revoked_total").await;
    assert_eq!(phone.endpoint(&component, "app").await, endpoint);
}

/// As in an upgrade, the server restarts, and each session ends. Each phone comes back under another resource.
async fn phones_that_a_restart_of_the_server_renames_are_followed(server: &XmppServer) {
    let mut server = XmppServer::start(server.kind).await;
    let mut upwire = Upwire::on(&server).start_ready().await;
    let component = upwire.component.jid.clone();
    let mut renamed = Vec::new();
    for _ in 0..3 {
        let user = server.user().await;
        let phone = Phone::connect(&server, &user, "Conv.AAAA").await;
        phone.greet(&component).await;
        let endpoint = phone.endpoint(&component, "app").await;
        renamed.push((user, endpoint));
    }
    server.stop().await;
    upwire.unready().await;
    for (_, endpoint) in &renamed {
        post(endpoint, &[], "while the server is away").await;
    }
    server.start_again().await;
    upwire.ready().await;
    for (user, endpoint) in &renamed {
        let phone = comes_back(&server, &upwire, user).await;
        phone.wait_for_body("while the server is away").await;
        post(endpoint, SOON_TO_EXPIRE, "after the restart").await;
        phone.has_got(&["while the server is away", "after the restart"]).await;
    }
    nothing_is_left(&upwire).await;
}

on_each_server!(
    phones_that_a_restart_of_the_server_renames_are_followed,
    a_phone_under_another_resource_gets_its_pushes_at_once_and_from_then_on,
    a_push_that_waits_goes_to_the_resource_that_greets,
    while_the_first_session_sleeps_the_second_gets_the_push,
    two_devices_of_one_account_disturb_each_other_in_no_way,
    a_late_result_from_another_resource_settles_and_does_not_move_the_registration,
    a_device_that_refused_a_registration_is_not_asked_again_before_its_next_presence,
);
