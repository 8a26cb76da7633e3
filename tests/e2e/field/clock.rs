//! A clock that jumps: a battery was dead, a virtual machine was asleep, or NTP was set wrong.

use std::process::Command;

use chrono::{DateTime, TimeDelta, Utc};
use e2e::{Answer, Kind, Phone, SOON, XmppServer, hashed, http, profile_folder};
use embedded::{Database, KnownTime};
use tokio_xmpp::parsers::stanza_error::{DefinedCondition, ErrorType};

use super::{Scene, is_released};
use crate::cloud::Cloud;

/// Makes the database remember another time than the machine's.
async fn last_known(scene: &Scene, wall: DateTime<Utc>) {
    let database = Database::open(&scene.upwire.database()).unwrap();
    let known = KnownTime { wall, uptime: std::time::Duration::ZERO, boot: "of another machine".into() };
    database.note_time(&known).await.unwrap();
    drop(database);
    is_released(&scene.upwire.database()).await;
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(crate::senders::legacy::now()).unwrap()
}

fn accept(scene: &Scene) {
    let mut accept = Command::new(profile_folder().join("upwire"));
    accept.args(["clock", "accept", "--database"]).arg(scene.upwire.database());
    let output = accept.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// OctoPrint/OctoPrint#3266, projectbuendia/buendia#226: a program that starts before the clock is set takes 1970, or a
/// month ahead, for the present, and everything has expired.
#[tokio::test]
async fn after_a_jump_pushes_go_on_nothing_ends_and_somebody_can_say_that_it_is_right() {
    let mut scene = Scene::set().await;
    for known in [now() - TimeDelta::days(30), now() + TimeDelta::days(30)] {
        scene.upwire.terminate();
        scene.upwire.wait_exit(SOON).await;
        last_known(&scene, known).await;
        scene.upwire.start_again();
        scene.upwire.ready().await;
        scene
            .upwire
            .log_line(&["ERROR", "more than an hour from the last known time", "upwire clock accept"])
            .await;
        scene.upwire.metric_is("upwire_clock_in_doubt", 1.0).await;
        scene.phone.greet(&scene.upwire.component.jid).await;

        let answer = http::post_with(&scene.endpoint, &[("TTL", "3600")], "in doubt").await;
        if known < now() {
            assert_eq!((answer.status, answer.header("ttl")), (201, Some("3600")));
            assert_eq!(scene.phone.next_push(SOON).await.body, b"in doubt");
            scene.phone.set_answer(Answer::Error(DefinedCondition::ServiceUnavailable));
            assert_eq!(http::post(&scene.endpoint, "waits").await.status, 201);
            assert_eq!(scene.phone.next_push(SOON).await.body, b"waits");
            scene.upwire.mailbox_holds(1).await;
        } else {
            // The push has expired by the last known time.
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
        }
        let refused = scene
            .phone
            .register(&scene.upwire.component.jid, &hashed("app"), &hashed("1"))
            .await
            .unwrap_err();
        assert_eq!(refused.type_, ErrorType::Wait);

        accept(&scene);
        scene.upwire.log_line(&["INFO", "the machine's clock is trusted again"]).await;
        scene.upwire.metric_is("upwire_clock_in_doubt", 0.0).await;
        if known < now() {
            scene.phone.set_answer(Answer::Result);
            scene.phone.greet(&scene.upwire.component.jid).await;
            assert_eq!(scene.phone.next_push(SOON).await.body, b"waits");
        }
        assert_eq!(scene.phone.endpoint(&scene.upwire.component.jid, "app").await, scene.endpoint);
        assert_eq!(http::post(&scene.endpoint, "as ever").await.status, 201);
        assert_eq!(scene.phone.next_push(SOON).await.body, b"as ever");
    }
}

/// convox/rack#235, aws/aws-sdk-js#527: the clock of a machine is wrong, and AWS knows the right time.
#[tokio::test]
async fn a_relay_whose_clock_differs_from_that_of_aws_ends_nothing_and_says_so() {
    const MONTH: i64 = 30 * 86_400;
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    let mut relay = cloud.relay_on(server).start_ready().await;
    let component = relay.component.jid.clone();
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    phone.greet(&component).await;
    let endpoint = phone.endpoint(&component, "app").await;
    // To the relay, its clock seems to go ahead, and then back.
    for (times, off, body) in [(1, -MONTH, "ahead"), (2, MONTH, "behind")] {
        for way in [&cloud.relay_ways.queue, &cloud.relay_ways.table] {
            way.shift_dates(off);
        }
        relay.log_lines(&["ERROR", "from the time that AWS tells", "set it right"], times).await;
        relay.metric_is("upwire_clock_in_doubt", 1.0).await;
        assert_eq!(http::post_patiently(&endpoint, &[("TTL", "3600")], body).await.status, 201);
        assert_eq!(phone.next_push(SOON).await.body, body.as_bytes());
        phone.set_answer(Answer::Error(DefinedCondition::ServiceUnavailable));
        assert_eq!(http::post_patiently(&endpoint, &[("TTL", "3600")], "waits").await.status, 201);
        assert_eq!(phone.next_push(SOON).await.body, b"waits");
        cloud.queue_empties().await;
        let refused = phone.register(&component, &hashed("app"), &hashed("1")).await.unwrap_err();
        assert_eq!(refused.type_, ErrorType::Wait);
        // The TTL of the waiting push has not run out by either clock.
        phone.set_answer(Answer::Result);
        phone.greet(&component).await;
        assert_eq!(phone.next_push(SOON).await.body, b"waits");
        cloud.mailbox_empties().await;

        for way in [&cloud.relay_ways.queue, &cloud.relay_ways.table] {
            way.shift_dates(0);
        }
        relay.log_lines(&["INFO", "the machine's clock is trusted again"], times).await;
        relay.metric_is("upwire_clock_in_doubt", 0.0).await;
        assert_eq!(phone.endpoint(&component, "app").await, endpoint);
    }
}
