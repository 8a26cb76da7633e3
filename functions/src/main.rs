//! The ingress as a cloud function: AWS Lambda behind a Function URL or an HTTP API (payload format 2.0).

mod lambda;

use std::{env::VarError, process::ExitCode};

use aws::{MailboxTable, QueueSender, RegistrationsTable};
use chrono::TimeDelta;
use functions::{
    Allowance, Dropped, Ingress, LegacyKeys, LegacyTerms, MarkerWatch, TenantWatch,
    cloudwatch_format::Totals,
    settings::{self, KeptFor},
};
use jid::BareJid;
use push::{AccessList, Clock, Secrets};
use tokio::sync::watch;
use tracing_subscriber::{
    filter::Targets,
    layer::{Layer, SubscriberExt},
    util::SubscriberInitExt,
};

/// Most seconds that SQS keeps a message: 14 days.
const TTL_MAX: u32 = 14 * 24 * 3600;

/// Most Matrix notifications of one registration that an environment drops in a minute, before the homeserver has to
/// wait: a minute at the relay's default rate.
const DROPPED_IN_A_MINUTE_MAX: u64 = 120;

/// One environment of a function serves one request at a time: one thread is enough.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    start_log();
    let outcome = match ingress().and_then(|ingress| Ok((ingress, totals()?))) {
        Ok((ingress, totals)) => lambda::serve(functions::router(ingress), totals).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the function does not start");
            ExitCode::FAILURE
        }
    }
}

/// Starts the log, without times: CloudWatch adds them. Lines are JSON if the function's `LogFormat` is JSON. Crates
/// that send requests are muted, since they log the contents.
fn start_log() {
    let levels = Targets::new().with_targets(
        ["upwire_ingress", "functions", "aws", "push"].map(|ours| (ours, tracing::Level::INFO)),
    );
    let lines = tracing_subscriber::fmt::layer().without_time().with_ansi(false);
    let lines = match std::env::var("AWS_LAMBDA_LOG_FORMAT").as_deref() {
        Ok("JSON") => lines.json().flatten_event(true).with_span_list(false).boxed(),
        _ => lines.boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(levels)).init();
}

fn ingress() -> Result<Ingress<RegistrationsTable, QueueSender, MailboxTable>, lambda_http::Error> {
    let aws = aws::for_ingress(|name| std::env::var(name))?;
    let seconds = |name, default| match variable(name)? {
        None => Ok(default),
        Some(text) => match text.parse() {
            Ok(seconds @ 0..=TTL_MAX) => Ok(seconds),
            _ => Err(format!("{name}: {text:?} is not a number of seconds from 0 to {TTL_MAX}")),
        },
    };
    let kept_for = KeptFor::new(seconds("UPWIRE_DEFAULT_TTL", 86_400)?, seconds("UPWIRE_MAX_TTL", 604_800)?)
        .map_err(|problem| format!("UPWIRE_MAX_TTL: {problem}"))?;
    let public_url = variable("UPWIRE_PUBLIC_URL")?.as_deref().map(settings::public_url).transpose();
    let secrets =
        Secrets::parse(&required("UPWIRE_SECRET")?).map_err(|error| format!("UPWIRE_SECRET: {error}"))?;
    let component = variable("UPWIRE_COMPONENT")?.as_deref().map(settings::component).transpose();
    let component = component.map_err(|error| format!("UPWIRE_COMPONENT: {error}"))?;
    Ok(Ingress {
        registrations: RegistrationsTable::new(&aws, &required("UPWIRE_REGISTRATIONS_TABLE")?),
        queue: QueueSender::new(&aws, &required("UPWIRE_QUEUE_URL")?),
        mailbox: MailboxTable::new(&aws, &required("UPWIRE_MAILBOX_TABLE")?),
        secrets: watch::channel(secrets).1,
        legacy: watch::channel(legacy_keys()?).1,
        legacy_terms: legacy_terms(component.as_ref())?,
        allowance: Allowance::per_minute(allowance()?),
        tenants: TenantWatch::default(),
        marker: MarkerWatch::of_table(variable("UPWIRE_TABLE_ID")?),
        public_url: public_url.map_err(|error| format!("UPWIRE_PUBLIC_URL: {error}"))?,
        component,
        // Lambda keeps its clock right.
        clock: Clock::system(),
        remembers_refusals: false,
        dropped: Dropped::at_most(DROPPED_IN_A_MINUTE_MAX),
        default_ttl: kept_for.default,
        max_ttl: kept_for.max,
    })
}

/// Reads the number of pushes that the function takes for one registration in a minute; 0 or unset: any number.
fn allowance() -> Result<Option<u32>, String> {
    const NAME: &str = "UPWIRE_PUSHES_PER_MINUTE";
    let text = variable(NAME)?;
    let pushes =
        text.map(|text| text.parse().map_err(|_| format!("{NAME}: {text:?} is no number of pushes")));
    Ok(pushes.transpose()?.filter(|pushes| *pushes > 0))
}

/// Installs the counters for CloudWatch, if a stack is named.
fn totals() -> Result<Option<Totals>, lambda_http::Error> {
    let totals = variable("UPWIRE_METRICS_STACK")?.map(Totals::of);
    totals.as_ref().map_or(Ok(()), Totals::install)?;
    Ok(totals)
}

/// Reads the terms for a predecessor's endpoints. Without an access list, the accounts of the component's parent domain
/// are admitted, as at the relay.
fn legacy_terms(component: Option<&BareJid>) -> Result<LegacyTerms, String> {
    const LIFE: &str = "UPWIRE_LEGACY_LIFE";
    const ACL: &str = "UPWIRE_ACL";
    let mut terms = LegacyTerms::default();
    if let Some(text) = variable(LIFE)? {
        let seconds: u32 = text.parse().map_err(|_| format!("{LIFE}: {text:?} is no number of seconds"))?;
        terms.life = TimeDelta::seconds(seconds.into());
    }
    let list = match variable(ACL)? {
        Some(text) => Some(text.parse().map_err(|error| format!("{ACL}: {error}"))?),
        None => component.map(AccessList::parent_domain),
    };
    terms.access = list.map(|list| watch::channel(list).1);
    Ok(terms)
}

fn legacy_keys() -> Result<LegacyKeys, String> {
    let mut keys = LegacyKeys::default();
    if let Some(secret) = variable("UPWIRE_LEGACY_SECRET")? {
        keys = if takes_weak()? { keys.with_jwt(&secret) } else { keys.with_jwt_unless_weak(&secret) };
    }
    if let Some(key) = variable("UPWIRE_LEGACY_PASETO_KEY")? {
        keys = keys.with_paseto(&key).map_err(|error| format!("UPWIRE_LEGACY_PASETO_KEY: {error}"))?;
    }
    Ok(keys)
}

fn takes_weak() -> Result<bool, String> {
    const NAME: &str = "UPWIRE_WEAK_LEGACY_SECRET";
    let parse =
        |text: String| text.parse().map_err(|_| format!("{NAME}: {text:?} is neither true nor false"));
    Ok(variable(NAME)?.map(parse).transpose()?.unwrap_or(false))
}

fn required(name: &str) -> Result<String, String> {
    variable(name)?.ok_or_else(|| format!("{name}: is missing; template.yaml sets it"))
}

/// Returns an environment variable's value. An empty value counts as unset.
fn variable(name: &str) -> Result<Option<String>, String> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(error) => Err(format!("{name}: {error}")),
    }
}
