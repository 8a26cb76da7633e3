//! The ports that an operator uses beside those of the ingress and the relay. The registrations' store has all of them.

use std::future::Future;

use chrono::{DateTime, Utc};
use jid::{BareJid, FullJid};

use super::{RelayRegistrations, Tenants, Unavailable};
use crate::{
    registration::{Application, Instance, Registration, Target},
    tenant::Roster,
    usage::{Hour, Usage},
};

/// Erases the data of a person from the store. Processes that use the store need not be stopped.
pub trait Erasure: Clone + Send + Sync + 'static {
    /// Makes each registration of an account, living or not, [`nameless`], and deletes the account's full JIDs. Returns
    /// the number of registrations. Registrations that began within the last second may be left.
    fn forget(
        &self,
        account: &BareJid,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<usize, Unavailable>> + Send;
}

/// The full JID that a forgotten registration names.
pub const NOBODY: &str = "forgotten.invalid/registration";

/// Returns the ended row that takes the place of a registration. It has the id and the epoch, so that the URL does not
/// come back, and no names. It is purged a day later, as other ended rows are; for a predecessor's endpoint, a day
/// after the endpoint's expiry.
#[must_use]
pub fn nameless(row: &Registration, now: DateTime<Utc>) -> Registration {
    let legacy = row.target.legacy;
    Registration {
        target: Target {
            recipient: FullJid::new(NOBODY).expect("it is a full JID"),
            application: Application::from_bytes([0; 32]),
            instance: Instance::from_bytes([0; 32]),
            vapid: None,
            legacy,
        },
        epoch: row.epoch,
        renewed_at: now,
        expires_at: legacy.map_or(now, |expiry| expiry.max(now)),
        revoked: true,
        throttled_until: None,
    }
}

/// The tenants, as an operator changes them, and what they used.
pub trait TenantsWriter: Tenants {
    /// Replaces the roster, on condition that the stored one has the preceding version. Returns once the write is
    /// durable; `false`: the stored version is another.
    fn set_roster(&self, roster: &Roster) -> impl Future<Output = Result<bool, Unavailable>> + Send;

    /// Exempts the rows of suspended tenants' registrations from the purge, also lapsed ones, until the suspension
    /// ends. All other rows may be purged again. A call walks over all rows: for rare use.
    fn preserve_rows(
        &self,
        roster: &Roster,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Reads the usage of the hours `from` (inclusive) to `to` (exclusive).
    fn usage(&self, from: Hour, to: Hour) -> impl Future<Output = Result<Usage, Unavailable>> + Send;
}

/// The registrations' store, with all that an operator uses of it.
pub trait OperatorStore: RelayRegistrations + Erasure + TenantsWriter {}

impl<S: RelayRegistrations + Erasure + TenantsWriter> OperatorStore for S {}

/// Most attempts to change a roster that others keep changing.
const ATTEMPTS_MAX: usize = 8;

/// Changes the roster, also while others change it. Returns what `change` returned in the attempt that succeeded.
///
/// # Errors
/// The store does not answer, or others keep changing the roster.
pub async fn change<S: TenantsWriter, T>(
    store: &S,
    mut change: impl FnMut(&mut Roster) -> T,
) -> Result<T, Unavailable> {
    for _ in 0..ATTEMPTS_MAX {
        let before = store.roster().await?;
        let mut roster = before.clone();
        let changed = change(&mut roster);
        if roster == before {
            return Ok(changed);
        }
        roster.version = before.version + 1;
        if store.set_roster(&roster).await? {
            return Ok(changed);
        }
    }
    Err(Unavailable::new("others keep changing the tenants"))
}
