//! DynamoDB has trouble with what one account has in its mailbox, in each of the ways it can; all others go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use e2e::{Kind, Phone, SOON, XmppServer, eventually, http, time_passes};
use futures::future::join_all;
use futures::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::cloud::Cloud;

const THROTTLED: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
    "message":"The level of configured provisioned throughput for the table was exceeded."}"#;
/// Longer than a relay waits for a call to AWS.
const SLOW: Duration = Duration::from_secs(120);
const OTHERS: usize = 6;
const PUSHES_EACH: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Writes are refused; of a batch, those that are not this account's are made.
    Throttled,
    /// The call is answered after a long time.
    Slow,
    /// The connection ends amid the answer.
    Cut,
}

/// A way to DynamoDB on which removals from the mailbox of one account meet trouble for as long as the switch is on.
#[derive(Clone)]
struct Way {
    to: String,
    account: String,
    trouble: Trouble,
    on: Arc<AtomicBool>,
    met: Arc<AtomicUsize>,
}

impl Way {
    async fn open(self) -> (String, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let answer = move |headers: HeaderMap, asked: String| {
            let way = self.clone();
            async move { way.answer(&headers, asked).await }
        };
        let server = tokio::spawn(async move {
            axum::serve(listener, Router::new().fallback(answer)).await.unwrap();
        });
        (endpoint, server)
    }

    async fn answer(&self, headers: &HeaderMap, asked: String) -> Response {
        let removes = headers["x-amz-target"].to_str().unwrap().ends_with(".BatchWriteItem");
        if !removes || !asked.contains(&self.account) || !self.on.load(Ordering::Relaxed) {
            return self.pass_on(headers, asked).await.into_response();
        }
        self.met.fetch_add(1, Ordering::Relaxed);
        match self.trouble {
            Trouble::Throttled => self.throttle(headers, &asked).await,
            Trouble::Slow => {
                time_passes(SLOW).await;
                self.pass_on(headers, asked).await.into_response()
            }
            Trouble::Cut => {
                let begun = stream::iter([Ok(Bytes::from("{\"Unproc")), Err("the connection is cut")]);
                ([(header::CONTENT_TYPE, "application/x-amz-json-1.0")], Body::from_stream(begun))
                    .into_response()
            }
        }
    }

    /// As DynamoDB does: it fails a batch only where it has made none of it.
    async fn throttle(&self, headers: &HeaderMap, asked: &str) -> Response {
        let mut asked: Value = serde_json::from_str(asked).unwrap();
        let (table, requests) = asked["RequestItems"].as_object().unwrap().iter().next().unwrap();
        let (table, requests) = (table.clone(), requests.as_array().unwrap().clone());
        let (own, others): (Vec<_>, Vec<_>) =
            requests.into_iter().partition(|request| request.to_string().contains(&self.account));
        if others.is_empty() {
            return (StatusCode::BAD_REQUEST, THROTTLED).into_response();
        }
        asked["RequestItems"] = json!({table.clone(): others});
        let (status, answer) = self.pass_on(headers, asked.to_string()).await;
        let mut answer: Value = serde_json::from_str(&answer).unwrap();
        answer["UnprocessedItems"] = json!({table: own});
        (status, answer.to_string()).into_response()
    }

    async fn pass_on(&self, headers: &HeaderMap, asked: String) -> (StatusCode, String) {
        let passed_on = [
            ("x-amz-target", headers["x-amz-target"].to_str().unwrap()),
            ("x-amz-date", headers["x-amz-date"].to_str().unwrap()),
            ("content-type", "application/x-amz-json-1.0"),
            ("authorization", headers["authorization"].to_str().unwrap()),
        ];
        let answer = http::post_with(&self.to, &passed_on, asked).await;
        (StatusCode::from_u16(answer.status).unwrap(), answer.text())
    }
}

/// While all that one account has stays where it is, everything of the others leaves: by counts, not by a clock.
async fn all_but_one_go_on(trouble: Trouble) {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    let romeo = server.user().await;
    let way = Way {
        to: cloud.emulator.endpoint.clone(),
        account: romeo.jid.to_string(),
        trouble,
        on: Arc::new(AtomicBool::new(true)),
        met: Arc::default(),
    };
    let (endpoint, proxy) = way.clone().open().await;
    let relay = cloud.relay_on(server).set("AWS_ENDPOINT_URL_DYNAMODB", &endpoint).start_ready().await;
    let component = relay.component.jid.clone();
    let mut users = vec![romeo];
    for _ in 0..OTHERS {
        users.push(server.user().await);
    }
    for user in &users {
        let phone = Phone::connect(server, user, "phone").await;
        let endpoint = phone.endpoint(&component, "app").await;
        phone.leave(SOON).await;
        for number in 0..PUSHES_EACH {
            assert_eq!(http::post_patiently(&endpoint, &[], format!("push {number}")).await.status, 201);
        }
    }
    let all = PUSHES_EACH * users.len();
    relay.metric_reaches("upwire_mailbox_kept_total", all as f64).await;
    cloud.queue_empties().await;

    let phones = join_all(users.iter().map(async |user| {
        let phone = Phone::connect(server, user, "phone").await;
        phone.greet(&component).await;
        for number in 0..PUSHES_EACH {
            phone.wait_for_body(&format!("push {number}")).await;
        }
        phone
    }));
    let phones = phones.await;
    eventually(SOON, "all that the others had has left", async || {
        cloud.waiting().await == PUSHES_EACH as u64
    })
    .await;
    assert!(way.met.load(Ordering::Relaxed) > 0, "{trouble:?}");
    assert!(way.on.load(Ordering::Relaxed));

    way.on.store(false, Ordering::Relaxed);
    cloud.mailbox_empties().await;
    for phone in phones {
        phone.has_got_count(PUSHES_EACH).await;
    }
    proxy.abort();
}

#[tokio::test]
async fn an_account_whose_removals_are_throttled_holds_up_no_other() {
    all_but_one_go_on(Trouble::Throttled).await;
}

#[tokio::test]
async fn an_account_whose_removals_are_slow_holds_up_no_other() {
    all_but_one_go_on(Trouble::Slow).await;
}

#[tokio::test]
async fn an_account_whose_answers_are_cut_holds_up_no_other() {
    all_but_one_go_on(Trouble::Cut).await;
}
