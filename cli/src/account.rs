//! `upwire account`: what is kept of a person, and its erasure.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use push::ports::operator::Erasure;
use push::ports::{Accounts, Mailbox, Registrations};
use push::{MessageId, RegistrationId};
use tokio_xmpp::jid::BareJid;

use crate::registrations::write_row;
use crate::store::{self, StoreOptions, Work};

/// Pushes that are in memory at a time.
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
    #[arg(value_name = "JID")]
    jid: BareJid,
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
    #[arg(value_name = "JID")]
    jid: BareJid,
}

/// Does what is asked for.
pub(crate) fn run(Options { action, store }: Options) -> anyhow::Result<()> {
    match action {
        Action::Show(show) => store::run(store, show),
        Action::Forget(forget) => store::run(store, forget),
    }
}

impl Work for Show {
    async fn on<S: Registrations + Accounts + Erasure, M: Mailbox>(
        self,
        store: S,
        mailbox: M,
    ) -> anyhow::Result<()> {
        let mut out = BufWriter::new(io::stdout());
        let now = store::now();
        let account = store.account(&self.jid, now).await?;
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

/// How many pushes wait for each registration of an account.
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

const REMAINS: &str = "\
What may remain, and is not reached from here:
  what is on its way: pushes that the relay or the queue (SQS) has go out once more, or end within their TTL at the latest
  the memory of a running relay: full JIDs that it saw, until it restarts
  dead letters (SQS) until they are removed, 14 days at most
  backups: `upwire backup`, databases that `upwire restore` set aside, DynamoDB's point-in-time recovery (35 days)
  logs: they have no addresses and no endpoints, unless UPWIRE_LOG=trace was set";

impl Work for Forget {
    async fn on<S: Registrations + Accounts + Erasure, M: Mailbox>(
        self,
        store: S,
        mailbox: M,
    ) -> anyhow::Result<()> {
        // First: from then on, nothing more is put into the mailbox.
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
        writeln!(
            io::stdout(),
            "erased: {registrations} registrations, {pushes} pushes that waited\n{REMAINS}"
        )?;
        Ok(())
    }
}
