//! Revocations, which may take longer than their batch.

use std::{future::Future, sync::Arc, time::Duration};

use push::{
    RegistrationId,
    ports::{Revocation, Unavailable},
};
use tokio::sync::oneshot;
use tokio_xmpp::jid::BareJid;

use super::spared::{Spared, lock, within};

/// Longest time for which a revocation may be under way. The calls of a store end sooner by themselves.
pub(super) const REVOKED_WITHIN: Duration = Duration::from_secs(60);
/// Registrations whose revocations are under way.
const REVOKING_MAX: usize = 1024;

impl Spared {
    /// Has a registration revoked within the time that a batch has. A revocation that takes longer goes on after it, and
    /// its push comes again. Until it is over, only a renewal that is written outlives it.
    pub(super) async fn revoke(
        &self,
        account: &BareJid,
        registration: RegistrationId,
        revoke: impl Future<Output = Result<Revocation, Unavailable>> + Send + 'static,
    ) -> Result<Revocation, Unavailable> {
        if self.rests(account) || lock(&self.revoking).len() >= REVOKING_MAX {
            return Err(Unavailable::new("others are under way, or have failed a moment ago"));
        }
        *lock(&self.revoking).entry(registration).or_default() += 1;
        let (told, outcome) = oneshot::channel();
        let revoking = Arc::clone(&self.revoking);
        self.go_on(async move {
            let outcome = within(REVOKED_WITHIN, revoke).await;
            let mut revoking = lock(&revoking);
            if let Some(count) = revoking.get_mut(&registration) {
                *count -= 1;
            }
            revoking.retain(|_, count| *count > 0);
            let _ = told.send(outcome);
        });
        self.call(account, async { outcome.await.map_err(Unavailable::new)? }).await
    }

    /// Returns whether a revocation of this registration may be under way.
    pub(in super::super) fn is_revoking(&self, registration: RegistrationId) -> bool {
        lock(&self.revoking).contains_key(&registration)
    }
}
