//! The ingress's part in tenants: it takes nothing for those that are suspended or have used their month up, and no more
//! than their rate for the others.

use chrono::{DateTime, Utc};
use push::{
    Registration,
    ports::{QueueWriter, Store, Withdrawals},
    tenant::Refusal,
};

use crate::{endpoint::Endpoint, ingress::Ingress, rejection::Rejection};

impl<R: Store, Q: QueueWriter, M: Withdrawals> Ingress<R, Q, M> {
    /// Makes sure that a push may be taken for a tenant, and counts it.
    pub(crate) async fn admit_push(&self, row: &Registration, now: DateTime<Utc>) -> Result<(), Rejection> {
        let roster = self.tenants.roster(&self.registrations, now).await;
        let domain = row.target.recipient.domain().as_str();
        if let Some((_, tenant)) = roster.tenants.of(domain) {
            tenant.admit(now).map_err(refusal)?;
        }
        self.tenants.take(&roster, domain, now).map_err(Rejection::throttled)
    }

    /// Makes sure that an endpoint whose life is over by its row may be refused for good: not while its tenant is
    /// suspended, since nobody of it can renew.
    pub(crate) async fn check_end_is_final(
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
        let roster = self.tenants.roster(&self.registrations, now).await;
        let tenant = roster.tenants.of(recipient.domain().as_str()).map(|(_, tenant)| tenant);
        match tenant.map(|tenant| tenant.admit(now)) {
            Some(Err(suspended @ Refusal::Suspended(_))) => Err(refusal(suspended)),
            _ => Ok(()),
        }
    }
}

fn refusal(refusal: Refusal) -> Rejection {
    match refusal {
        Refusal::Suspended(wait) => Rejection::Suspended(Rejection::seconds(wait)),
        Refusal::UsedUp(wait) => Rejection::QuotaUsedUp(Rejection::seconds(wait)),
    }
}
