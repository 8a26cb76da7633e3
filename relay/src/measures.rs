//! The names of the relay's metrics, and what they mean.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

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

const COUNTERS: [(&str, &str); 13] = [
    (
        DELIVERED,
        "Pushes that the phone acknowledged; each once, as far as one process can know: it remembers the last 14,000",
    ),
    (EXPIRED, "Pushes whose time ran out before they were acknowledged"),
    (
        REVOKED,
        "Pushes whose registration ended first: the phone refused them since the application is gone, or they waited \
         then",
    ),
    (
        RETRIED,
        "Deliveries that failed: the push goes out again, goes to another full JID, or waits in the mailbox",
    ),
    (KEPT, "Pushes put into the mailbox"),
    (REPLACED, "Pushes in the mailbox that a later one of the same topic replaced"),
    (
        DROPPED,
        "Pushes in the mailbox that were dropped because of `UPWIRE_MAILBOX_MAX`, `UPWIRE_ACCOUNT_MAILBOX_MAX` or \
         `UPWIRE_DOMAIN_MAILBOX_MAX`",
    ),
    (THROTTLED, "Times that a registration was found over its rate (`UPWIRE_RATE`)"),
    (REGISTERED, "Registrations and renewals"),
    (
        NOT_ADMITTED,
        "Registrations refused because neither `UPWIRE_ACL` nor a tenant that is served has the user",
    ),
    (REGISTRATIONS_REVOKED, "Registrations ended because the application is gone"),
    (
        REQUESTS_DROPPED,
        "Requests of XMPP users refused (`resource-constraint`), or not answered, because too many came at once",
    ),
    (RECONNECTS, "Connections to the XMPP server after the first"),
];
const GAUGES: [(&str, &str); 3] = [
    (IN_FLIGHT, "Pushes sent and not answered"),
    (
        LAPSING,
        "Registrations that live, and whose accounts are not on the access list, when they were last counted: at the \
         start, after a change of the list, and hourly while there are any",
    ),
    (STREAM_UP, "1 while the component is connected to the XMPP server"),
];

/// Describes the metrics of the relay to the recorder, and sets them to 0.
pub fn describe_metrics() {
    for (name, meaning) in COUNTERS {
        describe_counter!(name, meaning);
        counter!(name).increment(0);
    }
    for (name, meaning) in GAUGES {
        describe_gauge!(name, meaning);
        gauge!(name).set(0.0);
    }
    describe_histogram!(
        ACKNOWLEDGED_SECONDS,
        Unit::Seconds,
        "Time from the 201 to the phone's acknowledgement"
    );
}
