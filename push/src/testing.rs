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

/// Makes a target for a full JID, always with the same application and instance, and without a key.
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

/// Makes a registration of [`target`] at `now`, for a [`WEEK`].
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

/// Returns bytes in the place of chance. Of two pushes that are accepted at once, the one with the smaller number comes
/// first. The registration sets the last two bits.
#[must_use]
pub fn chance(number: u32) -> [u8; MessageId::CHANCE_BYTES] {
    (u64::from(number) << 2).to_be_bytes()
}

/// Makes a push for a registration. Its id and its body contain the number.
#[must_use]
pub fn push(number: u32, registration: &Registration, accepted_at: DateTime<Utc>) -> PushMessage {
    let body = Body::from_bytes(&number.to_be_bytes());
    PushMessage::new(chance(number), registration, wishes(TTL_SECONDS), body, accepted_at)
}
