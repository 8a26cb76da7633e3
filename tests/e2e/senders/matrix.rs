//! The Matrix push gateway (docs/matrix.md), as a homeserver sees it.

use e2e::{Answer, Kind, Phone, SOON, Upwire, XmppServer, eventually, eventually_some, http};
use serde_json::{Value, json};
use tokio_xmpp::parsers::stanza_error::DefinedCondition;

const METHODS: Option<&str> = Some("POST, GET, HEAD, OPTIONS");

/// Returns the URL of this server's gateway.
pub(crate) fn gateway(url: &str) -> String {
    format!("{url}/_matrix/push/v1/notify")
}

/// Returns a request with these devices, and the body that the devices get.
pub(crate) fn notification(event: &str, pushkeys: &[impl AsRef<str>]) -> (String, Vec<u8>) {
    let notification = json!({
        "content": {"body": "I'm floating in a most peculiar way.", "msgtype": "m.text"},
        "counts": {"unread": 2},
        "event_id": event,
        "prio": "high",
        "room_id": "!garden:example.com",
        "sender": "@romeo:example.com",
        "type": "m.room.message",
    });
    let device = |pushkey: &str| {
        json!({"app_id": "im.vector.app", "pushkey": pushkey, "pushkey_ts": 1, "data": {"format": "event_id_only"},
            "tweaks": {"sound": "bing"}})
    };
    let devices: Vec<_> = pushkeys.iter().map(|key| device(key.as_ref())).collect();
    let mut request = notification.clone();
    request["devices"] = devices.into();
    (json!({"notification": request}).to_string(), json!({"notification": notification}).to_string().into())
}

/// Sends a notification. Returns the pushkeys that were rejected.
pub(crate) async fn rejected(url: &str, request: String) -> Value {
    let answer = http::post_with(&gateway(url), &[("content-type", "application/json")], request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()["rejected"].take()
}

/// Sends a request that is refused with this status and code. Returns the answer.
pub(crate) async fn refused(
    url: &str,
    request: impl Into<String>,
    status: u16,
    code: &str,
) -> http::Response {
    let answer = http::post(&gateway(url), request.into()).await;
    assert_eq!((answer.status, answer.json()["errcode"].as_str()), (status, Some(code)), "{}", answer.text());
    assert!(answer.json()["error"].is_string() && answer.header("content-type") == Some("application/json"));
    answer
}

async fn started(variables: &[(&str, &str)]) -> (Upwire, Phone) {
    let server = XmppServer::shared(Kind::Prosody).await;
    let builder =
        variables.iter().fold(Upwire::on(server), |builder, (name, value)| builder.set(name, value));
    let upwire = builder.start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    (upwire, phone)
}

async fn a_notification_arrives_without_its_devices_and_what_is_dead_or_foreign_is_rejected(
    server: &XmppServer,
) {
    let upwire = Upwire::on(server).start_ready().await;
    let component = &upwire.component.jid;
    let (phone, other) = (
        Phone::connect(server, &server.user().await, "phone").await,
        Phone::connect(server, &server.user().await, "phone").await,
    );
    let (here, there) = (phone.endpoint(component, "app").await, other.endpoint(component, "app").await);
    let (request, body) = notification("$1", &[&here, &there, &here]);
    assert_eq!(rejected(&upwire.public_url, request).await, json!([]));
    assert_eq!((phone.next_push(SOON).await.body, other.next_push(SOON).await.body), (body.clone(), body));
    upwire.metric_is("upwire_pushes_accepted_total", 2.0).await;

    let gone = phone.endpoint(component, "gone").await;
    other.set_answer(Answer::Error(DefinedCondition::ItemNotFound));
    assert_eq!(rejected(&upwire.public_url, notification("$2", &[&there]).0).await, json!([]));
    upwire.metric_reaches("upwire_registrations_revoked_total", 1.0).await;
    let foreign = "https://push.example.org/push/x".to_owned();
    let forged = format!("{}A", gone);
    let (request, body) = notification("$3", &[&foreign, &there, &here, &forged, &gone, &there]);
    assert_eq!(rejected(&upwire.public_url, request).await, json!([foreign, there, forged]));
    let pushes = phone.wait_for_pushes(3, SOON).await;
    assert!(pushes[1..].iter().all(|push| push.body == body));
    let unknown = [("reason", "unknown_endpoint")];
    upwire.metric_is_where("upwire_pushes_refused_total", &unknown, 2.0).await;
    upwire.queue_empties().await;
    phone.has_got_count(3).await;
    other.has_got_count(2).await;
}

on_each_server!(a_notification_arrives_without_its_devices_and_what_is_dead_or_foreign_is_rejected);

#[tokio::test]
async fn a_badge_is_a_notification_and_one_too_long_loses_its_content() {
    let (upwire, phone) = started(&[]).await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    // The requests are as Synapse writes them.
    let badge = format!(
        r#"{{"notification":{{"counts":{{"unread":0}},"devices":[{{"app_id":"a","data":{{}},"pushkey":"{endpoint}","pushkey_ts":1}}],"id":"","sender":"","type":null}}}}"#
    );
    assert_eq!(rejected(&upwire.public_url, badge).await, json!([]));
    let body = br#"{"notification":{"counts":{"unread":0},"id":"","sender":"","type":null}}"#;
    assert_eq!(phone.next_push(SOON).await.body, body);

    let text = "a".repeat(65_000);
    let event = r#""event_id":"$1","prio":"low","room_id":"!1""#;
    let long = format!(
        r#"{{"notification":{{"content":{{"body":"{text}"}},"devices":[{{"pushkey":"{endpoint}"}}],{event}}}}}"#
    );
    assert_eq!(rejected(&upwire.public_url, long).await, json!([]));
    assert_eq!(phone.next_push(SOON).await.body, format!(r#"{{"notification":{{{event}}}}}"#).as_bytes());
}

#[tokio::test]
async fn what_is_sent_again_and_counts_that_are_old_do_not_pile_up_for_a_phone_that_is_away() {
    let (upwire, phone) = started(&[]).await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    phone.greet(&upwire.component.jid).await;
    phone.set_answer(Answer::Error(DefinedCondition::RecipientUnavailable));
    for event in ["$1", "$1", "$2", "", "$1", ""] {
        assert_eq!(rejected(&upwire.public_url, notification(event, &[&endpoint]).0).await, json!([]));
    }
    upwire.queue_empties().await;
    upwire.mailbox_holds(3).await;
}

#[tokio::test]
async fn applications_find_it_wherever_they_look() {
    let (upwire, phone) = started(&[("UPWIRE_PUBLIC_URL", "https://example.com/up/")]).await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    for prefix in ["", "/up"] {
        let url = format!("{}{prefix}", upwire.public_url);
        for query in ["", "?", "?x=%ff"] {
            let found = http::get(&format!("{}{query}", gateway(&url))).await;
            assert_eq!((found.status, found.header("content-type")), (200, Some("application/json")));
            assert_eq!(found.body, br#"{"unifiedpush":{"gateway":"matrix"}}"#);
            assert_eq!(found.header("access-control-allow-origin"), Some("*"));
        }
        let head = http::send("HEAD", &gateway(&url), &[], "").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        let preflight =
            http::send("OPTIONS", &gateway(&url), &[("Origin", "https://app.example.org")], "").await;
        assert_eq!((preflight.status, preflight.header("access-control-allow-methods")), (204, METHODS));
        for method in ["PUT", "PATCH", "DELETE"] {
            let refused = http::send(method, &gateway(&url), &[], "x").await;
            assert_eq!((refused.status, refused.header("allow")), (405, METHODS), "{method}");
            assert_eq!(refused.json()["errcode"], "M_UNRECOGNIZED");
        }
        let elsewhere = endpoint.replace("/up/", "/");
        let (request, _) = notification("$1", &[&endpoint, &elsewhere]);
        assert_eq!(rejected(&url, request).await, json!([elsewhere]));
    }
    phone.wait_for_pushes(2, SOON).await;
}

#[tokio::test]
async fn what_is_no_notification_is_refused_in_matrix_own_words() {
    let (upwire, phone) = started(&[]).await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    let url = &upwire.public_url;
    for request in ["", "nonsense", "{\"notification\":"] {
        refused(url, request, 400, "M_BAD_JSON").await;
    }
    let no_devices = json!({"notification": {"devices": []}}).to_string();
    for request in ["[]", "{}", r#"{"notification":{"devices":[{}]}}"#, &no_devices] {
        refused(url, request, 400, "M_BAD_JSON").await;
    }
    refused(url, notification("$1", &vec![&endpoint; 101]).0, 413, "M_TOO_LARGE").await;
    refused(url, " ".repeat(256 * 1024 + 1), 413, "M_TOO_LARGE").await;
    let reasons = [("not_json", 3.0), ("bad_json", 3.0), ("no_devices", 1.0), ("too_many_devices", 1.0)];
    for (reason, count) in reasons {
        upwire.metric_is_where("upwire_pushes_refused_total", &[("reason", reason)], count).await;
    }
    upwire.never_counted("upwire_pushes_accepted_total").await;
}

#[tokio::test]
async fn a_device_over_its_rate_delays_the_request_and_no_other_device_gets_it_twice() {
    let (upwire, phone) = started(&[("UPWIRE_RATE", "2/2")]).await;
    let component = &upwire.component.jid;
    let (flooded, calm) =
        (phone.endpoint(component, "flooded").await, phone.endpoint(component, "calm").await);
    let mut events = (1..).map(|number| notification(&format!("${number}"), &[&calm, &flooded]));
    // On a busy machine there may be room again before the homeserver asks.
    let (request, body, told) = eventually_some(SOON, "429", async || {
        eventually(SOON, "429", async || http::post(&flooded, "flood").await.status == 429).await;
        let (request, body) = events.next().unwrap();
        let answer = http::post(&gateway(&upwire.public_url), request.clone()).await;
        (answer.status == 429).then_some((request, body, answer))
    })
    .await;
    assert_eq!(told.json()["errcode"], "M_LIMIT_EXCEEDED");
    assert!(told.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);

    // A homeserver repeats the request.
    let accepted = async || http::post(&gateway(&upwire.public_url), request.clone()).await.status == 200;
    eventually(SOON, "it is taken once there is room", accepted).await;
    let arrived = || phone.pushes().iter().filter(|push| push.body == body).count();
    eventually(SOON, "it arrives for both", async || arrived() == 2).await;
    upwire.queue_empties().await;
    assert_eq!(arrived(), 2);
}
