//! `upwire usage`: the usage of tenants in a month, for people, for a billing system, and as invoices.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use push::ports::{Mailbox, OperatorStore};
use push::tenant::Month;
use push::usage::{Usage, hour_of};
use push::{Roster, Tenant, TenantName};

use self::prices::Prices;
use self::sums::Sums;
use crate::configuration::ConfigurationError;
use crate::store::{self, StoreOptions, Work};

mod page;
mod prices;
mod sums;
mod text;

/// Show what tenants have used in a month.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Shows what tenants have used in a month, and what that costs by the prices of a file.\n\n\
        Accepted are pushes that were delivered, put into a mailbox, or had expired or ended before; waited are those that \
        were put into a mailbox. A push that waits and is delivered later counts as accepted, waited and delivered. \
        Registrations are the most that lived at one time. Units are those of reads and writes that DynamoDB has billed.",
    after_long_help = store::AFTER_HELP
)]
pub(crate) struct Options {
    /// The month, as in 2026-11, in UTC [default: the present one]
    #[arg(long)]
    month: Option<Month>,

    /// Only this tenant
    #[arg(long, value_name = "DOMAIN")]
    tenant: Option<TenantName>,

    /// A table of tenants; or CSV or JSON, with a line for each tenant, domain and hour. Its id and its counts do not
    /// change when it is given again, but for the hour that is under way
    #[arg(long, default_value = "table")]
    format: Format,

    /// The prices: a file as in docs/hosting.md [default: none]
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,

    /// Also write a page with an invoice and a chart for each tenant, to look at and to print
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    #[command(flatten)]
    store: StoreOptions,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
}

impl Options {
    /// Refuses options that would have no effect.
    fn check(&self, now: DateTime<Utc>) -> Result<(), ConfigurationError> {
        let present = Month::of(now);
        if let Some(month) = self.month.filter(|month| *month > present) {
            let problem = format!("{month} has not begun");
            let mend = format!("name the present month, {present}, or an earlier one");
            return Err(ConfigurationError::new("--month", problem, mend));
        }
        let has_invoices = self.html.is_some() || matches!(self.format, Format::Table);
        if self.prices.is_some() && !has_invoices {
            let problem = "CSV and JSON have no prices";
            let mend = "leave it out, add --html, or ask for --format table";
            return Err(ConfigurationError::new("--prices", problem, mend));
        }
        Ok(())
    }
}

/// Runs the command.
pub(crate) fn run(options: Options) -> anyhow::Result<()> {
    let now = store::now();
    options.check(now)?;
    let Options { month, tenant, format, prices, html, store } = options;
    let prices = prices.map(|file| read_prices(&file)).transpose()?;
    store::run(store, Report { month: month.unwrap_or(Month::of(now)), tenant, format, prices, html })
}

fn read_prices(file: &PathBuf) -> Result<Prices, ConfigurationError> {
    let mend = "write it as in docs/hosting.md";
    let refused = |problem: String| ConfigurationError::new("--prices", problem, mend);
    let text = fs::read_to_string(file).map_err(|error| refused(format!("{}: {error}", file.display())))?;
    Prices::parse(&text).map_err(|error| refused(format!("{}: {error}", file.display())))
}

struct Report {
    month: Month,
    tenant: Option<TenantName>,
    format: Format,
    prices: Option<Prices>,
    html: Option<PathBuf>,
}

impl Report {
    /// Refuses an unknown tenant without usage.
    fn check_tenant(&self, roster: &Roster, usage: &Usage) -> anyhow::Result<()> {
        match &self.tenant {
            Some(name) if !is_known(name, roster, usage) => bail!(
                "{name} is no tenant, and has used nothing in {}; `upwire tenant list` names the tenants",
                self.month
            ),
            _ => Ok(()),
        }
    }

    /// Returns the names with prices of their own that are no tenants, and have no usage.
    fn strangers<'a>(&'a self, roster: &'a Roster, usage: &'a Usage) -> impl Iterator<Item = &'a TenantName> {
        let priced = self.prices.iter().flat_map(Prices::tenants);
        priced.filter(|name| !is_known(name, roster, usage))
    }
}

fn is_known(name: &TenantName, roster: &Roster, usage: &Usage) -> bool {
    roster.tenants.get(name).is_some() || usage.keys().any(|slot| slot.tenant == *name)
}

impl Work for Report {
    async fn on<S: OperatorStore, M: Mailbox>(self, store: S, _: M) -> anyhow::Result<()> {
        let (from, to) = (hour_of(self.month.start()), hour_of(self.month.end()));
        let mut usage: Usage = store.usage(from, to).await?;
        let roster = store.roster().await?;
        self.check_tenant(&roster, &usage)?;
        for name in self.strangers(&roster, &usage) {
            let month = self.month;
            let _ = writeln!(
                io::stderr(),
                "upwire: --prices: {name} is no tenant, and has used nothing in {month}: its prices change nothing; \
                 correct the name, or leave them out if it was removed"
            );
        }
        let is_meant = |name: &TenantName| self.tenant.as_ref().is_none_or(|tenant| tenant == name);
        usage.retain(|slot, _| is_meant(&slot.tenant));
        let began = |tenant: &Tenant| tenant.since < self.month.end();
        let known = roster.tenants.iter().filter(|(name, tenant)| is_meant(name) && began(tenant));
        let sums = Sums::of(self.month, &usage, known.map(|(name, _)| name));
        let mut out = BufWriter::new(io::stdout());
        match self.format {
            Format::Table => text::write_table(&mut out, &sums, self.prices.as_ref())?,
            Format::Csv => text::write_csv(&mut out, &usage)?,
            Format::Json => text::write_json(&mut out, &usage)?,
        }
        out.flush()?;
        if let Some(file) = &self.html {
            let page = page::page(&sums, self.prices.as_ref())?;
            fs::write(file, page).with_context(|| format!("{} cannot be written", file.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use push::usage::{Counts, Slot};

    use super::*;
    use crate::command_line::parse_options;

    fn now() -> DateTime<Utc> {
        "2026-11-10T12:00:00Z".parse().unwrap()
    }

    fn checked(arguments: &str) -> Result<(), String> {
        let arguments = ["usage"].into_iter().chain(arguments.split_whitespace());
        let options: Options = parse_options(arguments).unwrap();
        options.check(now()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_month_that_has_not_begun_is_refused() {
        assert_eq!(checked("--month 2026-11"), Ok(()));
        assert_eq!(checked("--month 2025-12"), Ok(()));
        assert_eq!(
            checked("--month 2026-12").unwrap_err(),
            "--month: 2026-12 has not begun; name the present month, 2026-11, or an earlier one"
        );
        assert!(checked("--month 9999-12").is_err());
    }

    #[test]
    fn prices_are_refused_where_nothing_is_priced() {
        for format in ["csv", "json"] {
            let refused = checked(&format!("--format {format} --prices usage.toml")).unwrap_err();
            assert!(refused.contains("CSV and JSON have no prices; leave it out"), "{refused}");
            assert_eq!(checked(&format!("--format {format} --prices usage.toml --html page.html")), Ok(()));
        }
        assert_eq!(checked("--prices usage.toml"), Ok(()));
    }

    #[test]
    fn a_tenant_is_known_by_the_roster_or_by_its_usage() {
        let names = ["pays.example", "removed.example", "misspelt.example"];
        let mut roster = Roster::default();
        roster.add(names[0].parse().unwrap(), Tenant::new(now())).unwrap();
        let slot =
            |name: &str| Slot { tenant: name.parse().unwrap(), domain: name.into(), hour: hour_of(now()) };
        let usage = Usage::from([(slot(names[1]), Counts::default())]);
        let file: String = names.iter().map(|name| format!("[tenant.\"{name}\"]\nper_gb = 1\n")).collect();
        let report = |tenant: Option<&str>| Report {
            month: Month::of(now()),
            tenant: tenant.map(|name| name.parse().unwrap()),
            format: Format::Table,
            prices: Some(Prices::parse(&format!("currency = \"EUR\"\n{file}")).unwrap()),
            html: None,
        };
        for tenant in [None, Some(names[0]), Some(names[1])] {
            assert!(report(tenant).check_tenant(&roster, &usage).is_ok(), "{tenant:?}");
        }
        let refused = report(Some(names[2])).check_tenant(&roster, &usage).unwrap_err().to_string();
        assert!(refused.starts_with("misspelt.example is no tenant"), "{refused}");
        assert!(refused.contains("`upwire tenant list`"), "{refused}");
        let priced = report(None);
        let strangers: Vec<_> = priced.strangers(&roster, &usage).map(TenantName::as_str).collect();
        assert_eq!(strangers, [names[2]]);
    }
}
