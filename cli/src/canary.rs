//! `upwire canary`: sends pushes through the whole server, as an application server, and receives them, as a phone.

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
#[cfg(test)]
pub(crate) use self::report::describe_metrics;
use crate::values;

mod report;

/// Longest time for the login and the registration.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for the distributor to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);
const ACCEPTED: u16 = 201;
/// The resource of the canary's phone. Each run uses the same one, so that the registration stays the same.
const RESOURCE: &str = "upwire-canary";
/// The error when the distributor has ended. The distributor has printed the reason on stderr.
pub(crate) const DISTRIBUTOR_ENDED: &str = "the distributor has ended: see what it said";

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
    #[arg(long, env = "UPWIRE_CANARY_JID", value_parser = account)]
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

    /// Number of pushes that are sent, one after the other
    #[arg(long, value_name = "PUSHES", env = "UPWIRE_CANARY_PUSHES", default_value = "5",
        value_parser = clap::value_parser!(u32).range(1..=100))]
    pushes: u32,

    /// Longest time for each before it is missing
    #[arg(long, value_name = "TIME", env = "UPWIRE_CANARY_TIMEOUT", default_value = "5s", value_parser = values::time(1..=600))]
    timeout: u32,

    /// A file for Prometheus' node exporter (its textfile collector), written anew by each run
    #[arg(long, value_name = "FILE", env = "UPWIRE_CANARY_TEXTFILE")]
    textfile: Option<PathBuf>,

    /// Write the metrics to stdout for CloudWatch, in its embedded format, as those of this stack
    #[arg(long, value_name = "STACK", env = "UPWIRE_METRICS_STACK")]
    metrics_stack: Option<String>,
}

/// Parses an account: a JID with a local part.
pub(crate) fn account(text: &str) -> Result<Jid, String> {
    let jid = Jid::new(text).map_err(|error| format!("{error}; write it as user@example.com"))?;
    if jid.node().is_some() { Ok(jid) } else { Err("it names no user; write it as user@example.com".into()) }
}

/// Sends the pushes, and reports their outcome.
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
    let reason = sent?.map_or_else(String::new, |reason| format!(": {reason}"));
    match report.missing() {
        0 => Ok(()),
        missing => Err(anyhow!("{missing} of {} pushes did not arrive{reason}", options.pushes)),
    }
}

/// Sends the pushes. Returns why the last missing push is missing, if any is.
async fn send_all(options: &Options, report: &mut Report) -> anyhow::Result<Option<String>> {
    let mut phone = Phone::start(options)?;
    let registered = timeout(LOGIN_TIMEOUT, phone.endpoint()).await;
    let endpoint = registered.map_err(|_| {
        let trouble = phone.trouble.take().map_or_else(String::new, |trouble| format!(": {trouble}"));
        anyhow!("no endpoint within {LOGIN_TIMEOUT:?}{trouble}")
    })??;
    let patience = Duration::from_secs(options.timeout.into());
    let mut reason = None;
    for _ in 0..options.pushes {
        let body = format!("upwire-canary-{:016x}", getrandom::u64()?);
        let started = Instant::now();
        let pushed = timeout(patience, phone.gets(&endpoint, &body, patience)).await;
        match pushed {
            Ok(Ok(())) => report.arrived(started.elapsed()),
            Ok(Err(error)) => {
                tracing::error!(%error, "a push is missing");
                reason = Some(error.to_string());
            }
            Err(_) => {
                tracing::error!(
                    ?patience,
                    "a push was accepted, or not answered, and did not arrive in time"
                );
                reason =
                    Some(format!("it was accepted, or not answered, and did not arrive within {patience:?}"));
            }
        }
    }
    phone.end().await;
    Ok(reason)
}

/// A running `upwire distributor`, and its output.
struct Phone {
    process: Child,
    events: Lines<BufReader<ChildStdout>>,
    /// The last failure that it has reported since it was connected.
    trouble: Option<String>,
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
        Ok(Self { process, events: BufReader::new(stdout).lines(), trouble: None })
    }

    async fn event(&mut self) -> anyhow::Result<Value> {
        let Some(line) = self.events.next_line().await? else {
            match self.trouble.take() {
                Some(trouble) => bail!("the distributor has ended: {trouble}"),
                None => bail!("{DISTRIBUTOR_ENDED}"),
            }
        };
        let event: Value = serde_json::from_str(&line)?;
        match event["event"].as_str() {
            Some("connected") => self.trouble = None,
            Some("error") => self.trouble = trouble(&event).or(self.trouble.take()),
            _ => {}
        }
        Ok(event)
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

    /// Sends a push, and waits until it arrives. Pushes of an earlier run may arrive before it.
    async fn gets(&mut self, endpoint: &str, body: &str, patience: Duration) -> anyhow::Result<()> {
        let status = aws::post(endpoint, body.to_owned(), patience).await?;
        if status != ACCEPTED {
            bail!("the push was answered {status}");
        }
        while self.event().await?["text"] != body {}
        Ok(())
    }

    /// Ends the distributor by closing its output.
    async fn end(self) {
        let Self { mut process, events, .. } = self;
        drop(events);
        let _ = timeout(END_TIMEOUT, process.wait()).await;
    }
}

/// Returns the text of a failure of the distributor, with its remedy. A refused stanza of somebody else is no failure.
fn trouble(event: &Value) -> Option<String> {
    let (text, hint) = (event["text"].as_str()?, event["hint"].as_str());
    if event["condition"] == "refused" {
        return None;
    }
    Some(hint.map_or_else(|| text.to_owned(), |hint| format!("{text}; {hint}")))
}

#[expect(clippy::disallowed_methods, reason = "the metrics are of this moment")]
fn now() -> DateTime<Utc> {
    Utc::now()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failure_of_the_distributor_is_told_with_its_mend() {
        let failed = json!({"event": "error", "condition": "not-authorized", "text": "no login", "hint": "is it right?"});
        assert_eq!(trouble(&failed).as_deref(), Some("no login; is it right?"));
        let bare = json!({"event": "error", "condition": "timeout", "text": "no answer"});
        assert_eq!(trouble(&bare).as_deref(), Some("no answer"));
        let stray =
            json!({"event": "error", "condition": "refused", "text": "refused a stanza, sent by a@b"});
        assert_eq!(trouble(&stray), None);
    }

    #[test]
    fn an_account_has_a_user() {
        assert!(account("juliet@example.com").is_ok() && account("juliet@example.com/phone").is_ok());
        for wrong in ["example.com", "", "juliet@"] {
            assert!(account(wrong).unwrap_err().contains("user@example.com"), "{wrong}");
        }
    }
}
