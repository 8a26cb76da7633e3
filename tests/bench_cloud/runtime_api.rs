//! A minimal Runtime API of AWS Lambda. It measures two times that AWS' own emulator does not show: from the start of a
//! function to its first poll, and from an event to its answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(30);

/// A running function, which takes one event at a time.
pub(crate) struct Environment {
    child: Child,
    events: mpsc::Sender<String>,
    answers: mpsc::Receiver<(Instant, String)>,
    /// Time from the start of the process to its first poll.
    pub(crate) cold_start: Duration,
    server: JoinHandle<()>,
}

struct Api {
    events: Mutex<mpsc::Receiver<String>>,
    polls: mpsc::Sender<Instant>,
    answers: mpsc::Sender<(Instant, String)>,
}

impl Environment {
    /// Starts the binary and waits until it polls.
    pub(crate) async fn start(
        binary: &Path,
        variables: &BTreeMap<&'static str, String>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (events, events_in) = mpsc::channel(1);
        let (polls, mut polled) = mpsc::channel(16);
        let (answers_out, answers) = mpsc::channel(1);
        let api = Arc::new(Api { events: Mutex::new(events_in), polls, answers: answers_out });
        let routes = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/{outcome}", post(answer))
            .with_state(api);
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        let mut command = Command::new(binary);
        command
            .env_clear()
            .envs(variables)
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "ingress")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .stdin(Stdio::null());
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("{} does not start", binary.display()))?;
        let first = timeout(DEADLINE, polled.recv()).await.context("the function does not poll")?;
        let cold_start = first.context("a poll")?.duration_since(started);
        tokio::spawn(async move { while polled.recv().await.is_some() {} });
        Ok(Self { child, events, answers, cold_start, server })
    }

    /// Sends an event. Returns the status of the answer, and the time that it took.
    pub(crate) async fn invoke(&mut self, event: &Value) -> anyhow::Result<(u64, Duration)> {
        let text = event.to_string();
        let asked = Instant::now();
        self.events.send(text).await?;
        let answer = timeout(DEADLINE, self.answers.recv()).await.context("no answer")?;
        let (answered, body) = answer.context("an answer")?;
        let body: Value = serde_json::from_str(&body).context("the answer is JSON")?;
        Ok((body["statusCode"].as_u64().context("a status")?, answered - asked))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
        self.server.abort();
    }
}

async fn next(State(api): State<Arc<Api>>) -> Response {
    let _ = api.polls.send(Instant::now()).await;
    let Some(event) = api.events.lock().await.recv().await else {
        return StatusCode::GONE.into_response();
    };
    let headers = [
        ("content-type", "application/json"),
        ("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd"),
        ("lambda-runtime-deadline-ms", "4102444800000"),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:123456789012:function:ingress"),
        ("lambda-runtime-trace-id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0"),
    ];
    (headers, event).into_response()
}

async fn answer(
    State(api): State<Arc<Api>>,
    UrlPath((_, outcome)): UrlPath<(String, String)>,
    body: String,
) -> StatusCode {
    let answered = Instant::now();
    let body = if outcome == "response" { body } else { format!("{{\"failed\":{body}}}") };
    let _ = api.answers.send((answered, body)).await;
    StatusCode::ACCEPTED
}
