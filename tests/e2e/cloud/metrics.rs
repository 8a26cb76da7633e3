//! The metrics that the function and the relay write into their logs for CloudWatch.

use e2e::{Kind, Phone, SOON, XmppServer, eventually, eventually_some, http};
use serde_json::Value;

use super::Cloud;

/// Returns the lines of a log that CloudWatch reads as metrics.
fn lines(log: &str) -> Vec<Value> {
    let lines = log.lines().filter(|line| line.contains("\"_aws\""));
    // The runtime of the function writes a prefix before each line.
    lines.map(|line| serde_json::from_str(&line[line.find('{').unwrap()..]).unwrap()).collect()
}

fn sum(lines: &[Value], metric: &str) -> f64 {
    lines.iter().map(|line| line[metric].as_f64().unwrap()).sum()
}

#[tokio::test]
async fn the_function_and_the_relay_tell_what_they_did_in_lines_of_metrics() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let stack = ("UPWIRE_METRICS_STACK", "a-stack".to_owned());
    let cloud = Cloud::with([stack.clone()]).await;
    let mut relay = cloud.relay_on(server).set_all([stack]).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&relay.component.jid, "app").await;
    assert_eq!(http::post_patiently(&endpoint, &[], "hello").await.status, 201);
    phone.next_push(SOON).await;
    let elsewhere = format!("{}/push/nothing-of-ours", cloud.function.url);
    // Each environment of the function reports its first request at once.
    let told = eventually_some(SOON, "the function tells of a refusal and of the push", async || {
        assert_eq!(http::post(&elsewhere, "hello").await.status, 404);
        let told = lines(&cloud.function.log());
        (sum(&told, "Refused") >= 1.0 && sum(&told, "Accepted") >= 1.0).then_some(told)
    });
    let told = told.await;
    assert!(told.iter().all(|line| line["Stack"] == "a-stack"), "{told:?}");
    assert!(told.iter().any(|line| line["refused"]["unknown_endpoint"].is_u64()), "{told:?}");
    assert_eq!(sum(&told, "Doubted"), 0.0);

    relay.log_line(&["\"Heartbeat\":1.0", "\"Stack\":\"a-stack\""]).await;
    // The second line comes a minute later.
    let line = relay.log_line(&["\"Delivered\":1.0"]).await;
    assert_eq!(sum(&lines(&line), "Heartbeat"), 1.0, "{line}");
}

#[tokio::test]
async fn a_function_that_doubts_an_end_counts_that_in_its_lines_of_metrics() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let other = "another-secret-of-more-than-32-bytes-01234567".to_owned();
    let cloud = Cloud::with([("UPWIRE_SECRET", other), ("UPWIRE_METRICS_STACK", "a-stack".to_owned())]).await;
    let relay = cloud.relay_on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&relay.component.jid, "app").await;
    eventually(SOON, "a line tells of doubt", async || {
        let answer = http::post(&endpoint, "hello").await;
        assert_eq!(answer.status, 503);
        sum(&lines(&cloud.function.log()), "Doubted") > 0.0
    })
    .await;
    let told = lines(&cloud.function.log());
    assert_eq!(sum(&told, "Refused"), 0.0, "no sender was told of an end: {told:?}");
}
