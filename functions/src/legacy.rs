//! Endpoints that a predecessor of this server has issued: each goes on working until it expires by itself, so that
//! moving here costs nobody a push. Its token names the registration that such an endpoint stands for.

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
    /// Of Prosody's mod_unified_push.
    jwt: Vec<(DecodingKey, Fingerprint)>,
    /// Of up.
    paseto: Vec<(SymmetricKey<V2>, Fingerprint)>,
    /// Those whose endpoints are refused for now.
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

/// Claims in a token of either kind. They differ in how they tell the time.
#[derive(Deserialize)]
struct Claims<Expiry> {
    /// The full JID that registered.
    sub: FullJid,
    application: Application,
    instance: Instance,
    exp: Expiry,
}

/// `up` writes milliseconds, and would read what PASETO prescribes, too.
#[derive(Deserialize)]
#[serde(untagged)]
enum PasetoExpiry {
    Milliseconds(i64),
    Text(DateTime<Utc>),
}

impl LegacyKeys {
    /// With a secret of Prosody's `mod_unified_push`, as it stands there, of any length; the log warns of one that
    /// could be found by trying.
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

    /// The same, for an ingress that starts in any case: while it has a secret that could be found by trying, the endpoints
    /// that were made with it are refused for now.
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

    /// Returns whether the endpoints that were made with this key are refused for now.
    pub(crate) fn refuses(&self, key: Fingerprint) -> bool {
        self.refused.contains(&key)
    }

    /// With a shared secret of *up*, in base64 as it stands there.
    ///
    /// # Errors
    /// [`BadPasetoKey`], if it is of another form or length.
    pub fn with_paseto(mut self, key: &str) -> Result<Self, BadPasetoKey> {
        let bytes = STANDARD.decode(key).map_err(|_| BadPasetoKey)?;
        let key = SymmetricKey::from(&bytes).map_err(|_| BadPasetoKey)?;
        self.paseto.push((key, Fingerprint::of(&bytes)));
        Ok(self)
    }

    /// Fingerprints that tell these keys from others.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> + '_ {
        let of_jwt = self.jwt.iter().map(|(_, fingerprint)| *fingerprint);
        of_jwt.chain(self.paseto.iter().map(|(_, fingerprint)| *fingerprint))
    }

    /// Reads a token that a predecessor has made, whether or not it has expired: its registration, and the key that it
    /// was made with.
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
