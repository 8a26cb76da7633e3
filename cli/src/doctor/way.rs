//! A push through the whole way, from an application server to a phone: `upwire canary` plays both.

use std::path::PathBuf;

use tokio::process::Command;
use tokio_xmpp::jid::{BareJid, Jid};

use super::finding::Finding;

/// The account that plays the phone.
#[derive(Debug, clap::Args)]
pub(super) struct Way {
    /// An account, to send a push through the whole way; its password is in UPWIRE_PASSWORD or --password-file
    #[arg(long, value_name = "JID")]
    jid: Option<Jid>,

    /// A file that holds the account's password
    #[arg(long, value_name = "FILE", env = "UPWIRE_PASSWORD_FILE", requires = "jid")]
    password_file: Option<PathBuf>,

    /// The host:port where the account's XMPP server takes clients [default: from the DNS, by the JID's domain]
    #[arg(long, value_name = "HOST:PORT", requires = "jid")]
    server: Option<String>,

    /// Use no TLS at all; only for a --server on this machine
    #[arg(long, requires = "server")]
    plaintext: bool,
}

impl Way {
    /// Sends a push, and waits for it.
    pub(super) async fn check(&self, component: &BareJid) -> anyhow::Result<Finding> {
        let Some(jid) = &self.jid else {
            return Ok(Finding::skipped("push", "no account was named to send a push to (--jid)"));
        };
        let mut canary = Command::new(std::env::current_exe()?);
        canary.arg("canary").args(["--jid", jid.as_str(), "--push-server", component.as_str()]);
        canary.args(["--pushes", "1", "--timeout", "30s"]);
        canary.args(self.server.iter().flat_map(|server| ["--server", server]));
        canary.args(self.plaintext.then_some("--plaintext"));
        canary.env_remove("UPWIRE_CANARY_TEXTFILE").env_remove("UPWIRE_METRICS_STACK");
        if let Some(file) = &self.password_file {
            canary.env_remove("UPWIRE_PASSWORD").env("UPWIRE_PASSWORD_FILE", file);
        }
        let output = canary.kill_on_drop(true).output().await?;
        if output.status.success() {
            return Ok(Finding::ok("push", format!("a push reached {jid}")));
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let reason = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it did not say why");
        let what = format!("no push reached {jid}: {reason}");
        let mend = format!("see each step: upwire canary --jid {jid} --push-server {component} --pushes 1");
        Ok(Finding::error("push", what, "phones of users may get none either", mend))
    }
}
