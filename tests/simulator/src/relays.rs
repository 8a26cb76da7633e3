//! Runs a relay's process, and starts it again after it was stopped or died.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use chrono::TimeDelta;
use push::Secrets;
use relay::{AccessList, Candidate, Clock, ComponentAccount, DomainBounds, Fence, Relay, TaskDied, Uptime};
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tokio_xmpp::jid::BareJid;

use crate::{
    calls::{Port, Shared},
    pipe::{Connector, Hub, Life},
    server::{COMPONENT, holder},
};

const SECRET: &str = "a-secret-of-the-simulator-long-enough-for-its-use";
/// Most time after a pause until all parts of a process go on.
const WAKES_WITHIN: Duration = Duration::from_millis(200);
/// The URL that endpoints begin with.
const ENDPOINTS: &str = "https://up.sim.example/push/";

pub(crate) fn secrets() -> Secrets {
    Secrets::parse(SECRET).expect("it is long enough")
}

/// Runs a process, one life after the other, until the future is dropped.
pub(crate) async fn keep_running(shared: Arc<Shared>, hub: Arc<Hub>, process: usize) {
    for number in 1.. {
        let life = Life { process, number };
        let (dies, stops) = (CancellationToken::new(), CancellationToken::new());
        {
            let mut state = shared.lock();
            state.trace.note(shared.now(), format_args!("relay {process}.{number} starts"));
            let this = &mut state.processes[process];
            this.life = Some(number);
            (this.dies, this.stops, this.dies_in) = (Some(dies.clone()), Some(stops.clone()), None);
            this.down = Duration::from_secs(1);
        }
        let ended = tokio::select! {
            biased;
            () = dies.cancelled() => Ok(()),
            ended = Pausable::new(Arc::clone(&shared), life, serve(&shared, &hub, life, stops)) => ended,
        };
        let down = {
            let at = shared.now();
            let mut state = shared.lock();
            state.trace.note(at, format_args!("relay {process}.{number} has ended"));
            state.processes[process].life = None;
            state.ledger.note_trouble(at);
            state.give_back(life, true, &shared);
            if let Err(error) = ended {
                state.ledger.violate("no task dies", at, error.to_string());
            }
            state.processes[process].down
        };
        sleep(down).await;
    }
}

/// A part of a process, which is not polled while the process is paused.
struct Pausable<F> {
    shared: Arc<Shared>,
    life: Life,
    inner: Pin<Box<F>>,
    end: Option<Pin<Box<Sleep>>>,
    /// Time by which this part wakes later than its process.
    lag: Duration,
}

impl<F> Pausable<F> {
    fn new(shared: Arc<Shared>, life: Life, inner: F) -> Self {
        Self { shared, life, inner: Box::pin(inner), end: None, lag: Duration::ZERO }
    }

    fn lagging(self, lag: Duration) -> Self {
        Self { lag, ..self }
    }
}

impl<F: Future> Future for Pausable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let until = self.shared.lock().processes[self.life.process].wakes_at.map(|at| at + self.lag);
        if let Some(until) = until.filter(|until| *until > Instant::now()) {
            let end = self.end.insert(Box::pin(sleep_until(until)));
            if end.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        self.end = None;
        self.inner.as_mut().poll(context)
    }
}

async fn serve(
    shared: &Arc<Shared>,
    hub: &Arc<Hub>,
    life: Life,
    stops: CancellationToken,
) -> Result<(), TaskDied> {
    let port = Port { shared: Arc::clone(shared), life };
    let run =
        |fence: Fence| relay(shared, hub, &port, life).run(watch::Sender::new(false), stops.clone(), fence);
    if !shared.is_cloud() {
        return run(Fence::open()).await;
    }
    let boot = Arc::clone(shared);
    let candidate = Candidate::new(port.clone(), holder(life), Uptime::new(move || boot.now()));
    loop {
        let term = tokio::select! {
            biased;
            () = stops.cancelled() => return Ok(()),
            term = candidate.elected(|| ()) => term,
        };
        shared.note(format_args!("relay {}.{} is elected", life.process, life.number));
        let fence = term.fence();
        let holding = async {
            // After a pause, this part wakes last.
            Pausable::new(Arc::clone(shared), life, candidate.hold(term)).lagging(WAKES_WITHIN).await;
            std::future::pending().await
        };
        let served = tokio::select! {
            biased;
            served = run(fence) => served,
            never = holding => never,
        };
        shared.lock().give_back(life, true, shared);
        if stops.is_cancelled() || served.is_err() {
            candidate.resign().await;
            return served;
        }
    }
}

fn relay(
    shared: &Arc<Shared>,
    hub: &Arc<Hub>,
    port: &Port,
    life: Life,
) -> Relay<Port, Port, Port, Connector> {
    let clock = Arc::clone(shared);
    Relay {
        registrations: port.clone(),
        queue: port.clone(),
        mailbox: port.clone(),
        secrets: watch::channel(secrets()).1,
        account: ComponentAccount {
            component: BareJid::new(COMPONENT).expect("a domain"),
            secret: watch::channel("component".into()).1,
            server: Connector { life, hub: Arc::clone(hub) },
        },
        access: watch::channel("*".parse::<AccessList>().expect("everyone")).1,
        endpoints: ENDPOINTS.parse().expect("a URL"),
        lifetime: TimeDelta::seconds(shared.plan.lifetime_seconds),
        ack_timeout: shared.plan.ack_timeout,
        mailbox_bounds: shared.plan.mailbox,
        account_registrations_max: shared.plan.registrations_max,
        domain_bounds: DomainBounds { registrations: 20_000, mailbox: 100_000 },
        rate: None,
        contact: Vec::new(),
        usage: push::usage::Meter::default(),
        clock: Clock::new(move || clock.wall_of(life.process)),
        trail: relay::Trail::default(),
        forgetting: relay::Forgetting::default(),
    }
}
