//! `make soak HOURS=1`: for hours, pushes come at half of what the XMPP server carries, while phones come and go, and
//! registrations renew and end. In the last quarter, memory, latencies and the file have to be as in the second. No
//! push may be lost.

#[path = "../bench/component.rs"]
mod component;
mod guests;
mod plan;
mod report;
mod roamers;
mod watch;

use std::cell::Cell;
use std::fs;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use e2e::bench::{Journal, LightPhone, Request, SteadySender};
use e2e::{Upwire, XmppServer, profile_folder};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;
use tokio_xmpp::jid::FullJid;

use component::BareComponent;
use plan::Plan;
use report::Report;
use watch::{Journals, Watch};

/// Number of phones that stay.
const PHONES: usize = 8;
/// Number of senders that share the load, more than are ever busy while the push server keeps up.
const SENDERS: usize = 128;
/// Number of unanswered pushes of the bare component.
const BARE_UNANSWERED: usize = 512;
/// Longest time for everything that was accepted to arrive when the load has ended.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

fn main() -> anyhow::Result<()> {
    let plan = Plan::read(std::env::args().skip(1))?;
    if cfg!(debug_assertions) {
        eprintln!("This is a debug build: its figures say nothing. `make soak` takes a release build.");
    }
    // All phones and senders share one thread, which leaves the other cores to the servers.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = LocalSet::new().block_on(&runtime, soak(&plan))?;
    println!("{report}");
    let folder = profile_folder().join("../bench");
    fs::create_dir_all(&folder)?;
    let file = folder.canonicalize()?.join("soak.md");
    fs::write(&file, report.to_string())?;
    eprintln!("written to {}", file.display());
    report.check()
}

async fn soak(plan: &Plan) -> anyhow::Result<Report> {
    let server = Rc::new(XmppServer::start(plan.kind).await);
    // The log has its default level, without a line for each push.
    let upwire = Upwire::on(&server).set("UPWIRE_LOG", "info").start_ready().await;
    let journals = Journals::default();
    let (jids, requests) = stay(&server, &upwire, &journals.stayers).await?;
    let ceiling = ceiling(&server, &jids, plan, &journals.stayers).await?;
    let rate = plan.rate(ceiling);
    eprintln!("{:?} carries {ceiling:.0} pushes/s; {rate:.0} a second for {:?}", plan.kind, plan.length);

    journals.stayers.begin();
    let (left, mut load) = (Rc::new(Cell::new(usize::MAX)), JoinSet::new());
    let mut others = JoinSet::new();
    let (roamers, roaming) = roamers::all(&server, &upwire, &journals.roamers).await?;
    for sender in steady(rate, requests, &journals.stayers, &left) {
        load.spawn_local(sender.run());
    }
    for sender in steady(roamers::RATE, roaming, &journals.roamers, &left) {
        load.spawn_local(sender.run());
    }
    for roamer in roamers {
        others.spawn_local(roamer.come_and_go(Rc::clone(&left)));
    }
    let renewals = Rc::new(Cell::new(0));
    for number in 0..guests::GUESTS {
        let guest = guests::Guest::enter(&server, &upwire, number).await?;
        others.spawn_local(guest.register_and_end(Rc::clone(&left), Rc::clone(&renewals)));
    }

    let mut watch = Watch::of(&upwire, plan.length, &journals);
    while watch.look().await? {
        fail_early(&mut load)?;
        fail_early(&mut others)?;
    }
    left.set(0);
    for tasks in [&mut load, &mut others] {
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
    }
    let lost = journals.lost_after(ARRIVAL_DEADLINE).await;
    Ok(Report {
        kind: plan.kind,
        length: plan.length,
        rate,
        pushes: journals.posted(),
        errors: journals.errors(),
        complaint: journals.stayers.complaint().or_else(|| journals.roamers.complaint()),
        lives: renewals.get(),
        lost,
        quarters: watch.quarters(),
    })
}

/// Fails if a task has ended before its time.
fn fail_early(tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    match tasks.try_join_next() {
        Some(ended) => ended?.and_then(|()| anyhow::bail!("a task has ended")),
        None => Ok(()),
    }
}

/// Connects the phones that stay. Returns their full JIDs, and a request to each.
async fn stay(
    server: &XmppServer,
    upwire: &Upwire,
    journal: &Rc<Journal>,
) -> anyhow::Result<(Vec<FullJid>, Vec<Request>)> {
    let (mut jids, mut requests) = (Vec::new(), Vec::new());
    for _ in 0..PHONES {
        let mut phone = LightPhone::connect(server, &server.user().await).await;
        requests.push(Request::new(&phone.register(&upwire.component.jid).await?)?);
        jids.push(phone.jid().clone());
        drop(phone.answer_all(Rc::clone(journal)));
    }
    Ok((jids, requests))
}

/// Measures the pushes per second that the XMPP server carries to these phones without a push server.
async fn ceiling(
    server: &XmppServer,
    phones: &[FullJid],
    plan: &Plan,
    journal: &Rc<Journal>,
) -> anyhow::Result<f64> {
    let mut bare = BareComponent::connect(server, phones).await?;
    journal.begin();
    let left = Rc::new(Cell::new(usize::MAX));
    let window = async {
        sleep(plan.ceiling_window / 4).await;
        let begin = Instant::now();
        sleep(plan.ceiling_window).await;
        let end = Instant::now();
        left.set(0);
        anyhow::Ok((begin, end))
    };
    let (begin, end) = tokio::try_join!(window, bare.run(BARE_UNANSWERED, journal, Rc::clone(&left)))
        .context("a bare component")?
        .0;
    Ok(journal.account(begin, end).delivered as f64 / end.duration_since(begin).as_secs_f64())
}

fn steady(
    rate: f64,
    requests: Vec<Request>,
    journal: &Rc<Journal>,
    left: &Rc<Cell<usize>>,
) -> impl Iterator<Item = SteadySender> {
    let (begin, taken) = (Instant::now(), Rc::new(Cell::new(0)));
    let interval = Duration::from_secs_f64(1.0 / rate);
    let (journal, left) = (Rc::clone(journal), Rc::clone(left));
    (0..SENDERS).map(move |_| SteadySender {
        requests: requests.clone(),
        journal: Rc::clone(&journal),
        taken: Rc::clone(&taken),
        begin,
        interval,
        left: Rc::clone(&left),
    })
}
