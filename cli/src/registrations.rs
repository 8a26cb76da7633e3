//! `upwire registrations`: lists and ends registrations.

use std::io::{self, BufWriter, Write};

use push::RegistrationId;
use push::ports::{Mailbox, OperatorStore};
use tokio_xmpp::jid::{self, BareJid, DomainPart};

pub(crate) use self::row::write_row;
use self::selection::{Selection, Which};
use crate::store::{self, StoreOptions, Work};

mod end;
mod row;
mod selection;

/// List the registrations that live, or end some.
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
    List(List),
    End(End),
}

/// List the registrations that live, a line for each.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Lists the registrations that live, a line for each, by account: the full JID, the id, since when its \
        endpoint is the same, until when it lives unless it is renewed, and what else is to be said. It reads a page at a \
        time, and may miss what is registered meanwhile.",
    after_long_help = store::AFTER_HELP
)]
struct List {
    /// Lists registrations of this account alone
    #[arg(long, value_name = "JID", conflicts_with = "domain", value_parser = account)]
    account: Option<BareJid>,

    /// Lists registrations of this domain's accounts alone
    #[arg(long, value_name = "DOMAIN", value_parser = domain)]
    domain: Option<String>,

    /// Print a JSON object for each
    #[arg(long)]
    json: bool,
}

/// End registrations: senders are answered 410 from then on, and what waits is removed.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Ends registrations: senders are answered 410 from then on (on AWS, within a second), and what waits for them \
        is removed. What the relay has sent already may still arrive. The application gets a new endpoint when its \
        distributor registers again, which nothing here prevents: UPWIRE_ACL does.",
    group = clap::ArgGroup::new("which").required(true),
    after_long_help = store::AFTER_HELP
)]
struct End {
    /// Endpoints, or ids as `upwire registrations list` prints them
    #[arg(value_name = "ENDPOINT|ID", group = "which", value_parser = selection::one)]
    these: Vec<Which>,

    /// All of this account
    #[arg(long, value_name = "JID", group = "which", value_parser = account)]
    account: Option<BareJid>,

    /// All of the accounts of this domain
    #[arg(long, value_name = "DOMAIN", group = "which", value_parser = domain)]
    domain: Option<String>,

    /// Say which, and end none
    #[arg(long)]
    dry_run: bool,
}

/// Parses a domain into the form that it has in JIDs.
fn domain(text: &str) -> Result<String, String> {
    DomainPart::new(text).map(|domain| domain.as_str().to_owned()).map_err(|error| error.to_string())
}

/// Parses a bare JID with a local part. The JID parser takes a single word for a domain, which has no registrations.
pub(crate) fn account(text: &str) -> Result<BareJid, String> {
    let wrong = |problem: &str| format!("{problem}; write the account as juliet@example.com");
    let jid: BareJid = text.parse().map_err(|error: jid::Error| wrong(&error.to_string()))?;
    if jid.node().is_some() { Ok(jid) } else { Err(wrong("it names no user")) }
}

/// Runs the action.
pub(crate) fn run(Options { action, store }: Options) -> anyhow::Result<()> {
    match action {
        Action::List(list) => store::run(store, list),
        Action::End(end) => store::run(store, end),
    }
}

impl Work for List {
    async fn on<S: OperatorStore, M: Mailbox>(self, store: S, _: M) -> anyhow::Result<()> {
        let mut out = BufWriter::new(io::stdout());
        let mut selection = Selection::new(store, self.account, self.domain, store::now());
        while let Some(rows) = selection.next().await? {
            rows.iter().try_for_each(|row| write_row(&mut out, row, store::now(), self.json))?;
        }
        Ok(out.flush()?)
    }
}

impl Work for End {
    async fn on<S: OperatorStore, M: Mailbox>(self, store: S, mailbox: M) -> anyhow::Result<()> {
        let mut out = BufWriter::new(io::stdout());
        let mut ended = 0_u64;
        let mut end = async |id: RegistrationId, epoch| {
            let waiting = if self.dry_run {
                end::lives(&store, id, epoch, store::now()).await?.then_some(0)
            } else {
                end::end(&store, &mailbox, id, epoch, store::now()).await?
            };
            ended += u64::from(waiting.is_some());
            match waiting {
                None => writeln!(out, "{id} does not live")?,
                Some(_) if self.dry_run => writeln!(out, "{id} would end")?,
                Some(waiting) => writeln!(out, "{id} has ended; {waiting} pushes that waited were removed")?,
            }
            anyhow::Ok(())
        };
        if self.these.is_empty() {
            let mut selection = Selection::new(store.clone(), self.account, self.domain, store::now());
            while let Some(rows) = selection.next().await? {
                for row in rows {
                    end(row.target.registration_id(), Some(row.epoch)).await?;
                }
            }
        } else {
            for Which { id, epoch } in self.these {
                end(id, epoch).await?;
            }
        }
        writeln!(out, "{ended} registrations {}", if self.dry_run { "would end" } else { "have ended" })?;
        Ok(out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_a_local_part() {
        assert_eq!(account("Juliet@example.com").unwrap().as_str(), "juliet@example.com");
        for wrong in ["juliet", "example.com", "", "@example.com", "juliet@example.com/phone"] {
            let refused = account(wrong).unwrap_err();
            assert!(refused.ends_with("write the account as juliet@example.com"), "{wrong}: {refused}");
        }
    }
}
