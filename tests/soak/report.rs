//! The report for a person, and the check that nothing was lost and nothing has grown.

use std::fmt;
use std::time::Duration;

use anyhow::ensure;
use e2e::{Kind, machine};

use crate::watch::{QUARTERS, Quarter};

/// Greatest growth from the second quarter to the last: of memory, of the p99, of the file.
const MEMORY_GROWTH_MAX: f64 = 1.05;
const P99_GROWTH_MAX: f64 = 1.5;
const FILE_GROWTH_MAX: f64 = 1.05;
/// Size in MiB below which a file does not count as grown: a page more or less is no growth.
const FILE_MIB_MIN: f64 = 1.0;

pub(crate) struct Report {
    pub(crate) kind: Kind,
    pub(crate) length: Duration,
    pub(crate) rate: f64,
    pub(crate) pushes: usize,
    pub(crate) errors: u64,
    /// The first error.
    pub(crate) complaint: Option<String>,
    /// Number of lives of registrations that came and ended.
    pub(crate) lives: usize,
    pub(crate) lost: usize,
    pub(crate) quarters: [Quarter; QUARTERS],
}

struct Aim {
    what: &'static str,
    growth: f64,
    at_most: f64,
}

impl Report {
    fn aims(&self) -> [Aim; 3] {
        let [_, second, _, last] = &self.quarters;
        let growth = |value: fn(&Quarter) -> f64| value(last) / value(second);
        let file = |quarter: &Quarter| quarter.file_mib.max(FILE_MIB_MIN);
        [
            Aim { what: "memory", growth: growth(|it| it.memory_mib), at_most: MEMORY_GROWTH_MAX },
            Aim { what: "p99", growth: growth(|it| it.p99.as_secs_f64()), at_most: P99_GROWTH_MAX },
            Aim { what: "file", growth: growth(file), at_most: FILE_GROWTH_MAX },
        ]
    }

    /// Checks that nothing was lost and nothing has grown.
    ///
    /// # Errors
    /// Something was lost, or has grown.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(self.lost == 0, "lost {} pushes", self.lost);
        for Aim { what, growth, at_most } in self.aims() {
            ensure!(growth <= at_most, "{what} has grown from the second quarter to the last by {growth:.2}");
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, rate, pushes, errors, lives, lost, .. } = self;
        let minutes = self.length.as_secs_f64() / 60.0;
        writeln!(f, "# Upwire's soak\n\n{}.\n", machine::describe())?;
        writeln!(
            f,
            "{minutes:.0} minutes through {kind:?}, {rate:.0} pushes a second to phones that stay. {pushes} pushes, {lives} lives \
             of registrations, {errors} requests refused, **{lost} lost**.\n"
        )?;
        if let Some(complaint) = &self.complaint {
            writeln!(f, "The first that was refused: {complaint}.\n")?;
        }
        writeln!(
            f,
            "| quarter | memory MiB | to client p50 ms | p99 | file and log MiB | CPU µs per push | arrived/s |"
        )?;
        writeln!(f, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        for (quarter, number) in self.quarters.iter().zip(1..) {
            let Quarter { memory_mib, p50, p99, file_mib, cpu_micros, per_second } = quarter;
            let [p50, p99] = [p50, p99].map(|time| time.as_secs_f64() * 1e3);
            writeln!(
                f,
                "| {number} | {memory_mib:.1} | {p50:.2} | {p99:.2} | {file_mib:.1} | {cpu_micros:.0} | {per_second:.0} |"
            )?;
        }
        writeln!(f, "\n| last quarter / second | at most | measured | |\n| --- | ---: | ---: | --- |")?;
        for Aim { what, growth, at_most } in self.aims() {
            let verdict = if growth <= at_most { "met" } else { "**missed**" };
            writeln!(f, "| {what} | {at_most:.2} | {growth:.2} | {verdict} |")?;
        }
        Ok(())
    }
}
