//! The push message resource (RFC 8030 §2.1), as a sender sees it: withdrawing a push that waits.

use e2e::{Answer, FaultProxy, Kind, Phone, SOON, Upwire, XmppServer, eventually, http};

/// Number of pushes in flight at once to a phone that has not answered anything yet.
const SENT_AT_ONCE: usize = 4;
const METHODS: Option<&str> = Some("DELETE, OPTIONS");

/// Starts an upwire, and a phone that is online. Returns both, and the phone's endpoint.
async fn registered() -> (Upwire, Phone, String) {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    (upwire, phone, endpoint)
}

/// Posts a push, and returns its `Location`.
async fn accepted(endpoint: &str, body: &str) -> String {
    let accepted = http::post(endpoint, body.to_owned()).await;
    assert_eq!(accepted.status, 201);
    accepted.header("location").unwrap().to_owned()
}

async fn delete(location: &str) -> http::Response {
    http::send("DELETE", location, &[], "").await
}

/// Withdraws a push as soon as it waits. Until then, the push is on its way, and not found.
async fn withdraw(location: &str) {
    eventually(SOON, "the push waits and is withdrawn", async || {
        let answer = delete(location).await;
        assert!(matches!(answer.status, 204 | 404), "{}: {}", answer.status, answer.text());
        answer.status == 204
    })
    .await;
}

async fn a_push_that_waits_is_withdrawn_and_another_is_delivered(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    phone.disconnect().await;
    let withdrawn = accepted(&endpoint, "withdrawn").await;
    accepted(&endpoint, "kept").await;
    withdraw(&withdrawn).await;
    let again = delete(&withdrawn).await;
    assert_eq!((again.status, again.json()["status"].as_u64()), (404, Some(404)));
    assert_eq!(again.header("content-type"), Some("application/problem+json"));
    upwire.metric_is("upwire_pushes_withdrawn_total", 1.0).await;

    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(&upwire.component.jid).await;
    assert_eq!(phone.next_push(SOON).await.body, b"kept");
    accepted(&endpoint, "later").await;
    assert_eq!(phone.next_push(SOON).await.body, b"later");
    upwire.queue_empties().await;
    phone.has_got_count(2).await;
}

/// The push was in line already when the stream broke.
async fn a_push_that_is_withdrawn_while_the_xmpp_server_is_away_is_not_delivered(server: &XmppServer) {
    let way = FaultProxy::to(server.component_port).await;
    let upwire = Upwire::on(server).set("UPWIRE_XMPP_SERVER", way.address()).start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    phone.disconnect().await;
    let mut locations = Vec::new();
    for number in 0..=SENT_AT_ONCE {
        locations.push(accepted(&endpoint, &format!("push {number}")).await);
    }
    upwire.mailbox_holds(locations.len()).await;
    let phone = Phone::connect_to_answer(server, &user, "phone", Answer::Silent).await;
    phone.greet(&upwire.component.jid).await;
    phone.wait_for_pushes(SENT_AT_ONCE, SOON).await;

    way.cut();
    upwire.unready().await;
    assert_eq!(delete(locations.last().unwrap()).await.status, 204);
    phone.set_answer(Answer::Result);
    way.mend();
    upwire.mailbox_holds(0).await;
    accepted(&endpoint, "later").await;
    phone.wait_for_body("later").await;
    let withdrawn = format!("push {SENT_AT_ONCE}").into_bytes();
    let pushes = phone.pushes();
    assert!(pushes.iter().all(|push| push.body != withdrawn));
}

async fn a_push_that_was_delivered_cannot_be_withdrawn(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    let location = accepted(&endpoint, "delivered").await;
    phone.next_push(SOON).await;
    upwire.queue_empties().await;
    assert_eq!(delete(&location).await.status, 404);
    upwire.never_counted("upwire_pushes_withdrawn_total").await;
    upwire.metric_is_where("upwire_pushes_refused_total", &[("reason", "not_waiting")], 1.0).await;
}

/// A push in flight may still arrive after its withdrawal, but it does not wait again.
async fn a_withdrawn_push_that_was_in_flight_does_not_come_back(server: &XmppServer) {
    let upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", 2).start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    phone.disconnect().await;
    let withdrawn = accepted(&endpoint, "withdrawn").await;
    upwire.mailbox_holds(1).await;
    let silent = Phone::connect_to_answer(server, &user, "phone", Answer::Silent).await;
    silent.greet(&upwire.component.jid).await;
    silent.next_push(SOON).await;
    let failed = upwire.metric_reaches("upwire_pushes_retried_total", 1.0).await;
    withdraw(&withdrawn).await;
    upwire.metric_reaches("upwire_pushes_retried_total", failed + 1.0).await;
    silent.disconnect().await;

    accepted(&endpoint, "later").await;
    upwire.mailbox_holds(1).await;
    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(&upwire.component.jid).await;
    assert_eq!(phone.next_push(SOON).await.body, b"later");
    upwire.mailbox_holds(0).await;
    phone.has_got_count(1).await;
}

on_each_server!(
    a_withdrawn_push_that_was_in_flight_does_not_come_back,
    a_push_that_waits_is_withdrawn_and_another_is_delivered,
    a_push_that_is_withdrawn_while_the_xmpp_server_is_away_is_not_delivered,
    a_push_that_was_delivered_cannot_be_withdrawn,
);

#[tokio::test]
async fn a_location_is_a_capability_and_shows_nobody() {
    let (upwire, phone, endpoint) = registered().await;
    let (one, another) = (accepted(&endpoint, "x").await, accepted(&endpoint, "x").await);
    assert_ne!(one, another);
    let token = one.strip_prefix(&format!("{}/message/", upwire.public_url)).unwrap();
    assert_eq!(token.len(), 70);
    assert!(token.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_'), "{token}");
    for push in phone.wait_for_pushes(2, SOON).await {
        let by_its_id = delete(&format!("{}/message/{}", upwire.public_url, push.id)).await;
        assert_eq!(by_its_id.status, 404, "XMPP servers see the id: it withdraws nothing");
    }
}

#[tokio::test]
async fn a_token_that_names_no_push_is_not_found() {
    let (upwire, _phone, endpoint) = registered().await;
    let location = accepted(&endpoint, "x").await;
    let (start, last) = location.split_at(location.len() - 1);
    let message = |token: &str| format!("{}/message/{token}", upwire.public_url);
    let forged = [
        format!("{start}{}", if last == "A" { "E" } else { "A" }),
        format!("{location}A"),
        start.to_owned(),
        format!("{start}%00"),
        message("x"),
        message(&"A".repeat(70)),
        message(endpoint.rsplit('/').next().unwrap()),
    ];
    for url in &forged {
        let refused = delete(url).await;
        assert_eq!(refused.status, 404, "{url}");
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    }
    let unknown = [("reason", "unknown_message")];
    upwire.metric_is_where("upwire_pushes_refused_total", &unknown, forged.len() as f64).await;

    let as_endpoint = location.replace("/message/", "/push/");
    assert_eq!(http::post(&as_endpoint, "x").await.status, 404, "who may withdraw may not push");
}

#[tokio::test]
async fn any_other_method_is_refused() {
    let (upwire, _phone, endpoint) = registered().await;
    let urls = [accepted(&endpoint, "x").await, format!("{}/message/x", upwire.public_url)];
    for url in &urls {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH"] {
            let refused = http::send(method, url, &[], "x").await;
            assert_eq!((refused.status, refused.header("allow")), (405, METHODS), "{method}");
        }
    }
}

#[tokio::test]
async fn a_page_of_any_origin_may_withdraw() {
    let (_upwire, _phone, endpoint) = registered().await;
    let location = accepted(&endpoint, "x").await;
    let asked = [("Origin", "https://app.example.org"), ("Access-Control-Request-Method", "DELETE")];
    let preflight = http::send("OPTIONS", &location, &asked, "").await;
    assert_eq!((preflight.status, preflight.header("allow")), (204, METHODS));
    assert_eq!(preflight.header("access-control-allow-methods"), METHODS);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    let answer = http::send("DELETE", &location, &asked[..1], "").await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("Location, TTL, Retry-After"));
}

#[tokio::test]
async fn a_public_url_with_a_path_works_with_and_without_it() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).set("UPWIRE_PUBLIC_URL", "https://example.com/up/").start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    phone.disconnect().await;
    let token = endpoint.strip_prefix("https://example.com/up/push/").unwrap();
    for path in ["/up/message/", "/message/"] {
        let location = accepted(&format!("{}/push/{token}", upwire.public_url), "x").await;
        let token = location.strip_prefix("https://example.com/up/message/").unwrap();
        withdraw(&format!("{}{path}{token}", upwire.public_url)).await;
    }
}
