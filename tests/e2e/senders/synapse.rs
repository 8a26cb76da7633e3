//! A real homeserver, Synapse, pushes to the phone through the Matrix gateway.

use e2e::{Answer, Kind, MatrixUser, Phone, SOON, Synapse, Upwire, XmppServer, eventually, http};
use serde_json::{Value, json};
use tokio_xmpp::parsers::stanza_error::DefinedCondition;

use super::matrix::gateway;
use crate::cloud::Cloud;

/// Makes two users with a room. The second is to be notified of the words of the first.
async fn romeo_and_juliet() -> (MatrixUser, MatrixUser, String) {
    let synapse = Synapse::shared().await;
    let (romeo, juliet) = (synapse.user().await, synapse.user().await);
    let room = romeo.room_with(&juliet).await;
    (romeo, juliet, room)
}

async fn started() -> (Upwire, Phone, String) {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    (upwire, phone, endpoint)
}

async fn next_notification(phone: &Phone) -> Value {
    let body: Value = serde_json::from_slice(&phone.next_push(SOON).await.body).unwrap();
    body["notification"].clone()
}

#[tokio::test]
async fn what_is_said_in_a_room_arrives_at_the_phone() {
    let (upwire, phone, endpoint) = started().await;
    let (romeo, juliet, room) = romeo_and_juliet().await;
    juliet.set_pusher(&gateway(&upwire.public_url), &endpoint, None).await;
    let event = romeo.say(&room, "But soft, what light through yonder window breaks?").await;
    let said = next_notification(&phone).await;
    assert_eq!((&said["event_id"], &said["room_id"]), (&json!(event), &json!(room)));
    assert_eq!(said["content"]["body"], "But soft, what light through yonder window breaks?");
    assert_eq!((&said["sender"], &said["counts"]["unread"]), (&json!(romeo.id), &json!(1)));
    assert!(said.get("devices").is_none(), "{said}");

    juliet.has_read(&room, &event).await;
    let badge = next_notification(&phone).await;
    assert_eq!((&badge["id"], &badge["counts"]["unread"]), (&json!(""), &json!(0)), "{badge}");

    // Element X asks for this format.
    juliet.set_pusher(&gateway(&upwire.public_url), &endpoint, Some("event_id_only")).await;
    let event = romeo.say(&room, "It is the east, and Juliet is the sun.").await;
    let said = next_notification(&phone).await;
    let expected = json!({"event_id": event, "room_id": room, "prio": "high", "counts": {"unread": 1}});
    assert_eq!(said, expected);

    let long = romeo.say(&room, &"Arise, fair sun, and kill the envious moon. ".repeat(1000)).await;
    assert_eq!(next_notification(&phone).await["event_id"], long);
    assert_eq!(juliet.pushkeys().await, [endpoint]);
}

#[tokio::test]
async fn the_pusher_of_an_application_that_is_gone_is_removed() {
    let (upwire, phone, endpoint) = started().await;
    let (romeo, juliet, room) = romeo_and_juliet().await;
    juliet.set_pusher(&gateway(&upwire.public_url), &endpoint, None).await;
    phone.set_answer(Answer::Error(DefinedCondition::ItemNotFound));
    romeo.say(&room, "O, wilt thou leave me so unsatisfied?").await;
    phone.next_push(SOON).await;
    upwire.metric_reaches("upwire_registrations_revoked_total", 1.0).await;
    assert_eq!(http::post(&endpoint, "x").await.status, 410);
    assert_eq!(juliet.pushkeys().await, [endpoint]);

    romeo.say(&room, "Good night, good night!").await;
    eventually(SOON, "the pusher is gone", async || juliet.pushkeys().await.is_empty()).await;
    phone.has_got_count(1).await;
}

#[tokio::test]
async fn what_is_said_while_the_queue_is_out_of_reach_arrives_later() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    let relay = cloud.relay_on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&relay.component.jid, "app").await;
    let (romeo, juliet, room) = romeo_and_juliet().await;
    juliet.set_pusher(&gateway(&cloud.function.url), &endpoint, None).await;

    cloud.ingress_ways.queue.cut();
    let event = romeo.say(&room, "Parting is such sweet sorrow").await;
    let failed = format!("Failed to push data to {}/im.vector.app.android/{endpoint}", juliet.id);
    let synapse = Synapse::shared().await;
    let told = || synapse.log().lines().any(|line| line.contains(&failed) && line.contains("503"));
    eventually(SOON, "Synapse is told 503", async || told()).await;
    cloud.ingress_ways.queue.mend();
    assert_eq!(next_notification(&phone).await["event_id"], event);
    assert_eq!(juliet.pushkeys().await, [endpoint]);
    cloud.queue_empties().await;
    phone.has_got_count(1).await;
}
