//! `make bench-senders`: the cost for Upwire of a signed push (VAPID), and of a push as Matrix homeservers send it,
//! beside a plain push; all in one run on one machine.

mod report;

use std::fs;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chrono::{TimeDelta, Utc};
use e2e::bench::{BODY_BYTES, Journal, LightPhone};
use e2e::machine::Process;
use e2e::{ApplicationServer, Kind, SOON, Upwire, XmppServer, eventually, http, profile_folder};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::LocalSet;

use report::Report;

/// Number of devices, each with a phone: as many as a Matrix request may name.
const DEVICES: usize = 100;
/// Placeholder of the request's number. Each request has an event of its own, because a push replaces the waiting
/// pushes of the same event.
const EVENT: &str = "$event00";
const USAGE: &str = "cargo bench -p e2e --bench bench-senders -- [--quick]";

/// One way of sending a push.
struct Case {
    title: &'static str,
    /// The URLs, which are requested in turn.
    urls: Vec<String>,
    headers: Vec<(&'static str, String)>,
    body: String,
    status: u16,
    /// Number of pushes that each request makes.
    pushes: usize,
}

/// One case in one round.
struct Run {
    /// Median time from a request to its answer.
    p50: Duration,
    /// CPU seconds of Upwire until everything is delivered.
    cpu: f64,
}

/// The servers that all cases use.
struct Stage {
    upwire: Upwire,
    journal: Rc<Journal>,
    client: Client,
    /// The XMPP server, kept running.
    _server: XmppServer,
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (pushes, rounds) = if quick { (400, 1) } else { (4000, 5) };
    let report = LocalSet::new().block_on(&runtime, bench(pushes, rounds))?;
    println!("{report}");
    let folder = profile_folder().join("../bench");
    fs::create_dir_all(&folder)?;
    let file = folder.canonicalize()?.join(if quick { "senders-quick.md" } else { "senders.md" });
    fs::write(&file, report.to_string())?;
    eprintln!("written to {}", file.display());
    Ok(())
}

/// Measures this number of pushes of each case, in each of the rounds.
async fn bench(pushes: usize, rounds: usize) -> anyhow::Result<Report> {
    let server = XmppServer::start(Kind::Ejabberd).await;
    let upwire = Upwire::on(&server).set("UPWIRE_LOG", "info").set("UPWIRE_RATE", "off").start_ready().await;
    let (journal, client) = (Rc::<Journal>::default(), http::client());
    let cases = cases(&server, &upwire, &journal).await?;
    let stage = Stage { upwire, journal, client, _server: server };
    let mut report = Report { pushes, rows: cases.iter().map(|case| (case.title, Vec::new())).collect() };
    for round in 1..=rounds {
        for (case, (_, runs)) in cases.iter().zip(&mut report.rows) {
            runs.push(stage.run(case, pushes).await.with_context(|| case.title)?);
        }
        eprintln!("round {round}/{rounds} is done");
    }
    Ok(report)
}

/// Makes the cases. Each phone registers for any sender, and for one application server alone.
async fn cases(server: &XmppServer, upwire: &Upwire, journal: &Rc<Journal>) -> anyhow::Result<Vec<Case>> {
    let (component, sender) = (&upwire.component.jid, ApplicationServer::new());
    let (mut open, mut bound) = (Vec::new(), Vec::new());
    for _ in 0..DEVICES {
        let mut phone = LightPhone::connect(server, &server.user().await).await;
        open.push(phone.register(component).await?);
        bound.push(phone.register_bound(component, &sender.key).await?);
        drop(phone.answer_all(Rc::clone(journal)));
    }
    let public_url = upwire.public_url.trim_end_matches('/');
    let authorization = format!(
        "vapid t={}, k={}",
        sender.token(&json!({"aud": public_url, "exp": in_an_hour()})),
        sender.key
    );
    let gateway = format!("{public_url}/_matrix/push/v1/notify");
    let plain = |title, urls, headers| Case {
        title,
        urls,
        headers,
        body: "x".repeat(BODY_BYTES),
        status: 201,
        pushes: 1,
    };
    let matrix = |title, pushkeys: &[String]| Case {
        title,
        urls: vec![gateway.clone()],
        headers: vec![("content-type", "application/json".to_owned())],
        body: request(pushkeys).to_string(),
        status: 200,
        pushes: pushkeys.len(),
    };
    Ok(vec![
        plain("a plain push", open.clone(), Vec::new()),
        plain("a signed push (VAPID)", bound, vec![("authorization", authorization)]),
        matrix("a Matrix request for 1 device", &open[..1]),
        matrix("a Matrix request for 100 devices", &open),
    ])
}

#[expect(clippy::disallowed_methods, reason = "an expiry is a time of day")]
fn in_an_hour() -> i64 {
    (Utc::now() + TimeDelta::hours(1)).timestamp()
}

/// Returns a request. The pushed part is everything but the devices, and has [`BODY_BYTES`].
fn request(pushkeys: &[String]) -> Value {
    let pushed = |text: &str| {
        json!({"notification": {"event_id": EVENT, "room_id": "!1:example.com", "prio": "high",
            "content": {"body": text}, "counts": {"unread": 1}}})
    };
    let text = "x".repeat(BODY_BYTES - pushed("").to_string().len());
    let mut request = pushed(&text);
    request["notification"]["devices"] =
        pushkeys.iter().map(|key| json!({"app_id": "app", "pushkey": key})).collect();
    request
}

impl Stage {
    /// Sends one request after the other, for this number of pushes in all.
    async fn run(&self, case: &Case, pushes: usize) -> anyhow::Result<Run> {
        let process = Process { title: "upwire serve".to_owned(), pid: self.upwire.pid() };
        let headers: Vec<_> = case.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let delivered = async || self.upwire.measure("upwire_pushes_delivered_total").await;
        self.journal.begin();
        let (mut took, begun, before) = (Vec::new(), delivered().await, process.cpu_seconds()?);
        for (number, url) in (1..=pushes / case.pushes).zip(case.urls.iter().cycle()) {
            let body = case.body.replace(EVENT, &format!("${number:07}"));
            let asked = Instant::now();
            let answer = http::try_send(&self.client, "POST", url, &headers, body).await?;
            took.push(asked.elapsed());
            ensure!(answer.status == case.status, "{}: {}", answer.status, answer.text());
            let posted = number * case.pushes;
            if posted.is_multiple_of(DEVICES) {
                eventually(SOON, "phones get it", async || self.journal.arrivals() >= posted).await;
            }
        }
        let all = begun + pushes as f64;
        eventually(SOON, "everything is delivered", async || delivered().await >= all).await;
        took.sort_unstable();
        Ok(Run { p50: took[took.len() / 2], cpu: process.cpu_seconds()? - before })
    }
}
