//! Calls of ports take time. Some fail before their effect, some lose their answer after it, and in some the process
//! dies.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use push::ports::Unavailable;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tokio_xmpp::jid::BareJid;

use crate::{
    chance::Chance,
    ledger::Ledger,
    mailbox::Mailboxes,
    pipe::Life,
    plan::{Flavour, Plan},
    queue::Entries,
    store::Rows,
    trace::Trace,
};

/// The number of the ingress, as a process.
pub(crate) const INGRESS: usize = usize::MAX;

/// A relay's process, as the ports see it.
#[derive(Debug, Default)]
pub(crate) struct Process {
    /// Number of its present life; `None`: it is down.
    pub(crate) life: Option<u64>,
    pub(crate) paused_until: Option<Instant>,
    /// End of its last pause, which may still last.
    pub(crate) wakes_at: Option<Instant>,
    pub(crate) dies: Option<CancellationToken>,
    pub(crate) stops: Option<CancellationToken>,
    /// Time for which it stays down after it has ended.
    pub(crate) down: Duration,
    /// Number of calls that it still makes. It dies in the one that follows, before (`false`) or after (`true`) the
    /// effect.
    pub(crate) dies_in: Option<(u64, bool)>,
}

/// Percentages of calls that fail, or lose their answer, until a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failing {
    pub(crate) until: Instant,
    pub(crate) percent: u64,
    /// Of the calls that do not fail.
    pub(crate) lost_percent: u64,
}

/// The stores, the notes by which the relay is judged, and the state of the processes.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) rows: Rows,
    pub(crate) entries: Entries,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) ledger: Ledger,
    pub(crate) trace: Trace,
    pub(crate) chance: Chance,
    /// Chance that draws the slow calls.
    pub(crate) slowness: Chance,
    pub(crate) processes: Vec<Process>,
    pub(crate) failing: Option<Failing>,
    /// An account whose rows cannot be read until this moment.
    pub(crate) locked: Option<(Instant, BareJid)>,
}

/// The state that the ports and the world share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) start: Instant,
    pub(crate) plan: Plan,
    /// Notified when a push may be due in the queue.
    pub(crate) queued: Notify,
    state: Mutex<State>,
}

/// Unix time at which the simulated time begins: 2026-12-01 00:00 UTC.
const BEGINNING_SECONDS: i64 = 1_796_083_200;

impl Shared {
    pub(crate) fn new(plan: Plan) -> Arc<Self> {
        let state = State {
            rows: Rows::default(),
            entries: Entries::default(),
            mailboxes: Mailboxes::default(),
            ledger: Ledger::default(),
            trace: Trace::new(plan.keep_lines),
            chance: Chance::of(plan.seed, 1 << 20),
            slowness: Chance::of(plan.seed, 1 << 22),
            processes: (0..plan.relays).map(|_| Process::default()).collect(),
            failing: None,
            locked: None,
        };
        Arc::new(Self { start: Instant::now(), plan, queued: Notify::new(), state: Mutex::new(state) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the simulated time since the beginning.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Returns the time of a wall clock that is right.
    pub(crate) fn wall(&self) -> DateTime<Utc> {
        let beginning = DateTime::from_timestamp(BEGINNING_SECONDS, 0).unwrap_or_default();
        beginning + TimeDelta::from_std(self.now()).unwrap_or_default()
    }

    /// Returns the time of a process's wall clock, which may be wrong.
    pub(crate) fn wall_of(&self, process: usize) -> DateTime<Utc> {
        self.wall() + TimeDelta::milliseconds(self.plan.skews.get(process).copied().unwrap_or(0))
    }

    pub(crate) fn is_cloud(&self) -> bool {
        self.plan.flavour == Flavour::Cloud
    }

    pub(crate) fn note(&self, event: fmt::Arguments<'_>) {
        let at = self.now();
        self.lock().trace.note(at, event);
    }
}

/// The fate of a call.
struct Fortune {
    before: Duration,
    after: Duration,
    fails: bool,
    is_lost: bool,
    /// The process dies in the call, before (`false`) or after (`true`) the effect; `None`: it does not die.
    dies: Option<bool>,
}

/// The ports of one life of a process.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub(crate) shared: Arc<Shared>,
    pub(crate) life: Life,
}

impl Port {
    fn draw(&self) -> Fortune {
        let cloud = self.shared.is_cloud();
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        let (least, most) = if cloud { (1000, 20_000) } else { (50, 1000) };
        let before = state.chance.micros(least, most);
        let after = state.chance.micros(least, most);
        let failing = state.failing.filter(|failing| Instant::now() < failing.until);
        let fails = failing.is_some_and(|failing| state.chance.percent(failing.percent));
        let is_lost = !fails && failing.is_some_and(|failing| state.chance.percent(failing.lost_percent));
        let mut dies = None;
        if let Some(process) = state.processes.get_mut(self.life.process)
            && let Some((left, after)) = process.dies_in
        {
            process.dies_in = left.checked_sub(1).map(|left| (left, after));
            dies = process.dies_in.is_none().then_some(after);
        }
        Fortune { before, after, fails, is_lost, dies }
    }

    /// Waits until the process is not paused. Never returns if this life of it is over.
    pub(crate) async fn resume(&self) {
        loop {
            let until = {
                let state = self.shared.lock();
                let Some(process) = state.processes.get(self.life.process) else { return };
                (process.life == Some(self.life.number)).then_some(process.paused_until)
            };
            let Some(until) = until else { return std::future::pending().await };
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => sleep_until(until).await,
                None => return,
            }
        }
    }

    async fn die(&self) {
        let dies =
            self.shared.lock().processes.get(self.life.process).and_then(|process| process.dies.clone());
        dies.into_iter().for_each(|dies| dies.cancel());
        std::future::pending().await
    }

    /// Makes a call, whose `effect` happens at one moment.
    pub(crate) async fn call<T: Send>(
        &self,
        name: &'static str,
        effect: impl FnOnce(&mut State, &Shared) -> T + Send,
    ) -> Result<T, Unavailable> {
        let fortune = self.draw();
        sleep(fortune.before).await;
        self.resume().await;
        if fortune.dies == Some(false) {
            self.die().await;
        }
        let at = self.shared.now();
        let value = {
            let mut state = self.shared.lock();
            if fortune.fails || fortune.is_lost {
                state.ledger.note_trouble(at + fortune.after);
            }
            if fortune.fails {
                state.trace.note(at, format_args!("{} {name} fails", self.name()));
                return Err(Unavailable::new("the simulated store fails"));
            }
            state.trace.note(at, format_args!("{} {name}", self.name()));
            effect(&mut state, &self.shared)
        };
        if fortune.dies == Some(true) {
            self.die().await;
        }
        sleep(fortune.after).await;
        self.resume().await;
        if fortune.is_lost {
            self.shared.note(format_args!("{} {name} is not answered", self.name()));
            return Err(Unavailable::new("the answer of the simulated store is lost"));
        }
        Ok(value)
    }

    pub(crate) fn name(&self) -> String {
        if self.life.process == INGRESS {
            "ingress".into()
        } else {
            format!("relay {}.{}", self.life.process, self.life.number)
        }
    }
}
