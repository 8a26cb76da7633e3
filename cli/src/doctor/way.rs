//! A push through the whole server, sent and received by `upwire canary`.

use std::path::PathBuf;

use tokio::process::Command;
use tokio_xmpp::jid::{BareJid, Jid};

use super::finding::Finding;
use crate::configuration::{ConfigurationError, environment, secret};
use crate::{canary, command_line};

/// The prefix of the error with which the program ends.
const ERROR: &str = "upwire: ";
const PASSWORD_FILE: &str = "UPWIRE_PASSWORD_FILE";

/// The account that plays the phone.
#[derive(Debug, clap::Args)]
pub(super) struct Way {
    /// An account, to send a push through the whole way; its password is in UPWIRE_PASSWORD or --password-file
    #[arg(long, value_name = "JID", value_parser = canary::account)]
    jid: Option<Jid>,

    /// A file that holds the account's password
    #[arg(long, value_name = "FILE", env = PASSWORD_FILE, requires = "jid")]
    password_file: Option<PathBuf>,

    /// The host:port where the account's XMPP server takes clients [default: from the DNS, by the JID's domain]
    #[arg(long, value_name = "HOST:PORT", requires = "jid")]
    server: Option<String>,

    /// Use no TLS at all; only for a --server on this machine
    #[arg(long, requires = "server")]
    plaintext: bool,
}

impl Way {
    /// Refuses an account without a password, before any check runs.
    pub(super) fn validate(&self) -> Result<(), ConfigurationError> {
        if self.jid.is_none() {
            return Ok(());
        }
        // The file takes precedence over the variable.
        let variable = match self.password_file {
            Some(_) => None,
            None => environment(command_line::DISTRIBUTOR_PASSWORD)?.map(Into::into),
        };
        match secret(command_line::DISTRIBUTOR_PASSWORD, variable, self.password_file.as_deref())? {
            Some(_) => Ok(()),
            None => Err(ConfigurationError::new(
                command_line::DISTRIBUTOR_PASSWORD,
                "is not set",
                "set it to the password of the account (--jid), or give --password-file FILE",
            )),
        }
    }

    /// Sends a push, and waits for its arrival.
    pub(super) async fn check(&self, component: &BareJid) -> anyhow::Result<Finding> {
        let Some(jid) = &self.jid else {
            return Ok(Finding::skipped("push", "no account was named to send a push to (--jid)"));
        };
        let mut canary = Command::new(std::env::current_exe()?);
        canary.args(self.arguments(jid, component)).args(["--timeout", "30s"]);
        canary.env_remove("UPWIRE_CANARY_TEXTFILE").env_remove("UPWIRE_METRICS_STACK");
        if let Some(file) = &self.password_file {
            canary.env_remove(command_line::DISTRIBUTOR_PASSWORD).env(PASSWORD_FILE, file);
        }
        let output = canary.kill_on_drop(true).output().await?;
        if output.status.success() {
            return Ok(Finding::ok("push", format!("a push reached {jid}")));
        }
        let what = format!("no push reached {jid}: {}", reason(&String::from_utf8_lossy(&output.stderr)));
        let mend = self.mend(jid, component);
        Ok(Finding::error("push", what, "phones of users may get none either", mend))
    }

    fn arguments(&self, jid: &Jid, component: &BareJid) -> Vec<String> {
        let mut arguments = vec!["canary", "--jid", jid.as_str(), "--push-server", component.as_str()];
        arguments.extend(["--pushes", "1"]);
        arguments.extend(self.server.iter().flat_map(|server| ["--server", server]));
        arguments.extend(self.plaintext.then_some("--plaintext"));
        arguments.into_iter().map(str::to_owned).collect()
    }

    /// Returns the command to type. The canary has no option for the password's file, so a variable names it.
    fn mend(&self, jid: &Jid, component: &BareJid) -> String {
        let file = self.password_file.as_ref().map(|file| format!("{PASSWORD_FILE}={} ", file.display()));
        let (file, arguments) = (file.unwrap_or_default(), self.arguments(jid, component).join(" "));
        format!("see each step: {file}upwire {arguments}")
    }
}

/// Reads from its stderr why a canary has ended. If its error only refers to the distributor, the distributor's error
/// is above it.
fn reason(stderr: &str) -> &str {
    let mut errors = stderr.lines().filter_map(|line| line.strip_prefix(ERROR));
    let first = errors.next();
    let last = errors.next_back().or(first);
    let reason = if last == Some(canary::DISTRIBUTOR_ENDED) { first } else { last };
    let reason = reason.or_else(|| stderr.lines().rev().find(|line| !line.trim().is_empty()));
    // The canary does not have the distributor's option `--direct-tls`.
    let reason =
        reason.map(|reason| reason.split_once("; use --direct-tls").map_or(reason, |(text, _)| text));
    reason.unwrap_or("it did not say why")
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches, Parser};

    use super::*;
    use crate::Upwire;

    fn way(arguments: &[&str]) -> Result<Way, String> {
        let command = Way::augment_args(Command::new("doctor"));
        let matches = command.try_get_matches_from([&["doctor"], arguments].concat());
        let matches = matches.map_err(|error| error.to_string())?;
        Ok(Way::from_arg_matches(&matches).unwrap())
    }

    fn problem(arguments: &[&str]) -> Option<String> {
        way(arguments).and_then(|way| way.validate().map_err(|error| error.to_string())).err()
    }

    #[test]
    fn a_wrong_account_and_a_missing_password_are_refused_before_anything_is_tried() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password").display().to_string();
        let named = ["--jid", "juliet@example.com", "--password-file", &file];
        assert!(problem(&named).unwrap().starts_with("UPWIRE_PASSWORD_FILE: "));
        std::fs::write(&file, "sesame").unwrap();
        assert_eq!(problem(&named), None);
        assert!(problem(&named[..2]).unwrap().contains("--password-file"));
        for jid in ["example.com", "@example.com", "juliet@"] {
            assert!(problem(&["--jid", jid]).unwrap().contains("user@example.com"), "{jid}");
        }
        assert_eq!(problem(&[]), None, "no push is sent");
    }

    #[test]
    fn the_mend_is_a_canary_with_the_same_server() {
        let component = BareJid::new("notify.example.com").unwrap();
        let mend = |arguments: &[&str]| {
            let way = way(arguments).unwrap();
            way.mend(way.jid.as_ref().unwrap(), &component)
        };
        let of_all = mend(&[
            "--jid",
            "juliet@example.com",
            "--password-file",
            "/etc/password",
            "--server",
            "127.0.0.1:5222",
            "--plaintext",
        ]);
        assert_eq!(
            of_all,
            "see each step: UPWIRE_PASSWORD_FILE=/etc/password upwire canary --jid juliet@example.com --push-server \
             notify.example.com --pushes 1 --server 127.0.0.1:5222 --plaintext"
        );
        let (_, command) = of_all.split_once("upwire canary").unwrap();
        Upwire::try_parse_from(["upwire", "canary"].into_iter().chain(command.split_whitespace())).unwrap();
        assert!(!mend(&["--jid", "juliet@example.com"]).contains("--server"));
    }

    #[test]
    fn the_reason_is_what_the_distributor_said() {
        let stderr = |last: &str| {
            format!(
                "upwire: example.com refused the login: wrong password, or no such account; are they right?\n\
                 2026-01-31T00:00:00Z ERROR upwire::canary: the pushes could not be sent error={last}\n\
                 upwire: {last}\n"
            )
        };
        assert!(
            reason(&stderr(canary::DISTRIBUTOR_ENDED)).starts_with("example.com refused the login: wrong")
        );
        assert_eq!(
            reason(&stderr("1 of 1 pushes did not arrive: late")),
            "1 of 1 pushes did not arrive: late"
        );
        assert_eq!(reason("upwire: no endpoint\n"), "no endpoint");
        assert_eq!(reason("upwire: it offers no StartTLS; use --direct-tls, or …"), "it offers no StartTLS");
        assert_eq!(reason("Aborted\n\n"), "Aborted");
        assert_eq!(reason(""), "it did not say why");
    }
}
