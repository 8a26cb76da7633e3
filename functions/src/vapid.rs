//! The sender of a push, by its VAPID credentials (RFC 8292).

use std::{convert::Infallible, iter, sync::Arc};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, header, request::Parts},
};
use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, errors::ErrorKind};
use push::{VapidKey, vapid::VapidKeyError};
use serde::Deserialize;
use serde_json::Value;
use url::{Origin, Url};

use crate::{
    ingress::Ingress,
    jose,
    rejection::{Rejection, VapidFault},
    seldom::Seldom,
};

/// Longest time from now to a token's expiry (RFC 8292 §2).
const AHEAD_SECONDS_MAX: f64 = 86_400.0;
/// Leeway at both ends of a token's time. Clocks disagree, and Mastodon signs for exactly a day (docs/senders.md, "What
/// senders do"). A smaller error of our clock costs nobody a subscription.
const LEEWAY_SECONDS: f64 = 300.0;

const CRYPTO_KEY: HeaderName = HeaderName::from_static("crypto-key");

/// A sender as it presents itself, unverified. An endpoint without a key accepts any credentials.
#[derive(Debug)]
pub(crate) struct Sender {
    credentials: Option<Credentials>,
    /// The origins of this ingress. The sender signs for the origin of its endpoint.
    origins: Vec<Origin>,
}

/// The credentials in the headers, in the form of RFC 8292 or of its drafts.
#[derive(Debug, PartialEq)]
struct Credentials {
    token: String,
    /// The key that was presented; `None`: left out, so that the signature alone identifies the sender.
    key: Option<Result<VapidKey, VapidKeyError>>,
}

/// The claims that are checked. They parse with any type, so that the check can name the fault.
#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    aud: Value,
    #[serde(default)]
    exp: Value,
}

impl<R: Sync + Send, Q: Sync + Send, M: Sync + Send> FromRequestParts<Arc<Ingress<R, Q, M>>> for Sender {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        ingress: &Arc<Ingress<R, Q, M>>,
    ) -> Result<Self, Infallible> {
        let origins = ingress.homes(parts.extensions.get()).map(Url::origin).collect();
        Ok(Self { credentials: Credentials::parse(&parts.headers), origins })
    }
}

impl Sender {
    /// Reads the sender that these headers name.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn of(headers: &HeaderMap, origins: Vec<Origin>) -> Self {
        Self { credentials: Credentials::parse(headers), origins }
    }

    /// Checks that the sender may push to an endpoint bound to this key.
    pub(crate) fn prove(&self, key: &VapidKey, now: DateTime<Utc>) -> Result<(), Rejection> {
        let credentials = self.credentials.as_ref().ok_or(Rejection::VapidMissing)?;
        if self.origins.is_empty() {
            // A missing public URL is not the sender's fault.
            static LINE: Seldom = Seldom::new();
            if let Some(times) = LINE.due() {
                tracing::error!(times, "a push was not accepted: nobody says where this ingress is reached");
            }
            return Err(Rejection::Unavailable);
        }
        credentials.check(key, &self.origins, now).map_err(Rejection::VapidWrong)
    }
}

impl Credentials {
    /// Reads `Authorization: vapid t=TOKEN, k=KEY` (RFC 8292 §3), or the forms of its drafts: `WebPush TOKEN` or
    /// `Bearer TOKEN`, with the key in `Crypto-Key: p256ecdsa=KEY`. The first of several credentials counts.
    fn parse(headers: &HeaderMap) -> Option<Self> {
        let mut credentials = items(headers, &header::AUTHORIZATION);
        let (scheme, rest) = credentials.find_map(begin)?;
        let (token, key) = match scheme {
            Scheme::Vapid => {
                let parameters: Vec<_> = iter::once(rest).chain(credentials).collect();
                (value(&parameters, "t").unwrap_or_default(), value(&parameters, "k"))
            }
            Scheme::OfDrafts => {
                let parameters: Vec<_> = items(headers, &CRYPTO_KEY).collect();
                (rest, value(&parameters, "p256ecdsa"))
            }
        };
        Some(Self { token: token.to_owned(), key: key.map(str::parse) })
    }

    /// Checks the credentials by RFC 8292 §2 and §4.2. Claims beside `aud` and `exp` are ignored.
    fn check(&self, bound_to: &VapidKey, origins: &[Origin], now: DateTime<Utc>) -> Result<(), VapidFault> {
        if self.key.is_some_and(|key| key != Ok(*bound_to)) {
            return Err(VapidFault::Key);
        }
        let key = DecodingKey::from_ec_der(bound_to.as_bytes());
        let claims: Claims = jose::verified(&self.token, &key, Algorithm::ES256).map_err(|error| {
            if *error.kind() == ErrorKind::InvalidSignature {
                VapidFault::Signature
            } else {
                VapidFault::Token
            }
        })?;
        // Origins are compared: the default port may be written out, and the path is ignored.
        let is_ours = |audience: &str| Url::parse(audience).is_ok_and(|url| origins.contains(&url.origin()));
        let for_us = match &claims.aud {
            Value::String(audience) => is_ours(audience),
            Value::Array(audiences) => audiences.iter().filter_map(Value::as_str).any(is_ours),
            _ => false,
        };
        if !for_us {
            return Err(VapidFault::Audience);
        }
        let expires_in = claims.exp.as_f64().ok_or(VapidFault::NoExpiry)? - now.timestamp() as f64;
        match expires_in {
            left if left < -LEEWAY_SECONDS => Err(VapidFault::Expired),
            left if left > AHEAD_SECONDS_MAX + LEEWAY_SECONDS => Err(VapidFault::TooFarAhead),
            _ => Ok(()),
        }
    }
}

enum Scheme {
    Vapid,
    OfDrafts,
}

/// Returns the scheme and the text after it, if the item begins credentials of a known scheme.
fn begin(item: &str) -> Option<(Scheme, &str)> {
    let (scheme, rest) = item.split_once([' ', '\t'])?;
    match scheme.to_ascii_lowercase().as_str() {
        "vapid" => Some((Scheme::Vapid, rest)),
        "webpush" | "bearer" => Some((Scheme::OfDrafts, rest.trim_start())),
        _ => None,
    }
}

/// Returns the parameters that a header lists. Headers that come twice may be joined by a comma (docs/senders.md, "What
/// senders do"), and the parameters of `Crypto-Key` are separated by semicolons. A value that is not text is skipped.
fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split([',', ';'])).map(str::trim)
}

/// Returns the value of the first parameter of this name.
fn value<'a>(parameters: &[&'a str], name: &str) -> Option<&'a str> {
    let mut parameters = parameters.iter().filter_map(|parameter| parameter.split_once('='));
    let (_, value) = parameters.find(|(found, _)| found.trim().eq_ignore_ascii_case(name))?;
    Some(value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests;
