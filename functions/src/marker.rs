//! The ingress's checks against the marker, before it tells a sender that an endpoint has ended or never existed.

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

/// Time for which a marker that agrees is not read again.
const TRUST: TimeDelta = TimeDelta::minutes(5);
/// Time for which the marker is not read again to decide what is shed.
const SHED_TRUST: TimeDelta = TimeDelta::seconds(30);
/// Returns whether a token has the form of one of this server's, or a predecessor's, so that a secret unknown here may
/// have made it. No sender has a subscription with a token of another form.
fn could_be_ours(token: &str) -> bool {
    const PASETO: &str = "v2.local.";
    let is_jwt = || token.starts_with("eyJ") && token.split('.').count() == 3;
    claimed_epoch(token).is_some() || token.starts_with(PASETO) || is_jwt()
}

impl<R: Store, Q: QueueWriter, M: Withdrawals> Ingress<R, Q, M> {
    /// Checks that a token which none of our secrets made may be refused for good.
    pub(crate) async fn vouch_unknown(&self, token: &str) -> Result<(), Rejection> {
        if !could_be_ours(token) {
            return Ok(());
        }
        let now = self.clock.now();
        let marker = timeout(ANSWER_TIMEOUT, self.marker(now)).await;
        let marker = marker.map_err(|_| unavailable(&Unavailable::new("no answer in time")))??;
        marker.vouch_unknown(claimed_epoch(token), now).map_err(|doubt| self.refuse_doubted(doubt))
    }

    /// Checks that the life that the endpoint names is over for certain. The store has `row`.
    pub(crate) async fn vouch_over(
        &self,
        endpoint: &Endpoint,
        row: Option<&Registration>,
        now: DateTime<Utc>,
    ) -> Result<(), Rejection> {
        // A predecessor's token contains its whole registration, so it needs no marker.
        let Endpoint::Ours(_, epoch) = endpoint else { return Ok(()) };
        // A clock in doubt cannot tell what has lapsed; the doubt ends within seconds.
        if self.clock.read().is_in_doubt() {
            return Err(self.refusal_of_ended());
        }
        if !tells_of(row, *epoch) {
            let marker = self.marker(now).await?;
            marker.vouch_over(*epoch, row, now).map_err(|doubt| self.refuse_doubted(doubt))?;
        }
        self.record_end(row.filter(|row| row.epoch == *epoch), now).await
    }

    /// Returns the refusal for a doubt about one endpoint. Logs it once for each reading of the marker.
    fn refuse_doubted(&self, doubt: Doubt) -> Rejection {
        if self.marker.tell() {
            log(doubt);
        }
        doubted(doubt)
    }

    /// Reads the row of an endpoint again, with strong consistency. Refuses the endpoint for good if it is over for
    /// certain.
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

    /// Refuses a push of this urgency if the relay has asked to shed it.
    ///
    /// Only pushes of low urgency read the marker. A push of normal urgency goes by the marker that is known already.
    pub(crate) async fn hold_back(&self, urgency: Urgency, now: DateTime<Utc>) -> Result<(), Rejection> {
        let marker = match urgency {
            Urgency::High => return Ok(()),
            Urgency::Normal => self.marker.known(now, SHED_TRUST),
            // A failed read does not refuse the push.
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

    /// Returns the time since which a predecessor's key is in use, if the marker has it.
    pub(crate) async fn legacy_key_since(
        &self,
        key: Fingerprint,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, Rejection> {
        let read = self.read_marker(now, TRUST).await.map_err(|error| unavailable(&error))?;
        Ok(read.ok().and_then(|marker| marker.legacy_since(key)))
    }

    /// Returns the marker, if it agrees with this ingress.
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
