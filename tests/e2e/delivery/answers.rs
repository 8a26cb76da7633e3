//! Answers to a push: their effect, and the JIDs whose answers count.

use e2e::{Answer, Phone, Push, RawClient, SOON, Upwire, XmppServer, hashed, http};
use tokio_xmpp::jid::BareJid;
use tokio_xmpp::parsers::stanza_error::DefinedCondition;

use crate::mailbox::{NEVER_SECONDS, everything_is_read};

const GONE: [DefinedCondition; 2] = [DefinedCondition::ItemNotFound, DefinedCondition::FeatureNotImplemented];

/// Waits until the component has read everything, as [`everything_is_read`] does, for a client of raw bytes.
async fn everything_is_read_from(client: &mut RawClient, component: &BareJid) {
    client
        .send(format!("<iq type='get' id='sync' to='{component}'><ping xmlns='urn:xmpp:ping'/></iq>"))
        .await
        .unwrap();
    client.read_until("sync", SOON).await.unwrap();
}

async fn only_the_jid_that_was_asked_can_answer(server: &XmppServer) {
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS).start_ready().await;
    let component = upwire.component.jid.clone();
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let endpoint = phone.endpoint(&component, "app").await;
    phone.set_answer(Answer::Silent);
    assert_eq!(http::post(&endpoint, "for the phone alone").await.status, 201);
    let push = phone.next_push(SOON).await;

    let mut others = [
        RawClient::connect(server, &server.user().await, "phone").await,
        RawClient::connect(server, &user, "another").await,
    ];
    for other in &mut others {
        let Push { id, .. } = &push;
        let gone =
            "<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
        other.send(format!("<iq type='result' id='{id}' to='{component}'/>")).await.unwrap();
        other.send(format!("<iq type='error' id='{id}' to='{component}'>{gone}</iq>")).await.unwrap();
        everything_is_read_from(other, &component).await;
    }
    upwire.metric_is("upwire_pushes_in_flight", 1.0).await;
    upwire.metric_is("upwire_queue_depth", 1.0).await;
    upwire.never_counted("upwire_registrations_revoked_total").await;

    phone.answer(&push, Answer::Result).await;
    upwire.queue_empties().await;
    upwire.metric_is("upwire_pushes_delivered_total", 1.0).await;
}

async fn answers_to_nothing_that_is_pending_do_nothing(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    assert_eq!(http::post(&endpoint, "once").await.status, 201);
    let finished = phone.next_push(SOON).await;
    upwire.queue_empties().await;

    let named = |id: &str| Push { id: id.to_owned(), ..finished.clone() };
    let never_sent = ["AAAAAAAAAAAAAAAAAAAAAA", "ping", "x", "no-such-id", "AAAAAAAAAAAAAAAAAAAAAA=="];
    for push in never_sent.map(named).into_iter().chain([finished.clone()]) {
        for answer in [Answer::Result].into_iter().chain(GONE.map(Answer::Error)) {
            phone.answer(&push, answer).await;
        }
    }
    everything_is_read(&phone, &upwire.component.jid).await;

    assert_eq!(http::post(&endpoint, "twice").await.status, 201);
    assert_eq!(phone.next_push(SOON).await.body, b"twice");
    upwire.queue_empties().await;
    upwire.metric_is("upwire_pushes_delivered_total", 2.0).await;
    upwire.never_counted("upwire_pushes_revoked_total").await;
}

async fn an_application_that_is_gone_loses_its_endpoint_for_good(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    for (number, condition) in GONE.into_iter().enumerate() {
        let application = format!("app {number}");
        let endpoint = phone.endpoint(&upwire.component.jid, &application).await;
        phone.set_answer(Answer::Error(condition));
        assert_eq!(http::post(&endpoint, "anyone?").await.status, 201);
        phone.next_push(SOON).await;
        upwire.queue_empties().await;
        is_gone(&endpoint).await;

        let anew = phone.endpoint(&upwire.component.jid, &application).await;
        assert_ne!(anew, endpoint, "an endpoint that was refused once never comes back");
        is_gone(&endpoint).await;
        phone.set_answer(Answer::Result);
        assert_eq!(http::post(&anew, "welcome back").await.status, 201);
        assert_eq!(phone.next_push(SOON).await.body, b"welcome back");
        upwire.queue_empties().await;
        assert_eq!(phone.endpoint(&upwire.component.jid, &application).await, anew);
        is_gone(&endpoint).await;
    }
    upwire.metric_is("upwire_registrations_revoked_total", 2.0).await;
    upwire.metric_is_where("upwire_pushes_refused_total", &[("reason", "gone")], 6.0).await;
}

async fn is_gone(endpoint: &str) {
    let refused = http::post(endpoint, "anyone?").await;
    assert_eq!((refused.status, refused.header("cache-control")), (410, Some("max-age=86400")));
}

async fn an_application_that_is_gone_takes_no_other_with_it(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let gone = phone.endpoint(&upwire.component.jid, "gone").await;
    let here = phone.endpoint(&upwire.component.jid, "here").await;
    phone.set_answer(Answer::Silent);
    for endpoint in [&gone, &here] {
        assert_eq!(http::post(endpoint, "anyone?").await.status, 201);
    }
    for push in phone.wait_for_pushes(2, SOON).await {
        let answer = if push.application == hashed("gone") {
            Answer::Error(DefinedCondition::ItemNotFound)
        } else {
            Answer::Result
        };
        phone.answer(&push, answer).await;
    }
    upwire.queue_empties().await;
    assert_eq!(http::post(&gone, "anyone?").await.status, 410);
    assert_eq!(http::post(&here, "you there").await.status, 201);
}

async fn what_was_asked_before_a_renewal_does_not_end_the_endpoint(server: &XmppServer) {
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    phone.set_answer(Answer::Silent);
    assert_eq!(http::post(&endpoint, "anyone?").await.status, 201);
    let push = phone.next_push(SOON).await;

    assert_eq!(phone.endpoint(&upwire.component.jid, "app").await, endpoint);
    phone.answer(&push, Answer::Error(DefinedCondition::ItemNotFound)).await;
    phone.set_answer(Answer::Result);
    assert_eq!(phone.next_push(SOON).await.body, push.body);
    upwire.queue_empties().await;
    upwire.never_counted("upwire_registrations_revoked_total").await;
    upwire.never_counted("upwire_pushes_revoked_total").await;
    assert_eq!(http::post(&endpoint, "here I am").await.status, 201);
    upwire.queue_empties().await;
}

async fn any_other_error_keeps_the_push_and_the_endpoint(server: &XmppServer) {
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    let temporary = [
        DefinedCondition::ServiceUnavailable,
        DefinedCondition::RecipientUnavailable,
        DefinedCondition::InternalServerError,
        DefinedCondition::Gone { new_address: None },
    ];
    let count = temporary.len();
    phone.set_answer(Answer::Silent);
    for condition in &temporary {
        assert_eq!(http::post(&endpoint, format!("{condition:?}")).await.status, 201);
    }
    let first = answer_each(&phone, temporary).await;
    phone.set_answer(Answer::Result);
    let all = phone.wait_for_pushes(2 * count, SOON).await;
    let mut again: Vec<_> = all[count..].iter().map(|push| push.id.clone()).collect();
    again.sort_unstable();
    assert_eq!(again, first);
    upwire.mailbox_holds(0).await;
    upwire.metric_is("upwire_pushes_delivered_total", count as f64).await;
    upwire.never_counted("upwire_registrations_revoked_total").await;
}

/// Answers each push as it comes, with the next of these conditions. Returns the ids of the pushes, sorted.
async fn answer_each<const COUNT: usize>(
    phone: &Phone,
    conditions: [DefinedCondition; COUNT],
) -> Vec<String> {
    let mut ids = Vec::new();
    for condition in conditions {
        let push = phone.next_push(SOON).await;
        phone.answer(&push, Answer::Error(condition)).await;
        ids.push(push.id);
    }
    ids.sort_unstable();
    ids
}

on_each_server!(
    only_the_jid_that_was_asked_can_answer,
    answers_to_nothing_that_is_pending_do_nothing,
    an_application_that_is_gone_loses_its_endpoint_for_good,
    an_application_that_is_gone_takes_no_other_with_it,
    what_was_asked_before_a_renewal_does_not_end_the_endpoint,
    any_other_error_keeps_the_push_and_the_endpoint,
);
