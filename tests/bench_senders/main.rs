//! `make bench-senders`: what it costs Upwire to take a push that is signed (VAPID), or as Matrix homeservers send
//! it, beside a plain one; all in one run on one machine.

mod report;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chrono::{TimeDelta, Utc};
use e2e::machine::Process;
use e2e::{ApplicationServer, Kind, Phone, Upwire, XmppServer, eventually, hashed, http, profile_folder};
use reqwest::Client;
use serde_json::{Value, json};

use report::Report;

/// As many as a request may name.
const DEVICES: usize = 100;
/// As large as an encrypted notification is.
const BODY_BYTES: usize = 1024;
/// Where the number of the request goes: of one event, the last push replaces those that wait.
const EVENT: &str = "$event";
/// No more than the relay has in line for one phone.
const UNDER_WAY_MAX: usize = 400;
const USAGE: &str = "cargo bench -p e2e --bench bench-senders -- [--quick]";
const SOON: Duration = Duration::from_secs(120);

/// How a push is sent.
struct Case {
    title: &'static str,
    url: String,
    headers: Vec<(&'static str, String)>,
    body: String,
    status: u16,
    /// What each request is for.
    pushes: usize,
}

/// One case in one round.
struct Run {
    /// From the request to its answer.
    p50: Duration,
    /// CPU seconds of Upwire, until everything is delivered.
    cpu: f64,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let quick = match arguments.as_slice() {
        [] => false,
        [argument] if argument == "--quick" => true,
        other => anyhow::bail!("{other:?}? {USAGE}"),
    };
    if cfg!(debug_assertions) {
        eprintln!(
            "This is a debug build: its figures say nothing. `make bench-senders` takes a release build."
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(bench(if quick { (400, 1) } else { (4000, 5) }))?;
    println!("{report}");
    let folder = profile_folder().join("../bench");
    fs::create_dir_all(&folder)?;
    let file = folder.canonicalize()?.join(if quick { "senders-quick.md" } else { "senders.md" });
    fs::write(&file, report.to_string())?;
    eprintln!("written to {}", file.display());
    Ok(())
}

/// So many pushes of each case in each of so many rounds.
async fn bench((pushes, rounds): (usize, usize)) -> anyhow::Result<Report> {
    let server = XmppServer::start(Kind::Ejabberd).await;
    let upwire = Upwire::on(&server).set("UPWIRE_LOG", "info").set("UPWIRE_RATE", "off").start_ready().await;
    let phone = Phone::connect(&server, &server.user().await, "phone").await;
    let cases = cases(&upwire, &phone).await?;
    let mut report = Report { pushes, rows: cases.iter().map(|case| (case.title, Vec::new())).collect() };
    for round in 1..=rounds {
        for (case, (_, runs)) in cases.iter().zip(&mut report.rows) {
            runs.push(case.run(&upwire, pushes).await.with_context(|| case.title)?);
        }
        eprintln!("round {round}/{rounds} is done");
    }
    Ok(report)
}

async fn cases(upwire: &Upwire, phone: &Phone) -> anyhow::Result<Vec<Case>> {
    let (component, server) = (&upwire.component.jid, ApplicationServer::new());
    let bound = phone.register_bound(component, &hashed("bound"), &hashed("1"), &server.key).await;
    let bound = bound.ok().context("a key is taken")?.endpoint;
    let mut endpoints = Vec::new();
    for number in 0..DEVICES {
        endpoints.push(phone.endpoint(component, &format!("app {number}")).await);
    }
    let claims = json!({"aud": upwire.public_url.trim_end_matches('/'), "exp": in_an_hour()});
    let authorization = format!("vapid t={}, k={}", server.token(&claims), server.key);
    let gateway = format!("{}/_matrix/push/v1/notify", upwire.public_url.trim_end_matches('/'));
    let plain = |title, url: &str, headers| Case {
        title,
        url: url.to_owned(),
        headers,
        body: "x".repeat(BODY_BYTES),
        status: 201,
        pushes: 1,
    };
    let matrix = |title, pushkeys: &[String]| Case {
        title,
        url: gateway.clone(),
        headers: vec![("content-type", "application/json".to_owned())],
        body: notification(pushkeys).to_string(),
        status: 200,
        pushes: pushkeys.len(),
    };
    Ok(vec![
        plain("a plain push", &endpoints[0], Vec::new()),
        plain("a signed push (VAPID)", &bound, vec![("authorization", authorization)]),
        matrix("a Matrix request for 1 device", &endpoints[..1]),
        matrix("a Matrix request for 100 devices", &endpoints),
    ])
}

#[expect(clippy::disallowed_methods, reason = "an expiry is a time of day")]
fn in_an_hour() -> i64 {
    (Utc::now() + TimeDelta::hours(1)).timestamp()
}

/// The body of a device's push has some 1 KB.
fn notification(pushkeys: &[String]) -> Value {
    let devices: Vec<_> = pushkeys.iter().map(|key| json!({"app_id": "app", "pushkey": key})).collect();
    let text = "x".repeat(BODY_BYTES - 150);
    json!({"notification": {"event_id": EVENT, "room_id": "!1:example.com", "prio": "high",
        "content": {"body": text}, "counts": {"unread": 1}, "devices": devices}})
}

impl Case {
    /// One request after the other, for so many pushes in all.
    async fn run(&self, upwire: &Upwire, pushes: usize) -> anyhow::Result<Run> {
        let process = Process { title: "upwire serve".to_owned(), pid: upwire.pid() };
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let client = Client::new();
        let delivered = async || upwire.metric("upwire_pushes_delivered_total").await;
        let (mut took, begun, before) = (Vec::new(), delivered().await, process.cpu_seconds()?);
        for number in 1..=pushes / self.pushes {
            let body = self.body.replace(EVENT, &number.to_string());
            let asked = Instant::now();
            let answer = http::try_send(&client, "POST", &self.url, &headers, body).await?;
            took.push(asked.elapsed());
            ensure!(answer.status == self.status, "{}: {}", answer.status, answer.text());
            let posted = number * self.pushes;
            if posted % UNDER_WAY_MAX == 0 {
                let all = begun + posted as f64;
                eventually(SOON, "everything is delivered", async || delivered().await >= all).await;
            }
        }
        took.sort_unstable();
        Ok(Run { p50: took[took.len() / 2], cpu: process.cpu_seconds()? - before })
    }
}
