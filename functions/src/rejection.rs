//! Why a request was refused, and the one match from each reason to its HTTP answer.

use std::any::Any;

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::TimeDelta;
use push::message::{BODY_BYTES_MAX, KEY_HEADERS_BYTES_MAX};
use serde::Serialize;

use crate::{measures::REFUSED, seldom::Seldom};

/// Why a request was refused (docs/senders.md).
///
/// Senders delete a subscription on most 4xx, so the server's own failures are always 5xx.
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
    /// The endpoint is bound to a key, and the sender's credentials do not prove that it has the key.
    VapidWrong(VapidFault),
    /// The registration's senders are over their rate. They have to wait for this many seconds.
    Throttled(u64),
    /// The tenant of the registration is suspended. Senders may ask again after this many seconds.
    Suspended(u64),
    /// The tenant of the registration has used up its pushes of this month. Senders may ask again after this many
    /// seconds.
    QuotaUsedUp(u64),
    /// The token of a push message resource is malformed, or none of our secrets made it.
    UnknownMessage,
    /// The push is not in its mailbox.
    NotWaiting,
    /// The push has no body.
    EmptyBody,
    /// The body is over the limit.
    BodyTooLarge,
    /// The body did not arrive completely, or not in time.
    BodyInterrupted,
    /// `TTL` is no number of seconds.
    BadTtl,
    /// `Topic` is not up to 32 characters of base64url.
    BadTopic,
    /// A header has bytes that are not ASCII text.
    UnreadableHeader,
    /// The push is in `aesgcm`, and this header is missing or empty.
    NoKeyMaterial(&'static str),
    /// The push is in `aesgcm`, and this parameter of its headers is missing or malformed.
    BadKeyMaterial(&'static str),
    /// The two headers of `aesgcm` are over their limit.
    KeyMaterialTooLarge,
    /// The push is in the encoding that `aesgcm` has superseded.
    SupersededEncoding,
    /// The store or the queue cannot serve the request at present.
    Unavailable,
    /// The endpoint may not have ended: it may look ended because the secrets or the table are wrong.
    InDoubt,
    /// The resource does not have the method; it has these.
    MethodNotAllowed(&'static str),
    /// A defect of ours ended the request.
    Panicked,
}

/// The fault of the credentials that were presented (RFC 8292 §4.2).
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
    /// Returns the fault in words, for the operator of the application server.
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

/// Time for the queue or the store to recover before a sender tries again, in seconds.
pub(crate) const RETRY_AFTER_SECONDS: &str = "5";
/// Time for an operator to correct a deployment before a sender tries again, in seconds.
const IN_DOUBT_RETRY_AFTER: u64 = 600;
/// Time for the relay to take pushes of a registration out of the queue, in seconds.
const RETRY_AFTER_FULL_SHARE: u64 = 5;
/// The content codings of pushes: RFC 8291, and the draft that many senders still use.
const ENCODINGS: &str = "aes128gcm, aesgcm";
/// "The challenge … contains only the auth-scheme production" (RFC 8292 §3).
const CHALLENGE: &str = "vapid";
/// Time for which a sender may remember a 410, in seconds: an endpoint that has ended never comes back.
const GONE_CACHE_CONTROL: &str = "max-age=86400";

/// The page that explains each problem type (RFC 9457 §3.1.1).
const PROBLEMS: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/problems.md#");

/// A problem document (RFC 9457). It shows nothing of the request: no token, and no owner.
#[derive(Serialize)]
struct Problem {
    r#type: String,
    title: &'static str,
    status: u16,
    /// An extension member for programs (RFC 9457 §3.2). It stays the same when the texts change.
    code: &'static str,
    detail: String,
}

/// The sections of docs/problems.md, by their anchors.
const GOT_400: &str = "why-did-my-push-get-a-400";
const GOT_401_403: &str = "why-did-my-push-get-a-401-or-403";
const GOT_404: &str = "why-did-my-push-get-a-404";
const GOT_405: &str = "why-did-my-push-get-a-405";
const GOT_408: &str = "why-did-my-push-get-a-408";
const GOT_410: &str = "why-did-my-push-get-a-410";
const GOT_413: &str = "why-did-my-push-get-a-413";
const GOT_415: &str = "why-did-my-push-get-a-415";
const GOT_429: &str = "why-did-my-push-get-a-429";
const GOT_500_503: &str = "why-did-my-push-get-a-500-or-503";
const NOT_WITHDRAWN: &str = "why-was-my-push-not-withdrawn";

/// The fixed part of an answer.
struct Row {
    /// The label in the metrics, and the code in the problem.
    reason: &'static str,
    status: StatusCode,
    /// The anchor of the section of docs/problems.md that explains the refusal.
    section: &'static str,
    title: &'static str,
}

impl Rejection {
    /// The queue holds as many pushes of the registration as it may.
    pub(crate) const QUEUE_SHARE_USED_UP: Self = Self::Throttled(RETRY_AFTER_FULL_SHARE);

    /// Asks a sender to wait for this time, rounded up to whole seconds.
    pub(crate) fn throttled(wait: TimeDelta) -> Self {
        Self::Throttled(Self::seconds(wait))
    }

    /// Returns a wait in whole seconds, rounded up, for a header; at least 1.
    pub(crate) fn seconds(wait: TimeDelta) -> u64 {
        let begun = u64::from(wait.subsec_nanos() > 0);
        (u64::try_from(wait.num_seconds()).unwrap_or(0) + begun).max(1)
    }

    /// Returns the fixed part of the answer, from the one table of all refusals.
    const fn row(self) -> Row {
        let (reason, status, section, title) = match self {
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND, GOT_404, "Nothing here"),
            Self::UnknownEndpoint => ("unknown_endpoint", StatusCode::NOT_FOUND, GOT_404, "Unknown endpoint"),
            Self::Gone => ("gone", StatusCode::GONE, GOT_410, "The subscription has ended"),
            Self::VapidMissing => ("vapid_missing", StatusCode::UNAUTHORIZED, GOT_401_403, "Not signed"),
            Self::VapidWrong(_) => {
                ("vapid_wrong", StatusCode::FORBIDDEN, GOT_401_403, "Not signed as it should be")
            }
            Self::Throttled(_) => ("throttled", StatusCode::TOO_MANY_REQUESTS, GOT_429, "Too many pushes"),
            Self::Suspended(_) => ("suspended", StatusCode::TOO_MANY_REQUESTS, GOT_429, "Suspended"),
            Self::QuotaUsedUp(_) => {
                ("quota_used_up", StatusCode::TOO_MANY_REQUESTS, GOT_429, "Quota used up")
            }
            Self::UnknownMessage => ("unknown_message", StatusCode::NOT_FOUND, NOT_WITHDRAWN, "Unknown push"),
            Self::NotWaiting => {
                ("not_waiting", StatusCode::NOT_FOUND, NOT_WITHDRAWN, "The push does not wait")
            }
            Self::EmptyBody => ("empty_body", StatusCode::BAD_REQUEST, GOT_400, "Empty body"),
            Self::BodyTooLarge => {
                ("body_too_large", StatusCode::PAYLOAD_TOO_LARGE, GOT_413, "Body too large")
            }
            Self::BodyInterrupted => {
                ("body_interrupted", StatusCode::REQUEST_TIMEOUT, GOT_408, "Body incomplete")
            }
            Self::BadTtl => ("bad_ttl", StatusCode::BAD_REQUEST, GOT_400, "Bad TTL header"),
            Self::BadTopic => ("bad_topic", StatusCode::BAD_REQUEST, GOT_400, "Bad Topic header"),
            Self::UnreadableHeader => {
                ("unreadable_header", StatusCode::BAD_REQUEST, GOT_400, "Unreadable header")
            }
            Self::NoKeyMaterial(_) => {
                ("no_key_material", StatusCode::BAD_REQUEST, GOT_400, "Key material missing")
            }
            Self::BadKeyMaterial(_) => {
                ("bad_key_material", StatusCode::BAD_REQUEST, GOT_400, "Key material wrong")
            }
            Self::KeyMaterialTooLarge => {
                ("key_material_too_large", StatusCode::BAD_REQUEST, GOT_400, "Key material too large")
            }
            Self::SupersededEncoding => (
                "superseded_encoding",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                GOT_415,
                "Content coding not supported",
            ),
            Self::Unavailable => {
                ("unavailable", StatusCode::SERVICE_UNAVAILABLE, GOT_500_503, "Try again shortly")
            }
            Self::InDoubt => ("in_doubt", StatusCode::SERVICE_UNAVAILABLE, GOT_500_503, "Try again later"),
            Self::MethodNotAllowed(_) => {
                ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, GOT_405, "Method not allowed")
            }
            Self::Panicked => {
                ("panicked", StatusCode::INTERNAL_SERVER_ERROR, GOT_500_503, "A defect of the server")
            }
        };
        Row { reason, status, section, title }
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
                "The server's store cannot do this now, so the push may not have been accepted, or not \
                 withdrawn. Try again; nothing is wrong with this URL."
                    .into()
            }
            Self::InDoubt => {
                "The server cannot tell at the moment whether this URL is an endpoint of its own. Keep it, and try \
                 again later."
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
            Self::InDoubt => Some((header::RETRY_AFTER, HeaderValue::from(IN_DOUBT_RETRY_AFTER))),
            Self::Throttled(seconds) | Self::Suspended(seconds) | Self::QuotaUsedUp(seconds) => {
                Some((header::RETRY_AFTER, HeaderValue::from(seconds)))
            }
            Self::MethodNotAllowed(methods) => Some((header::ALLOW, HeaderValue::from_static(methods))),
            // The rest of the body is unread, so the connection cannot be used again.
            Self::BodyTooLarge | Self::BodyInterrupted => {
                Some((header::CONNECTION, HeaderValue::from_static("close")))
            }
            _ => None,
        }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let Row { reason, status, section, title } = self.row();
        metrics::counter!(REFUSED, "reason" => reason).increment(1);
        let r#type = format!("{PROBLEMS}{section}");
        let problem = Problem { r#type, title, status: status.as_u16(), code: reason, detail: self.detail() };
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.extend(self.header());
        response
    }
}

/// Answers the request that panicked with a 500. The panic hook has logged the cause and the place.
pub(crate) fn after_a_panic(_: Box<dyn Any + Send>) -> Response {
    static LINE: Seldom = Seldom::new();
    if let Some(times) = LINE.due() {
        tracing::error!(times, "a request ended in a panic");
    }
    Rejection::Panicked.into_response()
}

#[cfg(test)]
pub(crate) mod tests;
