//! `upwire usage`: what tenants have used in a month, for people, for a billing system, and as invoices.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context;
use push::ports::{Mailbox, OperatorStore};
use push::tenant::Month;
use push::usage::{Usage, hour_of};
use push::{Tenant, TenantName};

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

/// Does what is asked for.
pub(crate) fn run(options: Options) -> anyhow::Result<()> {
    let Options { month, tenant, format, prices, html, store } = options;
    let prices = prices.map(|file| read_prices(&file)).transpose()?;
    store::run(
        store,
        Report { month: month.unwrap_or(Month::of(store::now())), tenant, format, prices, html },
    )
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

impl Work for Report {
    async fn on<S: OperatorStore, M: Mailbox>(self, store: S, _: M) -> anyhow::Result<()> {
        let (from, to) = (hour_of(self.month.start()), hour_of(self.month.end()));
        let mut usage: Usage = store.usage(from, to).await?;
        let is_meant = |name: &TenantName| self.tenant.as_ref().is_none_or(|tenant| tenant == name);
        usage.retain(|slot, _| is_meant(&slot.tenant));
        let roster = store.roster().await?;
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
