//! A wrong deployment of the function or of the relay tells no sender that an endpoint has ended.

use e2e::{ENDPOINT_SECRET, Kind, Phone, SOON, Upwire, XmppServer, eventually, http};

use super::{Cloud, IN_DOUBT};

const OTHER: &str = "another-secret-of-more-than-32-bytes-01234567";

/// Waits for an answer with this status. A 503 has to be one of doubt.
async fn answers(url: &str, status: u16) {
    eventually(SOON, &format!("it answers {status}"), async || {
        let answer = http::post(url, "hello").await;
        answer.status == status && (status != 503 || answer.header("retry-after") == IN_DOUBT)
    })
    .await;
}

async fn logged(cloud: &Cloud, mend: &str) {
    eventually(SOON, &format!("the log says {mend:?}"), async || cloud.function.log().contains(mend)).await;
}

/// Starts a relay, and registers a phone with it. Returns the relay and the phone's endpoint.
async fn registered(cloud: &Cloud, server: &XmppServer, table: Option<&str>) -> (Upwire, String) {
    let relay = cloud.relay_on(server).set("UPWIRE_TABLE_ID", table.unwrap_or_default()).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&relay.component.jid, "app").await;
    (relay, endpoint)
}

#[tokio::test]
async fn a_function_without_the_relays_secret_asks_to_try_again_until_it_is_mended() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::with([("UPWIRE_SECRET", OTHER.to_owned())]).await;
    let (_relay, endpoint) = registered(&cloud, server, None).await;
    answers(&endpoint, 503).await;
    logged(&cloud, "the relay has a secret that is missing here").await;
    assert_eq!(http::post(&format!("{}/push/no-endpoint", cloud.function.url), "hello").await.status, 404);

    let mended = Cloud::with([("UPWIRE_SECRET", format!("{OTHER},{ENDPOINT_SECRET}"))]).await;
    let (_relay, endpoint) = registered(&mended, server, None).await;
    answers(&endpoint, 201).await;
}

#[tokio::test]
async fn a_function_on_an_empty_or_another_table_asks_to_try_again() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let right = Cloud::with([("UPWIRE_TABLE_ID", "one".to_owned())]).await;
    let (_relay, endpoint) = registered(&right, server, Some("one")).await;
    answers(&endpoint, 201).await;
    let token = endpoint.rsplit('/').next().unwrap();

    // No relay has used this table.
    let wrong = Cloud::with([("UPWIRE_TABLE_ID", "one".to_owned())]).await;
    let elsewhere = format!("{}/push/{token}", wrong.function.url);
    answers(&elsewhere, 503).await;
    logged(&wrong, "no relay has used this table").await;
    // A relay uses this table under another name.
    let (_relay, _) = registered(&wrong, server, Some("two")).await;
    answers(&elsewhere, 503).await;
    eventually(SOON, "the log names the mend", async || {
        http::post(&elsewhere, "hello").await;
        wrong.function.log().contains("the table is not the one that UPWIRE_TABLE_ID names")
    })
    .await;
}

#[tokio::test]
async fn a_relay_with_other_secrets_or_another_table_does_not_start() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    let (_relay, endpoint) = registered(&cloud, server, Some("one")).await;
    answers(&endpoint, 201).await;
    let refusals =
        [("UPWIRE_SECRET", OTHER, "--drop-secrets"), ("UPWIRE_TABLE_ID", "two", "names another table")];
    for (variable, value, said) in refusals {
        let mut refused = cloud.relay_on(server).set(variable, value).start();
        assert_eq!(refused.wait_exit(SOON).await.code(), Some(64));
        let log = refused.log();
        let last = log.lines().last().unwrap();
        assert!(last.starts_with(&format!("upwire: {variable}: ")) && last.contains(said), "{log}");
    }
    let rotated = format!("{OTHER},{ENDPOINT_SECRET}");
    let mut second = cloud.relay_on(server).set("UPWIRE_SECRET", rotated).start();
    second.stands_by().await;
    assert_eq!(http::post_patiently(&endpoint, &[], "hello").await.status, 201);
}

#[tokio::test]
async fn a_relay_that_drops_its_secrets_ends_the_endpoints_of_before() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::with([("UPWIRE_SECRET", OTHER.to_owned())]).await;
    let (mut first, endpoint) = registered(&cloud, server, None).await;
    answers(&endpoint, 503).await;
    first.terminate();
    first.wait_exit(SOON).await;
    let other = cloud.relay_on(server).set("UPWIRE_SECRET", OTHER).argument("--drop-secrets");
    let other = other.start_ready().await;
    answers(&endpoint, 404).await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    answers(&phone.endpoint(&other.component.jid, "app").await, 201).await;
}
