//! The plan of a run: contestants and rows, their times, and their order.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

/// One set-up of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Load {
    /// This number of senders, each with one request under way. The next request follows the answer.
    Answered(usize),
    /// The same senders, but the next request also waits for the arrival at the phone. Nothing piles up, as with a push
    /// server that answers only after delivery.
    Arrived(usize),
    /// A rate of pushes, as a part of what the XMPP server carries at most, whatever happens to earlier pushes.
    OfCeiling(Part),
    /// No push server: a bare component with this number of pushes unanswered.
    Bare(usize),
}

/// A part of a whole, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Part(u8);

impl Part {
    /// A half.
    pub(crate) const HALF: Self = Self(50);

    /// Returns the part in percent.
    pub(crate) fn percent(self) -> u8 {
        self.0
    }

    /// Returns that part of `whole`.
    pub(crate) fn of(self, whole: f64) -> f64 {
        whole * f64::from(self.0) / 100.0
    }
}

/// The sizes and times of a run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Number of measurements of each case. The report has their median.
    pub(crate) rounds: usize,
    /// Time for which the load runs before anything counts.
    pub(crate) warm_up: Duration,
    /// Time for which the load is measured.
    pub(crate) window: Duration,
    /// Numbers of senders.
    pub(crate) senders: &'static [usize],
    /// Bounds on the unanswered pushes of a bare component.
    pub(crate) bounds: &'static [usize],
    /// Number of registrations that are made at a time, and renewed.
    pub(crate) registrations: usize,
    /// Registrations in the database whose memory is measured; `None`: it is not measured.
    pub(crate) crowd: Option<usize>,
    /// Most time for repeating disturbed runs.
    pub(crate) repeats: Duration,
    /// True for a run that only shows that everything works.
    pub(crate) quick: bool,
    /// Text that the title of a contestant has to contain; all others are left out.
    pub(crate) only: Option<String>,
    /// The binary of another commit, which runs in turn with this one's. Prosody's own push server takes no part then.
    pub(crate) base: Option<PathBuf>,
}

const FULL: Plan = Plan {
    rounds: 3,
    warm_up: Duration::from_millis(500),
    window: Duration::from_secs(2),
    senders: &[1, 16, 64],
    bounds: &[1, 32, 128, 512],
    registrations: 2000,
    crowd: Some(100_000),
    repeats: Duration::from_secs(90),
    quick: false,
    only: None,
    base: None,
};

const QUICK: Plan = Plan {
    rounds: 1,
    warm_up: Duration::from_millis(100),
    window: Duration::from_millis(300),
    senders: &[1, 16],
    bounds: &[32],
    registrations: 100,
    crowd: Some(1000),
    repeats: Duration::ZERO,
    quick: true,
    only: None,
    base: None,
};

/// Two binaries in turn: more rounds of fewer loads, in three minutes.
const COMPARE: Plan = Plan {
    rounds: 5,
    warm_up: Duration::from_millis(300),
    window: Duration::from_millis(1500),
    senders: &[1, 64],
    bounds: &[512],
    registrations: 0,
    crowd: None,
    repeats: Duration::ZERO,
    quick: false,
    only: None,
    base: None,
};

const USAGE: &str = "cargo bench -p e2e -- [--quick | --base BINARY] [--rounds NUMBER] [--only TEXT]";

impl Plan {
    /// Reads the command line; `cargo bench` adds `--bench` to it.
    pub(crate) fn read(arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let arguments: Vec<String> = arguments.filter(|argument| argument != "--bench").collect();
        let has = |option: &str| arguments.iter().any(|argument| argument == option);
        let mut plan = match (has("--quick"), has("--base")) {
            (true, true) => bail!(USAGE),
            (true, false) => QUICK,
            (false, true) => COMPARE,
            (false, false) => FULL,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => {}
                "--base" => plan.base = Some(arguments.next().context(USAGE)?.into()),
                "--only" => plan.only = Some(arguments.next().context(USAGE)?),
                "--rounds" => {
                    plan.rounds = arguments.next().context(USAGE)?.parse().context(USAGE)?;
                    anyhow::ensure!(plan.rounds > 0, USAGE);
                }
                _ => bail!("{argument}? {USAGE}"),
            }
        }
        Ok(plan)
    }

    /// Returns the loads for a contestant with a push server, lightest first.
    pub(crate) fn loads(&self, answers_at_once: bool) -> Vec<Load> {
        let arrived = self.senders.iter().copied().filter(|_| answers_at_once).map(Load::Arrived);
        let steady = Some(Load::OfCeiling(Part::HALF)).filter(|_| answers_at_once);
        self.senders.iter().copied().map(Load::Answered).chain(arrived).chain(steady).collect()
    }

    /// Returns the loads for a bare component.
    pub(crate) fn bare_loads(&self) -> Vec<Load> {
        self.bounds.iter().copied().map(Load::Bare).collect()
    }

    /// Returns whether a contestant takes part.
    pub(crate) fn includes(&self, title: &str) -> bool {
        self.only.as_ref().is_none_or(|only| title.contains(only))
    }
}
