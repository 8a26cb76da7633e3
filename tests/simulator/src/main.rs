//! `simulate` runs seeds, and prints those that fail.

#[cfg(feature = "mutants")]
mod mutants;

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use clap::Parser;
use simulator::{Outcome, Plan, run, shrink};

/// Runs the relay in simulated time, once for each seed.
#[derive(Debug, Parser)]
struct Arguments {
    /// Number of seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Runs this seed alone, and prints its events. If it fails, prints a smaller plan that fails, and its events.
    #[arg(long)]
    seed: Option<u64>,
    /// Number of seeds that run at the same time.
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Looks for no smaller plan if the one seed fails.
    #[arg(long)]
    whole: bool,
    /// Puts faults into the relay, one at a time. Each has to be found within the number of seeds.
    #[cfg(feature = "mutants")]
    #[arg(long, conflicts_with = "seed")]
    mutants: bool,
    /// Puts only this fault into the relay.
    #[cfg(feature = "mutants")]
    #[arg(long, value_parser = mutants::names())]
    mutant: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    #[cfg(feature = "mutants")]
    if arguments.mutants || arguments.mutant.is_some() {
        return mutants::find(&arguments);
    }
    match arguments.seed {
        Some(seed) => run_one(seed, arguments.whole),
        None => run_many(&arguments),
    }
}

fn run_one(seed: u64, whole: bool) -> ExitCode {
    let mut plan = Plan::of(seed);
    plan.keep_lines(true);
    let mut outcome = run(&plan);
    println!("{}", line(seed, &outcome));
    if outcome.violation.is_some() && !whole {
        plan.keep_lines(false);
        (plan, outcome) = shrink(&plan, &outcome);
        println!("{plan:#?}");
    }
    outcome.lines.iter().for_each(|line| println!("{line}"));
    println!("{}", line(seed, &outcome));
    exit(outcome.violation.is_none())
}

fn line(seed: u64, outcome: &Outcome) -> String {
    let Outcome { hash, events, accepted, shown, ended: [expired, dropped, replaced], violation, .. } =
        outcome;
    let verdict = violation.as_ref().map_or("fine".to_owned(), |violation| {
        format!("{} at {:.3} s: {}", violation.invariant, violation.at.as_secs_f64(), violation.detail)
    });
    format!(
        "seed {seed}: {verdict} (trace {hash:016x}, {events} events, {shown} of {accepted} pushes shown, {expired} expired, {dropped} dropped, {replaced} replaced)"
    )
}

fn run_many(arguments: &Arguments) -> ExitCode {
    let begun = Instant::now();
    let next = AtomicU64::new(arguments.from);
    let end = arguments.from + arguments.seeds;
    let failed = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let outcome = run(&Plan::of(seed));
                    if outcome.violation.is_some() {
                        failed.fetch_add(1, Ordering::Relaxed);
                        println!("{}", line(seed, &outcome));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!("{} seeds in {:.1} s, {failed} failed", arguments.seeds, begun.elapsed().as_secs_f64());
    exit(failed == 0)
}

fn exit(fine: bool) -> ExitCode {
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
