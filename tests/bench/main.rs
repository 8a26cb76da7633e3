//! `make bench`: the throughput, latency and cost of `upwire serve`, beside Prosody's own push server and beside the
//! most that the XMPP servers carry, all in one run on one machine.

mod aims;
mod compare;
mod component;
mod contestant;
mod figures;
mod memory;
mod plan;
mod registering;
mod report;
mod results;
mod run;

use std::fs;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::bench::Journal;
use e2e::{Kind, XmppServer, profile_folder};
use tokio::task::LocalSet;

use aims::Aim;
use contestant::{Contestant, Who};
use figures::{Figures, Measure};
use plan::{Load, Plan};
use results::Results;

/// Most repetitions of a disturbed run.
const REPEATS_MAX: usize = 2;

fn main() -> anyhow::Result<()> {
    let plan = Plan::read(std::env::args().skip(1))?;
    if cfg!(debug_assertions) {
        eprintln!("This is a debug build: its figures say nothing. `make bench` takes a release build.");
    }
    // All phones and senders share one thread, which leaves the other cores to the servers.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let results = LocalSet::new().block_on(&runtime, bench(&plan))?;
    if plan.base.is_some() {
        check(&results)?;
        return compare::compare(&results);
    }
    let aims = write_report(&results, &plan)?;
    check(&results)?;
    // A quick run proves nothing about the aims.
    let missed = aims.iter().filter(|aim| !aim.is_met()).count();
    ensure!(missed == 0 || plan.quick, "missed: {missed} of {} aims", aims.len());
    Ok(())
}

async fn bench(plan: &Plan) -> anyhow::Result<Results> {
    let journal = Rc::new(Journal::default());
    eprintln!("starting the servers …");
    let mut contestants = contestant::start_all(plan, &journal).await?;
    let mut results = Results::of(&contestants);
    let mut repeats = plan.repeats;
    let loads = contestants.iter().map(|contestant| contestant.loads.len()).max().unwrap_or(0);
    for round in 1..=plan.rounds {
        for place in 0..loads {
            for contestant in &mut contestants {
                let Some(load) = contestant.loads.get(place).copied() else { continue };
                let ceiling = contestant.who.server().and_then(|kind| results.ceiling(kind));
                let figures =
                    run_undisturbed(contestant, load, plan, &journal, ceiling, &mut repeats).await?;
                let (who, load_text) = (contestant.who, report::load(load));
                let delivered = figures.get(&Measure::Delivered).copied().unwrap_or_default();
                eprintln!("round {round}/{}: {who}, {load_text}: {delivered:.0} pushes/s", plan.rounds);
                results.add(who, load, figures);
            }
        }
        for contestant in &mut contestants {
            let Some(registrars) = &mut contestant.registrars else { continue };
            let rates = registrars.run(plan.registrations).await?;
            eprintln!("round {round}/{}: {}: {rates:.0?} a second", plan.rounds, contestant.who);
            results.add_registered(contestant.who, rates);
        }
    }
    results.read_memory(&contestants)?;
    drop(contestants);
    if let Some(crowd) = plan.crowd.filter(|_| plan.includes(memory::TITLE)) {
        eprintln!("memory, with {crowd} registrations …");
        results.sizes = Some(memory::measure(&XmppServer::start(Kind::Prosody).await, crowd).await?);
    }
    Ok(results)
}

/// Runs a case. Repeats it while others keep the machine busy and there is time. The quietest run counts.
async fn run_undisturbed(
    contestant: &mut Contestant,
    load: Load,
    plan: &Plan,
    journal: &Rc<Journal>,
    ceiling: Option<f64>,
    repeats: &mut Duration,
) -> anyhow::Result<Figures> {
    let others = |figures: &Figures| figures.get(&Measure::OthersShare).copied().unwrap_or_default();
    let mut quietest = run_case(contestant, load, plan, journal, ceiling).await?;
    for _ in 0..REPEATS_MAX {
        if others(&quietest) <= report::OTHERS_SHARE_MAX || repeats.is_zero() {
            break;
        }
        let begin = Instant::now();
        let again = run_case(contestant, load, plan, journal, ceiling).await?;
        *repeats = repeats.saturating_sub(begin.elapsed());
        if others(&again) < others(&quietest) {
            quietest = again;
        }
    }
    Ok(quietest)
}

async fn run_case(
    contestant: &mut Contestant,
    load: Load,
    plan: &Plan,
    journal: &Rc<Journal>,
    ceiling: Option<f64>,
) -> anyhow::Result<Figures> {
    let figures = run::run(contestant, load, plan, journal, ceiling).await;
    let figures = figures.with_context(|| format!("{}, {}", contestant.who, report::load(load)))?;
    if let Some(complaint) = journal.complaint() {
        eprintln!("{}, {}: at first, {complaint}", contestant.who, report::load(load));
    }
    Ok(figures)
}

/// Prints the report, and writes it to `target/bench`. Returns the aims.
fn write_report(results: &Results, plan: &Plan) -> anyhow::Result<Vec<Aim>> {
    let aims = aims::judge(results, plan.senders);
    let markdown = report::markdown(results, &aims, plan)?;
    println!("{markdown}");
    let folder = profile_folder().join("../bench");
    fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    // A partial or quick page must not replace the real one.
    let name = if plan.quick {
        "quick"
    } else if plan.only.is_some() {
        "partial"
    } else {
        "bench"
    };
    let (people, programs) = (folder.join(format!("{name}.md")), folder.join(format!("{name}.json")));
    fs::write(&people, &markdown)?;
    fs::write(&programs, format!("{:#}\n", report::json(results, &aims, plan)))?;
    eprintln!("written to {} and {}", people.display(), programs.display());
    Ok(aims)
}

/// Fails if a case delivered nothing, or if Upwire lost a push.
fn check(results: &Results) -> anyhow::Result<()> {
    for case in &results.cases {
        let total = |measure| case.rounds.iter().filter_map(|round| round.get(&measure)).sum::<f64>();
        ensure!(
            total(Measure::Delivered) > 0.0,
            "{}, {}: nothing delivered",
            case.who,
            report::load(case.load)
        );
        let lost = total(Measure::Lost);
        ensure!(
            lost == 0.0 || matches!(case.who, Who::Module(_) | Who::Bare(_)),
            "{} lost {lost} pushes",
            case.who
        );
    }
    Ok(())
}
