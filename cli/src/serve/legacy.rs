//! The terms of `serve` for the endpoints of a predecessor.

use chrono::{DateTime, TimeDelta, Utc};
use embedded::Database;
use functions::{LegacyTally, LegacyTerms};
use push::Marker;

use crate::live::InForce;

/// The bounds that were given.
pub(crate) struct Bounds {
    pub(crate) life: TimeDelta,
    pub(crate) max: usize,
    pub(crate) of_domain_max: usize,
}

/// Makes the terms, with a count of the endpoints that live already. Logs a warning if a key has ended.
pub(crate) fn terms(
    bounds: &Bounds,
    in_force: &InForce,
    marker: &Marker,
    database: &Database,
    now: DateTime<Utc>,
) -> anyhow::Result<LegacyTerms> {
    let terms = LegacyTerms {
        life: bounds.life,
        access: Some(in_force.access.clone()),
        tally: LegacyTally::at_most(bounds.max, bounds.of_domain_max),
    };
    let keys: Vec<_> = in_force.legacy.borrow().fingerprints().collect();
    if keys.is_empty() {
        return Ok(terms);
    }
    for (account, expires_at) in database.legacy_living(now)? {
        terms.tally.count(&account, expires_at);
    }
    let ended = |key| marker.legacy_since(key).is_some_and(|since| terms.key_ended(since, now));
    if keys.into_iter().any(ended) {
        tracing::warn!(
            "a key of the predecessor has ended, and its endpoints with it: remove UPWIRE_LEGACY_SECRET or \
             UPWIRE_LEGACY_PASETO_KEY, which can do no more than harm"
        );
    }
    Ok(terms)
}
