//! `upwire relay`: the relay alone, on DynamoDB tables and an SQS queue.

use std::time::Duration;

use aws::{RegistrationsTable, ServiceTime, UsageOfTerm};
use metrics::{describe_gauge, gauge};
use push::ports::Holder;
use push::usage::Meter;
use relay::{Backlog, Candidate, Clock, Forgetting, HeldLease, MarkerKeeper, Trail, Uptime};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::cloud::Cloud;
pub(crate) use self::options::Options;
use self::options::Settings;
use crate::http::{self, Server};
use crate::live::{self, InForce, Live};
use crate::tenant::keeper::{OF_A_TABLE, TenantKeeper};
use crate::tenant::quota;
use crate::{admin, clock, cloudwatch_metrics, marker, parts, trail, values};

mod cloud;
pub(crate) mod options;
mod timekeeper;

/// Time between two writes of tenants' usage.
const USAGE_INTERVAL: Duration = Duration::from_secs(300);
/// Longest time for the last write of usage.
const LAST_USAGE_TIMEOUT: Duration = Duration::from_secs(1);
const ACTIVE: &str = "upwire_relay_active";

/// Describes the metrics of the process to the recorder.
pub(crate) fn describe_metrics() {
    relay::describe_metrics();
    quota::describe_metrics();
    clock::describe_metrics();
    describe_gauge!(ACTIVE, "1 while this relay is the active one, 0 while it stands by");
    gauge!(ACTIVE).set(0.0);
}

/// Runs until `stop`. Relays while it has the lease.
pub(crate) async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    let settings = options.settings()?;
    values::warn_of_plain_http(&settings.relay.public_url);
    let hangups = live::hangups()?;
    let mut values = settings.relay.values(settings.secrets.clone());
    settings.legacy.clone().add_to(&mut values);
    let live = Live::new(settings.relay.files.clone(), values)?;
    let mut in_force = live.in_force();
    let metrics = admin::install_metrics()?;
    describe_metrics();
    let time = timekeeper::begin();
    let clock = time.clock();
    let state = State {
        connected: watch::Sender::new(false),
        stands_by: watch::Sender::new(false),
        active: watch::Sender::new(false),
        meter: Meter::default(),
        backlog: Backlog::new(clock.clone()),
        clock: clock.clone(),
        trail: Trail::default(),
        forgetting: Forgetting::default(),
    };
    let cloud = tokio::select! {
        opened = open((&settings, &time), &in_force, &state) => opened?,
        () = stop.cancelled() => return Ok(()),
    };
    let (list, meter) = (in_force.access.clone(), state.meter.clone());
    let tenants = TenantKeeper::begin(cloud.registrations.clone(), OF_A_TABLE, list, clock.clone(), meter);
    let tenants = tokio::select! {
        tenants = tenants => tenants,
        () = stop.cancelled() => return Ok(()),
    };
    in_force.access = tenants.access();
    let private = http::listen(settings.relay.admin_listen, "UPWIRE_ADMIN_LISTEN").await?;
    tracing::info!(address = %private.local_addr()?, "health and metrics listen");

    if let Some(stack) = settings.metrics_stack.clone() {
        tokio::spawn(cloudwatch_metrics::tell(stack, metrics.clone(), ACTIVE));
    }
    let admin =
        admin::router(state.connected.subscribe(), state.stands_by.subscribe(), || None, metrics, || ());
    let admin = admin.merge(trail::routes(state.trail.clone(), state.forgetting.clone()));
    let mut parts = JoinSet::new();
    parts.spawn(Server::private(private, admin).run(stop.clone()));
    parts.spawn(live.reread_on(hangups, stop.clone()));
    parts.spawn(parts::until(stop.clone(), tenants.run(state.active.subscribe())));
    parts.spawn(timekeeper::tell(clock, stop.clone()));
    parts.spawn(relay_when_elected(settings, in_force, cloud, state, stop.clone()));
    parts::wait(parts, &stop).await
}

/// Opens the tables and the queue, and checks the marker.
async fn open(
    (settings, time): (&Settings, &ServiceTime),
    in_force: &InForce,
    state: &State,
) -> anyhow::Result<Cloud> {
    let cloud = cloud::open(settings, time, &state.meter).await?;
    marker::check(&marker_keeper(settings, &cloud, in_force, state), &settings.relay).await?;
    Ok(cloud)
}

fn marker_keeper(
    settings: &Settings,
    cloud: &Cloud,
    in_force: &InForce,
    state: &State,
) -> MarkerKeeper<RegistrationsTable> {
    let (store, table) = (cloud.registrations.clone(), settings.table_id.clone());
    let behind = (&state.backlog, state.connected.subscribe());
    settings.relay.marker_keeper(store, table, in_force, behind, state.clock.clone())
}

/// State that outlives a term: for readiness, the backlog, the clock, the usage and the trail.
struct State {
    connected: watch::Sender<bool>,
    stands_by: watch::Sender<bool>,
    /// True while this process is the relay.
    active: watch::Sender<bool>,
    meter: Meter,
    backlog: Backlog,
    clock: Clock,
    trail: Trail,
    forgetting: Forgetting,
}

/// Waits for the lease, relays while it lasts, and waits again.
async fn relay_when_elected(
    settings: Settings,
    in_force: InForce,
    mut cloud: Cloud,
    state: State,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let candidate = Candidate::new(cloud.registrations.lease(), holder()?, Uptime::system());
    loop {
        let elected = candidate.elected(|| {
            tracing::info!("another relay is active; this one takes over when that ends");
            state.stands_by.send_replace(true);
        });
        let term = tokio::select! {
            term = elected => term,
            () = stop.cancelled() => return Ok(()),
        };
        state.stands_by.send_replace(false);
        gauge!(ACTIVE).set(1.0);
        state.active.send_replace(true);
        let served = serve_term((&settings, &in_force), &mut cloud, &state, &candidate, term, &stop).await;
        state.active.send_replace(false);
        gauge!(ACTIVE).set(0.0);
        if stop.is_cancelled() || served.is_err() {
            candidate.resign().await;
            return served;
        }
    }
}

/// Relays until the lease is lost, or until `stop`.
async fn serve_term(
    (settings, in_force): (&Settings, &InForce),
    cloud: &mut Cloud,
    state: &State,
    candidate: &Candidate<aws::RelayLease>,
    term: HeldLease,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let fence = term.fence();
    let relaying = async {
        // An earlier term has closed its queue, so the queue is opened again.
        let queue = tokio::select! {
            queue = cloud.queue() => queue?,
            () = fence.lost() => return Ok(()),
            () = stop.cancelled() => return Ok(()),
        };
        let mut keeper = marker_keeper(settings, cloud, in_force, state);
        let marker = tokio::select! {
            marker = keeper.begin_patiently() => marker,
            () = fence.lost() => return Ok(()),
            () = stop.cancelled() => return Ok(()),
        };
        let (registrations, mailbox) = (cloud.registrations.clone(), cloud.mailbox.clone());
        let mut relay = settings.relay.clone().relay(
            registrations,
            state.backlog.watch(queue),
            mailbox,
            in_force.clone(),
            state.clock.clone(),
            state.meter.clone(),
        );
        relay.trail = state.trail.clone();
        relay.forgetting = state.forgetting.clone();
        let relaying = relay.run(state.connected.clone(), stop.clone(), fence.clone());
        let mut usage = UsageOfTerm::new(cloud.registrations.clone(), name()?);
        let relayed = tokio::select! {
            relayed = relaying => relayed.map_err(anyhow::Error::from),
            () = keeper.run(marker) => Ok(()),
            () = write_usage(&mut usage, &state.meter, &state.clock) => Ok(()),
        };
        // The counts of each term have a name of their own, so a write after the term's end harms no other relay.
        let _ = timeout(LAST_USAGE_TIMEOUT, write_usage_now(&mut usage, &state.meter, &state.clock)).await;
        relayed
    };
    let holding = async {
        candidate.hold(term).await;
        // The relay ends when the fence is lost.
        std::future::pending().await
    };
    tokio::select! {
        relayed = relaying => relayed,
        never = holding => never,
    }
}

/// Writes tenants' usage regularly.
async fn write_usage(usage: &mut UsageOfTerm, meter: &Meter, clock: &Clock) {
    loop {
        sleep(USAGE_INTERVAL).await;
        write_usage_now(usage, meter, clock).await;
    }
}

async fn write_usage_now(usage: &mut UsageOfTerm, meter: &Meter, clock: &Clock) {
    usage.add(meter.take());
    if let Err(error) = usage.write(clock.now()).await {
        tracing::error!(%error, "what tenants used could not be written; it is tried again");
    }
}

/// Makes a unique name for a term.
fn name() -> anyhow::Result<String> {
    Ok(format!("{:016x}", getrandom::u64()?))
}

/// Makes a unique name for the holder of the lease.
fn holder() -> anyhow::Result<Holder> {
    let mut name = [0; 16];
    getrandom::fill(&mut name)?;
    Ok(Holder(name))
}
