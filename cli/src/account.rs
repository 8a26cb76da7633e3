//! `upwire account`: shows and erases the data of a person.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use push::ports::{self, Mailbox, OperatorStore};
use push::{MessageId, RegistrationId};
use serde_json::{Value, json};
use tokio_xmpp::jid::BareJid;

use crate::registrations::{self, write_row};
use crate::store::{self, StoreOptions, Work};
use crate::{fetch, trail, values};

/// Most pushes that are in memory at a time.
const PAGE: usize = 100;

/// Show what is kept of an account, or erase it.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = store::AFTER_HELP)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,

    #[command(flatten)]
    store: StoreOptions,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Show(Show),
    Forget(Forget),
}

/// Show what is kept of an account.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Shows what is kept of an account: its registrations that live, its phones that were seen lately, and how many \
        pushes wait for it.",
    after_long_help = store::AFTER_HELP
)]
struct Show {
    /// The account
    #[arg(value_name = "JID", value_parser = registrations::account)]
    jid: BareJid,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Erase what is kept of an account.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Erases what is kept of an account: its registrations, the pushes that wait for it, and its phones that were \
        seen. Senders are answered 410. Of each registration a hash and a second stay for a day, without a name, so \
        that no URL comes back that was refused. It prints what this command cannot reach. Nothing prevents the phone \
        from registering again: UPWIRE_ACL does.",
    after_long_help = store::AFTER_HELP
)]
struct Forget {
    /// The account
    #[arg(value_name = "JID", value_parser = registrations::account)]
    jid: BareJid,

    /// The administration address of the running process, which forgets the account, too
    #[arg(long, value_name = "ADDRESS:PORT", env = "UPWIRE_ADMIN_LISTEN", default_value = values::ADMIN_LISTEN,
        value_parser = values::listen_address)]
    admin_listen: SocketAddr,
}

/// Runs the action.
pub(crate) fn run(Options { action, store }: Options) -> anyhow::Result<()> {
    match action {
        Action::Show(show) => store::run(store, show),
        Action::Forget(forget) => store::run(store, forget),
    }
}

impl Work for Show {
    async fn on<S: OperatorStore, M: Mailbox>(self, store: S, mailbox: M) -> anyhow::Result<()> {
        let mut out = BufWriter::new(io::stdout());
        let now = store::now();
        let account = store.account(&self.jid, now).await?;
        if self.json {
            let waiting = waiting(&mailbox, &self.jid).await?;
            return Ok(write_json(&mut out, &account, &waiting, now)?);
        }
        writeln!(out, "{} registrations:", account.registrations.len())?;
        account.registrations.iter().try_for_each(|row| write_row(&mut out, row, now, false))?;
        writeln!(out, "{} phones seen lately:", account.seen.len())?;
        for seen in &account.seen {
            let ended = if seen.ended { ", its session has ended since" } else { "" };
            writeln!(out, "{}  seen {}{ended}", seen.jid, seen.seen_at.format("%FT%TZ"))?;
        }
        let waiting = waiting(&mailbox, &self.jid).await?;
        writeln!(out, "{} pushes wait", waiting.values().sum::<usize>())?;
        for (registration, count) in waiting {
            writeln!(out, "{count} for {registration}")?;
        }
        Ok(out.flush()?)
    }
}

/// Writes the account as one JSON object.
fn write_json(
    out: &mut impl Write,
    account: &ports::Account,
    waiting: &BTreeMap<RegistrationId, usize>,
    now: DateTime<Utc>,
) -> io::Result<()> {
    let rows = account.registrations.iter().map(|row| {
        let mut line = Vec::new();
        write_row(&mut line, row, now, true)?;
        Ok(serde_json::from_slice(&line)?)
    });
    let rows: Vec<Value> = rows.collect::<io::Result<_>>()?;
    let phones = account.seen.iter().map(
        |seen| json!({ "jid": seen.jid.as_str(), "seen_at": seen.seen_at, "session_has_ended": seen.ended }),
    );
    let waiting: BTreeMap<String, usize> =
        waiting.iter().map(|(registration, count)| (registration.to_string(), *count)).collect();
    let shown = json!({ "registrations": rows, "phones": phones.collect::<Vec<_>>(), "waiting": waiting });
    writeln!(out, "{shown}")?;
    out.flush()
}

/// Counts the pushes that wait for each registration of an account.
async fn waiting<M: Mailbox>(
    mailbox: &M,
    account: &BareJid,
) -> anyhow::Result<BTreeMap<RegistrationId, usize>> {
    let mut counts = BTreeMap::new();
    let mut after: Option<MessageId> = None;
    loop {
        let page = mailbox.waiting(account, None, after, PAGE).await?;
        for waiting in &page {
            *counts.entry(waiting.message.registration).or_default() += 1;
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.message.id),
            _ => return Ok(counts),
        }
    }
}

impl Forget {
    /// Tells the running process to drop the account's data from memory. Returns the outcome in words.
    async fn tell_the_process(&self) -> String {
        let account = self.jid.to_string();
        let forget = serde_json::to_string(&trail::Forget { account }).unwrap_or_default();
        match fetch::post_admin(self.admin_listen, trail::FORGET_PATH, forget).await {
            Ok(answer) if matches!(answer.status, 202 | 204) => {
                "the running process was told, and drops what it holds of the account".into()
            }
            Ok(answer) => format!(
                "{} answered {}: a running process holds full JIDs that it saw until it restarts",
                self.admin_listen, answer.status
            ),
            Err(error) => {
                format!("{error:#}: where a process runs, it holds full JIDs that it saw until it restarts")
            }
        }
    }
}

const REMAINS: &str = "\
What may remain, and is not reached from here:
  what is on its way: pushes that the relay or the queue (SQS) has go out once more, or end within their TTL at the latest
  dead letters (SQS) until they are removed, 14 days at most
  backups: `upwire backup`, databases that `upwire restore` set aside, DynamoDB's point-in-time recovery (35 days)
  logs: they have no addresses and no endpoints, unless UPWIRE_LOG=trace was set";

impl Work for Forget {
    async fn on<S: OperatorStore, M: Mailbox>(self, store: S, mailbox: M) -> anyhow::Result<()> {
        // The registrations go first, so that no further push is put into the mailbox.
        let registrations = store.forget(&self.jid, store::now()).await?;
        let mut pushes = 0;
        loop {
            let page = mailbox.waiting(&self.jid, None, None, PAGE).await?;
            pushes += page.len();
            let is_last = page.len() < PAGE;
            mailbox.remove(page.iter().map(|push| (self.jid.clone(), push.message.id)).collect()).await?;
            if is_last {
                break;
            }
        }
        let memory = self.tell_the_process().await;
        writeln!(
            io::stdout(),
            "erased: {registrations} registrations, {pushes} pushes that waited\n{memory}\n{REMAINS}"
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_line::parse_options;

    #[test]
    fn an_address_without_a_local_part_is_neither_shown_nor_forgotten() {
        for action in ["show", "forget"] {
            let parsed = |jid: &str| parse_options::<Options>(["account", action, jid]);
            assert!(parsed("juliet@example.com").is_ok());
            let refused = parsed("juliet").unwrap_err().to_string();
            assert!(refused.contains("it names no user; write the account as"), "{refused}");
        }
    }
}
