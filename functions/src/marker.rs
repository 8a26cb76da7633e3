//! The marker, as the ingress asks for it: before it tells a sender that an endpoint ended or never was.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use metrics::counter;
use push::{
    Fingerprint, Marker, Registration, Urgency,
    marker::{Doubt, Keys, tells_of},
    ports::{Consistency, QueueWriter, Store, Unavailable, Withdrawals},
    token::claimed_epoch,
};
use tokio::time::timeout;

use crate::{
    endpoint::Endpoint,
    ingress::{ANSWER_TIMEOUT, Ingress},
    measures::{DOUBTED, SHED},
    rejection::Rejection,
    trouble::unavailable,
};

/// Time for which the marker is taken to be as it was read, where it agreed.
const TRUST: TimeDelta = TimeDelta::minutes(5);
/// Time for which it is taken to be so for what is held back.
const SHED_TRUST: TimeDelta = TimeDelta::seconds(30);
/// Returns whether a token could be one of this server's, or a predecessor's, by another secret than those at hand.
/// Nobody deletes a subscription for the answer to any other.
fn could_be_ours(token: &str) -> bool {
    const PASETO: &str = "v2.local.";
    let is_jwt = || token.starts_with("eyJ") && token.split('.').count() == 3;
    claimed_epoch(token).is_some() || token.starts_with(PASETO) || is_jwt()
}

impl<R: Store, Q: QueueWriter, M: Withdrawals> Ingress<R, Q, M> {
    /// Makes sure that a token which none of our secrets made may be refused for good.
    pub(crate) async fn vouch_unknown(&self, token: &str) -> Result<(), Rejection> {
        if !could_be_ours(token) {
            return Ok(());
        }
        let now = self.clock.now();
        let marker = timeout(ANSWER_TIMEOUT, self.marker(now)).await;
        let marker = marker.map_err(|_| unavailable(&Unavailable::new("no answer in time")))??;
        marker.vouch_unknown(claimed_epoch(token), now).map_err(|doubt| self.refuse_doubted(doubt))
    }

    /// Makes sure that a life of which `row` is all that is there is over.
    pub(crate) async fn vouch_over(
        &self,
        endpoint: &Endpoint,
        row: Option<&Registration>,
        now: DateTime<Utc>,
    ) -> Result<(), Rejection> {
        // The token of a predecessor's endpoint says what it stands for.
        let Endpoint::Ours(_, epoch) = endpoint else { return Ok(()) };
        // A clock in doubt is mended in seconds, and says nothing of what lapsed.
        if self.clock.read().is_in_doubt() {
            return Err(self.refusal_of_ended());
        }
        if !tells_of(row, *epoch) {
            let marker = self.marker(now).await?;
            marker.vouch_over(*epoch, row, now).map_err(|doubt| self.refuse_doubted(doubt))?;
        }
        self.record_end(row.filter(|row| row.epoch == *epoch), now).await
    }

    /// The refusal for what a marker that agrees leaves in doubt. It is logged once for each reading of the marker.
    fn refuse_doubted(&self, doubt: Doubt) -> Rejection {
        if self.marker.tell() {
            log(doubt);
        }
        doubted(doubt)
    }

    /// The row of an endpoint that no read which may lag has shown; a refusal for good, if it is over for certain.
    pub(crate) async fn confirm(
        &self,
        endpoint: &Endpoint,
        now: DateTime<Utc>,
    ) -> Result<Registration, Rejection> {
        let row = self.registrations.find(endpoint.key().0, Consistency::Strong).await;
        let row = row.map_err(|error| unavailable(&error))?;
        match row {
            Some(row) if endpoint.lives(&row, now) => Ok(row),
            row => {
                self.check_end_is_final(endpoint, row.as_ref(), now).await?;
                self.vouch_over(endpoint, row.as_ref(), now).await?;
                Err(Rejection::Gone)
            }
        }
    }

    /// Makes sure that a push of this urgency may go before those that wait in the queue already.
    ///
    /// The marker is read for the lowest alone: a push of normal urgency is kept back where it is known already.
    pub(crate) async fn hold_back(&self, urgency: Urgency, now: DateTime<Utc>) -> Result<(), Rejection> {
        let marker = match urgency {
            Urgency::High => return Ok(()),
            Urgency::Normal => self.marker.known(now, SHED_TRUST),
            // It can be taken whether or not the store says so.
            Urgency::Low | Urgency::VeryLow => self.read_marker(now, SHED_TRUST).await.ok(),
        };
        match marker.and_then(Result::ok).and_then(|marker| marker.shed_for(urgency, now)) {
            Some(wait) => {
                counter!(SHED).increment(1);
                Err(Rejection::throttled(wait))
            }
            None => Ok(()),
        }
    }

    /// Since when a predecessor's key is in use, if that is known.
    pub(crate) async fn legacy_key_since(
        &self,
        key: Fingerprint,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, Rejection> {
        let read = self.read_marker(now, TRUST).await.map_err(|error| unavailable(&error))?;
        Ok(read.ok().and_then(|marker| marker.legacy_since(key)))
    }

    /// The marker, if it agrees with this ingress.
    async fn marker(&self, now: DateTime<Utc>) -> Result<Arc<Marker>, Rejection> {
        let read = self.read_marker(now, TRUST).await.map_err(|error| unavailable(&error))?;
        read.map_err(doubted)
    }

    async fn read_marker(
        &self,
        now: DateTime<Utc>,
        trust: TimeDelta,
    ) -> Result<Result<Arc<Marker>, Doubt>, Unavailable> {
        if let Some(known) = self.marker.known(now, trust) {
            return Ok(known);
        }
        let found = self.registrations.marker().await?;
        let keys = self.keys();
        let vouched = found
            .ok_or(Doubt::Missing)
            .and_then(|marker| marker.vouch(&keys, self.marker.table.as_deref()).map(|()| Arc::new(marker)));
        if let Err(doubt) = &vouched {
            log(*doubt);
        }
        self.marker.learn(vouched.clone(), now);
        Ok(vouched)
    }

    fn keys(&self) -> Keys {
        Keys {
            secrets: self.secrets.borrow().fingerprints(),
            legacy: self.legacy.borrow().fingerprints().collect(),
        }
    }
}

fn log(doubt: Doubt) {
    tracing::error!(
        reason = doubt.reason(),
        mend = doubt.mend(),
        "senders are asked to try again instead of being told that their endpoints have ended"
    );
}

fn doubted(doubt: Doubt) -> Rejection {
    counter!(DOUBTED, "reason" => doubt.reason()).increment(1);
    Rejection::InDoubt
}
