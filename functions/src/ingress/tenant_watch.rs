//! The tenants, as an ingress caches them between requests.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use push::{Roster, ports::Tenants, tenant::ByTenant};
use tokio::sync::watch;

use crate::seldom::Seldom;

/// Time for which the roster is not read again.
const TRUST: TimeDelta = TimeDelta::seconds(55);

/// The tenants, as an ingress caches them. Clones share the cache.
#[derive(Debug, Clone, Default)]
pub struct TenantWatch {
    source: Source,
    /// For each tenant with a rate, the moment at which its burst is available again in full.
    rates: Arc<Mutex<ByTenant<DateTime<Utc>>>>,
}

#[derive(Debug, Clone)]
enum Source {
    /// The ingress reads the roster from the store, at most once in [`TRUST`].
    Store(Arc<Mutex<Option<Known>>>),
    /// Another part of the process reads the roster.
    Process(watch::Receiver<Arc<Roster>>),
}

impl Default for Source {
    fn default() -> Self {
        Self::Store(Arc::default())
    }
}

#[derive(Debug, Clone)]
struct Known {
    /// Time of the last attempt to read the roster.
    read_at: DateTime<Utc>,
    roster: Arc<Roster>,
}

impl TenantWatch {
    /// Makes the cache of an ingress that another part of the process tells of each change.
    #[must_use]
    pub fn told(roster: watch::Receiver<Arc<Roster>>) -> Self {
        Self { source: Source::Process(roster), rates: Arc::default() }
    }

    /// Counts a push of the tenant of a domain. The error is the time that its sender has to wait, if the push is one
    /// too many.
    pub(crate) fn take(&self, roster: &Roster, domain: &str, now: DateTime<Utc>) -> Result<(), TimeDelta> {
        let Some((name, tenant)) = roster.tenants.of(domain) else { return Ok(()) };
        let Some(rate) = tenant.quotas.rate else { return Ok(()) };
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rate.take(rates.entry(name), now)
    }

    /// Returns the tenants, as they were at most a minute ago. While the store fails, the last known roster holds.
    pub(crate) async fn roster(&self, store: &impl Tenants, now: DateTime<Utc>) -> Arc<Roster> {
        static LINE: Seldom = Seldom::new();
        let known = match &self.source {
            Source::Process(roster) => return Arc::clone(&roster.borrow()),
            Source::Store(known) => known,
        };
        let before = {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(Known { read_at, roster }) = &*known
                && (TimeDelta::zero()..TRUST).contains(&(now - read_at))
            {
                return Arc::clone(roster);
            }
            // Requests that come meanwhile use the last known roster.
            let roster = known.as_ref().map_or_else(Arc::default, |known| Arc::clone(&known.roster));
            *known = Some(Known { read_at: now, roster: Arc::clone(&roster) });
            roster
        };
        let roster = match store.roster().await {
            Ok(roster) => Arc::new(roster),
            Err(error) => {
                if let Some(times) = LINE.due() {
                    tracing::error!(%error, times, "the tenants could not be read: what was known of them holds");
                }
                before
            }
        };
        *known.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Known { read_at: now, roster: Arc::clone(&roster) });
        roster
    }
}
