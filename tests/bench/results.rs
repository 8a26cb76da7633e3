//! Everything that was measured, case by case and round by round.

use crate::contestant::{Contestant, Who};
use crate::figures::{Figures, Measure};
use crate::memory::Sizes;
use crate::plan::Load;
use crate::registering::Rates;
use e2e::Kind;
use e2e::machine::Process;

/// One contestant under one load.
pub(crate) struct Case {
    pub(crate) who: Who,
    pub(crate) load: Load,
    pub(crate) rounds: Vec<Figures>,
}

/// The bench's results.
#[derive(Default)]
pub(crate) struct Results {
    /// The cases, by contestant, and by load within.
    pub(crate) cases: Vec<Case>,
    /// The most memory that each server held over all its runs, in MiB.
    pub(crate) memory_peaks_mib: Vec<(String, f64)>,
    /// Registrations a second, round by round.
    pub(crate) registered: Vec<(Who, Vec<Rates>)>,
    /// Sizes of Upwire, if they were measured.
    pub(crate) sizes: Option<Sizes>,
}

impl Results {
    /// Returns empty results for the cases of these contestants.
    pub(crate) fn of(contestants: &[Contestant]) -> Self {
        let cases = contestants.iter().flat_map(|contestant| {
            let who = contestant.who;
            contestant.loads.iter().map(move |load| Case { who, load: *load, rounds: Vec::new() })
        });
        let registered = contestants.iter().filter(|contestant| contestant.registrars.is_some());
        Self {
            cases: cases.collect(),
            registered: registered.map(|contestant| (contestant.who, Vec::new())).collect(),
            ..Self::default()
        }
    }

    /// Adds the rates of one round of registrations.
    pub(crate) fn add_registered(&mut self, who: Who, rates: Rates) {
        if let Some((_, rounds)) = self.registered.iter_mut().find(|(other, _)| *other == who) {
            rounds.push(rates);
        }
    }

    /// Adds the figures of one run.
    pub(crate) fn add(&mut self, who: Who, load: Load, figures: Figures) {
        if let Some(case) = self.cases.iter_mut().find(|case| case.who == who && case.load == load) {
            case.rounds.push(figures);
        }
    }

    /// Returns the most that an XMPP server has carried so far, in pushes per second.
    pub(crate) fn ceiling(&self, kind: Kind) -> Option<f64> {
        let bare = self.cases.iter().filter(|case| case.who == Who::Bare(kind));
        let delivered = bare.flat_map(|case| &case.rounds).filter_map(|round| round.get(&Measure::Delivered));
        delivered.copied().max_by(f64::total_cmp)
    }

    /// Reads the peak memory of each server once, in the order of the contestants.
    pub(crate) fn read_memory(&mut self, contestants: &[Contestant]) -> anyhow::Result<()> {
        let servers = contestants.iter().flat_map(|contestant| {
            let push_server = contestant.push_server.iter();
            push_server.chain([&contestant.xmpp_server])
        });
        let own = Process::own();
        for process in servers.chain([&own]) {
            if !self.memory_peaks_mib.iter().any(|(title, _)| *title == process.title) {
                self.memory_peaks_mib.push((process.title.clone(), process.memory_peak_mib()?));
            }
        }
        Ok(())
    }

    /// Returns the number of measurements of each case.
    pub(crate) fn rounds(&self) -> usize {
        self.cases.iter().map(|case| case.rounds.len()).max().unwrap_or(0)
    }
}
