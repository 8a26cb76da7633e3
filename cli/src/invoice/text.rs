//! Usage as text: a table of tenants, or one line for each tenant, domain and hour.

use std::io::{self, Write};

use chrono::{DateTime, SecondsFormat};
use push::usage::{Counts, Hour, Slot, Usage};
use serde::Serialize;

use super::prices::{Prices, total};
use super::sums::Sums;

/// The columns of counts.
const COLUMNS: [&str; 9] = [
    "accepted",
    "delivered",
    "waited",
    "expired",
    "dropped",
    "bytes",
    "registrations",
    "read_units",
    "write_units",
];

fn columns(counts: &Counts) -> [f64; 9] {
    [
        counts.accepted as f64,
        counts.delivered as f64,
        counts.waited as f64,
        counts.expired as f64,
        counts.dropped as f64,
        counts.bytes as f64,
        counts.registrations as f64,
        counts.read_units.into(),
        counts.write_units.into(),
    ]
}

pub(super) fn write_table(out: &mut impl Write, sums: &Sums, prices: Option<&Prices>) -> io::Result<()> {
    let width = sums.tenants.keys().map(|name| name.as_str().len()).max().unwrap_or(0).max("tenant".len());
    write!(out, "{:width$}", "tenant")?;
    COLUMNS.iter().try_for_each(|column| write!(out, "  {column:>13}"))?;
    if let Some(prices) = prices {
        write!(out, "  {:>13}", prices.currency())?;
    }
    writeln!(out)?;
    for (name, sum) in &sums.tenants {
        write!(out, "{:width$}", name.as_str())?;
        columns(&sum.all).iter().try_for_each(|count| write!(out, "  {count:>13}"))?;
        if let Some(prices) = prices {
            write!(out, "  {:>13.2}", total(&prices.lines(name, sum.all)))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Returns the unique id of a line, which is the same in each run.
fn id(slot: &Slot) -> String {
    format!("{}/{}/{}", slot.tenant, slot.domain, moment(slot.hour))
}

fn moment(hour: Hour) -> String {
    let moment = DateTime::from_timestamp(hour * 3600, 0).unwrap_or(DateTime::UNIX_EPOCH);
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Writes one line for each slot. Fields need no quotes: names of tenants, domains and numbers have no comma.
pub(super) fn write_csv(out: &mut impl Write, usage: &Usage) -> io::Result<()> {
    writeln!(out, "id,tenant,domain,hour,{}", COLUMNS.join(","))?;
    for (slot, counts) in usage {
        let counts = columns(counts).map(|count| count.to_string()).join(",");
        writeln!(out, "{},{},{},{},{counts}", id(slot), slot.tenant, slot.domain, moment(slot.hour))?;
    }
    Ok(())
}

pub(super) fn write_json(out: &mut impl Write, usage: &Usage) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        id: String,
        tenant: &'a str,
        domain: &'a str,
        hour: String,
        #[serde(flatten)]
        counts: &'a Counts,
    }
    for (slot, counts) in usage {
        let (tenant, domain) = (slot.tenant.as_str(), &*slot.domain);
        let line = Line { id: id(slot), tenant, domain, hour: moment(slot.hour), counts };
        serde_json::to_writer(&mut *out, &line)?;
        writeln!(out)?;
    }
    Ok(())
}
