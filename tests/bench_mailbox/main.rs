//! `make bench-mailbox`, all in one run on one machine. It measures the rate at which phones that come back get their
//! waiting pushes, beside pushes sent directly. It measures the effect of a million waiting pushes on phones that are
//! online, and the cost of one phone's presences while much waits for another.

mod drain;
mod million;
mod plan;
mod presences;
mod report;
mod stage;

use std::fs;
use std::rc::Rc;

use anyhow::Context;
use e2e::Kind;
use e2e::bench::Journal;
use e2e::profile_folder;
use tokio::task::LocalSet;

use plan::Plan;
use report::Report;

fn main() -> anyhow::Result<()> {
    let plan = Plan::read(std::env::args().skip(1))?;
    if cfg!(debug_assertions) {
        eprintln!(
            "This is a debug build: its figures say nothing. `make bench-mailbox` takes a release build."
        );
    }
    // All phones and senders share one thread, which leaves the other cores to the servers.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = LocalSet::new().block_on(&runtime, bench(&plan))?;
    println!("{report}");
    let folder = profile_folder().join("../bench");
    fs::create_dir_all(&folder)?;
    let file = folder.canonicalize()?.join(if plan.quick { "mailbox-quick.md" } else { "mailbox.md" });
    fs::write(&file, report.to_string())?;
    eprintln!("written to {}", file.display());
    report.check()
}

async fn bench(plan: &Plan) -> anyhow::Result<Report> {
    let journal = Rc::new(Journal::default());
    let mut report =
        Report { plan: plan.clone(), drains: Vec::new(), millions: Vec::new(), presences: Vec::new() };
    for kind in [Kind::Prosody, Kind::Ejabberd] {
        for case in plan.cases.iter().filter(|case| plan.includes(kind, &case.to_string())) {
            let drained = drain::measure(kind, *case, plan, &journal).await;
            report.drains.push(drained.with_context(|| format!("{kind:?}, {case}"))?);
        }
    }
    let kinds = |title| {
        let kinds = [Kind::Prosody, Kind::Ejabberd].into_iter();
        kinds.filter(move |kind| plan.base.is_none() && plan.includes(*kind, title)).collect::<Vec<_>>()
    };
    for kind in kinds(presences::TITLE) {
        report.presences.push(presences::measure(kind, plan, &journal).await?);
    }
    let kinds = kinds(million::TITLE);
    if !kinds.is_empty() {
        report.millions = million::measure(&kinds, plan, &journal).await?;
    }
    Ok(report)
}
