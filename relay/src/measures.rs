//! The names of the relay's metrics, and what they mean.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};

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
pub(crate) const NOT_ADMITTED: &str = "upwire_registrations_refused_total";
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
        (NOT_ADMITTED, "Registrations refused because the access list does not have the user"),
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
