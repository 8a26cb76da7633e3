//! An `upwire serve` beside a stand-in, and a healthy phone that gets a push at fixed moments.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::bench::{Journal, Request, SteadySender};
use e2e::machine::Process;
use e2e::{Component, Upwire};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_xmpp::jid::BareJid;

use crate::stand_in::{StandIn, Temper};

const HEALTHY: &str = "healthy@localhost/phone";
/// Time between two pushes to the healthy phone.
const INTERVAL: Duration = Duration::from_millis(10);
/// Number of senders, enough that none of the moments waits for one.
const SENDERS: usize = 8;
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

pub(crate) struct Stage {
    pub(crate) stand_in: Rc<StandIn>,
    pub(crate) upwire: Upwire,
    healthy: Request,
    journal: Rc<Journal>,
}

/// Times from the planned moment of a POST to the arrival at its phone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) most: Duration,
}

/// Pushes at fixed moments, under way until their end.
pub(crate) struct Steady {
    senders: JoinSet<anyhow::Result<()>>,
    left: Rc<Cell<usize>>,
    begin: Instant,
}

impl Stage {
    pub(crate) async fn start(name: &str) -> anyhow::Result<Self> {
        let component =
            Component { jid: BareJid::new(&format!("{name}.localhost"))?, secret: "a secret".to_owned() };
        let stand_in = StandIn::start(component.clone()).await?;
        let upwire = Upwire::beside(stand_in.address(), component)
            .set("UPWIRE_LOG", "warn")
            .set("UPWIRE_ACL", "*,localhost")
            // These bounds have their defaults.
            .unset("UPWIRE_MAILBOX_MAX")
            .unset("UPWIRE_ACCOUNT_MAILBOX_MAX")
            .start_ready()
            .await;
        let journal = Rc::<Journal>::default();
        stand_in.come(HEALTHY, Temper::Answers(Rc::clone(&journal)));
        let healthy = Request::new(&stand_in.register(HEALTHY, 0).await?)?;
        Ok(Self { stand_in, upwire, healthy, journal })
    }

    /// Returns the CPU seconds of Upwire so far.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        Process { title: "upwire serve".to_owned(), pid: self.upwire.pid() }.cpu_seconds()
    }

    /// Begins to push to the healthy phone.
    pub(crate) fn push_steadily(&self) -> Steady {
        self.journal.begin();
        Steady::begin(std::slice::from_ref(&self.healthy), INTERVAL, &self.journal)
    }

    /// Measures the latency with nothing else under way.
    pub(crate) async fn latency_alone(&self, time: Duration) -> anyhow::Result<Latency> {
        let steady = self.push_steadily();
        sleep(time).await;
        self.end(steady).await
    }

    /// Ends the steady pushes. Returns the latency of all of them.
    pub(crate) async fn end(&self, steady: Steady) -> anyhow::Result<Latency> {
        let begin = steady.begin;
        steady.end().await?;
        ensure!(self.journal.complaint().is_none(), "{:?}", self.journal.complaint());
        let deadline = Instant::now() + ARRIVAL_DEADLINE;
        while self.journal.under_way() > 0 {
            ensure!(Instant::now() < deadline, "{} pushes have not arrived", self.journal.under_way());
            sleep(POLL_INTERVAL).await;
        }
        let times = self.journal.account(begin, Instant::now()).to_client;
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).or(times.last()).copied();
        let of = |share| at(share).context("nothing was pushed");
        Ok(Latency { p50: of(0.5)?, p99: of(0.99)?, most: of(1.0)? })
    }
}

impl Steady {
    /// Posts one push at each moment, to each endpoint in turn, until `end`.
    pub(crate) fn begin(requests: &[Request], interval: Duration, journal: &Rc<Journal>) -> Self {
        let (left, taken, begin) = (Rc::new(Cell::new(1)), Rc::<Cell<usize>>::default(), Instant::now());
        let mut senders = JoinSet::new();
        for _ in 0..SENDERS {
            let (requests, journal) = (requests.to_vec(), Rc::clone(journal));
            let (left, taken) = (Rc::clone(&left), Rc::clone(&taken));
            senders.spawn_local(SteadySender { requests, journal, taken, begin, interval, left }.run());
        }
        Self { senders, left, begin }
    }

    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.left.set(0);
        while let Some(ended) = self.senders.join_next().await {
            ended??;
        }
        Ok(())
    }
}
