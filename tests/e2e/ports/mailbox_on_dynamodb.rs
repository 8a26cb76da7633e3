//! DynamoDB, unlike SQLite, leaves parts of a batch undone, and may hold items that others wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use aws::MailboxTable;
use axum::extract::State;
use axum::{Json, Router};
use chrono::DateTime;
use e2e::Emulator;
use push::ports::{Mailbox, Waiting};
use push::testing;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_xmpp::jid::BareJid;

use super::at_most;

fn juliet() -> BareJid {
    BareJid::new("juliet@example.com").unwrap()
}

fn waiting(number: u8) -> Waiting {
    let registration = testing::registration("juliet@example.com/phone", DateTime::UNIX_EPOCH);
    let message = testing::push(number.into(), &registration, DateTime::UNIX_EPOCH);
    Waiting { message, asked_at: None }
}

#[tokio::test]
async fn what_is_no_push_keeps_no_other_waiting() {
    let emulator = Emulator::shared().await;
    let table = emulator.mailbox_table().await;
    let mailbox = MailboxTable::new(&emulator.config(), &table);
    let pushes: Vec<_> = (1..=3).map(waiting).collect();
    for push in &pushes {
        mailbox.keep(push.clone(), at_most(10)).await.unwrap();
    }
    // The poison lies before, between and behind the pushes. A key begins with the urgency, and ends with random bytes.
    let newer = pushes[0].message.to_entry().replacen("\"v\":1", "\"v\":2", 1);
    let poison = [
        ("AAAAAAAAAAAAAAAAAAAAAA==", json!({"S": "not JSON"})),
        ("AQAAAAAAAAAEBAQEBAQECA==", json!({"S": newer})),
        ("AQAAAAAAAAAICAgICAgIDA==", json!({"N": "1"})),
        ("/w==", json!({"S": "{}"})),
    ];
    let shard = format!("{} {}", pushes[0].message.id.part(), juliet());
    for (id, entry) in poison {
        let item = json!({"mailbox": {"S": shard}, "id": {"B": id}, "entry": entry});
        emulator.call("DynamoDB_20120810.PutItem", json!({"TableName": table, "Item": item})).await;
    }
    assert_eq!(mailbox.waiting(&juliet(), None, None, 10).await.unwrap(), pushes);
    assert_eq!(mailbox.waiting(&juliet(), None, None, 3).await.unwrap(), pushes, "as many as there are");
    assert_eq!(mailbox.waiting(&juliet(), None, None, 2).await.unwrap(), pushes[..2]);
    assert_eq!(mailbox.waiting(&juliet(), None, Some(pushes[1].message.id), 2).await.unwrap(), pushes[2..]);
    assert_eq!(mailbox.recipients(None, 10).await.unwrap().0.len(), 1);
}

/// Number of deletions of each key, by a DynamoDB that carries out only the first deletion of each call.
type Deletions = Arc<Mutex<BTreeMap<String, usize>>>;

async fn delete_one(State(deletions): State<Deletions>, asked: String) -> Json<Value> {
    let asked: Value = serde_json::from_str(&asked).unwrap();
    let mut requests = asked["RequestItems"]["mailbox"].as_array().unwrap().clone();
    assert!((1..=25).contains(&requests.len()));
    let keys: BTreeSet<_> = requests.iter().map(Value::to_string).collect();
    assert_eq!(keys.len(), requests.len(), "DynamoDB refuses a batch that names one twice");
    let done = requests.remove(0);
    *deletions.lock().unwrap().entry(done.to_string()).or_default() += 1;
    let undone = if requests.is_empty() { json!({}) } else { json!({"mailbox": requests}) };
    Json(json!({"UnprocessedItems": undone}))
}

#[tokio::test]
async fn what_is_left_undone_of_a_batch_is_done() {
    let deletions = Deletions::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = Emulator::config_at(&format!("http://{}", listener.local_addr().unwrap()));
    let dynamodb = Router::new().fallback(axum::routing::post(delete_one)).with_state(Arc::clone(&deletions));
    tokio::spawn(async move { axum::serve(listener, dynamodb).await });

    let mailbox = MailboxTable::new(&config, "mailbox");
    let few = (0..5).map(|number| (juliet(), waiting(number).message.id));
    mailbox.remove(few.clone().chain(few).collect()).await.unwrap();
    assert_eq!(deletions.lock().unwrap().values().copied().collect::<Vec<_>>(), [1; 5]);

    let many = (0..50).map(|number| (juliet(), waiting(number).message.id)).collect();
    let error = mailbox.remove(many).await.unwrap_err();
    assert!(error.to_string().contains("does not take so many writes"), "{error}");
}
