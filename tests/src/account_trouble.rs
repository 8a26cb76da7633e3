//! A proxy to DynamoDB that fails the calls about one account, or about one name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::{http, wait::time_passes};

const THROTTLED: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
    "message":"The level of configured provisioned throughput for the table was exceeded."}"#;
/// Time for which a slow call is held up. A relay waits less for a call to AWS.
const SLOW: Duration = Duration::from_secs(120);

/// The way in which DynamoDB fails the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Batch writes for the account are throttled. The other writes of the same batch are made.
    Throttled,
    /// A batch write for the account is passed on after a long time.
    Slow,
    /// The connection ends amid the answer. The batch write is not made.
    Cut,
    /// Any call that contains the name is made, and the connection ends amid the answer.
    Lost,
}

/// A proxy to DynamoDB. While it is switched on, the calls that its [`Trouble`] is about fail.
#[derive(Clone)]
pub struct TroubledWay(Arc<Way>);

struct Way {
    to: String,
    account: String,
    trouble: Trouble,
    on: AtomicBool,
    met: AtomicUsize,
    client: Client,
}

impl TroubledWay {
    /// Returns a proxy to the emulator at this endpoint, for the account of this bare JID; for [`Trouble::Lost`], for
    /// calls that contain this text. It is switched off.
    pub fn to(endpoint: &str, account: &str, trouble: Trouble) -> Self {
        let (to, account) = (endpoint.to_owned(), account.to_owned());
        let (on, met) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self(Arc::new(Way { to, account, trouble, on, met, client: http::client() }))
    }

    /// Opens the proxy on a port of its own. Returns its endpoint, and the task to abort at the end.
    pub async fn open(&self) -> (String, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let way = Arc::clone(&self.0);
        let answer = move |headers: HeaderMap, asked: String| {
            let way = Arc::clone(&way);
            async move { way.answer(&headers, asked).await }
        };
        let server = tokio::spawn(async move {
            axum::serve(listener, Router::new().fallback(answer)).await.expect("it serves for ever");
        });
        (endpoint, server)
    }

    /// Switches the trouble on or off.
    pub fn switch(&self, on: bool) {
        self.0.on.store(on, Ordering::Relaxed);
    }

    /// Returns the number of calls that have failed.
    pub fn met(&self) -> usize {
        self.0.met.load(Ordering::Relaxed)
    }
}

impl Way {
    async fn answer(&self, headers: &HeaderMap, asked: String) -> Response {
        let is_meant =
            self.trouble == Trouble::Lost || text(headers, "x-amz-target").ends_with(".BatchWriteItem");
        if !is_meant || !asked.contains(&self.account) || !self.on.load(Ordering::Relaxed) {
            return self.pass_on(headers, asked).await.into_response();
        }
        self.met.fetch_add(1, Ordering::Relaxed);
        match self.trouble {
            Trouble::Throttled => self.throttle(headers, &asked).await,
            Trouble::Slow => {
                time_passes(SLOW).await;
                self.pass_on(headers, asked).await.into_response()
            }
            Trouble::Cut => cut_short(),
            Trouble::Lost => {
                self.pass_on(headers, asked).await;
                cut_short()
            }
        }
    }

    /// Throttles the account's part of a batch. As in DynamoDB, the call itself fails only if none of its writes is
    /// made.
    async fn throttle(&self, headers: &HeaderMap, asked: &str) -> Response {
        let mut asked: Value = serde_json::from_str(asked).expect("the SDK asks in JSON");
        let tables = asked["RequestItems"].as_object().into_iter().flatten();
        let (table, requests) = tables.into_iter().next().expect("a batch is for a table");
        let (table, requests) = (table.clone(), requests.as_array().cloned().unwrap_or_default());
        let (own, others): (Vec<_>, Vec<_>) =
            requests.into_iter().partition(|request| request.to_string().contains(&self.account));
        if others.is_empty() {
            return (StatusCode::BAD_REQUEST, THROTTLED).into_response();
        }
        asked["RequestItems"] = json!({table.clone(): others});
        let (status, answer) = self.pass_on(headers, asked.to_string()).await;
        let mut answer: Value = serde_json::from_str(&answer).expect("an emulator answers in JSON");
        answer["UnprocessedItems"] = json!({table: own});
        (status, answer.to_string()).into_response()
    }

    async fn pass_on(&self, headers: &HeaderMap, asked: String) -> (StatusCode, String) {
        let passed_on =
            ["x-amz-target", "x-amz-date", "authorization"].map(|name| (name, text(headers, name)));
        let passed_on = [&passed_on[..], &[("content-type", "application/x-amz-json-1.0")]].concat();
        match http::try_send(&self.client, "POST", &self.to, &passed_on, asked).await {
            Ok(answer) => (StatusCode::from_u16(answer.status).unwrap_or_default(), answer.text()),
            Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()),
        }
    }
}

fn cut_short() -> Response {
    let begun = stream::iter([Ok(Bytes::from("{\"Unproc")), Err("the connection is cut")]);
    ([(header::CONTENT_TYPE, "application/x-amz-json-1.0")], Body::from_stream(begun)).into_response()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
