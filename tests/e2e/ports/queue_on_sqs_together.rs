//! Batches of which SQS accepts only a part. No emulator does so.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use aws::QueueSender;
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use e2e::Emulator;
use push::ports::QueueWriter;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{at, message};

/// The entries of each batch that came.
type Batches = Arc<Mutex<Vec<Vec<String>>>>;

/// An SQS that refuses the entries with these numbers; in the first batch alone if it `relents`.
struct Sqs {
    sender: QueueSender,
    batches: Batches,
}

impl Sqs {
    async fn that_refuses(numbers: &'static [usize], relents: bool) -> Self {
        let batches = Batches::default();
        let answer = async move |State(batches): State<Batches>, asked: String| {
            let asked: Value = serde_json::from_str(&asked).unwrap();
            let entries = asked["Entries"].as_array().unwrap().clone();
            let mut batches = batches.lock().unwrap();
            let refuses = |number: &usize| numbers.contains(number) && (batches.is_empty() || !relents);
            let (mut taken, mut failed) = (Vec::new(), Vec::new());
            for (number, entry) in entries.iter().enumerate() {
                let id = &entry["Id"];
                if refuses(&number) {
                    failed.push(json!({"Id": id, "Code": "InternalError", "SenderFault": false}));
                } else {
                    taken.push(json!({"Id": id, "MessageId": "1", "MD5OfMessageBody": ""}));
                }
            }
            let body = |entry: &Value| entry["MessageBody"].as_str().unwrap().to_owned();
            batches.push(entries.iter().map(body).collect());
            Json(json!({"Successful": taken, "Failed": failed}))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/", post(answer)).with_state(batches.clone());
        tokio::spawn(async { axum::serve(listener, router).await });
        let sender = QueueSender::new(&Emulator::config_at(&endpoint), &format!("{endpoint}/1/queue"));
        Self { sender, batches }
    }

    /// Sends ten pushes together. Returns whether that succeeded, and the numbers of the pushes in each batch.
    async fn send_ten(&self) -> (bool, Vec<BTreeSet<usize>>) {
        let pushes: Vec<_> = (0..10).map(|number| message(number, at(0))).collect();
        let entries: Vec<_> = pushes.iter().map(|push| push.to_entry()).collect();
        let sent = self.sender.send_all(pushes).await;
        let number = |entry: &String| entries.iter().position(|own| own == entry).unwrap();
        let batches = self.batches.lock().unwrap();
        (sent.is_ok(), batches.iter().map(|batch| batch.iter().map(number).collect()).collect())
    }
}

#[tokio::test]
async fn what_sqs_did_not_take_of_a_batch_is_sent_once_more_and_nothing_else_is() {
    let sqs = Sqs::that_refuses(&[3, 7], true).await;
    let (sent, batches) = sqs.send_ten().await;
    assert_eq!((sent, batches), (true, vec![(0..10).collect(), [3, 7].into()]));
}

#[tokio::test]
async fn what_sqs_does_not_take_is_told() {
    let sqs = Sqs::that_refuses(&[0], false).await;
    let (sent, batches) = sqs.send_ten().await;
    assert_eq!((sent, batches), (false, vec![(0..10).collect(), [0].into()]));
}
