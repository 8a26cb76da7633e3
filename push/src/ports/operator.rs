//! The ports that an operator uses, beside those of the ingress and the relay: all of the registrations' store.

use std::future::Future;

use chrono::{DateTime, Utc};
use jid::{BareJid, FullJid};

use super::{RelayRegistrations, Tenants, Unavailable};
use crate::{
    registration::{Application, Instance, Registration, Target},
    tenant::Roster,
    usage::{Hour, Usage},
};

/// Erases what the store has of a person. Processes that serve the store need not be stopped.
pub trait Erasure: Clone + Send + Sync + 'static {
    /// Makes each registration of an account, living or not, [`nameless`], and forgets its full JIDs; returns
    /// how many registrations that were. Those that began within the last second may be left.
    fn forget(
        &self,
        account: &BareJid,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<usize, Unavailable>> + Send;
}

/// The full JID that a forgotten registration names.
pub const NOBODY: &str = "forgotten.invalid/registration";

/// Makes a registration forgotten: an ended row stays with its id and epoch, so that its URL does not come back. It
/// goes a day later, as other dead rows do; that of a predecessor's endpoint a day after that would have expired.
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
    /// Replaces the roster, on condition that the stored one has the version before; false: it has not. Returns once
    /// it is durable.
    fn set_roster(&self, roster: &Roster) -> impl Future<Output = Result<bool, Unavailable>> + Send;

    /// Keeps the rows of registrations of suspended tenants until that is over, also those that have lapsed; and no
    /// longer those of all others. It takes all rows: for now and then.
    fn preserve_rows(
        &self,
        roster: &Roster,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// The usage from one hour to before another.
    fn usage(&self, from: Hour, to: Hour) -> impl Future<Output = Result<Usage, Unavailable>> + Send;
}

/// The registrations' store with all that an operator asks of it.
pub trait OperatorStore: RelayRegistrations + Erasure + TenantsWriter {}

impl<S: RelayRegistrations + Erasure + TenantsWriter> OperatorStore for S {}

/// Most attempts to change a roster while another is faster.
const ATTEMPTS_MAX: usize = 8;

/// Changes the roster, however many others do at the same time; returns what `change` has, of the time that stands.
///
/// # Errors
/// The store does not answer, or others keep changing it.
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
