//! `upwire relay`: the relay alone, on a DynamoDB table and an SQS queue.

use aws::{Queue, RegistrationsTable};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use self::options::Options;
use crate::{admin, parts};

mod cloud;
mod options;

/// Relays until `stop`.
pub(crate) async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    let settings = options.settings()?;
    let metrics = admin::install_metrics()?;
    let opening = cloud::open(&settings.registrations_table, &settings.queue_url);
    let (registrations, queue): (RegistrationsTable, Queue) = tokio::select! {
        opened = opening => opened?,
        () = stop.cancelled() => return Ok(()),
    };
    let private = parts::listen(settings.relay.admin_listen, "UPWIRE_ADMIN_LISTEN").await?;
    tracing::info!(address = %private.local_addr()?, "health and metrics listen");

    let (connected, readiness) = watch::channel(false);
    let relay = settings.relay.relay(registrations, queue, settings.secrets);
    let admin = admin::router(readiness, metrics, || ());
    let mut parts = JoinSet::new();
    parts.spawn(parts::serve(private, admin, stop.clone()));
    let relay = relay.run(connected, stop.clone());
    parts.spawn(async { relay.await.map_err(anyhow::Error::from) });
    parts::wait(parts, &stop).await
}
