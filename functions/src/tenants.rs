//! The ingress's part in tenants: it takes nothing for those that are suspended or have used their month up, and no more
//! than their rate for the others.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use push::{
    Registration, Roster,
    ports::{QueueWriter, Store, Withdrawals},
    tenant::{ByTenant, Refusal},
};
use tokio::sync::watch;

use crate::{Ingress, Rejection, Seldom, push_resource::Endpoint};

/// How long the roster is taken to be as it was read.
const TRUST: TimeDelta = TimeDelta::seconds(55);

/// The knowledge of an ingress about the tenants. Its clones know the same.
#[derive(Debug, Clone, Default)]
pub struct TenantWatch {
    source: Source,
    /// When the burst of each tenant with a rate will be whole again.
    rates: Arc<Mutex<ByTenant<DateTime<Utc>>>>,
}

#[derive(Debug, Clone)]
enum Source {
    /// It is read from the store, at most once in [`TRUST`].
    Store(Arc<Mutex<Option<Known>>>),
    /// Another part of the process reads it.
    Process(watch::Receiver<Arc<Roster>>),
}

impl Default for Source {
    fn default() -> Self {
        Self::Store(Arc::default())
    }
}

#[derive(Debug, Clone)]
struct Known {
    /// When it was read, or could not be.
    read_at: DateTime<Utc>,
    roster: Arc<Roster>,
}

impl TenantWatch {
    /// For an ingress that another part of the process tells of each change.
    #[must_use]
    pub fn told(roster: watch::Receiver<Arc<Roster>>) -> Self {
        Self { source: Source::Process(roster), rates: Arc::default() }
    }

    /// Counts a push of the tenant of a domain; where it is one too many, how long its sender has to wait.
    fn take(&self, roster: &Roster, domain: &str, now: DateTime<Utc>) -> Result<(), TimeDelta> {
        let Some((name, tenant)) = roster.tenants.of(domain) else { return Ok(()) };
        let Some(rate) = tenant.quotas.rate else { return Ok(()) };
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rate.take(rates.entry(name), now)
    }
}

impl<R: Store, Q: QueueWriter, M: Withdrawals> Ingress<R, Q, M> {
    /// Makes sure that a push may be taken for a tenant, and counts it.
    pub(crate) async fn admit_push(&self, row: &Registration, now: DateTime<Utc>) -> Result<(), Rejection> {
        let roster = self.roster(now).await;
        let domain = row.target.recipient.domain().as_str();
        if let Some((_, tenant)) = roster.tenants.of(domain) {
            tenant.admit(now).map_err(refusal)?;
        }
        self.tenants.take(&roster, domain, now).map_err(Rejection::throttled)
    }

    /// Makes sure that an endpoint whose life is over by its row may be refused for good: not while its tenant is
    /// suspended, since nobody of it can renew.
    pub(crate) async fn admit_end(
        &self,
        endpoint: &Endpoint,
        row: Option<&Registration>,
        now: DateTime<Utc>,
    ) -> Result<(), Rejection> {
        let recipient = match (endpoint, row) {
            (Endpoint::Ours(_, epoch), Some(row)) if row.epoch == *epoch && !row.revoked => {
                &row.target.recipient
            }
            (Endpoint::Legacy(target, _), None) => &target.recipient,
            (Endpoint::Legacy(target, _), Some(row)) if !row.revoked => &target.recipient,
            _ => return Ok(()),
        };
        let roster = self.roster(now).await;
        let tenant = roster.tenants.of(recipient.domain().as_str()).map(|(_, tenant)| tenant);
        match tenant.map(|tenant| tenant.admit(now)) {
            Some(Err(suspended @ Refusal::Suspended(_))) => Err(refusal(suspended)),
            _ => Ok(()),
        }
    }

    /// The tenants, as they were at most a minute ago. Pushes are taken also while the store does not tell.
    async fn roster(&self, now: DateTime<Utc>) -> Arc<Roster> {
        static LINE: Seldom = Seldom::new();
        let known = match &self.tenants.source {
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
            // Others that come meanwhile go by what was known.
            let roster = known.as_ref().map_or_else(Arc::default, |known| Arc::clone(&known.roster));
            *known = Some(Known { read_at: now, roster: Arc::clone(&roster) });
            roster
        };
        let roster = match self.registrations.roster().await {
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

fn refusal(refusal: Refusal) -> Rejection {
    match refusal {
        Refusal::Suspended(wait) => Rejection::Suspended(Rejection::seconds(wait)),
        Refusal::UsedUp(wait) => Rejection::QuotaUsedUp(Rejection::seconds(wait)),
    }
}
