//! Batches of settlements of which SQS carries out only a part. No emulator does so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use aws::Queue;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use chrono::TimeDelta;
use e2e::Emulator;
use push::MessageId;
use push::ports::{QueueReader, Settlement};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{at, message};

const DELETE: &str = "DeleteMessageBatch";
const HIDE: &str = "ChangeMessageVisibilityBatch";
/// Entries that fail in the first batch of each kind.
const FAILING: [usize; 2] = [3, 7];

/// An SQS that has ten entries. It fails two entries of the first batch of each kind.
#[derive(Clone, Default)]
struct Sqs {
    endpoint: Arc<str>,
    received: Arc<Mutex<bool>>,
    /// The numbers of the entries in each batch, by call.
    batches: Arc<Mutex<BTreeMap<String, Vec<BTreeSet<usize>>>>>,
}

async fn answer(State(sqs): State<Sqs>, headers: HeaderMap, asked: String) -> Json<Value> {
    let call = headers["x-amz-target"].to_str().unwrap().rsplit('.').next().unwrap();
    let asked: Value = serde_json::from_str(&asked).unwrap();
    Json(match call {
        "GetQueueAttributes" => {
            let policy =
                r#"{"deadLetterTargetArn":"arn:aws:sqs:eu-central-1:1:dead","maxReceiveCount":1000}"#;
            json!({"Attributes": {
                "VisibilityTimeout": "600", "MessageRetentionPeriod": "1209600", "RedrivePolicy": policy,
            }})
        }
        "GetQueueUrl" => json!({"QueueUrl": format!("{}/1/dead", sqs.endpoint)}),
        "ReceiveMessage" => sqs.receive(asked["WaitTimeSeconds"].as_u64().unwrap() > 0),
        DELETE | HIDE => sqs.settle(call, asked["Entries"].as_array().unwrap()),
        "SendMessage" => json!({"MessageId": "1", "MD5OfMessageBody": ""}),
        _ => json!({}),
    })
}

impl Sqs {
    async fn open() -> (Self, Queue) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let sqs = Self { endpoint: endpoint.as_str().into(), ..Self::default() };
        let router = Router::new().fallback(post(answer)).with_state(sqs.clone());
        tokio::spawn(async { axum::serve(listener, router).await });
        let queue = Queue::open(&Emulator::config_at(&endpoint), &format!("{endpoint}/1/queue")).await;
        (sqs, queue.unwrap())
    }

    fn receive(&self, waits: bool) -> Value {
        let mut received = self.received.lock().unwrap();
        if !waits || std::mem::replace(&mut *received, true) {
            return json!({});
        }
        let entry = |number: u8| {
            json!({
                "MessageId": format!("entry {number}"),
                "ReceiptHandle": number.to_string(),
                "Body": message(number, at(number.into())).to_entry(),
                "Attributes": {"ApproximateReceiveCount": "1"},
            })
        };
        json!({"Messages": (0..10).map(entry).collect::<Vec<_>>()})
    }

    fn settle(&self, call: &str, entries: &[Value]) -> Value {
        let number = |entry: &Value| entry["ReceiptHandle"].as_str().unwrap().parse::<usize>().unwrap();
        let mut batches = self.batches.lock().unwrap();
        let before = batches.entry(call.to_owned()).or_default();
        let fails = |entry: &&Value| before.is_empty() && FAILING.contains(&number(entry));
        let (failing, done): (Vec<_>, Vec<_>) = entries.iter().partition(fails);
        let failed =
            |entry: &Value| json!({"Id": entry["Id"], "Code": "InternalError", "SenderFault": false});
        let failed: Vec<_> = failing.into_iter().map(failed).collect();
        let done: Vec<_> = done.into_iter().map(|entry| json!({"Id": entry["Id"]})).collect();
        before.push(entries.iter().map(number).collect());
        json!({"Successful": done, "Failed": failed})
    }
}

/// Settles ten entries until all are settled, as the relay does. Returns the batches that this took.
async fn settle_ten(
    call: &str,
    settlement: impl Fn(MessageId) -> Settlement<MessageId>,
) -> Vec<BTreeSet<usize>> {
    let (sqs, queue) = Sqs::open().await;
    let received = queue.receive(10).await.unwrap();
    let settlements: Vec<_> = received.iter().map(|delivery| settlement(delivery.receipt)).collect();
    assert_eq!(settlements.len(), 10);
    let failed = queue.settle(settlements.clone()).await.unwrap_err().to_string();
    assert!(failed.contains("InternalError"), "{failed}");
    queue.settle(settlements).await.unwrap();
    let batches = sqs.batches.lock().unwrap();
    batches[call].clone()
}

#[tokio::test]
async fn what_sqs_did_not_delete_of_a_batch_is_deleted_again_and_nothing_else_is() {
    let batches = settle_ten(DELETE, Settlement::Delete).await;
    assert_eq!(batches, [(0..10).collect(), BTreeSet::from(FAILING)]);
}

#[tokio::test]
async fn what_sqs_did_not_give_back_of_a_batch_is_given_back_again_and_nothing_else_is() {
    let later = at(0) + TimeDelta::days(20_000);
    let batches = settle_ten(HIDE, |id| Settlement::Postpone(id, later)).await;
    assert_eq!(batches, [(0..10).collect(), BTreeSet::from(FAILING)]);
}
