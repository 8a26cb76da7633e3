//! Quotas of tenants: their use, and the events that report it.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use chrono::{DateTime, Utc};
use metrics::{Counter, counter, describe_counter};
use push::tenant::{self, Month, Quota};
use push::usage::Meter;
use push::{Roster, Tenant, TenantName};
use serde::Serialize;

const EVENTS: &str = "upwire_quota_events_total";
/// Timeout of a call of a webhook.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);
const WEBHOOK_TRIES_MAX: usize = 5;
const WEBHOOK_DELAY: Duration = Duration::from_secs(2);

/// Describes the metrics to the recorder, and sets them to 0.
pub(crate) fn describe_metrics() {
    describe_counter!(EVENTS, "Times that a tenant has used 80 or 100 percent of a quota in a month");
    for quota in Quota::ALL {
        for percent in tenant::EVENTS {
            events(quota, percent).increment(0);
        }
    }
}

fn events(quota: Quota, percent: u8) -> Counter {
    counter!(EVENTS, "quota" => quota.label(), "percent" => percent.to_string())
}

/// The event that a tenant has used a share of a quota, as it is POSTed to a webhook.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Event {
    tenant: TenantName,
    quota: Quota,
    percent: u8,
    used: u64,
    max: u64,
    month: Month,
    #[serde(skip)]
    webhook: Option<String>,
}

/// Notes in the roster the reached shares of quotas, and the tenants whose month is used up. Returns the events to
/// report.
pub(crate) fn judge(roster: &mut Roster, meter: &Meter, now: DateTime<Utc>) -> Vec<Event> {
    roster.iter_mut().flat_map(|(name, tenant)| judge_one(name, tenant, meter, now)).collect()
}

fn judge_one(name: &TenantName, tenant: &mut Tenant, meter: &Meter, now: DateTime<Utc>) -> Vec<Event> {
    let month = Month::of(now);
    let accepted = meter.accepted_in(name, month);
    let is_used_up = tenant.quotas.pushes_per_month.is_some_and(|max| accepted >= max);
    // A mark of an earlier month has no effect, and may stay.
    if is_used_up {
        tenant.used_up = Some(month);
    } else if tenant.used_up == Some(month) {
        tenant.used_up = None;
    }
    let (quotas, webhook) = (tenant.quotas, tenant.webhook.clone());
    let mut events = Vec::new();
    for (quota, used, max) in [
        (Quota::Pushes, accepted, quotas.pushes_per_month),
        (Quota::Registrations, meter.registrations(name), quotas.registrations),
    ] {
        let event = |percent| Event {
            tenant: name.clone(),
            quota,
            percent,
            used,
            max: max.unwrap_or(0),
            month,
            webhook: webhook.clone(),
        };
        events.extend(tenant.note_used(quota, used, now).into_iter().map(event));
    }
    events
}

/// Reports an event to the log, the metrics and the webhook.
pub(crate) fn tell(event: Event) {
    let Event { tenant, quota, percent, used, max, .. } = &event;
    events(*quota, *percent).increment(1);
    tracing::warn!(%tenant, quota = quota.label(), percent, used, max, "a tenant has used so much of a quota");
    if let Some(webhook) = event.webhook.clone() {
        tokio::spawn(post(webhook, event));
    }
}

async fn post(webhook: String, event: Event) {
    let Ok(body) = serde_json::to_string(&event) else { return };
    let delays = ExponentialBuilder::new()
        .with_min_delay(WEBHOOK_DELAY)
        .with_max_times(WEBHOOK_TRIES_MAX)
        .with_jitter();
    let post = async || match aws::post_json(&webhook, body.clone(), WEBHOOK_TIMEOUT).await {
        Ok(200..300) => Ok(()),
        Ok(status) => Err(format!("it answers {status}")),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = post.retry(delays).await {
        let tenant = &event.tenant;
        tracing::error!(%tenant, error, "the webhook of a tenant was not reached: it does not know of its quota");
    }
}

#[cfg(test)]
mod tests {
    use push::tenant::Quotas;
    use push::usage::{Counts, Tally};

    use super::*;

    #[test]
    fn a_month_that_is_used_up_is_noted_until_the_quota_grows_or_the_month_ends() {
        let now: DateTime<Utc> = "2026-11-10T12:00:00Z".parse().unwrap();
        let (mut roster, meter) = (Roster::default(), Meter::default());
        let name: TenantName = "example.com".parse().unwrap();
        let quotas = Quotas { pushes_per_month: Some(10), ..Quotas::default() };
        roster.add(name.clone(), Tenant { quotas, ..Tenant::new(now) }).unwrap();
        meter.set_tenants(roster.standings());
        let push = |roster: &mut Roster, count| {
            let counts = Counts { accepted: count, ..Counts::default() };
            meter.count("example.com", counts, now, &Tally::default());
            let events = judge(roster, &meter, now);
            let used_up = roster.get_mut(&name).unwrap().used_up;
            (events.iter().map(|event| event.percent).collect::<Vec<_>>(), used_up)
        };
        let november = Some(Month::of(now));
        assert_eq!(push(&mut roster, 7), (vec![], None));
        assert_eq!(push(&mut roster, 1), (vec![80], None));
        assert_eq!(push(&mut roster, 3), (vec![100], november));
        assert_eq!(push(&mut roster, 1), (vec![], november));
        roster.get_mut(&name).unwrap().quotas.pushes_per_month = Some(100);
        assert_eq!(push(&mut roster, 1), (vec![], None));
        let unchanged = roster.clone();
        assert!(judge(&mut roster, &meter, now).is_empty() && roster == unchanged, "nothing to be written");
    }
}
