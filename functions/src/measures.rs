//! The ingress's metrics: names and descriptions.

use metrics::{counter, describe_counter};
use push::marker::Doubt;

pub(crate) const ACCEPTED: &str = "upwire_pushes_accepted_total";
pub(crate) const WITHDRAWN: &str = "upwire_pushes_withdrawn_total";
pub(crate) const REFUSED: &str = "upwire_pushes_refused_total";
pub(crate) const DOUBTED: &str = "upwire_endpoints_doubted_total";
pub(crate) const SHED: &str = "upwire_pushes_shed_total";

/// The reasons of refusals. The last ones are those of the Matrix gateway alone.
pub(crate) const REASONS: [&str; 29] = [
    "not_found",
    "unknown_endpoint",
    "gone",
    "vapid_missing",
    "vapid_wrong",
    "throttled",
    "suspended",
    "quota_used_up",
    "unknown_message",
    "not_waiting",
    "empty_body",
    "body_too_large",
    "body_interrupted",
    "bad_ttl",
    "bad_topic",
    "unreadable_header",
    "no_key_material",
    "bad_key_material",
    "key_material_too_large",
    "superseded_encoding",
    "unavailable",
    "in_doubt",
    "method_not_allowed",
    "panicked",
    "not_json",
    "bad_json",
    "no_devices",
    "too_many_devices",
    "notification_too_large",
];

/// Describes the metrics of the ingress to the recorder, and sets them to 0.
pub fn describe_metrics() {
    describe_counter!(ACCEPTED, "Pushes answered with 201, or taken from a Matrix homeserver");
    describe_counter!(WITHDRAWN, "Pushes that their senders withdrew while they waited");
    describe_counter!(
        REFUSED,
        "Requests refused. The Matrix gateway alone has `not_json`, `bad_json`, `no_devices` and \
         `too_many_devices`, and counts `unknown_endpoint`, `gone` and `notification_too_large` for each device"
    );
    describe_counter!(DOUBTED, "Requests answered 503 (`in_doubt`), since a 404 or 410 may have been wrong");
    describe_counter!(
        SHED,
        "Refused pushes that were answered 429 since the relay is behind and they are not urgent (`UPWIRE_SHED_AFTER`)"
    );
    for name in [ACCEPTED, WITHDRAWN, SHED] {
        counter!(name).increment(0);
    }
    for reason in REASONS {
        counter!(REFUSED, "reason" => reason).increment(0);
    }
    for doubt in Doubt::ALL {
        counter!(DOUBTED, "reason" => doubt.reason()).increment(0);
    }
}
