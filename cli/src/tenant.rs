//! `upwire tenant`: the domains that pay, what each may have, and whether it is served.

use std::io::{self, BufWriter, Write};

use anyhow::bail;
use chrono::{DateTime, SecondsFormat, Utc};
use push::ports::operator::change;
use push::ports::{Mailbox, OperatorStore, TenantsWriter};
use push::tenant::{Month, Quotas, RosterError, TEXT_BYTES_MAX};
use push::usage::hour_of;
use push::{Rate, Roster, Tenant, TenantName};
use serde::Serialize;
use url::Url;

use crate::store::{self, StoreOptions, Work};

pub(crate) mod keeper;
pub(crate) mod quota;

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

#[derive(Debug, Clone, clap::Args)]
struct Changes {
    /// Most registrations; beyond it new ones are refused, and those that live go on; or none
    #[arg(long, value_name = "REGISTRATIONS", value_parser = limit::<u64>)]
    registrations: Option<Change<u64>>,

    /// Most pushes in a calendar month, in UTC; beyond it senders are asked to wait; or none
    #[arg(long, value_name = "PUSHES", value_parser = limit::<u64>)]
    pushes_per_month: Option<Change<u64>>,

    /// How fast its senders may push, all together: so many at once, a slash, and so many per second after that; or
    /// none
    #[arg(long, value_name = "BURST/PER_SECOND", value_parser = limit::<Rate>)]
    rate: Option<Change<Rate>>,

    /// An http or https URL that is POSTed to when 80 or 100 percent of a quota are used; or none
    #[arg(long, value_name = "URL", value_parser = webhook)]
    webhook: Option<Change<String>>,

    /// Anything that you want to remember; or none
    #[arg(long, value_name = "TEXT", value_parser = note)]
    note: Option<Change<String>>,
}

/// The change that an option makes.
#[derive(Debug, Clone)]
enum Change<T> {
    Lift,
    To(T),
}

fn limit<T: std::str::FromStr>(text: &str) -> Result<Change<T>, T::Err> {
    if text == "none" { Ok(Change::Lift) } else { text.parse().map(Change::To) }
}

fn webhook(text: &str) -> Result<Change<String>, String> {
    if text == "none" {
        return Ok(Change::Lift);
    }
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("it is no http or https URL".into());
    }
    note(text)
}

fn note(text: &str) -> Result<Change<String>, String> {
    match text {
        "none" => Ok(Change::Lift),
        text if text.len() <= TEXT_BYTES_MAX => Ok(Change::To(text.to_owned())),
        _ => Err(format!("it has more than {TEXT_BYTES_MAX} bytes")),
    }
}

impl Changes {
    fn put_into(&self, tenant: &mut Tenant) {
        fn set<T: Clone>(place: &mut Option<T>, change: Option<&Change<T>>) {
            match change {
                None => {}
                Some(Change::Lift) => *place = None,
                Some(Change::To(value)) => *place = Some(value.clone()),
            }
        }
        let before = tenant.quotas.pushes_per_month;
        set(&mut tenant.quotas.registrations, self.registrations.as_ref());
        set(&mut tenant.quotas.pushes_per_month, self.pushes_per_month.as_ref());
        set(&mut tenant.quotas.rate, self.rate.as_ref());
        set(&mut tenant.webhook, self.webhook.as_ref());
        set(&mut tenant.note, self.note.as_ref());
        if tenant.quotas.pushes_per_month != before {
            // The relay decides anew.
            (tenant.used_up, tenant.told) = (None, None);
        }
    }
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

/// Does what is asked for.
pub(crate) fn run(Options { action, store }: Options) -> anyhow::Result<()> {
    match action {
        Action::Add(add) => store::run(store, add),
        Action::List(list) => store::run(store, list),
        Action::Show(show) => store::run(store, show),
        Action::Set(set) => store::run(store, set),
        Action::Suspend(suspend) => store::run(store, suspend),
        Action::Resume(resume) => store::run(store, resume),
        Action::Remove(remove) => store::run(store, remove),
    }
}

/// Changes the roster, and says what was done.
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
        let Changes { registrations, pushes_per_month, rate, webhook, note } = &self.changes;
        if registrations.is_none()
            && pushes_per_month.is_none()
            && rate.is_none()
            && webhook.is_none()
            && note.is_none()
        {
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

/// A tenant as it is shown.
#[derive(Serialize)]
struct Shown<'a> {
    tenant: &'a TenantName,
    since: String,
    suspended_since: Option<String>,
    #[serde(flatten)]
    quotas: &'a Quotas,
    used_up: Option<Month>,
    webhook: Option<&'a str>,
    note: Option<&'a str>,
    /// Left out of lists: it takes a reading of the month.
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
            webhook: tenant.webhook.as_deref(),
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
        for (limit, unit) in [(registrations, "registrations"), (pushes_per_month, "pushes a month")] {
            if let Some(limit) = limit {
                write!(out, "  {limit} {unit}")?;
            }
        }
        if let Some(rate) = rate {
            write!(out, "  {rate} pushes a second")?;
        }
        if let Some(accepted) = self.accepted_this_month {
            write!(out, "  {accepted} accepted in this month")?;
        }
        for text in [self.webhook, self.note].into_iter().flatten() {
            write!(out, "  {text}")?;
        }
        writeln!(out)
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
            bail!("{} is no tenant", self.name);
        };
        let month = Month::of(now);
        let usage = store.usage(hour_of(month.start()), hour_of(month.end())).await?;
        let of_it = usage.iter().filter(|(slot, _)| slot.tenant == self.name);
        let accepted = of_it.map(|(_, counts)| counts.accepted).sum();
        let shown = Shown { accepted_this_month: Some(accepted), ..Shown::of(&self.name, tenant) };
        Ok(shown.write(&mut io::stdout(), self.json, now)?)
    }
}
