//! Delivery: from a POST to the phone's acknowledgement, at once or when the phone is back.

use e2e::{Answer, Phone, SOON, Slixmpp, Upwire, XmppServer, hashed, http};
use tokio_xmpp::jid::Jid;

use crate::mailbox::NEVER_SECONDS;

async fn a_text_arrives_and_is_acknowledged(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;

    let accepted = http::post(&endpoint, "hello").await;
    assert_eq!(accepted.status, 201);
    let push = phone.next_push(SOON).await;
    assert_eq!(push.body, b"hello");
    assert_eq!((push.application, push.instance), (hashed("app"), hashed("1")));
    assert_eq!(push.from, Jid::from(upwire.component.jid.clone()), "from the JID that it registered with");
    let location = accepted.header("location").unwrap();
    assert!(location.starts_with(&format!("{}/message/", upwire.public_url)), "{location}");

    upwire.queue_empties().await;
    for (metric, value) in [
        ("upwire_pushes_accepted_total", 1.0),
        ("upwire_pushes_delivered_total", 1.0),
        ("upwire_push_acknowledged_seconds_count", 1.0),
        ("upwire_pushes_in_flight", 0.0),
        ("upwire_pushes_retried_total", 0.0),
        ("upwire_registrations_total", 1.0),
        ("upwire_xmpp_stream_up", 1.0),
    ] {
        upwire.metric_is(metric, value).await;
    }
    phone.has_got_count(1).await;
}

async fn every_size_and_every_byte_arrive_exactly(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    let every_byte: Vec<u8> = (0..=255).collect();
    for body in [vec![0], vec![b'x'; 4096], vec![0xff; 4096], every_byte] {
        assert_eq!(http::post(&endpoint, body.clone()).await.status, 201);
        assert_eq!(phone.next_push(SOON).await.body, body);
    }
    upwire.queue_empties().await;
}

async fn slixmpp_gets_its_pushes_and_acknowledges_them(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let user = server.user().await;
    let mut client = Slixmpp::start(server, &user, &upwire.component.jid, &hashed("app"), &hashed("1"));
    let endpoint = client.endpoint(SOON).await;
    let every_byte: Vec<u8> = (0..=255).collect();
    for body in [b"hello".to_vec(), vec![b'x'; 4096], every_byte] {
        assert_eq!(http::post(&endpoint, body.clone()).await.status, 201);
        assert_eq!(client.next_push(SOON).await.body, body);
    }
    upwire.metric_reaches("upwire_pushes_delivered_total", 3.0).await;
    upwire.queue_empties().await;
}

async fn two_applications_of_one_phone_get_their_own_pushes(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    for application in ["mail", "chat"] {
        let endpoint = phone.endpoint(&upwire.component.jid, application).await;
        assert_eq!(http::post(&endpoint, application).await.status, 201);
        let push = phone.next_push(SOON).await;
        assert_eq!((push.body.as_slice(), push.application), (application.as_bytes(), hashed(application)));
    }
}

async fn a_push_to_a_phone_that_is_away_arrives_when_it_is_back(server: &XmppServer) {
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS).start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    phone.disconnect().await;

    assert_eq!(http::post(&endpoint, "kept").await.status, 201);
    upwire.mailbox_holds(1).await;
    upwire.queue_empties().await;

    let phone = Phone::connect(server, &user, "phone").await;
    assert_eq!(phone.next_push(SOON).await.body, b"kept");
    upwire.queue_empties().await;
    upwire.metric_is("upwire_pushes_delivered_total", 1.0).await;
}

async fn a_push_to_a_sleeping_session_arrives_when_it_resumes(server: &XmppServer) {
    let server = XmppServer::patient(server.kind).await;
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    phone.cut();
    assert_eq!(http::post(&endpoint, "kept").await.status, 201);
    upwire.metric_reaches("upwire_pushes_in_flight", 1.0).await;
    phone.reconnect().await;
    assert_eq!(phone.next_push(SOON).await.body, b"kept");
    upwire.queue_empties().await;
    phone.has_got_count(1).await;
    assert_eq!(phone.sessions_resumed(), 1);
}

async fn an_unanswered_push_comes_again_under_the_same_id(server: &XmppServer) {
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", 1).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    phone.set_answer(Answer::Silent);
    assert_eq!(http::post(&endpoint, "hello?").await.status, 201);
    let first = phone.next_push(SOON).await;
    phone.set_answer(Answer::Result);
    assert_eq!(phone.next_push(SOON).await, first);
    upwire.queue_empties().await;
    // The push is retried more than once if its second answer is late.
    upwire.metric_reaches("upwire_pushes_retried_total", 1.0).await;
    upwire.metric_is("upwire_pushes_delivered_total", 1.0).await;
}

async fn ttl_0_is_delivered_now_or_never(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    assert_eq!(http::post_with(&endpoint, &[("TTL", "0")], "now").await.status, 201);
    assert_eq!(phone.next_push(SOON).await.body, b"now");

    phone.disconnect().await;
    assert_eq!(http::post_with(&endpoint, &[("TTL", "0")], "never").await.status, 201);
    upwire.metric_reaches("upwire_pushes_expired_total", 1.0).await;
    upwire.queue_empties().await;
    only_what_comes_later_arrives(&upwire, &Phone::connect(server, &user, "phone").await, &endpoint).await;
}

async fn a_push_whose_time_has_run_out_is_not_delivered(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    phone.disconnect().await;
    let accepted = http::post_with(&endpoint, &[("TTL", "2")], "too late").await;
    assert_eq!((accepted.status, accepted.header("ttl")), (201, Some("2")));
    upwire.metric_reaches("upwire_pushes_expired_total", 1.0).await;
    upwire.queue_empties().await;
    only_what_comes_later_arrives(&upwire, &Phone::connect(server, &user, "phone").await, &endpoint).await;
}

async fn a_push_of_short_life_is_tried_again_within_it(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    phone
        .set_answer(Answer::Error(tokio_xmpp::parsers::stanza_error::DefinedCondition::RecipientUnavailable));
    assert_eq!(http::post_with(&endpoint, &[("TTL", "30")], "in time").await.status, 201);
    let first = phone.next_push(SOON).await;
    phone.set_answer(Answer::Result);
    assert_eq!(phone.next_push(SOON).await, first);
    upwire.queue_empties().await;
    upwire.never_counted("upwire_pushes_expired_total").await;
}

async fn only_what_comes_later_arrives(upwire: &Upwire, phone: &Phone, endpoint: &str) {
    assert_eq!(http::post(endpoint, "later").await.status, 201);
    assert_eq!(phone.next_push(SOON).await.body, b"later");
    upwire.queue_empties().await;
    phone.has_got_count(1).await;
}

async fn a_push_follows_its_phone_to_another_resource(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "one").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    phone.disconnect().await;
    assert_eq!(http::post(&endpoint, "for whoever it is now").await.status, 201);
    upwire.metric_reaches("upwire_pushes_retried_total", 1.0).await;

    let phone = Phone::connect(server, &user, "another").await;
    assert_eq!(phone.endpoint(&upwire.component.jid, "app").await, endpoint);
    assert_eq!(phone.next_push(SOON).await.body, b"for whoever it is now");
    upwire.queue_empties().await;
}

on_each_server!(
    a_push_follows_its_phone_to_another_resource,
    a_text_arrives_and_is_acknowledged,
    every_size_and_every_byte_arrive_exactly,
    slixmpp_gets_its_pushes_and_acknowledges_them,
    two_applications_of_one_phone_get_their_own_pushes,
    a_push_to_a_phone_that_is_away_arrives_when_it_is_back,
    a_push_to_a_sleeping_session_arrives_when_it_resumes,
    an_unanswered_push_comes_again_under_the_same_id,
    ttl_0_is_delivered_now_or_never,
    a_push_whose_time_has_run_out_is_not_delivered,
    a_push_of_short_life_is_tried_again_within_it,
);
