//! One run: puts a load on a contestant, measures within a window, and waits until all has arrived.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant as StdInstant};

use anyhow::Context;
use e2e::bench::{Journal, Sender, SteadySender};
use e2e::machine::{self, Process};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::contestant::{Contestant, Source};
use crate::figures::{self, Figures, Measure};
use crate::plan::{Load, Plan};

/// Time after the end of the load at which missing pushes count as lost.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Number of senders that share a steady load, more than are ever busy while the push server keeps up.
const STEADY_SENDERS: usize = 128;

/// CPU time and written bytes up to a moment.
struct Spent {
    at: StdInstant,
    push_server: Option<f64>,
    /// Bytes that the push server has written to disk.
    written: Option<f64>,
    xmpp_server: f64,
    generator: f64,
    machine: f64,
}

/// Runs one case once.
pub(crate) async fn run(
    contestant: &mut Contestant,
    load: Load,
    plan: &Plan,
    journal: &Rc<Journal>,
    ceiling: Option<f64>,
) -> anyhow::Result<Figures> {
    journal.begin();
    let left = Rc::new(Cell::new(usize::MAX));
    let (push_server, xmpp_server) = (contestant.push_server.clone(), contestant.xmpp_server.clone());
    let window = async {
        sleep(plan.warm_up).await;
        let before = Spent::now(push_server.as_ref(), &xmpp_server);
        sleep(plan.window).await;
        let after = Spent::now(push_server.as_ref(), &xmpp_server);
        left.set(0);
        anyhow::Ok((before?, after?))
    };
    let (before, after) = match (&mut contestant.source, load) {
        (Source::PushServer(requests), Load::Answered(count) | Load::Arrived(count)) => {
            let mut senders = JoinSet::new();
            for _ in 0..count {
                let (requests, journal, left) = (requests.clone(), Rc::clone(journal), Rc::clone(&left));
                let waits_for_arrival = matches!(load, Load::Arrived(_));
                senders.spawn_local(Sender { requests, waits_for_arrival, journal, left }.run());
            }
            let spent = window.await?;
            while let Some(ended) = senders.join_next().await {
                ended??;
            }
            spent
        }
        (Source::PushServer(requests), Load::OfCeiling(part)) => {
            let ceiling = ceiling.context("the ceiling was not measured: --only leaves it out")?;
            let (begin, taken) = (StdInstant::now(), Rc::new(Cell::new(0)));
            let interval = Duration::from_secs_f64(1.0 / part.of(ceiling));
            let mut senders = JoinSet::new();
            for _ in 0..STEADY_SENDERS {
                let (requests, journal) = (requests.clone(), Rc::clone(journal));
                let (taken, left) = (Rc::clone(&taken), Rc::clone(&left));
                let sender = SteadySender { requests, journal, taken, begin, interval, left };
                senders.spawn_local(sender.run());
            }
            let spent = window.await?;
            while let Some(ended) = senders.join_next().await {
                ended??;
            }
            spent
        }
        (Source::Bare(component), Load::Bare(bound)) => {
            tokio::try_join!(window, component.run(bound, journal, Rc::clone(&left)))?.0
        }
        (_, load) => anyhow::bail!("{} cannot run {load:?}", contestant.who),
    };
    arrive(journal).await;
    contestant.settle().await?;
    let account = journal.account(before.at, after.at);
    let mut figures = figures::of_account(&account, after.at.duration_since(before.at));
    figures.extend(Spent::between(&before, &after, account.delivered));
    Ok(figures)
}

/// Waits until everything that was accepted has arrived, or the deadline has passed.
async fn arrive(journal: &Journal) {
    let deadline = Instant::now() + ARRIVAL_DEADLINE;
    while journal.under_way() > 0 && Instant::now() < deadline {
        sleep(POLL_INTERVAL).await;
    }
}

impl Spent {
    fn now(push_server: Option<&Process>, xmpp_server: &Process) -> anyhow::Result<Self> {
        Ok(Self {
            at: StdInstant::now(),
            push_server: push_server.map(Process::cpu_seconds).transpose()?,
            written: push_server.map(Process::bytes_written).transpose()?,
            xmpp_server: xmpp_server.cpu_seconds()?,
            generator: Process::own().cpu_seconds()?,
            machine: machine::busy_seconds()?,
        })
    }

    fn between(before: &Self, after: &Self, pushes: usize) -> Figures {
        let wall = after.at.duration_since(before.at).as_secs_f64();
        let push_server = after.push_server.zip(before.push_server).map(|(after, before)| after - before);
        let xmpp_server = after.xmpp_server - before.xmpp_server;
        let generator = after.generator - before.generator;
        let ours = push_server.unwrap_or(0.0) + xmpp_server + generator;
        let others = (after.machine - before.machine - ours).max(0.0);
        let mut figures = Figures::from([
            (Measure::GeneratorShare, generator / wall),
            (Measure::OthersShare, others / wall / machine::cores() as f64),
        ]);
        if pushes > 0 {
            let micros = |seconds: f64| seconds * 1e6 / pushes as f64;
            figures.insert(Measure::XmppServerCpu, micros(xmpp_server));
            figures.insert(Measure::GeneratorCpu, micros(generator));
            figures.extend(push_server.map(|seconds| (Measure::PushServerCpu, micros(seconds))));
            let written = after.written.zip(before.written).map(|(after, before)| after - before);
            figures.extend(written.map(|bytes| (Measure::PushServerWritten, bytes / pushes as f64)));
        }
        figures
    }
}
