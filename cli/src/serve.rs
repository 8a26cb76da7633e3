//! `upwire serve`: ingress and relay in one process on one SQLite file.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::Router;
use axum::serve::ListenerExt;
use embedded::Database;
use functions::Ingress;
use push::Secrets;
use relay::Relay;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(crate) use self::options::Options;
use self::options::Settings;
use crate::keygen;

mod admin;
mod options;

/// How long requests that are under way at a stop may take, and with them everything else.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The database's name for the secret that is made when none is given.
const KEPT_SECRET: &str = "secret";

/// Serves until `stop`.
pub(crate) async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    let settings = options.settings()?;
    let metrics = admin::install_metrics()?;
    let database = Database::open(&settings.database)
        .map_err(|error| anyhow!("the database (UPWIRE_DATABASE) cannot be opened: {error}"))?;
    let secrets = secrets(&settings, &database).await?;
    let public = listen(settings.listen, "UPWIRE_LISTEN").await?;
    let private = listen(settings.admin_listen, "UPWIRE_ADMIN_LISTEN").await?;
    tracing::info!(address = %public.local_addr()?, public_url = %settings.public_url, "the ingress listens");
    tracing::info!(address = %private.local_addr()?, "health and metrics listen");

    let (connected, readiness) = watch::channel(false);
    let endpoints = settings.endpoints();
    let relay = Relay {
        registrations: database.clone(),
        queue: database.clone(),
        secrets: secrets.clone(),
        account: settings.account,
        access: settings.access,
        endpoints,
        lifetime: settings.registration_ttl,
        ack_timeout: settings.ack_timeout,
    };
    let admin = admin::router(readiness, metrics, database.clone());
    let ingress = functions::router(Ingress {
        registrations: database.clone(),
        queue: database,
        secrets,
        public_url: Some(settings.public_url),
        default_ttl: settings.default_ttl,
        max_ttl: settings.max_ttl,
    });

    let mut tasks = JoinSet::new();
    tasks.spawn(serve(public, ingress, stop.clone()));
    tasks.spawn(serve(private, admin, stop.clone()));
    let relay = relay.run(connected, stop.clone());
    tasks.spawn(async { relay.await.map_err(anyhow::Error::from) });
    let outcome = wait(&mut tasks, &stop).await;
    if outcome.is_ok() {
        tracing::info!("stopped");
    }
    outcome
}

/// Waits for every task. One that ends before the stop, or fails, stops the others.
async fn wait(tasks: &mut JoinSet<anyhow::Result<()>>, stop: &CancellationToken) -> anyhow::Result<()> {
    let first = tokio::select! {
        first = tasks.join_next() => first,
        () = stop.cancelled() => None,
    };
    let failed = first.map(|ended| match ended {
        Ok(Ok(())) if stop.is_cancelled() => Ok(()),
        Ok(Ok(())) => Err(anyhow!("a part of the server has ended")),
        Ok(Err(error)) => Err(error),
        Err(died) => Err(anyhow!("a part of the server has died: {died}")),
    });
    stop.cancel();
    let rest = async {
        let mut outcome = failed.unwrap_or(Ok(()));
        while let Some(ended) = tasks.join_next().await {
            outcome = outcome.and(ended.map_err(anyhow::Error::from).flatten());
        }
        outcome
    };
    timeout(STOP_TIMEOUT, rest).await.unwrap_or_else(|_| {
        tracing::warn!("what was still under way after ten seconds was cut off; pushes with a 201 are kept");
        Ok(())
    })
}

async fn listen(address: SocketAddr, variable: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: stop what does, or set {variable} to another port")
    })
}

async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = listener.tap_io(|socket| {
        // An answer is one small write: it must not wait for the sender's acknowledgement.
        let _ = socket.set_nodelay(true);
    });
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    serving.into_future().await.context("the HTTP server has ended")
}

/// The secrets given, and behind them the one that an earlier start without any has made: setting
/// `UPWIRE_SECRET` later must not end the endpoints issued so far.
async fn secrets(settings: &Settings, database: &Database) -> anyhow::Result<Secrets> {
    let kept = match &settings.secret {
        Some(_) => database.setting(KEPT_SECRET)?,
        None => Some(database.setting_or(KEPT_SECRET, keygen::secret()?).await?),
    };
    let given = settings.secret.as_ref().map(options::reveal);
    let list: Vec<&str> = given.into_iter().chain(kept.as_deref()).collect();
    Ok(Secrets::parse(&list.join(","))?)
}
