//! `upwire serve`: ingress and relay in one process on one SQLite file.

use std::time::Duration;

use embedded::Database;
use functions::{Allowance, Dropped, Ingress, MarkerWatch, TenantWatch};
use metrics::{describe_gauge, gauge};
use push::usage::Meter;
use relay::{Backlog, Fence, Rate};
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub(crate) use self::options::Options;
use self::timekeeper::{Sources, Timekeeper};
use crate::http::{self, Server, Tls};
use crate::live::{self, Live};
use crate::tenant::keeper::{OF_A_DATABASE, TenantKeeper};
use crate::tenant::quota;
use crate::{admin, clock, keygen, marker, parts, trail, values};

mod database;
mod legacy;
mod options;
mod timekeeper;

/// The name of the setting that holds the secret of the first start.
pub(crate) const KEPT_SECRET: &str = "secret";
/// Time between two writes of tenants' usage, if nothing else is written.
const USAGE_INTERVAL: Duration = Duration::from_secs(5);
const QUEUE_DEPTH: &str = "upwire_queue_depth";
const MAILBOX_DEPTH: &str = "upwire_mailbox_depth";

/// Describes the metrics of the process to the recorder.
pub(crate) fn describe_metrics() {
    functions::describe_metrics();
    relay::describe_metrics();
    quota::describe_metrics();
    clock::describe_metrics();
    http::describe_metrics();
    describe_gauge!(QUEUE_DEPTH, "Pushes in the queue: on their way, or waiting to be sent");
    describe_gauge!(
        MAILBOX_DEPTH,
        "Pushes that wait in the mailbox for phones that are away, with those that have expired since the phone was \
         last tried"
    );
}

/// Serves until `stop`.
pub(crate) async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    let settings = options.settings()?;
    values::warn_of_plain_http(&settings.relay.public_url);
    let connections_max = http::connections_max(http::raise_limit());
    let hangups = live::hangups()?;
    let host = settings.relay.public_url.host_str();
    let tls = settings.certificate.map(|files| Tls::open(files, host)).transpose()?;
    let metrics = admin::install_metrics()?;
    describe_metrics();
    let in_a_minute_max = settings.relay.rate.map_or(u64::MAX, Rate::in_a_minute);
    let database = database::open(&settings.database)?
        .with_queue_max(settings.queue_max)
        .with_disk_floor(settings.disk_floor)
        .with_registration_queue_max(in_a_minute_max);
    let timekeeper = Timekeeper::begin(database.clone(), Sources::system()).await?;
    let clock = timekeeper.clock();
    let database = database.with_clock(clock.clone());
    let mut values = settings.relay.values(secrets(settings.relay.secret.as_ref(), &database).await?);
    settings.legacy.add_to(&mut values);
    let live = Live::new(settings.relay.files.clone(), values)?;
    let mut in_force = live.in_force();
    let (list, meter) = (in_force.access.clone(), Meter::default());
    let database = database.with_usage(meter.clone());
    let tenants =
        TenantKeeper::begin(database.clone(), OF_A_DATABASE, list, clock.clone(), meter.clone()).await;
    in_force.access = tenants.access();
    let (connected, readiness) = watch::channel(false);
    let backlog = Backlog::new(clock.clone());
    let behind = (&backlog, readiness.clone());
    let mut keeper = settings.relay.marker_keeper(database.clone(), None, &in_force, behind, clock.clone());
    marker::check(&keeper, &settings.relay).await?;
    let marker = keeper.begin().await?;
    let legacy_terms = legacy::terms(&settings.legacy_bounds, &in_force, &marker, &database, clock.now())?;
    let public = http::listen(settings.listen, "UPWIRE_LISTEN").await?;
    let private = http::listen(settings.relay.admin_listen, "UPWIRE_ADMIN_LISTEN").await?;
    let (public_url, component) = (settings.relay.public_url.clone(), settings.relay.component.clone());
    tracing::info!(address = %public.local_addr()?, %public_url, connections_max, "the ingress listens");
    tracing::info!(address = %private.local_addr()?, "health and metrics listen");

    let queue = backlog.watch(database.clone());
    let relay = settings.relay.relay(
        database.clone(),
        queue,
        database.clone(),
        in_force.clone(),
        clock.clone(),
        meter.clone(),
    );
    let (trail, forgetting) = (relay.trail.clone(), relay.forgetting.clone());
    let (depths, room) = (database.clone(), database.clone());
    let trouble = move || room.check_room().err().map(|low| low.to_string());
    let admin = admin::router(readiness, watch::channel(false).1, trouble, metrics, move || {
        gauge!(QUEUE_DEPTH).set(depths.queue_depth() as f64);
        gauge!(MAILBOX_DEPTH).set(depths.mailbox_depth() as f64);
    });
    let admin = admin.merge(trail::routes(trail, forgetting));
    let ingress = functions::router(Ingress {
        registrations: database.clone(),
        queue: database.clone(),
        mailbox: database.clone(),
        secrets: in_force.secrets,
        legacy: in_force.legacy,
        legacy_terms,
        marker: MarkerWatch::default(),
        // No allowance: the queue has a bound for each registration.
        allowance: Allowance::default(),
        tenants: TenantWatch::told(tenants.roster()),
        public_url: Some(public_url),
        component: Some(component),
        clock,
        remembers_refusals: true,
        dropped: Dropped::at_most(in_a_minute_max),
        default_ttl: settings.kept_for.default,
        max_ttl: settings.kept_for.max,
    });

    let mut parts = JoinSet::new();
    if let Some(tls) = tls.clone() {
        parts.spawn(tls.reread(live::hangups()?, stop.clone()));
    }
    let public = Server::public(public, ingress, connections_max, settings.proxies).with_tls(tls);
    parts.spawn(public.run(stop.clone()));
    parts.spawn(Server::private(private, admin).run(stop.clone()));
    parts.spawn(live.reread_on(hangups, stop.clone()));
    parts.spawn(parts::until(stop.clone(), keeper.run(marker)));
    parts.spawn(parts::until(stop.clone(), tenants.run(watch::channel(true).1)));
    parts.spawn(parts::until(stop.clone(), write_usage(database.clone())));
    parts.spawn(timekeeper.run(stop.clone()));
    // The fence is open: the lock on the file ensures that only one relay runs.
    let relay = relay.run(connected, stop.clone(), Fence::open());
    parts.spawn(async { relay.await.map_err(anyhow::Error::from) });
    let outcome = parts::wait(parts, &stop).await;
    if database.has_usage()
        && let Err(error) = database.write_usage().await
    {
        tracing::error!(%error, "the last seconds of what tenants used are lost");
    }
    if let Err(error) = database.fold_log() {
        tracing::warn!(%error, "the database's log (-wal) could not be brought into its file: copy both");
    }
    outcome
}

/// Writes tenants' usage regularly, if nothing else is written.
async fn write_usage(database: Database) {
    loop {
        sleep(USAGE_INTERVAL).await;
        if database.has_usage() {
            // The writer logs an error, and the next commit writes the usage.
            let _ = database.write_usage().await;
        }
    }
}

/// Returns the given secrets, followed by the one that an earlier start without secrets has made. Setting
/// `UPWIRE_SECRET` later must not end the endpoints issued so far.
async fn secrets(given: Option<&SecretString>, database: &Database) -> anyhow::Result<Vec<SecretString>> {
    let kept = match given {
        Some(_) => {
            let kept = database.setting(KEPT_SECRET)?;
            if kept.is_some() {
                tracing::info!(
                    "the secret that was made at the first start verifies endpoints still, behind UPWIRE_SECRET; \
                     `upwire secret retire` ends that, and the endpoints that it signed"
                );
            }
            kept
        }
        None => Some(database.setting_or(KEPT_SECRET, keygen::secret()?).await?),
    };
    Ok(given.into_iter().flat_map(live::split).chain(kept.map(SecretString::from)).collect())
}
