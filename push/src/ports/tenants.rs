//! The tenants, and what they used.

use std::future::Future;

use chrono::{DateTime, Utc};

use super::Unavailable;
use crate::{
    Roster,
    usage::{Hour, Usage},
};

/// The roster of tenants and their usage, which the registrations' store has beside them. The methods here are for
/// a store that has no tenants.
pub trait Tenants: Clone + Send + Sync + 'static {
    /// The roster; an empty one of version 0 where there is none. It shows every write that was
    /// durable before.
    fn roster(&self) -> impl Future<Output = Result<Roster, Unavailable>> + Send {
        async { Ok(Roster::default()) }
    }

    /// Replaces the roster, on condition that the stored one has the version before; false: it has not. Returns once
    /// it is durable.
    fn set_roster(&self, roster: &Roster) -> impl Future<Output = Result<bool, Unavailable>> + Send {
        let _ = roster;
        async { Err(Unavailable::new("this store has no tenants")) }
    }

    /// Keeps the rows of registrations of suspended tenants until that is over, also those that have lapsed; and no
    /// longer those of all others. It takes all rows: for now and then.
    fn keep_rows(
        &self,
        roster: &Roster,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send {
        let _ = (roster, now);
        async { Ok(()) }
    }

    /// The usage from one hour to before another.
    fn usage(&self, from: Hour, to: Hour) -> impl Future<Output = Result<Usage, Unavailable>> + Send {
        let _ = (from, to);
        async { Ok(Usage::new()) }
    }
}

/// How often a roster is changed anew because another was faster.
const ATTEMPTS_MAX: usize = 8;

/// Changes the roster, however many others do at the same time; returns what `change` has, of the time that stands.
///
/// # Errors
/// The store does not answer, or others keep changing it.
pub async fn change<S: Tenants, T>(
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
