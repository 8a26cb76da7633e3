//! Headers as senders really write them.

use axum::http::HeaderMap;

use crate::rejection::Rejection;

/// Returns the first value of a header. A header may come twice, or with values joined by commas (docs/senders.md,
/// "What senders do"). A header without a value counts as absent.
pub(crate) fn first<'a>(headers: &'a HeaderMap, name: &str) -> Option<Result<&'a str, Rejection>> {
    let value = headers.get(name)?.to_str().map(|value| value.split(',').next().unwrap_or_default().trim());
    match value {
        Ok("") => None,
        Ok(value) => Some(Ok(value)),
        Err(_) => Some(Err(Rejection::UnreadableHeader)),
    }
}
