//! The start of `upwire relay` while a part on AWS is missing: it ends with one line that names the remedy.

use std::future::ready;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use e2e::{Emulator, Kind, SOON, Upwire, UpwireBuilder, XmppServer, http};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const VISIBILITY: Duration = Duration::from_secs(30);

/// Prepares a relay that lacks nothing.
async fn relay(emulator: &Emulator) -> UpwireBuilder {
    Upwire::relay_on(XmppServer::shared(Kind::Prosody).await)
        .set("UPWIRE_QUEUE_URL", emulator.queue(VISIBILITY, 1000).await.url)
        .set("UPWIRE_REGISTRATIONS_TABLE", emulator.table().await)
        .set("UPWIRE_MAILBOX_TABLE", emulator.mailbox_table().await)
        .set_all(Emulator::variables(&emulator.endpoint))
}

/// Starts a relay that ends. Returns its exit code, and the last line of its log.
async fn refusal(relay: UpwireBuilder) -> (Option<i32>, String) {
    let mut relay = relay.start();
    let code = relay.wait_exit(SOON).await.code();
    let log = relay.log();
    (code, log.lines().last().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_missing_table_or_queue_is_named_with_the_mend() {
    let emulator = Emulator::shared().await;
    let tables = [
        ("UPWIRE_REGISTRATIONS_TABLE", "output RegistrationsTable", emulator.mailbox_table().await),
        ("UPWIRE_MAILBOX_TABLE", "output MailboxTable", emulator.table().await),
    ];
    for (variable, mend, other) in tables {
        for wrong in ["nowhere", &other] {
            let (code, said) = refusal(relay(emulator).await.set(variable, wrong)).await;
            assert_eq!(code, Some(64), "{said}");
            assert!(said.starts_with(&format!("upwire: {variable}: ")) && said.contains(mend), "{said}");
        }
    }

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

/// Answers one call as AWS does to a caller without the permission, and passes all others on. No emulator here enforces
/// permissions.
async fn without_permission(endpoint: String, denied: &'static str) -> (String, JoinHandle<()>) {
    const DENIED: &str = r#"{"__type":"com.amazon.coral.service#AccessDeniedException",
        "Message":"User: arn:aws:iam::123456789012:user/relay is not authorized to perform this"}"#;
    in_between(endpoint, move |target| ready(target.ends_with(denied).then(|| DENIED.to_owned()))).await
}

/// Refuses a call with the text that `refuse` returns for its target, and passes all others on after `refuse` has
/// returned.
pub(crate) async fn in_between<F: Future<Output = Option<String>> + Send>(
    endpoint: String,
    refuse: impl Fn(String) -> F + Clone + Send + Sync + 'static,
) -> (String, JoinHandle<()>) {
    reading_in_between(endpoint, move |target, _| refuse(target)).await
}

/// Does the same as `in_between`, with a `refuse` that also reads the body of the call.
pub(crate) async fn reading_in_between<F: Future<Output = Option<String>> + Send>(
    endpoint: String,
    refuse: impl Fn(String, String) -> F + Clone + Send + Sync + 'static,
) -> (String, JoinHandle<()>) {
    let answer = async move |headers: HeaderMap, body: String| {
        let target = headers["x-amz-target"].to_str().unwrap().to_owned();
        if let Some(refusal) = refuse(target.clone(), body.clone()).await {
            return (StatusCode::BAD_REQUEST, refusal);
        }
        let authorization = headers["authorization"].to_str().unwrap();
        let passed_on = [
            ("x-amz-target", target.as_str()),
            ("x-amz-date", headers["x-amz-date"].to_str().unwrap()),
            ("content-type", "application/x-amz-json-1.0"),
            ("authorization", authorization),
        ];
        let answer = http::post_with(&endpoint, &passed_on, body).await;
        (StatusCode::from_u16(answer.status).unwrap(), answer.text())
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        axum::serve(listener, Router::new().fallback(answer)).await.unwrap();
    });
    (endpoint, server)
}

#[tokio::test]
async fn each_permission_that_is_missing_is_named_with_the_mend() {
    let emulator = Emulator::shared().await;
    for denied in [
        ".GetItem",
        ".PutItem",
        ".UpdateItem",
        ".BatchWriteItem",
        ".DeleteItem",
        ".Query",
        ".Scan",
        ".GetQueueAttributes",
        ".GetQueueUrl",
        ".ReceiveMessage",
        ".DeleteMessage",
        ".ChangeMessageVisibility",
        ".SendMessage",
    ] {
        let (endpoint, server) = without_permission(emulator.endpoint.clone(), denied).await;
        let (code, said) = refusal(relay(emulator).await.set("AWS_ENDPOINT_URL", endpoint)).await;
        assert_eq!(code, Some(1), "{denied}: {said}");
        let named = said.contains(&format!("do not allow {}:{} ", service(denied), &denied[1..]));
        assert!(named && said.contains("RelayPolicyArn"), "{denied}: {said}");
        server.abort();
    }
}

fn service(call: &str) -> &'static str {
    if call.contains("Message") || call.contains("Queue") { "sqs" } else { "dynamodb" }
}

#[tokio::test]
async fn a_queue_that_hides_nothing_is_refused() {
    let emulator = Emulator::shared().await;
    let queues = emulator.queue(Duration::ZERO, 1000).await;
    let (code, said) = refusal(relay(emulator).await.set("UPWIRE_QUEUE_URL", queues.url)).await;
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("VisibilityTimeout"), "{said}");
}
