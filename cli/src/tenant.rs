//! `upwire tenant`: manages the domains that pay, with their quotas and suspensions.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};

use anyhow::bail;
use chrono::{DateTime, SecondsFormat, Utc};
use push::ports::operator::change;
use push::ports::{Mailbox, OperatorStore, TenantsWriter};
use push::tenant::{Month, Quotas, RosterError};
use push::usage::hour_of;
use push::{Roster, Tenant, TenantName};
use serde::Serialize;
use url::Url;

use self::changes::{Changes, has_credentials};
use crate::store::{self, StoreOptions, Work};

mod changes;
pub(crate) mod keeper;
pub(crate) mod quota;
#[cfg(test)]
mod tests;

/// Add, list, change, suspend and remove tenants: domains that pay.
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
    Add(Add),
    List(List),
    Show(Show),
    Set(Set),
    Suspend(Suspend),
    Resume(Resume),
    Remove(Remove),
}

/// Add a tenant: its users may register from then on, whatever the access list says.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Adds a tenant. Its users may register from then on, whether or not UPWIRE_ACL names them, and the bounds of \
        UPWIRE_DOMAIN_… do not hold for it: its own do. Relays and functions learn of it within a minute.",
    after_long_help = store::AFTER_HELP
)]
struct Add {
    /// Its domain, or *.example.com for the subdomains of one
    #[arg(value_name = "DOMAIN")]
    name: TenantName,

    #[command(flatten)]
    changes: Changes,
}

/// Change what a tenant may have; what is not given stays.
#[derive(Debug, clap::Args)]
#[command(after_long_help = store::AFTER_HELP)]
struct Set {
    /// Its domain
    #[arg(value_name = "DOMAIN")]
    name: TenantName,

    #[command(flatten)]
    changes: Changes,
}

/// List the tenants.
#[derive(Debug, clap::Args)]
#[command(after_long_help = store::AFTER_HELP)]
struct List {
    /// A JSON object a line
    #[arg(long)]
    json: bool,
}

/// Show a tenant, and what it used in this month.
#[derive(Debug, clap::Args)]
#[command(after_long_help = store::AFTER_HELP)]
struct Show {
    /// Its domain
    #[arg(value_name = "DOMAIN")]
    name: TenantName,

    /// A JSON object
    #[arg(long)]
    json: bool,
}

/// Suspend a tenant: senders are asked to wait until it is resumed or removed.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Suspends a tenant. Its senders are answered 429, also those of registrations that lapse meanwhile, so \
        that none forgets its endpoint; its users cannot register or renew, and what waits for them stays. It holds \
        whatever UPWIRE_ACL says, until `resume` or `remove`. Relays and functions learn of it within a minute.",
    after_long_help = store::AFTER_HELP
)]
struct Suspend {
    /// Its domain
    #[arg(value_name = "DOMAIN")]
    name: TenantName,
}

/// Serve a suspended tenant again.
#[derive(Debug, clap::Args)]
#[command(after_long_help = store::AFTER_HELP)]
struct Resume {
    /// Its domain
    #[arg(value_name = "DOMAIN")]
    name: TenantName,
}

/// Remove a tenant: what UPWIRE_ACL says holds for its users from then on.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Removes a tenant. What UPWIRE_ACL says holds for its users from then on: if that does not name them, they \
        get nothing more, and their registrations lapse. What it has used stays, for its last bill.",
    after_long_help = store::AFTER_HELP
)]
struct Remove {
    /// Its domain
    #[arg(value_name = "DOMAIN")]
    name: TenantName,
}

/// Runs the action.
pub(crate) fn run(Options { action, store }: Options) -> anyhow::Result<()> {
    match action {
        Action::Add(add) => {
            add.changes.check()?;
            store::run(store, add)
        }
        Action::List(list) => store::run(store, list),
        Action::Show(show) => store::run(store, show),
        Action::Set(set) => {
            set.changes.check()?;
            store::run(store, set)
        }
        Action::Suspend(suspend) => store::run(store, suspend),
        Action::Resume(resume) => store::run(store, resume),
        Action::Remove(remove) => store::run(store, remove),
    }
}

/// Changes the roster, and prints `done`.
async fn edit<S: TenantsWriter>(
    store: &S,
    done: &str,
    edit: impl Fn(&mut Roster) -> Result<(), RosterError>,
) -> anyhow::Result<()> {
    change(store, edit).await??;
    writeln!(io::stdout(), "{done}; relays and functions learn of it within a minute")?;
    Ok(())
}

impl Work for Add {
    async fn on<S: OperatorStore, M: Mailbox>(self, store: S, _: M) -> anyhow::Result<()> {
        let mut tenant = Tenant::new(store::now());
        self.changes.put_into(&mut tenant);
        let done = format!("{} is a tenant", self.name);
        edit(&store, &done, |roster| roster.add(self.name.clone(), tenant.clone())).await
    }
}

impl Work for Set {
    async fn on<S: OperatorStore, M: Mailbox>(self, store: S, _: M) -> anyhow::Result<()> {
        if self.changes.is_empty() {
            bail!("nothing is given that would change: see `upwire tenant set --help`");
        }
        let done = format!("{} is changed", self.name);
        edit(&store, &done, |roster| roster.get_mut(&self.name).map(|tenant| self.changes.put_into(tenant)))
            .await
    }
}

impl Work for Suspend {
    async fn on<S: OperatorStore, M: Mailbox>(self, store: S, _: M) -> anyhow::Result<()> {
        let now = store::now();
        let suspend = |tenant: &mut Tenant| tenant.suspended_since = tenant.suspended_since.or(Some(now));
        let done = format!("{} is suspended", self.name);
        edit(&store, &done, |roster| roster.get_mut(&self.name).map(suspend)).await
    }
}

impl Work for Resume {
    async fn on<S: OperatorStore, M: Mailbox>(self, store: S, _: M) -> anyhow::Result<()> {
        let done = format!("{} is served", self.name);
        edit(&store, &done, |roster| roster.get_mut(&self.name).map(|tenant| tenant.suspended_since = None))
            .await
    }
}

impl Work for Remove {
    async fn on<S: OperatorStore, M: Mailbox>(self, store: S, _: M) -> anyhow::Result<()> {
        let done = format!("{} is no tenant any more", self.name);
        edit(&store, &done, |roster| roster.remove(&self.name).map(drop)).await
    }
}

/// A tenant, as it is printed.
#[derive(Serialize)]
struct Shown<'a> {
    tenant: &'a TenantName,
    since: String,
    suspended_since: Option<String>,
    #[serde(flatten)]
    quotas: &'a Quotas,
    used_up: Option<Month>,
    webhook: Option<Cow<'a, str>>,
    note: Option<&'a str>,
    /// Pushes accepted in this month. Not in lists, since it needs a read of the whole month.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted_this_month: Option<u64>,
}

impl<'a> Shown<'a> {
    fn of(name: &'a TenantName, tenant: &'a Tenant) -> Self {
        Self {
            tenant: name,
            since: second(tenant.since),
            suspended_since: tenant.suspended_since.map(second),
            quotas: &tenant.quotas,
            used_up: tenant.used_up,
            webhook: tenant.webhook.as_deref().map(without_credentials),
            note: tenant.note.as_deref(),
            accepted_this_month: None,
        }
    }

    fn write(&self, out: &mut impl Write, json: bool, now: DateTime<Utc>) -> io::Result<()> {
        if json {
            serde_json::to_writer(&mut *out, self)?;
            return writeln!(out);
        }
        write!(out, "{}  since {}", self.tenant, self.since)?;
        if let Some(since) = &self.suspended_since {
            write!(out, "  suspended since {since}")?;
        }
        if self.used_up == Some(Month::of(now)) {
            write!(out, "  has used this month up")?;
        }
        let Quotas { registrations, pushes_per_month, rate } = self.quotas;
        match registrations {
            Some(1) => write!(out, "  1 registration")?,
            Some(limit) => write!(out, "  {limit} registrations")?,
            None => {}
        }
        match pushes_per_month {
            Some(1) => write!(out, "  1 push a month")?,
            Some(limit) => write!(out, "  {limit} pushes a month")?,
            None => {}
        }
        if let Some(rate) = rate {
            write!(out, "  {rate} pushes a second")?;
        }
        if let Some(accepted) = self.accepted_this_month {
            write!(out, "  {accepted} accepted in this month")?;
        }
        for text in [self.webhook.as_deref(), self.note].into_iter().flatten() {
            write!(out, "  {}", printable(text))?;
        }
        writeln!(out)
    }
}

/// Escapes control characters, which a text from an earlier version may have.
fn printable(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// Removes credentials, which a webhook from an earlier version may have.
fn without_credentials(webhook: &str) -> Cow<'_, str> {
    match Url::parse(webhook) {
        Ok(mut url) if has_credentials(&url) => {
            // Neither call fails for a URL that has credentials.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            Cow::Owned(url.into())
        }
        _ => Cow::Borrowed(webhook),
    }
}

fn second(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}

impl Work for List {
    async fn on<S: OperatorStore, M: Mailbox>(self, store: S, _: M) -> anyhow::Result<()> {
        let mut out = BufWriter::new(io::stdout());
        let (roster, now) = (store.roster().await?, store::now());
        for (name, tenant) in roster.tenants.iter() {
            Shown::of(name, tenant).write(&mut out, self.json, now)?;
        }
        Ok(out.flush()?)
    }
}

impl Work for Show {
    async fn on<S: OperatorStore, M: Mailbox>(self, store: S, _: M) -> anyhow::Result<()> {
        let (roster, now) = (store.roster().await?, store::now());
        let Some(tenant) = roster.tenants.get(&self.name) else {
            bail!("{} is no tenant; `upwire tenant list` names the tenants", self.name);
        };
        let month = Month::of(now);
        let usage = store.usage(hour_of(month.start()), hour_of(month.end())).await?;
        let of_it = usage.iter().filter(|(slot, _)| slot.tenant == self.name);
        let accepted = of_it.map(|(_, counts)| counts.accepted).sum();
        let shown = Shown { accepted_this_month: Some(accepted), ..Shown::of(&self.name, tenant) };
        Ok(shown.write(&mut io::stdout(), self.json, now)?)
    }
}
