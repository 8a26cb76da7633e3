//! The relay's tables and queue on AWS, opened after a check that it may use them.

use std::time::Duration;

use aws::{CannotStart, Cause, MailboxTable, Queue, RegistrationsTable, SdkConfig, ServiceTime};
use backon::{ExponentialBuilder, Retryable};
use push::usage::Meter;
use tokio::time::Instant;

use super::options::{MAILBOX_TABLE, QUEUE_URL, REGISTRATIONS_TABLE, Settings};
use crate::{aws_configuration, configuration::ConfigurationError};

/// Longest wait for AWS at the start, since a machine that boots may have no network yet.
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY_DELAY_MIN: Duration = Duration::from_millis(500);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// The parts of AWS that the relay uses.
pub(super) struct Cloud {
    pub(super) registrations: RegistrationsTable,
    pub(super) mailbox: MailboxTable,
    config: SdkConfig,
    queue_url: String,
    /// The queue that was opened to check that it can be.
    queue: Option<Queue>,
}

impl Cloud {
    /// Returns the queue. Opens it again for each term after the first, since a term closes it, and retries while AWS
    /// is out of reach.
    pub(super) async fn queue(&mut self) -> anyhow::Result<Queue> {
        if let Some(queue) = self.queue.take() {
            return Ok(queue);
        }
        loop {
            match patiently(|| Queue::open(&self.config, &self.queue_url)).await {
                Err(error) if matches!(error.cause, Cause::Unavailable | Cause::Clock) => {}
                opened => return opened.map_err(|error| refusal(error, QUEUE_URL)),
            }
        }
    }
}

/// Opens the tables and the queue, after checking that all of them can be used.
pub(super) async fn open(settings: &Settings, time: &ServiceTime, meter: &Meter) -> anyhow::Result<Cloud> {
    let Settings { registrations_table, mailbox_table, queue_url, .. } = settings;
    let config = time.heard_by(aws_configuration::read().await?);
    let registrations = RegistrationsTable::new(&config, registrations_table);
    let registrations = registrations.counting_units(meter.clone(), time.clock());
    patiently(|| registrations.check()).await.map_err(|error| refusal(error, REGISTRATIONS_TABLE))?;
    let mailbox = MailboxTable::new(&config, mailbox_table).counting_units(meter.clone(), time.clock());
    patiently(|| mailbox.check()).await.map_err(|error| refusal(error, MAILBOX_TABLE))?;
    let queue = Some(open_queue(&config, queue_url).await?);
    let region = config.region().map(ToString::to_string).unwrap_or_default();
    tracing::info!(
        region,
        registrations = registrations_table,
        mailbox = mailbox_table,
        queue = queue_url,
        "the tables and the queue are open"
    );
    Ok(Cloud { registrations, mailbox, config, queue_url: queue_url.clone(), queue })
}

async fn open_queue(config: &SdkConfig, url: &str) -> anyhow::Result<Queue> {
    patiently(|| Queue::open(config, url)).await.map_err(|error| refusal(error, QUEUE_URL))
}

/// Retries for up to 30 s while AWS is out of reach.
async fn patiently<T, F: Future<Output = Result<T, CannotStart>>>(
    attempt: impl FnMut() -> F,
) -> Result<T, CannotStart> {
    let delays = ExponentialBuilder::new()
        .with_jitter()
        .with_min_delay(RETRY_DELAY_MIN)
        .with_max_delay(RETRY_DELAY_MAX)
        .without_max_times();
    let end = Instant::now() + PATIENCE;
    attempt
        .retry(delays)
        // A call that AWS refuses because of its time teaches the right time.
        .when(|error| matches!(error.cause, Cause::Unavailable | Cause::Clock) && Instant::now() < end)
        .notify(|CannotStart { cause, problem: error, mend }, _| match cause {
            Cause::Clock => {
                tracing::warn!(error, mend, "AWS refuses this machine's time; trying again by its own")
            }
            _ => tracing::warn!(error, mend, "AWS is out of reach; trying again"),
        })
        .await
}

/// Distinguishes a wrong name in the configuration from a refusal or an outage of AWS.
fn refusal(error: CannotStart, variable: &str) -> anyhow::Error {
    match error.cause {
        Cause::Configuration => ConfigurationError::new(variable, error.problem, error.mend).into(),
        Cause::Denied | Cause::Credentials | Cause::Clock => error.into(),
        Cause::Unavailable => {
            anyhow::Error::new(error).context(format!("AWS was out of reach for {} s", PATIENCE.as_secs()))
        }
    }
}
