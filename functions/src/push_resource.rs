//! The push resource (RFC 8030 §5): `POST /push/{token}`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::{Body as HttpBody, Bytes},
    extract::{Extension, FromRequest, FromRequestParts, Path, Request, State},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use push::{
    Body, MessageId, PushMessage, Registration,
    message::{BODY_BYTES_MAX, Wishes},
    ports::{Consistency, QueueWriter, Store, Unavailable, Withdrawals},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    endpoint::Endpoint,
    ingress::{ANSWER_TIMEOUT, Ingress, PublicUrl},
    measures::ACCEPTED,
    parameters::Parameters,
    place::MESSAGE_PATH,
    rejection::Rejection,
    seldom::Seldom,
    trouble::{not_queued, note_accepted, unavailable},
    vapid::Sender,
};

/// The methods that the resource answers.
pub(crate) const METHODS: &str = "POST, PUT, GET, HEAD, OPTIONS";
/// Longest time that a sender may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

impl<R: Store, Q: QueueWriter, M: Withdrawals> FromRequestParts<Arc<Ingress<R, Q, M>>> for Endpoint {
    type Rejection = Rejection;

    async fn from_request_parts(
        parts: &mut Parts,
        ingress: &Arc<Ingress<R, Q, M>>,
    ) -> Result<Self, Rejection> {
        let token = Path::<String>::from_request_parts(parts, ingress)
            .await
            .map_err(|_| Rejection::UnknownEndpoint)?;
        match ingress.endpoint(&token) {
            Some(endpoint) => Ok(endpoint),
            None => Err(ingress.vouch_unknown(&token).await.err().unwrap_or(Rejection::UnknownEndpoint)),
        }
    }
}

/// A body of 1 to [`BODY_BYTES_MAX`] bytes. A longer body is not read to its end.
pub(crate) struct PushBody(Bytes);

impl<S: Sync> FromRequest<S> for PushBody {
    type Rejection = Rejection;

    async fn from_request(request: Request, _: &S) -> Result<Self, Rejection> {
        match read(request, BODY_BYTES_MAX).await? {
            bytes if bytes.is_empty() => Err(Rejection::EmptyBody),
            bytes => Ok(Self(bytes)),
        }
    }
}

/// Reads the body of a request, of at most `bytes_max` bytes.
pub(crate) async fn read(request: Request, bytes_max: usize) -> Result<Bytes, Rejection> {
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let announced = announced.and_then(|length| length.parse().ok());
    if announced.is_some_and(|length: u64| length > bytes_max as u64) {
        return Err(Rejection::BodyTooLarge);
    }
    match timeout(BODY_TIMEOUT, Limited::new(request.into_body(), bytes_max).collect()).await {
        Ok(Ok(bytes)) => Ok(bytes.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Rejection::BodyTooLarge),
        Ok(Err(_)) | Err(_) => Err(Rejection::BodyInterrupted),
    }
}

/// Answers `POST`: accepts a push, and answers 201 once it is durable. `PUT` does the same, because Telegram's simple
/// push uses it.
pub(crate) async fn push<R: Store, Q: QueueWriter, M: Withdrawals>(
    State(ingress): State<Arc<Ingress<R, Q, M>>>,
    endpoint: Endpoint,
    parameters: Parameters,
    sender: Sender,
    reached_at: Option<Extension<PublicUrl>>,
    PushBody(sent): PushBody,
) -> Result<Response, Rejection> {
    let body = parameters.body(&sent);
    let asked = parameters.ttl.unwrap_or(ingress.default_ttl).min(ingress.max_ttl);
    let accepted = timeout(ANSWER_TIMEOUT, ingress.accept(&endpoint, parameters, &sender, body)).await;
    let message = accepted.map_err(|_| unavailable(&Unavailable::new("no answer in time")))??;
    metrics::counter!(ACCEPTED).increment(1);
    note_accepted();
    let kept = (message.expires_at - message.accepted_at).num_seconds().min(asked.as_seconds().into());
    let home = ingress.homes(reached_at.as_deref()).next();
    let base = home.map_or("", |url| url.as_str().trim_end_matches('/'));
    let token = ingress.secrets.borrow().sign_message(message.registration, message.id);
    let location = format!("{base}/{MESSAGE_PATH}/{}", token.as_str());
    let headers = [("location", location), ("ttl", kept.to_string())];
    Ok((StatusCode::CREATED, headers, HttpBody::empty()).into_response())
}

impl<R: Store, Q: QueueWriter, M: Withdrawals> Ingress<R, Q, M> {
    async fn accept(
        &self,
        endpoint: &Endpoint,
        parameters: Parameters,
        sender: &Sender,
        body: Body,
    ) -> Result<PushMessage, Rejection> {
        let now = self.clock.now();
        if let Endpoint::Legacy(target, key) = endpoint {
            self.check_end_is_final(endpoint, None, now).await?;
            self.admit_legacy(target, *key, now).await?;
        }
        let found = self.find(endpoint, Consistency::Eventual, now).await?;
        let found = match (found, endpoint) {
            (Some(registration), _) => Some(registration),
            // A stale read must not cost anyone a subscription: it may not show a row that was made seconds ago.
            (None, Endpoint::Ours(..)) => Some(self.confirm(endpoint, now).await?),
            (None, Endpoint::Legacy(target, _)) => self.adopt(target.clone(), now).await?,
        };
        let registration = found.ok_or_else(|| self.refusal_of_ended())?;
        if let Some(key) = &registration.target.vapid {
            self.prove(sender, key)?;
        }
        if let Some(wait) = registration.throttled_for(now) {
            return Err(Rejection::throttled(wait));
        }
        self.admit_push(&registration, now).await?;
        self.hold_back(parameters.urgency, now).await?;
        self.allowance.take(registration.target.registration_id(), now).map_err(Rejection::throttled)?;
        let wishes = Wishes {
            ttl: self.kept_for(parameters.ttl.unwrap_or(self.default_ttl).min(self.max_ttl)),
            urgency: parameters.urgency,
            topic: parameters.topic,
        };
        let message = PushMessage::new(chance()?, &registration, wishes, body, now);
        self.queue.send(message.clone()).await.map_err(|error| not_queued(&error))?;
        Ok(message)
    }

    /// Reads the registration of an endpoint, if it lives.
    async fn find(
        &self,
        endpoint: &Endpoint,
        consistency: Consistency,
        now: DateTime<Utc>,
    ) -> Result<Option<Registration>, Rejection> {
        let (id, _) = endpoint.key();
        let row = self.registrations.find(id, consistency).await;
        Ok(row.map_err(|error| unavailable(&error))?.filter(|row| endpoint.lives(row, now)))
    }
}

/// Answers `GET` and `HEAD`: tells an application server that this is UnifiedPush.
pub(crate) async fn discover<R: Store, Q: QueueWriter, M: Withdrawals>(
    State(_): State<Arc<Ingress<R, Q, M>>>,
    _: Endpoint,
) -> Json<Value> {
    Json(json!({ "unifiedpush": { "version": 1 } }))
}

pub(crate) fn chance() -> Result<[u8; MessageId::CHANCE_BYTES], Rejection> {
    let mut bytes = [0; MessageId::CHANCE_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| {
        static LINE: Seldom = Seldom::new();
        if let Some(times) = LINE.due() {
            tracing::error!(%error, times, "the system has no random bytes");
        }
        Rejection::Unavailable
    })?;
    Ok(bytes)
}
