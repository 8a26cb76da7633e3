//! The plan: the rows to measure, and their sizes.

use std::{fmt, path::PathBuf};

use anyhow::{Context, bail, ensure};
use e2e::Kind;

/// Phones that come back at once, and the number of pushes that wait for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) phones: usize,
    pub(crate) pushes_each: usize,
}

impl Case {
    pub(crate) const fn pushes(self) -> usize {
        self.phones * self.pushes_each
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.phones {
            1 => write!(f, "1 phone, {} pushes", self.pushes_each),
            phones => write!(f, "{phones} phones, {} pushes each", self.pushes_each),
        }
    }
}

/// The sizes of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) cases: &'static [Case],
    /// Number of measurements of each case. The report has their median.
    pub(crate) rounds: usize,
    /// Registrations for which pushes wait while others are served, and the number of pushes for each.
    pub(crate) crowd: Case,
    /// Number of these registrations that are tried before anything else is measured.
    pub(crate) tried: usize,
    /// Number of pushes to a phone that is online meanwhile.
    pub(crate) fresh: usize,
    /// Number of bursts of presences of a phone whose account has much waiting for another.
    pub(crate) bursts: usize,
    /// True for a run that only shows that everything works.
    pub(crate) quick: bool,
    /// A binary to measure beside this one's, in the drains alone.
    pub(crate) base: Option<PathBuf>,
    /// Text that the title of a measurement has to contain; all others are left out.
    only: Option<String>,
}

const FULL: Plan = Plan {
    cases: &[Case { phones: 1, pushes_each: 1000 }, Case { phones: 1000, pushes_each: 10 }],
    rounds: 3,
    crowd: Case { phones: 100_000, pushes_each: 10 },
    tried: 3000,
    fresh: 1000,
    bursts: 20,
    quick: false,
    base: None,
    only: None,
};

const QUICK: Plan = Plan {
    cases: &[Case { phones: 1, pushes_each: 100 }, Case { phones: 50, pushes_each: 10 }],
    rounds: 1,
    crowd: Case { phones: 1000, pushes_each: 10 },
    tried: 100,
    fresh: 100,
    bursts: 2,
    quick: true,
    base: None,
    only: None,
};

const USAGE: &str =
    "cargo bench -p e2e --bench bench-mailbox -- [--quick] [--base BINARY] [--rounds NUMBER] [--only TEXT]";

impl Plan {
    /// Reads the command line; `cargo bench` adds `--bench` to it.
    pub(crate) fn read(arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let arguments: Vec<String> = arguments.filter(|argument| argument != "--bench").collect();
        let mut plan = if arguments.iter().any(|argument| argument == "--quick") { QUICK } else { FULL };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => {}
                "--base" => plan.base = Some(arguments.next().context(USAGE)?.into()),
                "--only" => plan.only = Some(arguments.next().context(USAGE)?),
                "--rounds" => {
                    plan.rounds = arguments.next().context(USAGE)?.parse().context(USAGE)?;
                    ensure!(plan.rounds > 0, USAGE);
                }
                _ => bail!("{argument}? {USAGE}"),
            }
        }
        Ok(plan)
    }

    /// Returns whether the measurement with this title is made through this server.
    pub(crate) fn includes(&self, kind: Kind, title: &str) -> bool {
        self.only.as_ref().is_none_or(|only| format!("{kind:?}, {title}").contains(only))
    }
}
