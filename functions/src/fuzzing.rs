//! The entry points of the fuzz targets (`fuzz/`), compiled for them alone, by the feature `fuzzing`.

use axum::http::{HeaderMap, HeaderValue};
use chrono::{DateTime, Utc};
use push::{VapidKey, message::BODY_BYTES_MAX};
use url::Url;

use crate::{legacy::LegacyKeys, matrix::fuzzed_notification, vapid::Sender};

/// Reads a Matrix notification, and returns the length of the push that it becomes; `None`: it becomes none.
///
/// # Panics
/// If the push is longer than it may be.
pub fn notification(bytes: &[u8]) -> Option<usize> {
    let length = fuzzed_notification(bytes)?;
    assert!(length <= BODY_BYTES_MAX, "{length}");
    Some(length)
}

/// Returns whether a token stands for an endpoint of a predecessor.
#[must_use]
pub fn legacy(keys: &LegacyKeys, token: &str) -> bool {
    keys.read(token).is_some()
}

/// Returns whether headers prove that their sender has this key.
#[must_use]
pub fn vapid(authorization: &[u8], crypto_key: &[u8], key: &VapidKey, now: DateTime<Utc>) -> bool {
    let mut headers = HeaderMap::new();
    for (name, value) in [("authorization", authorization), ("crypto-key", crypto_key)] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    }
    let home = Url::parse("https://push.example.com").expect("a URL");
    Sender::of(&headers, vec![home.origin()]).prove(key, now).is_ok()
}
