//! Why a request was refused, and the one match from that to the wire.

use std::any::Any;

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::TimeDelta;
use push::message::{BODY_BYTES_MAX, KEY_HEADERS_BYTES_MAX};
use serde::Serialize;

use crate::{REFUSED, Seldom};

/// Why a request was refused (docs/senders.md).
///
/// Senders delete a subscription on most 4xx, so trouble of ours is always 5xx.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// No such path.
    NotFound,
    /// The token is malformed, or none of our secrets made it.
    UnknownEndpoint,
    /// The registration expired, was revoked, or lives on under another URL.
    Gone,
    /// The endpoint is bound to a key, and the sender presents none.
    VapidMissing,
    /// The endpoint is bound to a key, and what the sender presents does not prove that it has it.
    VapidWrong(VapidFault),
    /// The registration's senders are over their rate, for so many seconds more.
    Throttled(u64),
    /// The tenant of the registration is suspended; to be asked again after so many seconds.
    Suspended(u64),
    /// The tenant of the registration has used up its pushes of this month; the same.
    QuotaUsedUp(u64),
    /// The token of a push message resource is malformed, or none of our secrets made it.
    UnknownMessage,
    /// The push is not in its mailbox.
    NotWaiting,
    /// A push needs a body.
    EmptyBody,
    /// The body is over the limit.
    BodyTooLarge,
    /// The body did not come to its end, or not in time.
    BodyInterrupted,
    /// `TTL` is no number of seconds.
    BadTtl,
    /// `Topic` is not up to 32 characters of base64url.
    BadTopic,
    /// A header holds bytes that are no text.
    UnreadableHeader,
    /// The push is in `aesgcm` and lacks this header, or that is empty.
    NoKeyMaterial(&'static str),
    /// The push is in `aesgcm`, and this parameter of its headers is missing, or cannot be what it should.
    BadKeyMaterial(&'static str),
    /// The headers that go with `aesgcm` are over their limit.
    KeyMaterialTooLarge,
    /// The push is in the encoding that `aesgcm` has superseded.
    SupersededEncoding,
    /// The store or the queue cannot do it now.
    Unavailable,
    /// The resource has no such method; it has these.
    MethodNotAllowed(&'static str),
    /// A defect of ours ended the request.
    Panicked,
}

/// What is wrong with the credentials that were presented (RFC 8292 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VapidFault {
    /// The public key is not the one that the endpoint is bound to.
    Key,
    /// The token is no JWT, or of another algorithm.
    Token,
    /// The key has not signed this token.
    Signature,
    /// The token is for another push service.
    Audience,
    /// The token does not say when it expires.
    NoExpiry,
    /// The token has expired.
    Expired,
    /// The token expires too far ahead.
    TooFarAhead,
}

impl VapidFault {
    /// What a person who runs the application server has to mend.
    pub(crate) const fn detail(self) -> &'static str {
        match self {
            Self::Key => "The public key (k) is not the one that this endpoint is bound to.",
            Self::Token => "The token (t) is not a JWT that is signed with ES256.",
            Self::Signature => {
                "The token (t) is not signed by the key that this endpoint is bound to, or it was changed."
            }
            Self::Audience => {
                "The token's audience (aud) is not the origin of this endpoint: its scheme, host and port."
            }
            Self::NoExpiry => "The token has no expiry (exp), a number of seconds since 1970.",
            Self::Expired => "The token has expired (exp).",
            Self::TooFarAhead => "The token expires (exp) more than 24 hours from now.",
        }
    }
}

/// What the queue or the store is given to recover before a sender tries again.
pub(crate) const RETRY_AFTER_SECONDS: &str = "5";
/// What the relay is given to take pushes of a registration out of the queue, in seconds.
const RETRY_AFTER_FULL_SHARE: u64 = 5;
/// What pushes are encrypted in (RFC 8291, and the draft that many senders have stayed with).
const ENCODINGS: &str = "aes128gcm, aesgcm";
/// "The challenge … contains only the auth-scheme production" (RFC 8292 §3).
const CHALLENGE: &str = "vapid";
/// A dead endpoint stays dead; the sender may remember it for a day.
const GONE_CACHE_CONTROL: &str = "max-age=86400";

/// The page whose sections say more than a problem can (RFC 9457 §3.1.1).
const PROBLEMS: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/problems.md#");

/// An answer by RFC 9457. It shows nothing of the request: no token, and nothing of whose it is.
#[derive(Serialize)]
struct Problem {
    r#type: String,
    title: &'static str,
    status: u16,
    /// An extension member (RFC 9457 §3.2), for programs: it does not change with the words.
    code: &'static str,
    detail: String,
}

impl Rejection {
    /// The queue holds as many pushes of the registration as it may.
    pub(crate) const QUEUE_SHARE_USED_UP: Self = Self::Throttled(RETRY_AFTER_FULL_SHARE);

    /// Asks to wait for so long, in whole seconds that are never too few.
    pub(crate) fn throttled(wait: TimeDelta) -> Self {
        Self::Throttled(Self::seconds(wait))
    }

    /// As a header has them.
    pub(crate) fn seconds(wait: TimeDelta) -> u64 {
        let begun = u64::from(wait.subsec_nanos() > 0);
        (u64::try_from(wait.num_seconds()).unwrap_or(0) + begun).max(1)
    }

    /// Its label in the metrics, and its code in the problem.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::UnknownEndpoint => "unknown_endpoint",
            Self::Gone => "gone",
            Self::VapidMissing => "vapid_missing",
            Self::VapidWrong(_) => "vapid_wrong",
            Self::Throttled(_) => "throttled",
            Self::Suspended(_) => "suspended",
            Self::QuotaUsedUp(_) => "quota_used_up",
            Self::UnknownMessage => "unknown_message",
            Self::NotWaiting => "not_waiting",
            Self::EmptyBody => "empty_body",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyInterrupted => "body_interrupted",
            Self::BadTtl => "bad_ttl",
            Self::BadTopic => "bad_topic",
            Self::UnreadableHeader => "unreadable_header",
            Self::NoKeyMaterial(_) => "no_key_material",
            Self::BadKeyMaterial(_) => "bad_key_material",
            Self::KeyMaterialTooLarge => "key_material_too_large",
            Self::SupersededEncoding => "superseded_encoding",
            Self::Unavailable => "unavailable",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::Panicked => "panicked",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::NotFound | Self::UnknownEndpoint | Self::UnknownMessage | Self::NotWaiting => {
                StatusCode::NOT_FOUND
            }
            Self::Gone => StatusCode::GONE,
            Self::VapidMissing => StatusCode::UNAUTHORIZED,
            Self::VapidWrong(_) => StatusCode::FORBIDDEN,
            Self::Throttled(_) | Self::Suspended(_) | Self::QuotaUsedUp(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::EmptyBody
            | Self::BadTtl
            | Self::BadTopic
            | Self::UnreadableHeader
            | Self::NoKeyMaterial(_)
            | Self::BadKeyMaterial(_)
            | Self::KeyMaterialTooLarge => StatusCode::BAD_REQUEST,
            Self::SupersededEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyInterrupted => StatusCode::REQUEST_TIMEOUT,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The anchor of the section of docs/problems.md that says why, and what to do.
    const fn section(self) -> &'static str {
        match self {
            Self::EmptyBody
            | Self::BadTtl
            | Self::BadTopic
            | Self::UnreadableHeader
            | Self::NoKeyMaterial(_)
            | Self::BadKeyMaterial(_)
            | Self::KeyMaterialTooLarge => "why-did-my-push-get-a-400",
            Self::SupersededEncoding => "why-did-my-push-get-a-415",
            Self::VapidMissing | Self::VapidWrong(_) => "why-did-my-push-get-a-401-or-403",
            Self::NotFound | Self::UnknownEndpoint => "why-did-my-push-get-a-404",
            Self::MethodNotAllowed(_) => "why-did-my-push-get-a-405",
            Self::BodyInterrupted => "why-did-my-push-get-a-408",
            Self::Gone => "why-did-my-push-get-a-410",
            Self::BodyTooLarge => "why-did-my-push-get-a-413",
            Self::Throttled(_) | Self::Suspended(_) | Self::QuotaUsedUp(_) => "why-did-my-push-get-a-429",
            Self::Unavailable | Self::Panicked => "why-did-my-push-get-a-500-or-503",
            Self::UnknownMessage | Self::NotWaiting => "why-was-my-push-not-withdrawn",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::NotFound => "Nothing here",
            Self::UnknownEndpoint => "Unknown endpoint",
            Self::Gone => "The subscription has ended",
            Self::VapidMissing => "Not signed",
            Self::VapidWrong(_) => "Not signed as it should be",
            Self::Throttled(_) => "Too many pushes",
            Self::Suspended(_) => "Suspended",
            Self::QuotaUsedUp(_) => "Quota used up",
            Self::UnknownMessage => "Unknown push",
            Self::NotWaiting => "The push does not wait",
            Self::EmptyBody => "Empty body",
            Self::BodyTooLarge => "Body too large",
            Self::BodyInterrupted => "Body incomplete",
            Self::BadTtl => "Bad TTL header",
            Self::BadTopic => "Bad Topic header",
            Self::UnreadableHeader => "Unreadable header",
            Self::NoKeyMaterial(_) => "Key material missing",
            Self::BadKeyMaterial(_) => "Key material wrong",
            Self::SupersededEncoding => "Content coding not supported",
            Self::KeyMaterialTooLarge => "Key material too large",
            Self::Unavailable => "Try again shortly",
            Self::MethodNotAllowed(_) => "Method not allowed",
            Self::Panicked => "A defect of the server",
        }
    }

    fn detail(self) -> String {
        match self {
            Self::NotFound => "This is a UnifiedPush server; endpoints are below /push/.".into(),
            Self::UnknownEndpoint => "This URL is not an endpoint that this server has issued.".into(),
            Self::Gone => "The application was removed, or its registration was not renewed in time. \
                           Forget this endpoint; the application will send a new one."
                .into(),
            Self::VapidMissing => "This endpoint accepts only the pushes that one application server signs \
                                   (RFC 8292): Authorization: vapid t=…, k=…"
                .into(),
            Self::VapidWrong(fault) => fault.detail().into(),
            Self::Throttled(seconds) => {
                format!("Pushes come faster than this endpoint takes them. Try again in {seconds} s.")
            }
            Self::Suspended(_) => "The push server serves this user's domain again when its host resumes it. Keep this endpoint."
                .into(),
            Self::QuotaUsedUp(_) => "The domain of this user has used up its pushes of this month. Keep this endpoint.".into(),
            Self::UnknownMessage => "This URL names no push that this server has accepted.".into(),
            Self::NotWaiting => "There is nothing to withdraw: the push was delivered, has expired, was \
                                 replaced or withdrawn before, or is on its way at this moment."
                .into(),
            Self::EmptyBody => "A push carries at least one byte.".into(),
            Self::BodyTooLarge => format!("A push carries at most {BODY_BYTES_MAX} bytes."),
            Self::BodyInterrupted => "The body did not arrive completely.".into(),
            Self::BadTtl => "TTL is a number of seconds, zero or more, in decimal digits.".into(),
            Self::BadTopic => "Topic has 1 to 32 characters of the base64url alphabet.".into(),
            Self::UnreadableHeader => "TTL, Topic, Encryption and Crypto-Key are plain ASCII.".into(),
            Self::NoKeyMaterial(header) => format!(
                "A push with Content-Encoding: aesgcm needs the header {header}: without it nobody can decrypt it."
            ),
            Self::BadKeyMaterial("salt") => {
                "A push with Content-Encoding: aesgcm needs Encryption: salt=…, the \
                                             base64url of 16 bytes: without it nobody can decrypt it."
                    .into()
            }
            Self::BadKeyMaterial(parameter) => format!(
                "A push with Content-Encoding: aesgcm needs Crypto-Key: {parameter}=…, the base64url of the 65 bytes of an \
                 uncompressed point of P-256: without it nobody can decrypt it."
            ),
            Self::SupersededEncoding => format!(
                "No phone decrypts Content-Encoding: aesgcm128, which an early draft of Web Push had. Encrypt in one of \
                 {ENCODINGS}."
            ),
            Self::KeyMaterialTooLarge => {
                format!("Encryption and Crypto-Key have at most {KEY_HEADERS_BYTES_MAX} bytes together.")
            }
            Self::Unavailable => {
                "The server's store cannot do this now, so the push was not accepted, or not \
                                  withdrawn. Try again; nothing is wrong with this URL."
                    .into()
            }
            Self::MethodNotAllowed(methods) => format!("This URL answers {methods}."),
            Self::Panicked => {
                "The server failed while it handled this request, so the push may not have been \
                               accepted, or not withdrawn. Try again; nothing is wrong with this URL."
                    .into()
            }
        }
    }

    fn header(self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::Gone => Some((header::CACHE_CONTROL, HeaderValue::from_static(GONE_CACHE_CONTROL))),
            // RFC 9110 §15.5.16.
            Self::SupersededEncoding => Some((header::ACCEPT_ENCODING, HeaderValue::from_static(ENCODINGS))),
            Self::VapidMissing => Some((header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE))),
            Self::Unavailable => Some((header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS))),
            Self::Throttled(seconds) | Self::Suspended(seconds) | Self::QuotaUsedUp(seconds) => {
                Some((header::RETRY_AFTER, HeaderValue::from(seconds)))
            }
            Self::MethodNotAllowed(methods) => Some((header::ALLOW, HeaderValue::from_static(methods))),
            // The rest of the body is not read: the connection cannot be used again.
            Self::BodyTooLarge | Self::BodyInterrupted => {
                Some((header::CONNECTION, HeaderValue::from_static("close")))
            }
            _ => None,
        }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        metrics::counter!(REFUSED, "reason" => self.reason()).increment(1);
        let status = self.status();
        let r#type = format!("{PROBLEMS}{}", self.section());
        let problem = Problem {
            r#type,
            title: self.title(),
            status: status.as_u16(),
            code: self.reason(),
            detail: self.detail(),
        };
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.extend(self.header());
        response
    }
}

/// What a panic costs: one 500, and no other request. The panic hook has said what happened and where.
pub(crate) fn after_a_panic(_: Box<dyn Any + Send>) -> Response {
    static LINE: Seldom = Seldom::new();
    if let Some(times) = LINE.due() {
        tracing::error!(times, "a request ended in a panic");
    }
    Rejection::Panicked.into_response()
}

#[cfg(test)]
pub(crate) mod tests;
