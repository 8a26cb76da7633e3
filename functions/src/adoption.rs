//! A predecessor's endpoints at the ingress: their admission, and the row that each gets with its first push.

use chrono::{DateTime, TimeDelta, Utc};
use push::{
    Fingerprint, Registration, Target,
    ports::{QueueWriter, Renewal, Store, Withdrawals},
};

use crate::{ingress::Ingress, rejection::Rejection, seldom::Seldom, trouble::unavailable};

impl<R: Store, Q: QueueWriter, M: Withdrawals> Ingress<R, Q, M> {
    /// Checks that a predecessor's endpoint may get pushes at all. A refusal that may pass is a 503, and does not end
    /// the endpoint.
    pub(crate) async fn admit_legacy(
        &self,
        target: &Target,
        key: Fingerprint,
        now: DateTime<Utc>,
    ) -> Result<(), Rejection> {
        static NOT_LISTED: Seldom = Seldom::new();
        static ENDED: Seldom = Seldom::new();
        static WEAK: Seldom = Seldom::new();
        if self.legacy.borrow().refuses(key) {
            if let Some(times) = WEAK.due() {
                tracing::error!(
                    times,
                    "pushes to endpoints of the predecessor are refused for now: UPWIRE_LEGACY_SECRET is short, and \
                     UPWIRE_WEAK_LEGACY_SECRET does not take it"
                );
            }
            return Err(Rejection::Unavailable);
        }
        if target.legacy.is_none_or(|expiry| expiry <= now) {
            return Err(self.refusal_of_ended());
        }
        if !self.legacy_terms.admits(&target.recipient) {
            if let Some(times) = NOT_LISTED.due() {
                tracing::warn!(
                    times,
                    "pushes to endpoints of the predecessor are refused for now: UPWIRE_ACL does not have their accounts"
                );
            }
            return Err(Rejection::Unavailable);
        }
        let since = self.legacy_key_since(key, now).await?;
        if since.is_some_and(|since| self.legacy_terms.key_ended(since, now)) {
            if let Some(times) = ENDED.due() {
                tracing::warn!(
                    times,
                    "endpoints of the predecessor have ended with its key, after a life (UPWIRE_LEGACY_LIFE) and a day: remove \
                     UPWIRE_LEGACY_SECRET or UPWIRE_LEGACY_PASETO_KEY"
                );
            }
            return Err(self.refusal_of_ended());
        }
        Ok(())
    }

    /// Returns the row of a predecessor's endpoint, if it lives. Makes the row with the first push; a row that a
    /// lagging copy did not show stays.
    pub(crate) async fn adopt(
        &self,
        target: Target,
        now: DateTime<Utc>,
    ) -> Result<Option<Registration>, Rejection> {
        static FULL: Seldom = Seldom::new();
        let terms = &self.legacy_terms;
        let left = target.legacy.map_or(TimeDelta::zero(), |expiry| expiry - now).min(terms.life);
        if left <= TimeDelta::zero() {
            return Ok(None);
        }
        if self.clock.read().is_in_doubt() {
            return Err(Rejection::Unavailable);
        }
        let account = target.recipient.to_bare();
        if !terms.tally.has_room(&account, terms.names(&target.recipient), now) {
            if let Some(times) = FULL.due() {
                tracing::warn!(
                    times,
                    "pushes to endpoints of the predecessor are refused for now: as many live as may, of all or of a domain \
                     (UPWIRE_LEGACY_MAX); who has its secret can make any number"
                );
            }
            return Err(Rejection::Unavailable);
        }
        // An account's bound does not apply to a predecessor's endpoints.
        let registering = self.registrations.register(target, now, left, Renewal::WhereNeeded, usize::MAX);
        let row = registering.await.map_err(|error| unavailable(&error))?.stored();
        if let Some(row) = row.as_ref().filter(|row| row.renewed_at == now) {
            terms.tally.count(&account, row.expires_at);
        }
        match row {
            Some(row) if !row.lives(now) => self.record_end(Some(&row), now).await.map(|()| None),
            row => Ok(row),
        }
    }
}
