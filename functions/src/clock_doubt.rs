//! Refusals while the clock is in doubt, and refusals that are stored so that no clock can take them back.

use chrono::{DateTime, TimeDelta, Utc};
use push::{
    Registration, Ttl, VapidKey,
    ports::{QueueWriter, Revocation, Store, Withdrawals},
};

use crate::{
    ingress::Ingress,
    rejection::{Rejection, VapidFault},
    seldom::Seldom,
    trouble::unavailable,
    vapid::Sender,
};

impl<R: Store, Q: QueueWriter, M: Withdrawals> Ingress<R, Q, M> {
    /// Returns the refusal of an endpoint that is over: 410, or 503 while the clock is in doubt.
    pub(crate) fn refusal_of_ended(&self) -> Rejection {
        static LINE: Seldom = Seldom::new();
        if !self.clock.read().is_in_doubt() {
            return Rejection::Gone;
        }
        if let Some(times) = LINE.due() {
            tracing::warn!(
                times,
                "pushes to endpoints that look over are refused for now: the clock is in doubt"
            );
        }
        Rejection::Unavailable
    }

    /// Revokes a life that the clock ended, before its senders are told. So it stays over whatever the clock says
    /// later.
    pub(crate) async fn record_end(
        &self,
        row: Option<&Registration>,
        now: DateTime<Utc>,
    ) -> Result<(), Rejection> {
        if self.clock.read().is_in_doubt() {
            return Err(self.refusal_of_ended());
        }
        let by_the_clock = |row: &&Registration| !row.revoked && !row.lives(now);
        let Some(row) = row.filter(by_the_clock).filter(|_| self.remembers_refusals) else { return Ok(()) };
        let id = row.target.registration_id();
        let revoked = self.registrations.revoke(id, row.epoch, &row.target.recipient, now).await;
        match revoked.map_err(|error| unavailable(&error))? {
            Revocation::Revoked | Revocation::OverBefore => Ok(()),
            // The life was renewed meanwhile.
            Revocation::GoesOn => Err(Rejection::Unavailable),
        }
    }

    /// Checks that a sender may push to an endpoint bound to this key. While the clock is in doubt, the token may be
    /// valid by either of the two times.
    pub(crate) fn prove(&self, sender: &Sender, key: &VapidKey) -> Result<(), Rejection> {
        let clock = self.clock.read();
        let proof = sender.prove(key, clock.now);
        if !clock.is_in_doubt() {
            return proof;
        }
        proof.or_else(|_| sender.prove(key, clock.wall)).map_err(|rejection| match rejection {
            Rejection::VapidWrong(VapidFault::Expired | VapidFault::TooFarAhead) => Rejection::Unavailable,
            other => other,
        })
    }

    /// Returns the time for which a push is kept. If the machine's clock is ahead, the difference is added: the push is
    /// kept no shorter, even if that clock is right.
    pub(crate) fn kept_for(&self, ttl: Ttl) -> Ttl {
        let ahead = self.clock.read().ahead();
        if ttl == Ttl::from_seconds(0) || ahead == TimeDelta::zero() {
            return ttl;
        }
        Ttl::from_seconds(
            ttl.as_seconds().saturating_add(u32::try_from(ahead.num_seconds()).unwrap_or(u32::MAX)),
        )
    }
}
