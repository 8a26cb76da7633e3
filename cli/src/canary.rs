//! `upwire canary`: a push from an application server to a phone and back, as a person's would go; both are played here.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_xmpp::jid::Jid;

use self::report::Report;
use crate::values;

mod report;

/// From the start to the endpoint: a login and a registration.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time that the distributor takes to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);
const ACCEPTED: u16 = 201;
/// The same in each run, so that the registration is the same, and moves nowhere.
const RESOURCE: &str = "upwire-canary";

/// Send pushes from end to end, and say how long they took and whether one is missing.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Send pushes from end to end, and say how long they took and whether one is missing.\n\n\
        It logs in to an XMPP account as a distributor, registers with the push server, POSTs to the endpoint and \
        waits for the pushes, then ends: with exit code 1 if one is missing. Have a timer run it each minute \
        (infra/canary/): of all that can be watched, this is what a user notices. The account needs to be on the \
        access list, and should be of nobody else.",
    after_long_help = "The account's password is read from UPWIRE_PASSWORD, or the file that UPWIRE_PASSWORD_FILE names."
)]
pub(crate) struct Options {
    /// The account: user@example.com
    #[arg(long, env = "UPWIRE_CANARY_JID")]
    jid: Jid,

    /// The push server's JID, for example notify.example.com
    #[arg(long, value_name = "JID", env = "UPWIRE_CANARY_PUSH_SERVER")]
    push_server: Jid,

    /// The XMPP server's host:port [default: from the DNS, by the JID's domain]
    #[arg(long, value_name = "HOST:PORT", env = "UPWIRE_CANARY_SERVER")]
    server: Option<String>,

    /// Use no TLS at all; only for a --server on this machine
    #[arg(long, requires = "server")]
    plaintext: bool,

    /// How many pushes are sent, one after the other
    #[arg(long, value_name = "PUSHES", env = "UPWIRE_CANARY_PUSHES", default_value = "5",
        value_parser = clap::value_parser!(u32).range(1..=100))]
    pushes: u32,

    /// How long each may take before it is missing
    #[arg(long, value_name = "TIME", env = "UPWIRE_CANARY_TIMEOUT", default_value = "5s", value_parser = values::time(1..=600))]
    timeout: u32,

    /// A file for Prometheus' node exporter (its textfile collector), written anew by each run
    #[arg(long, value_name = "FILE", env = "UPWIRE_CANARY_TEXTFILE")]
    textfile: Option<PathBuf>,

    /// Write the metrics to stdout for CloudWatch, in its embedded format, as those of this stack
    #[arg(long, value_name = "STACK", env = "UPWIRE_METRICS_STACK")]
    metrics_stack: Option<String>,
}

/// Sends the pushes, and tells what came of them.
pub(crate) async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    let mut report = Report::of(options.pushes);
    let sent = tokio::select! {
        sent = send_all(&options, &mut report) => sent,
        () = stop.cancelled() => return Ok(()),
    };
    if let Err(error) = &sent {
        tracing::error!(%error, "the pushes could not be sent");
    }
    let now = now();
    if let Some(file) = &options.textfile {
        report.write(file, now).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    match options.metrics_stack.as_deref().filter(|stack| !stack.is_empty()) {
        Some(stack) => report.tell(stack, now)?,
        None => report.print()?,
    }
    sent?;
    match report.missing() {
        0 => Ok(()),
        missing => Err(anyhow!("{missing} of {} pushes did not arrive", options.pushes)),
    }
}

async fn send_all(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let mut phone = Phone::start(options)?;
    let registered = timeout(LOGIN_TIMEOUT, phone.endpoint()).await;
    let endpoint = registered.map_err(|_| anyhow!("no endpoint within {LOGIN_TIMEOUT:?}"))??;
    let patience = Duration::from_secs(options.timeout.into());
    for _ in 0..options.pushes {
        let body = format!("upwire-canary-{:016x}", getrandom::u64()?);
        let started = Instant::now();
        let pushed = timeout(patience, phone.gets(&endpoint, &body, patience)).await;
        match pushed {
            Ok(Ok(())) => report.arrived(started.elapsed()),
            Ok(Err(error)) => tracing::error!(%error, "a push is missing"),
            Err(_) => {
                tracing::error!(?patience, "a push was accepted, or not answered, and did not arrive in time")
            }
        }
    }
    phone.end().await;
    Ok(())
}

/// An `upwire distributor`, and what it says.
struct Phone {
    process: Child,
    events: Lines<BufReader<ChildStdout>>,
}

impl Phone {
    fn start(options: &Options) -> anyhow::Result<Self> {
        let jid = match options.jid.resource() {
            Some(_) => options.jid.clone(),
            None => options.jid.to_bare().with_resource_str(RESOURCE)?.into(),
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("distributor").arg("--json").args(["--jid", jid.as_str()]);
        command.args(["--push-server", options.push_server.as_str(), "--application", RESOURCE]);
        if let Some(server) = &options.server {
            command.args(["--server", server]);
        }
        if options.plaintext {
            command.arg("--plaintext");
        }
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let stdout = process.stdout.take().context("its stdout is piped")?;
        Ok(Self { process, events: BufReader::new(stdout).lines() })
    }

    async fn event(&mut self) -> anyhow::Result<Value> {
        match self.events.next_line().await? {
            Some(line) => Ok(serde_json::from_str(&line)?),
            None => bail!("the distributor has ended: see what it said"),
        }
    }

    async fn endpoint(&mut self) -> anyhow::Result<String> {
        loop {
            let event = self.event().await?;
            if let (Some("endpoint"), Some(endpoint)) = (event["event"].as_str(), event["endpoint"].as_str())
            {
                return Ok(endpoint.to_owned());
            }
        }
    }

    /// Sends it a push, and waits until it is there; others may come before, of an earlier run.
    async fn gets(&mut self, endpoint: &str, body: &str, patience: Duration) -> anyhow::Result<()> {
        let status = aws::post(endpoint, body.to_owned(), patience).await?;
        if status != ACCEPTED {
            bail!("the push was answered {status}");
        }
        while self.event().await?["text"] != body {}
        Ok(())
    }

    /// It ends when nobody reads what it says.
    async fn end(self) {
        let Self { mut process, events } = self;
        drop(events);
        let _ = timeout(END_TIMEOUT, process.wait()).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "the metrics are of this moment")]
fn now() -> DateTime<Utc> {
    Utc::now()
}
