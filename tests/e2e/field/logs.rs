//! A log that others can write to: the lines that they cause are bounded.

use e2e::{SOON, http};
use serde_json::json;

use super::Scene;
use crate::senders::matrix::{gateway, rejected};

/// tempesta-tech/tempesta#2559 and ac2cz/FoxTelem#457: each refusal writes a line, until the disk is full.
///
/// Here a full queue refuses each push, and a homeserver has each of its notifications dropped.
#[tokio::test]
async fn thousands_of_refusals_write_a_few_lines() {
    let mut scene =
        Scene::set_with(|builder| builder.set("UPWIRE_QUEUE_MAX", 1).set("UPWIRE_LOG", "info")).await;
    scene.phone.set_answer(e2e::Answer::Silent);
    assert_eq!(http::post(&scene.endpoint, "the only one").await.status, 201);
    let client = http::client();
    let mut refused = 0;
    for _ in 0..2000 {
        let answer = http::try_send(&client, "POST", &scene.endpoint, &[], "x").await.unwrap();
        refused += usize::from(answer.status == 503);
    }
    assert!(refused > 1000, "{refused}");
    let event = "$".repeat(5000);
    let request =
        json!({"notification": {"event_id": event, "devices": [{"app_id": "a", "pushkey": scene.endpoint}]}});
    for _ in 0..200 {
        assert_eq!(rejected(&scene.upwire.public_url, request.to_string()).await, json!([]));
    }
    // The end of the trouble is logged once, too.
    scene.phone.set_answer(e2e::Answer::Result);
    scene.phone.greet(&scene.upwire.component.jid).await;
    for _ in 0..2 {
        e2e::eventually(SOON, "there is room again", async || {
            http::post(&scene.endpoint, "y").await.status == 201
        })
        .await;
    }
    scene.upwire.log_line(&["the store takes pushes again"]).await;
    scene.upwire.terminate();
    scene.upwire.wait_exit(SOON).await;
    let log = scene.upwire.log();
    for line in ["a push was answered 503", "takes pushes again", "a Matrix notification was dropped"] {
        let lines = log.lines().filter(|written| written.contains(line)).count();
        assert!((1..=5).contains(&lines), "{line}: {lines} lines");
    }
    assert!(log.lines().count() < 100, "{log}");
}

/// A homeserver whose notifications are dropped is told to wait, like one whose notifications become pushes.
#[tokio::test]
async fn notifications_that_are_dropped_count_towards_the_rate() {
    let scene = Scene::set_with(|builder| builder.set("UPWIRE_RATE", "5/0.1")).await;
    let event = "$".repeat(5000);
    let request =
        json!({"notification": {"event_id": event, "devices": [{"app_id": "a", "pushkey": scene.endpoint}]}});
    for _ in 0..11 {
        assert_eq!(rejected(&scene.upwire.public_url, request.to_string()).await, json!([]));
    }
    let refused = http::post(&gateway(&scene.upwire.public_url), request.to_string()).await;
    assert_eq!((refused.status, refused.json()["errcode"].as_str()), (429, Some("M_LIMIT_EXCEEDED")));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(http::post(&scene.endpoint, "a push is taken").await.status, 201);
    assert_eq!(scene.phone.next_push(SOON).await.body, b"a push is taken");
}
