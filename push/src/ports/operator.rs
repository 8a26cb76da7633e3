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

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::{Arc, Mutex},
        task::{Context, Poll, Waker},
    };

    use super::*;
    use crate::tenant::{Tenant, TenantName};

    /// A store of the tenants that others change before each of our first writes.
    #[derive(Clone, Default)]
    struct Busy {
        roster: Arc<Mutex<Roster>>,
        others: Arc<Mutex<usize>>,
    }

    impl Tenants for Busy {
        async fn roster(&self) -> Result<Roster, Unavailable> {
            Ok(self.roster.lock().unwrap().clone())
        }
    }

    impl TenantsWriter for Busy {
        async fn set_roster(&self, next: &Roster) -> Result<bool, Unavailable> {
            let (mut roster, mut others) = (self.roster.lock().unwrap(), self.others.lock().unwrap());
            if *others > 0 {
                *others -= 1;
                roster.version += 1;
            }
            let follows = next.version == roster.version + 1;
            if follows {
                *roster = next.clone();
            }
            Ok(follows)
        }

        async fn preserve_rows(&self, _: &Roster, _: DateTime<Utc>) -> Result<(), Unavailable> {
            Ok(())
        }

        async fn usage(&self, _: Hour, _: Hour) -> Result<Usage, Unavailable> {
            Ok(Usage::new())
        }
    }

    /// Adds a tenant; returns whether it was new.
    fn add(store: &Busy, name: &str) -> Result<bool, Unavailable> {
        let name: TenantName = name.parse().unwrap();
        let tenant = Tenant::new(DateTime::UNIX_EPOCH);
        let mut changing = pin!(change(store, |roster| roster.add(name.clone(), tenant.clone()).is_ok()));
        match changing.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(changed) => changed,
            Poll::Pending => unreachable!("the store answers at once"),
        }
    }

    #[test]
    fn a_change_is_made_again_while_others_change_the_tenants() {
        for (others, is_made) in [(0, true), (7, true), (8, false)] {
            let store = Busy::default();
            *store.others.lock().unwrap() = others;
            assert_eq!(add(&store, "example.com").ok(), is_made.then_some(true), "{others}");
            let roster = store.roster.lock().unwrap().clone();
            assert_eq!(
                (roster.version, roster.tenants.iter().count()),
                (others as u64 + u64::from(is_made), usize::from(is_made))
            );
        }
    }

    #[test]
    fn where_nothing_changes_nothing_is_written() {
        let store = Busy::default();
        assert_eq!(
            [add(&store, "example.com").ok(), add(&store, "example.com").ok()],
            [Some(true), Some(false)]
        );
        assert_eq!(store.roster.lock().unwrap().version, 1);
    }
}
