//! The administration address: health, readiness, and metrics for Prometheus.

use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::sync::watch;
use tokio::time::interval;

/// Upper bounds of the histogram's buckets, in seconds. They range from a phone that answers at once to one that is
/// away for a day.
const ACKNOWLEDGED_BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0, 86400.0];
/// Time between two runs of the recorder's upkeep, which moves samples into the buckets.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Installs the process's recorder of metrics.
pub(crate) fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    let metric = Matcher::Full(relay::ACKNOWLEDGED_SECONDS.to_owned());
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(metric, &ACKNOWLEDGED_BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .context("metrics cannot be recorded")?;
    let upkeep = handle.clone();
    tokio::spawn(async move {
        let mut interval = interval(UPKEEP_INTERVAL);
        loop {
            interval.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// Makes the routes `/healthz`, `/readyz` and `/metrics`. `measure` updates the gauges that are measured on request. A
/// relay that stands by is ready. A process in `trouble` is not ready, connected or not.
pub(crate) fn router(
    connected: watch::Receiver<bool>,
    stands_by: watch::Receiver<bool>,
    trouble: impl Fn() -> Option<String> + Clone + Send + Sync + 'static,
    metrics: PrometheusHandle,
    measure: impl Fn() + Clone + Send + Sync + 'static,
) -> Router {
    let ready = move || {
        let (connected, stands_by) = (*connected.borrow(), *stands_by.borrow());
        let (status, text) = match trouble() {
            Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")),
            None if connected => (StatusCode::OK, "ready\n".to_owned()),
            None if stands_by => (StatusCode::OK, "ready to take over: another relay is active\n".to_owned()),
            None => {
                let text = "the component is not connected to the XMPP server\n";
                (StatusCode::SERVICE_UNAVAILABLE, text.to_owned())
            }
        };
        async move { (status, text) }
    };
    let render = move || {
        measure();
        let text = metrics.render();
        async move { ([("content-type", "text/plain; version=0.0.4")], text) }
    };
    Router::new()
        .route("/healthz", get(async || "healthy\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
}
