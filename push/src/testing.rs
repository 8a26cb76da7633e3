//! Registrations and pushes for the tests of every crate (the feature `testing`).

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    message::{Body, MessageId, PushMessage, Ttl, Urgency, Wishes},
    registration::{Application, Instance, Registration, Target},
};

/// Lifetime of the registrations of tests.
pub const WEEK: TimeDelta = TimeDelta::days(7);

/// Time for which [`push`] is kept, in seconds.
pub const TTL_SECONDS: u32 = 60;

/// The target of a full JID: one application, one instance, no key.
///
/// # Panics
/// If `recipient` is no full JID.
#[must_use]
pub fn target(recipient: &str) -> Target {
    Target {
        recipient: recipient.parse().expect("a full JID"),
        application: Application::from_bytes([1; 32]),
        instance: Instance::from_bytes([2; 32]),
        vapid: None,
        legacy: None,
    }
}

/// A registration of [`target`], made at `now` for a [`WEEK`].
///
/// # Panics
/// If `recipient` is no full JID.
#[must_use]
pub fn registration(recipient: &str, now: DateTime<Utc>) -> Registration {
    Registration::renew(None, target(recipient), now, WEEK)
}

/// Wishes of normal urgency, without a topic.
#[must_use]
pub const fn wishes(ttl_seconds: u32) -> Wishes {
    Wishes { ttl: Ttl::from_seconds(ttl_seconds), urgency: Urgency::Normal, topic: None }
}

/// Bytes in the place of chance: of two pushes accepted at once, the smaller number comes first. The registration gives
/// the last two bits.
#[must_use]
pub fn chance(number: u32) -> [u8; MessageId::CHANCE_BYTES] {
    (u64::from(number) << 2).to_be_bytes()
}

/// A push for a registration; its id and its body tell the number.
#[must_use]
pub fn push(number: u32, registration: &Registration, accepted_at: DateTime<Utc>) -> PushMessage {
    let body = Body::from_bytes(&number.to_be_bytes());
    PushMessage::new(chance(number), registration, wishes(TTL_SECONDS), body, accepted_at)
}
