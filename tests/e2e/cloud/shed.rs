//! A relay that is behind, and a sender that is too fast for one environment of the function.

use std::time::Duration;

use e2e::{Kind, Phone, SOON, XmppServer, eventually, http, time_passes};

use super::Cloud;

#[tokio::test]
async fn a_relay_that_is_behind_has_the_least_urgent_pushes_kept_back() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    let mut relay = cloud.relay_on(server).set("UPWIRE_SHED_AFTER", 1).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&relay.component.jid, "app").await;
    assert_eq!(http::post_patiently(&endpoint, &[("urgency", "low")], "in time").await.status, 201);
    phone.wait_for_body("in time").await;

    // The answer to the relay's poll waits while the relay stands still.
    relay.pause();
    assert_eq!(http::post_patiently(&endpoint, &[], "late").await.status, 201);
    time_passes(Duration::from_secs(3)).await;
    relay.unpause();
    phone.wait_for_body("late").await;
    relay.log_line(&["the relay is behind"]).await;
    eventually(SOON, "low urgency is kept back", async || {
        http::send("POST", &endpoint, &[("urgency", "low")], "an update").await.status == 429
    })
    .await;
    assert_eq!(http::post_patiently(&endpoint, &[("urgency", "high")], "a call").await.status, 201);
    phone.wait_for_body("a call").await;
    relay.log_line(&["the relay has caught up"]).await;
    eventually(SOON, "low urgency is taken again", async || {
        http::send("POST", &endpoint, &[("urgency", "low")], "at last").await.status == 201
    })
    .await;
}

#[tokio::test]
async fn a_sender_that_is_too_fast_for_an_environment_is_told_so_while_no_relay_runs() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::with([("UPWIRE_PUSHES_PER_MINUTE", "3".to_owned())]).await;
    let mut relay = cloud.relay_on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&relay.component.jid, "app").await;
    relay.terminate();
    relay.wait_exit(SOON).await;
    eventually(SOON, "429 with a time to wait", async || {
        let answer = http::post(&endpoint, "hello").await;
        answer.status == 429 && answer.header("retry-after").is_some()
    })
    .await;
}
