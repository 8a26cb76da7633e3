//! The Matrix push gateway (Matrix Push Gateway API; docs/matrix.md). It takes notifications from homeservers for
//! endpoints of this server, and queues them. It sends no requests to other servers.

mod notification;
mod refusal;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use axum::{
    Json,
    extract::{Extension, Request, State},
};
use chrono::{DateTime, TimeDelta, Utc};
use push::{
    PushMessage, Registration,
    message::Wishes,
    ports::{Consistency, QueueWriter, Store, Unavailable, Withdrawals},
};
use serde_json::{Value, json};
use tokio::time::timeout;
use url::Url;

use self::{notification::Notification, refusal::Refusal};
use crate::{
    endpoint::{Endpoint, EndpointKey},
    ingress::{ANSWER_TIMEOUT, Ingress, PublicUrl},
    measures::{ACCEPTED, REFUSED},
    place::Place,
    push_resource::{chance, read},
    rejection::Rejection,
    seldom::Seldom,
    trouble::{not_queued, unavailable},
};

/// The only path at which homeservers look for a gateway.
pub(crate) const PATH: &str = "/_matrix/push/v1/notify";
/// The methods that the resource answers.
pub(crate) const METHODS: &str = "POST, GET, HEAD, OPTIONS";

/// Most bytes of a request. An event has at most 64 KiB, and JSON that escapes all but ASCII may take three bytes for
/// one.
const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Most devices in one request. Known homeservers name one.
const DEVICES_MAX: usize = 100;

/// Answers `GET` and `HEAD`: tells an application that there is a gateway (UnifiedPush, "Push gateway").
pub(crate) async fn discover() -> Json<Value> {
    Json(json!({ "unifiedpush": { "gateway": "matrix" } }))
}

/// Refuses any other method.
pub(crate) async fn other_method() -> Refusal {
    Refusal::OtherMethod
}

/// Answers `POST`: queues a notification for each of its devices. The answer lists the pushkeys that are no endpoints,
/// or have ended; the homeserver forgets them.
pub(crate) async fn notify<R: Store, Q: QueueWriter, M: Withdrawals>(
    State(ingress): State<Arc<Ingress<R, Q, M>>>,
    reached_at: Option<Extension<PublicUrl>>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let request = read(request, REQUEST_BYTES_MAX).await?;
    let notification = Notification::parse(&request)?;
    let notified = ingress.notify(notification, reached_at.as_deref());
    let notified = timeout(ANSWER_TIMEOUT, notified).await;
    let rejected = notified.map_err(|_| unavailable(&Unavailable::new("no answer in time")))??;
    Ok(Json(json!({ "rejected": rejected })))
}

/// Returns the length of the push that a notification becomes; `None`: it becomes none.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzzed_notification(bytes: &[u8]) -> Option<usize> {
    let body = Notification::parse(bytes).ok()?.into_body()?;
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, body.as_base64())
        .ok()
        .map(|bytes| bytes.len())
}

/// The outcome of a push for one endpoint.
enum Outcome {
    /// The pushkey is rejected: the endpoint will never take a push again.
    Gone,
    /// The endpoint takes no pushes for this time.
    Throttled(TimeDelta),
    /// The endpoint takes the push.
    Accepted(Box<Registration>),
}

/// Decides by the row of a living registration. A homeserver signs nothing, so a registration that is bound to a
/// sender's key is rejected.
fn outcome(living: Option<Registration>, now: DateTime<Utc>) -> Outcome {
    let Some(registration) = living.filter(|living| living.target.vapid.is_none()) else {
        return Outcome::Gone;
    };
    match registration.throttled_for(now) {
        Some(wait) => Outcome::Throttled(wait),
        None => Outcome::Accepted(Box::new(registration)),
    }
}

impl<R: Store, Q: QueueWriter, M: Withdrawals> Ingress<R, Q, M> {
    /// Returns the pushkeys that are rejected.
    ///
    /// All devices are checked before anything is queued. So a refused request, which the homeserver repeats, has
    /// queued nothing: no device misses a push, or gets it twice, because another one is over its rate. Devices in one
    /// request wait for each other, but homeservers send each device a request of its own.
    async fn notify(
        &self,
        notification: Notification<'_>,
        reached_at: Option<&PublicUrl>,
    ) -> Result<Vec<String>, Refusal> {
        let now = self.clock.now();
        let mut addressed = BTreeMap::<_, (Endpoint, Vec<&str>)>::new();
        let mut rejected = HashSet::new();
        for pushkey in &notification.pushkeys {
            match self.endpoint_of(pushkey, reached_at).await? {
                Some(endpoint) => {
                    let (_, pushkeys) = addressed.entry(endpoint.key()).or_insert((endpoint, Vec::new()));
                    pushkeys.push(pushkey);
                }
                None => {
                    rejected.insert(&**pushkey);
                }
            }
        }
        refused("unknown_endpoint", rejected.len());

        let mut living = self.living(addressed.values().map(|(endpoint, _)| endpoint).collect(), now).await?;
        let (mut accepted, mut throttled) = (Vec::new(), None);
        for (key, (_, pushkeys)) in &addressed {
            match outcome(living.remove(key), now) {
                // The registration may only look over.
                Outcome::Gone if self.clock.read().is_in_doubt() => {
                    return Err(self.refusal_of_ended().into());
                }
                Outcome::Gone => {
                    refused("gone", 1);
                    rejected.extend(pushkeys);
                }
                Outcome::Throttled(wait) => throttled = throttled.max(Some(wait)),
                Outcome::Accepted(registration) => {
                    self.admit_push(&registration, now).await?;
                    throttled = throttled.max(self.allowance.take(key.0, now).err());
                    accepted.push(*registration);
                }
            }
        }
        self.hold_back(notification.urgency, now).await?;
        if let Some(wait) = throttled {
            return Err(Rejection::throttled(wait).into());
        }
        let rejected = in_order(&notification, &rejected);
        self.queue_for(&accepted, notification, now).await?;
        Ok(rejected)
    }

    /// Returns the endpoint that a pushkey names, if its URL is below one of our homes. Without a home, any host
    /// counts.
    ///
    /// `http` and `https` count as the same: this server does not know whether a proxy terminates TLS.
    async fn endpoint_of(
        &self,
        pushkey: &str,
        reached_at: Option<&PublicUrl>,
    ) -> Result<Option<Endpoint>, Rejection> {
        let url = Url::parse(pushkey).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(url) = url else { return Ok(None) };
        let here = |home: &&Url| (home.host(), home.port()) == (url.host(), url.port());
        let mut homes: Vec<_> = self.homes(reached_at).filter(here).map(Url::path).collect();
        if self.homes(reached_at).next().is_none() {
            homes.push("");
        }
        let mut unknown = None;
        for home in homes {
            let (token, endpoint) = match Place::below(url.path(), home) {
                Some(Place::Push(token)) => (token, self.endpoint(token)),
                Some(Place::Elsewhere(last)) => (last, self.endpoint_of_ours(last)),
                Some(Place::Page | Place::Gateway | Place::Message(_)) | None => continue,
            };
            if endpoint.is_some() {
                return Ok(endpoint);
            }
            unknown = Some(token);
        }
        if let Some(token) = unknown {
            self.vouch_unknown(token).await?;
        }
        Ok(None)
    }

    /// Returns the living registrations of these endpoints.
    async fn living(
        &self,
        mut endpoints: Vec<&Endpoint>,
        now: DateTime<Utc>,
    ) -> Result<BTreeMap<EndpointKey, Registration>, Rejection> {
        self.retain_admitted(&mut endpoints, now).await?;
        let mut living = BTreeMap::new();
        let mut last_rows = BTreeMap::new();
        // A stale read must not cost anyone a subscription: it may not show a row that was made seconds ago.
        for consistency in [Consistency::Eventual, Consistency::Strong] {
            if endpoints.is_empty() {
                break;
            }
            let ids = endpoints.iter().map(|endpoint| endpoint.key().0).collect();
            let rows = self.registrations.find_all(ids, consistency).await;
            let rows = rows.map_err(|error| unavailable(&error))?;
            last_rows = rows.into_iter().map(|row| (row.target.registration_id(), row)).collect();
            endpoints.retain(|endpoint| {
                let row = last_rows.get(&endpoint.key().0).filter(|row| endpoint.lives(row, now));
                living.extend(row.map(|row| (endpoint.key(), row.clone())));
                row.is_none()
            });
        }
        for endpoint in endpoints {
            if let Endpoint::Legacy(target, _) = endpoint {
                let row = self.adopt(target.clone(), now).await?;
                living.extend(row.map(|row| (endpoint.key(), row)));
            } else {
                let row = last_rows.get(&endpoint.key().0);
                self.check_end_is_final(endpoint, row, now).await?;
                self.vouch_over(endpoint, row, now).await?;
            }
        }
        Ok(living)
    }

    /// Removes a predecessor's endpoints that have ended.
    async fn retain_admitted(
        &self,
        endpoints: &mut Vec<&Endpoint>,
        now: DateTime<Utc>,
    ) -> Result<(), Rejection> {
        for endpoint in std::mem::take(endpoints) {
            let admitted = match endpoint {
                Endpoint::Ours(..) => Ok(()),
                Endpoint::Legacy(target, key) => {
                    self.check_end_is_final(endpoint, None, now).await?;
                    self.admit_legacy(target, *key, now).await
                }
            };
            match admitted {
                Ok(()) => endpoints.push(endpoint),
                Err(Rejection::Gone) => {}
                Err(rejection) => return Err(rejection),
            }
        }
        Ok(())
    }

    async fn queue_for(
        &self,
        registrations: &[Registration],
        notification: Notification<'_>,
        now: DateTime<Utc>,
    ) -> Result<(), Refusal> {
        let ttl = self.kept_for(self.default_ttl.min(self.max_ttl));
        let (urgency, topic) = (notification.urgency, Some(notification.topic.clone()));
        let Some(body) = notification.into_body() else {
            return self.drop_for(registrations, now);
        };
        let push = |registration| {
            let wishes = Wishes { ttl, urgency, topic: topic.clone() };
            Ok(PushMessage::new(chance()?, registration, wishes, body.clone(), now))
        };
        let pushes: Vec<_> = registrations.iter().map(push).collect::<Result<_, Rejection>>()?;
        if !pushes.is_empty() {
            self.queue.send_all(pushes).await.map_err(|error| not_queued(&error))?;
        }
        metrics::counter!(ACCEPTED).increment(registrations.len() as u64);
        Ok(())
    }

    /// Drops a notification that no push can carry, and answers as if it was taken: a retry would be as long, and the
    /// pushkey is sound. A sender of too many has to wait.
    fn drop_for(&self, registrations: &[Registration], now: DateTime<Utc>) -> Result<(), Refusal> {
        static LINE: Seldom = Seldom::new();
        let ids = registrations.iter().map(|registration| registration.target.registration_id());
        if let Some(wait) = self.dropped.count(ids, now) {
            return Err(Rejection::throttled(wait).into());
        }
        if let Some(times) = LINE.due() {
            tracing::warn!(
                times,
                "a Matrix notification was dropped: no push can carry as much as the name of its event"
            );
        }
        refused("notification_too_large", registrations.len());
        Ok(())
    }
}

/// Returns the chosen pushkeys in the order of the request, each once.
fn in_order(notification: &Notification<'_>, chosen: &HashSet<&str>) -> Vec<String> {
    let mut left = chosen.clone();
    notification.pushkeys.iter().filter(|key| left.remove(&***key)).map(|key| key.to_string()).collect()
}

fn refused(reason: &'static str, count: usize) {
    if count > 0 {
        metrics::counter!(REFUSED, "reason" => reason).increment(count as u64);
    }
}
