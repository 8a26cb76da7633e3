//! Endpoints that a predecessor of this server has issued. Each goes on working until it expires by itself, so that a
//! move to this server loses no push. The token of such an endpoint contains its registration.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use jid::FullJid;
use jsonwebtoken::{Algorithm, DecodingKey};
use pasetors::{
    keys::SymmetricKey,
    token::{Local, UntrustedToken},
    version2::{LocalToken, V2},
};
use push::{Application, Fingerprint, Instance, Target, token::SECRET_BYTES_MIN};
use serde::Deserialize;

use crate::jose;

/// The keys of the predecessors.
#[derive(Clone, Default)]
pub struct LegacyKeys {
    /// Keys of Prosody's mod_unified_push.
    jwt: Vec<(DecodingKey, Fingerprint)>,
    /// Keys of up.
    paseto: Vec<(SymmetricKey<V2>, Fingerprint)>,
    /// Keys whose endpoints are refused with 503.
    refused: Vec<Fingerprint>,
}

impl fmt::Debug for LegacyKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LegacyKeys({} of them)", self.jwt.len() + self.paseto.len())
    }
}

/// The key for PASETO tokens was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not the base64 of 32 bytes, as `sharedSecret` in the configuration of up is")]
pub struct BadPasetoKey;

/// Claims in a token of either kind. The kinds differ in the form of the expiry.
#[derive(Deserialize)]
struct Claims<Expiry> {
    /// The full JID that registered.
    sub: FullJid,
    application: Application,
    instance: Instance,
    exp: Expiry,
}

/// The expiry in a token of up: up writes milliseconds, and also reads the text that PASETO prescribes.
#[derive(Deserialize)]
#[serde(untagged)]
enum PasetoExpiry {
    Milliseconds(i64),
    Text(DateTime<Utc>),
}

impl LegacyKeys {
    /// Adds a secret of Prosody's `mod_unified_push`, as written there. It may have any length; the log warns of one
    /// that could be found by brute force.
    #[must_use]
    pub fn with_jwt(mut self, secret: &str) -> Self {
        if secret.len() < SECRET_BYTES_MIN {
            tracing::warn!(
                bytes = secret.len(),
                enough = SECRET_BYTES_MIN,
                "UPWIRE_LEGACY_SECRET is short: who has an old endpoint may find it by trying, and push to anyone; remove \
                 it as soon as the old endpoints have expired"
            );
        }
        let secret = secret.as_bytes();
        self.jwt.push((DecodingKey::from_secret(secret), Fingerprint::of(secret)));
        self
    }

    /// Adds a secret likewise, but refuses its endpoints with 503 if it could be found by brute force. For an ingress
    /// that starts in any case.
    #[must_use]
    pub fn with_jwt_unless_weak(mut self, secret: &str) -> Self {
        if secret.len() >= SECRET_BYTES_MIN {
            return self.with_jwt(secret);
        }
        tracing::error!(
            bytes = secret.len(),
            enough = SECRET_BYTES_MIN,
            "UPWIRE_LEGACY_SECRET is short: who has an old endpoint may find it by trying, and push to anyone; senders to \
             the old endpoints are asked to try again until it is removed, or UPWIRE_WEAK_LEGACY_SECRET takes it"
        );
        let secret = secret.as_bytes();
        self.refused.push(Fingerprint::of(secret));
        self.jwt.push((DecodingKey::from_secret(secret), Fingerprint::of(secret)));
        self
    }

    /// Returns whether the endpoints of this key are refused with 503.
    pub(crate) fn refuses(&self, key: Fingerprint) -> bool {
        self.refused.contains(&key)
    }

    /// Adds a shared secret of *up*, in base64 as written there.
    ///
    /// # Errors
    /// [`BadPasetoKey`], if it has another form or length.
    pub fn with_paseto(mut self, key: &str) -> Result<Self, BadPasetoKey> {
        let bytes = STANDARD.decode(key).map_err(|_| BadPasetoKey)?;
        let key = SymmetricKey::from(&bytes).map_err(|_| BadPasetoKey)?;
        self.paseto.push((key, Fingerprint::of(&bytes)));
        Ok(self)
    }

    /// Returns the fingerprints of these keys.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> + '_ {
        let of_jwt = self.jwt.iter().map(|(_, fingerprint)| *fingerprint);
        of_jwt.chain(self.paseto.iter().map(|(_, fingerprint)| *fingerprint))
    }

    /// Reads a token that a predecessor has made, expired or not. Returns its registration, and the fingerprint of its
    /// key.
    pub(crate) fn read(&self, token: &str) -> Option<(Target, Fingerprint)> {
        if token.starts_with(LocalToken::HEADER) {
            let token = UntrustedToken::<Local, V2>::try_from(token).ok()?;
            let decrypted = |(key, fingerprint): &(_, Fingerprint)| {
                LocalToken::decrypt(key, &token, None).ok().map(|token| (token, *fingerprint))
            };
            let (token, fingerprint) = self.paseto.iter().find_map(decrypted)?;
            let claims: Claims<PasetoExpiry> = serde_json::from_str(token.payload()).ok()?;
            let target = claims.target(|expiry| match expiry {
                PasetoExpiry::Milliseconds(milliseconds) => DateTime::from_timestamp_millis(*milliseconds),
                PasetoExpiry::Text(moment) => Some(*moment),
            })?;
            return Some((target, fingerprint));
        }
        let verified = |(key, fingerprint): &(_, Fingerprint)| {
            jose::verified(token, key, Algorithm::HS256).ok().map(|claims| (claims, *fingerprint))
        };
        let (claims, fingerprint): (Claims<f64>, _) = self.jwt.iter().find_map(verified)?;
        let target = claims.target(|seconds| DateTime::from_timestamp_millis((seconds * 1000.0) as i64))?;
        Some((target, fingerprint))
    }
}

impl<Expiry> Claims<Expiry> {
    fn target(self, moment: impl FnOnce(&Expiry) -> Option<DateTime<Utc>>) -> Option<Target> {
        Some(Target {
            legacy: Some(moment(&self.exp)?),
            recipient: self.sub,
            application: self.application,
            instance: self.instance,
            vapid: None,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
