//! The names of the relay's metrics, what they mean, and how they are kept.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::delivery::core::{Lapsing, Measure};

pub(crate) const DELIVERED: &str = "upwire_pushes_delivered_total";
pub(crate) const EXPIRED: &str = "upwire_pushes_expired_total";
pub(crate) const REVOKED: &str = "upwire_pushes_revoked_total";
pub(crate) const RETRIED: &str = "upwire_pushes_retried_total";
pub(crate) const KEPT: &str = "upwire_mailbox_kept_total";
pub(crate) const REPLACED: &str = "upwire_mailbox_replaced_total";
pub(crate) const DROPPED: &str = "upwire_mailbox_dropped_total";
pub(crate) const THROTTLED: &str = "upwire_registrations_throttled_total";
pub(crate) const IN_FLIGHT: &str = "upwire_pushes_in_flight";
/// The histogram of the time from acceptance to acknowledgement.
pub const ACKNOWLEDGED_SECONDS: &str = "upwire_push_acknowledged_seconds";
pub(crate) const REGISTERED: &str = "upwire_registrations_total";
pub(crate) const REGISTRATIONS_REVOKED: &str = "upwire_registrations_revoked_total";
pub(crate) const LAPSING: &str = "upwire_registrations_lapsing";
pub(crate) const REQUESTS_DROPPED: &str = "upwire_requests_dropped_total";
pub(crate) const STREAM_UP: &str = "upwire_xmpp_stream_up";
pub(crate) const RECONNECTS: &str = "upwire_xmpp_reconnects_total";

/// Describes the metrics of the relay to the recorder.
pub fn describe_metrics() {
    let counters = [
        (DELIVERED, "Pushes that the distributor acknowledged"),
        (EXPIRED, "Pushes whose time ran out before they were acknowledged"),
        (REVOKED, "Pushes whose registration ended first: refused, or waiting then"),
        (RETRIED, "Deliveries that failed for a while; the pushes wait in the mailbox"),
        (KEPT, "Pushes put into the mailbox"),
        (REPLACED, "Pushes in the mailbox that a later one of the same topic replaced"),
        (DROPPED, "Pushes in the mailbox that were dropped because too many waited"),
        (THROTTLED, "Times that a registration was found over its rate"),
        (REGISTERED, "Registrations and renewals"),
        (REGISTRATIONS_REVOKED, "Registrations revoked because the application is gone"),
        (REQUESTS_DROPPED, "Requests of XMPP users refused, or not answered, because too many came at once"),
        (RECONNECTS, "Streams to the XMPP server after the first"),
    ];
    for (name, meaning) in counters {
        describe_counter!(name, meaning);
        counter!(name).increment(0);
    }
    describe_gauge!(IN_FLIGHT, "Pushes sent and not answered");
    describe_gauge!(STREAM_UP, "1 while the component is connected to the XMPP server");
    describe_histogram!(ACKNOWLEDGED_SECONDS, "Time from acceptance to acknowledgement, in seconds");
    describe_gauge!(LAPSING, "Living registrations whose renewal the access list forbids, at the last count");
    gauge!(IN_FLIGHT).set(0.0);
    gauge!(LAPSING).set(0.0);
    gauge!(STREAM_UP).set(0.0);
}

/// Domains whose lapsing registrations are told of one by one.
const DOMAINS_TOLD_MAX: usize = 20;

/// Counts what the core has measured.
pub(crate) fn count(measure: Measure) {
    match measure {
        Measure::Delivered(waited) => {
            counter!(DELIVERED).increment(1);
            histogram!(ACKNOWLEDGED_SECONDS).record(waited.as_seconds_f64().max(0.0));
        }
        Measure::Expired => counter!(EXPIRED).increment(1),
        Measure::Retried => counter!(RETRIED).increment(1),
        Measure::Throttled => counter!(THROTTLED).increment(1),
        Measure::RequestRefused => counter!(REQUESTS_DROPPED).increment(1),
        Measure::InFlight(count) => gauge!(IN_FLIGHT).set(count as f64),
        Measure::Unanswered(unanswered) => {
            tracing::warn!(unanswered, "pushes were not answered in time; they are delivered again");
        }
        Measure::Lapsing(domains) => tell_of_lapsing(&domains),
    }
}

fn tell_of_lapsing(domains: &[Lapsing]) {
    let count = |domains: &[Lapsing]| domains.iter().map(|lapsing| lapsing.registrations).sum::<usize>();
    gauge!(LAPSING).set(count(domains) as f64);
    let (told, others) = domains.split_at(domains.len().min(DOMAINS_TOLD_MAX));
    for Lapsing { domain, registrations, first } in told {
        tracing::warn!(
            domain,
            registrations,
            %first,
            "registrations lapse, the first at that moment: the access list does not name their accounts, so \
             renewals are refused and pushes wait; if that is a slip, add the domain to it"
        );
    }
    if !others.is_empty() {
        let (domains, registrations) = (others.len(), count(others));
        tracing::warn!(domains, registrations, "registrations of further domains lapse, too");
    }
}
