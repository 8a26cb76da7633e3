//! Cross-origin access: a page of any origin may push, and withdraw (docs/senders.md, "What senders do").

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

const ALLOWED_HEADERS: &str =
    "TTL, Topic, Urgency, Content-Encoding, Encryption, Crypto-Key, Authorization, Content-Type";
const EXPOSED_HEADERS: &str = "Location, TTL, Retry-After";
/// One day. Browsers cap the time at this or less.
const PREFLIGHT_SECONDS: &str = "86400";

/// Answers the preflight request of a browser for a resource that has these methods.
pub(crate) fn preflight(methods: &'static str) -> Response {
    let headers = [
        (header::ALLOW, methods),
        (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Lets a page of any origin read the answer.
pub(crate) async fn expose(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
    response
}
