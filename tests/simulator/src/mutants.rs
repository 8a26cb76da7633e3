//! Counts the seeds that it takes to find each fault that the relay could have.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use clap::builder::PossibleValuesParser;
use simulator::{Mutant, Outcome, Plan, make_mutant, run};

use crate::{Arguments, exit, run_one};

/// Returns the names of all faults.
pub(crate) fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(Mutant::ALL.iter().map(|mutant| mutant.name()))
}

/// Puts faults into the relay, one at a time, and runs seeds until one fails that passes without the fault.
pub(crate) fn find(arguments: &Arguments) -> ExitCode {
    let named = |mutant: &&Mutant| arguments.mutant.as_ref().is_none_or(|name| mutant.name() == name);
    let mutants: Vec<Mutant> = Mutant::ALL.iter().filter(named).copied().collect();
    if let (Some(seed), [mutant]) = (arguments.seed, mutants.as_slice()) {
        make_mutant(Some(*mutant));
        return run_one(seed, arguments.whole);
    }
    println!("| fault | seeds until it was found | invariant |\n| --- | --- | --- |");
    let mut missed = false;
    for mutant in mutants {
        let found = first(mutant, arguments);
        missed |= found.is_none();
        match found {
            Some((seed, invariant)) => {
                println!("| {} | {} | {invariant} |", mutant.name(), seed - arguments.from + 1);
            }
            None => println!("| {} | not found by {} | |", mutant.name(), arguments.seeds),
        }
    }
    exit(!missed)
}

/// Returns the first seed that finds a fault, and the invariant that the fault breaks.
fn first(mutant: Mutant, arguments: &Arguments) -> Option<(u64, &'static str)> {
    let (next, found) = (AtomicU64::new(arguments.from), AtomicU64::new(arguments.from + arguments.seeds));
    thread::scope(|scope| {
        let search = || {
            let mut first = None;
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= found.load(Ordering::Relaxed) {
                    return first;
                }
                if let Some(invariant) = invariant_broken_by(mutant, seed) {
                    found.fetch_min(seed, Ordering::Relaxed);
                    first = Some((seed, invariant));
                }
            }
        };
        let threads: Vec<_> = (0..arguments.threads).map(|_| scope.spawn(search)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok().flatten()).min()
    })
}

fn invariant_broken_by(mutant: Mutant, seed: u64) -> Option<&'static str> {
    let invariant = |outcome: Outcome| outcome.violation.map(|violation| violation.invariant);
    make_mutant(Some(mutant));
    let broken = invariant(run(&Plan::of(seed)));
    make_mutant(None);
    broken.filter(|_| invariant(run(&Plan::of(seed))).is_none())
}
