//! Why a homeserver's request was refused, in the form of Matrix's errors.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{DEVICES_MAX, METHODS, REQUEST_BYTES_MAX};
use crate::{
    measures::REFUSED,
    rejection::{RETRY_AFTER_SECONDS, Rejection},
};

/// Why a homeserver's request was refused. None of its pushes was queued, unless the queue failed in the middle.
///
/// After any of these, the homeserver repeats the request for a day (docs/matrix.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The body is not JSON.
    NotJson,
    /// The body is JSON, but no notification.
    BadJson,
    /// The notification names no device.
    NoDevices,
    /// The notification names too many devices.
    TooManyDevices,
    /// The body is over the limit.
    TooLarge,
    /// The body did not arrive completely, or not in time.
    Interrupted,
    /// The senders of one of the devices are over their rate. They have to wait for this many seconds.
    Throttled(u64),
    /// The store or the queue cannot serve the request at present.
    Unavailable,
    /// The resource does not have the method.
    OtherMethod,
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::BodyTooLarge => Self::TooLarge,
            Rejection::BodyInterrupted => Self::Interrupted,
            Rejection::Throttled(seconds)
            | Rejection::Suspended(seconds)
            | Rejection::QuotaUsedUp(seconds) => Self::Throttled(seconds),
            // Any other rejection is not the homeserver's fault.
            _ => Self::Unavailable,
        }
    }
}

impl Refusal {
    /// Returns the label in the metrics.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::BadJson => "bad_json",
            Self::NoDevices => "no_devices",
            Self::TooManyDevices => "too_many_devices",
            Self::TooLarge => "body_too_large",
            Self::Interrupted => "body_interrupted",
            Self::Throttled(_) => "throttled",
            Self::Unavailable => "unavailable",
            Self::OtherMethod => "method_not_allowed",
        }
    }

    /// Returns the status and the error code (Matrix Client-Server API, "Standard error response"; Push Gateway API,
    /// "Unsupported endpoints").
    const fn codes(self) -> (StatusCode, &'static str) {
        match self {
            Self::NotJson | Self::BadJson | Self::NoDevices => (StatusCode::BAD_REQUEST, "M_BAD_JSON"),
            Self::TooManyDevices | Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE"),
            Self::Interrupted => (StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN"),
            Self::Throttled(_) => (StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN"),
            Self::OtherMethod => (StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED"),
        }
    }

    fn text(self) -> String {
        match self {
            Self::NotJson => "The body is not JSON.".into(),
            Self::BadJson => {
                "The body is not the JSON of a notification: an object \"notification\" with an \
                              array \"devices\", each with a \"pushkey\"."
                    .into()
            }
            Self::NoDevices => "The notification is for no device.".into(),
            Self::TooManyDevices => format!("A notification is for at most {DEVICES_MAX} devices."),
            Self::TooLarge => format!("A notification has at most {REQUEST_BYTES_MAX} bytes."),
            Self::Interrupted => "The body did not arrive completely.".into(),
            Self::Throttled(seconds) => {
                format!("Pushes come faster than one of the devices takes them. Try again in {seconds} s.")
            }
            Self::Unavailable => {
                "The server's store or queue does not take it now. Nothing is wrong with the pushkeys.".into()
            }
            Self::OtherMethod => format!("This URL answers {METHODS}."),
        }
    }

    fn header(self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::Unavailable => Some((header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS))),
            Self::Throttled(seconds) => Some((header::RETRY_AFTER, HeaderValue::from(seconds))),
            Self::OtherMethod => Some((header::ALLOW, HeaderValue::from_static(METHODS))),
            // The rest of the body is unread, so the connection cannot be used again.
            Self::TooLarge | Self::Interrupted => {
                Some((header::CONNECTION, HeaderValue::from_static("close")))
            }
            Self::NotJson | Self::BadJson | Self::NoDevices | Self::TooManyDevices => None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        metrics::counter!(REFUSED, "reason" => self.reason()).increment(1);
        let (status, code) = self.codes();
        let mut response = (status, Json(json!({ "errcode": code, "error": self.text() }))).into_response();
        response.headers_mut().extend(self.header());
        response
    }
}
