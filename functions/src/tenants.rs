//! The ingress's checks for tenants. It takes no pushes for a tenant that is suspended or has used up its month, and
//! holds the others to their rates.

use chrono::{DateTime, Utc};
use push::{
    Registration,
    ports::{QueueWriter, Store, Withdrawals},
    tenant::Refusal,
};

use crate::{endpoint::Endpoint, ingress::Ingress, rejection::Rejection};

impl<R: Store, Q: QueueWriter, M: Withdrawals> Ingress<R, Q, M> {
    /// Checks that a push may be taken for its tenant, and counts the push against the tenant's rate.
    pub(crate) async fn admit_push(&self, row: &Registration, now: DateTime<Utc>) -> Result<(), Rejection> {
        let roster = self.tenants.roster(&self.registrations, now).await;
        let domain = row.target.recipient.domain().as_str();
        if let Some((_, tenant)) = roster.tenants.of(domain) {
            tenant.admit(now).map_err(refusal)?;
        }
        self.tenants.take(&roster, domain, now).map_err(Rejection::throttled)
    }

    /// Checks that an endpoint whose life is over by its row may be refused for good. While its tenant is suspended it
    /// may not, since the tenant's users cannot renew.
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
