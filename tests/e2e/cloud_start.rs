//! How `upwire relay` starts where something of AWS is missing: not at all, in one line that names the mend.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use e2e::{Emulator, Kind, Upwire, UpwireBuilder, XmppServer};
use tokio::net::TcpListener;

const SOON: Duration = Duration::from_secs(60);
const VISIBILITY: Duration = Duration::from_secs(30);

/// A relay that lacks nothing.
async fn relay(emulator: &Emulator) -> UpwireBuilder {
    Upwire::relay_on(XmppServer::shared(Kind::Prosody).await)
        .set("UPWIRE_QUEUE_URL", emulator.queue(VISIBILITY, 1000).await.url)
        .set("UPWIRE_REGISTRATIONS_TABLE", emulator.table().await)
        .set_all(Emulator::variables(&emulator.endpoint))
}

/// The exit code, and what was said.
async fn refusal(relay: UpwireBuilder) -> (Option<i32>, String) {
    let mut relay = relay.start();
    let code = relay.wait_exit(SOON).await.code();
    let log = relay.log();
    (code, log.lines().last().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_missing_table_or_queue_is_named_with_the_mend() {
    let emulator = Emulator::shared().await;
    let (code, said) = refusal(relay(emulator).await.set("UPWIRE_REGISTRATIONS_TABLE", "nowhere")).await;
    assert_eq!(code, Some(64), "{said}");
    assert!(said.starts_with("upwire: UPWIRE_REGISTRATIONS_TABLE: "), "{said}");
    assert!(said.contains("output RegistrationsTable"), "{said}");

    let nowhere = format!("{}/000000000000/nowhere", emulator.endpoint);
    let (code, said) = refusal(relay(emulator).await.set("UPWIRE_QUEUE_URL", nowhere)).await;
    assert_eq!(code, Some(64), "{said}");
    assert!(said.starts_with("upwire: UPWIRE_QUEUE_URL: "), "{said}");
    assert!(said.contains("output QueueUrl"), "{said}");
}

#[tokio::test]
async fn a_queue_without_a_dead_letter_queue_is_refused() {
    let emulator = Emulator::shared().await;
    let queues = emulator.queue(VISIBILITY, 1000).await;
    let (code, said) = refusal(relay(emulator).await.set("UPWIRE_QUEUE_URL", queues.dead_letters)).await;
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("RedrivePolicy"), "{said}");
}

#[tokio::test]
async fn permissions_that_do_not_suffice_are_named_with_the_mend() {
    // No emulator here enforces permissions: this is what AWS answers to who has none.
    let denied = async || {
        let body = r#"{"__type":"com.amazon.coral.service#AccessDeniedException",
            "Message":"User: arn:aws:iam::123456789012:user/relay is not authorized to perform this"}"#;
        (StatusCode::BAD_REQUEST, [("content-type", "application/x-amz-json-1.0")], body)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, Router::new().fallback(denied)).await });
    let emulator = Emulator::shared().await;
    for variable in ["AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_SQS"] {
        let (code, said) = refusal(relay(emulator).await.set(variable, &endpoint)).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("do not allow") && said.contains("RelayPolicyArn"), "{said}");
    }
    server.abort();
}
