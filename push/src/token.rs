//! The tokens in our URLs: an endpoint's, `id ‖ epoch ‖ MAC`, and a push message's. The check of a token needs no I/O.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{
    marker::Fingerprint,
    message::MessageId,
    registration::{Epoch, RegistrationId},
};

const EPOCH_BYTES: usize = 5;
/// 160 bits: the minimum against guessing (docs/protocol.md, "Security considerations").
const MAC_BYTES: usize = 20;
const SIGNED_BYTES: usize = RegistrationId::BYTES + EPOCH_BYTES;
const TOKEN_BYTES: usize = SIGNED_BYTES + MAC_BYTES;

/// The least length of a secret, in bytes (docs/protocol.md, "Security considerations").
pub const SECRET_BYTES_MIN: usize = 32;

const MESSAGE_SIGNED_BYTES: usize = RegistrationId::BYTES + MessageId::BYTES;
const MESSAGE_TOKEN_BYTES: usize = MESSAGE_SIGNED_BYTES + MAC_BYTES;

/// The purposes separate the uses of a secret from each other.
const ENDPOINT_PURPOSE: &[u8] = b"upwire endpoint\0";
const MESSAGE_PURPOSE: &[u8] = b"upwire message\0";

/// Why a list of secrets was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretsError {
    /// No secret in the list.
    #[error("holds no secret")]
    Empty,
    /// A secret is too short.
    #[error("secret {position} of the list has {length} bytes, at least {SECRET_BYTES_MIN} are needed")]
    TooShort {
        /// Place in the list, from 1.
        position: usize,
        /// Its length in bytes.
        length: usize,
    },
}

/// The token is malformed, or none of our secrets made its MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token of this server")]
pub struct InvalidToken;

/// A secret, as one HMAC key for each of its uses.
#[derive(Clone)]
struct Secret {
    endpoint: Hmac<Sha256>,
    message: Hmac<Sha256>,
    fingerprint: Fingerprint,
}

impl Secret {
    fn keyed(secret: &str) -> Self {
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
        Self {
            endpoint: mac.clone().chain_update(ENDPOINT_PURPOSE),
            message: mac.chain_update(MESSAGE_PURPOSE),
            fingerprint: Fingerprint::of(secret.as_bytes()),
        }
    }
}

/// The secrets that authenticate endpoints and push message resources. The first one signs, all verify.
#[derive(Clone)]
pub struct Secrets(Vec<Secret>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} of them)", self.0.len())
    }
}

impl Secrets {
    /// Parses a comma-separated list. White space around a secret is trimmed.
    ///
    /// # Errors
    /// An empty list, or a secret of fewer than [`SECRET_BYTES_MIN`] bytes.
    pub fn parse(list: &str) -> Result<Self, SecretsError> {
        let secrets: Vec<&str> = list.split(',').map(str::trim).filter(|s| !s.is_empty()).collect();
        if secrets.is_empty() {
            return Err(SecretsError::Empty);
        }
        let keyed = secrets.iter().zip(1..).map(|(secret, position)| {
            let length = secret.len();
            if length < SECRET_BYTES_MIN {
                return Err(SecretsError::TooShort { position, length });
            }
            Ok(Secret::keyed(secret))
        });
        keyed.collect::<Result<_, _>>().map(Self)
    }

    /// Returns the fingerprints of these secrets, in their order.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<Fingerprint> {
        self.0.iter().map(|secret| secret.fingerprint).collect()
    }

    /// Signs one life of a registration with the first secret.
    #[must_use]
    pub fn sign(&self, id: RegistrationId, epoch: Epoch) -> EndpointToken {
        let mut token = [0; TOKEN_BYTES];
        token[..RegistrationId::BYTES].copy_from_slice(id.as_bytes());
        token[RegistrationId::BYTES..SIGNED_BYTES]
            .copy_from_slice(&epoch.as_seconds().to_be_bytes()[8 - EPOCH_BYTES..]);
        add_mac(&self.0[0].endpoint, &mut token);
        EndpointToken(URL_SAFE_NO_PAD.encode(token))
    }

    /// Checks a token, in constant time for each secret.
    ///
    /// # Errors
    /// [`InvalidToken`] if it is malformed or no secret made it.
    pub fn verify(&self, token: &str) -> Result<(RegistrationId, Epoch), InvalidToken> {
        let bytes: [u8; TOKEN_BYTES] = self.authentic(token, |secret| &secret.endpoint)?;
        let id = bytes[..RegistrationId::BYTES].try_into().map_err(|_| InvalidToken)?;
        Ok((RegistrationId::from_bytes(id), epoch_of(&bytes)))
    }

    /// Signs the name of a push message with the first secret.
    #[must_use]
    pub fn sign_message(&self, registration: RegistrationId, message: MessageId) -> MessageToken {
        let mut token = [0; MESSAGE_TOKEN_BYTES];
        token[..RegistrationId::BYTES].copy_from_slice(registration.as_bytes());
        token[RegistrationId::BYTES..MESSAGE_SIGNED_BYTES].copy_from_slice(message.as_bytes());
        add_mac(&self.0[0].message, &mut token);
        MessageToken(URL_SAFE_NO_PAD.encode(token))
    }

    /// Checks the token of a push message resource, in constant time for each secret.
    ///
    /// # Errors
    /// [`InvalidToken`] if it is malformed or no secret made it.
    pub fn verify_message(&self, token: &str) -> Result<(RegistrationId, MessageId), InvalidToken> {
        let bytes: [u8; MESSAGE_TOKEN_BYTES] = self.authentic(token, |secret| &secret.message)?;
        let (registration, message) = bytes[..MESSAGE_SIGNED_BYTES].split_at(RegistrationId::BYTES);
        let registration = registration.try_into().map_err(|_| InvalidToken)?;
        let message = message.try_into().map_err(|_| InvalidToken)?;
        Ok((RegistrationId::from_bytes(registration), MessageId::from_bytes(message)))
    }

    /// Returns the bytes of a token, if one of the secrets made its MAC.
    fn authentic<const BYTES: usize>(
        &self,
        token: &str,
        mac_of: impl Fn(&Secret) -> &Hmac<Sha256>,
    ) -> Result<[u8; BYTES], InvalidToken> {
        let mut bytes = [0; BYTES];
        // Decoding into a fixed buffer refuses a longer text without reading all of it.
        let length = URL_SAFE_NO_PAD.decode_slice(token, &mut bytes).map_err(|_| InvalidToken)?;
        if length != BYTES {
            return Err(InvalidToken);
        }
        let (signed, mac) = bytes.split_at(BYTES - MAC_BYTES);
        let ours =
            |secret: &Secret| mac_of(secret).clone().chain_update(signed).verify_truncated_left(mac).is_ok();
        if self.0.iter().any(ours) { Ok(bytes) } else { Err(InvalidToken) }
    }
}

fn epoch_of(token: &[u8; TOKEN_BYTES]) -> Epoch {
    let epoch = token[RegistrationId::BYTES..SIGNED_BYTES].iter();
    Epoch::from_seconds(epoch.fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

fn add_mac(keyed: &Hmac<Sha256>, token: &mut [u8]) {
    let (signed, mac) = token.split_at_mut(token.len() - MAC_BYTES);
    let made = keyed.clone().chain_update(signed).finalize().into_bytes();
    mac.copy_from_slice(&made[..MAC_BYTES]);
}

/// Returns the epoch in a text that has the form of an endpoint's token. Its MAC is not checked.
#[must_use]
pub fn claimed_epoch(token: &str) -> Option<Epoch> {
    let mut bytes = [0; TOKEN_BYTES];
    let length = URL_SAFE_NO_PAD.decode_slice(token, &mut bytes).ok()?;
    (length == TOKEN_BYTES).then(|| epoch_of(&bytes))
}

/// The capability in an endpoint's URL: 55 characters of base64url.
///
/// The token alone is enough to push, so `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointToken(String);

impl EndpointToken {
    /// Returns the token as it stands in the URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EndpointToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndpointToken(…)")
    }
}

/// The capability in the URL of a push message resource, `registration ‖ message ‖ MAC`: 70 characters of base64url.
/// The token alone is enough to withdraw the push.
#[derive(Clone, PartialEq, Eq)]
pub struct MessageToken(String);

impl MessageToken {
    /// Returns the token as it stands in the URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for MessageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: &str = "0123456789abcdef0123456789abcdef";
    const NEW: &str = "fedcba9876543210fedcba9876543210";

    fn secrets(list: &str) -> Secrets {
        Secrets::parse(list).unwrap()
    }

    #[test]
    fn secrets_are_a_list_of_at_least_32_bytes_each() {
        assert_eq!(Secrets::parse(" , ").unwrap_err(), SecretsError::Empty);
        let short = format!("{OLD},short");
        assert_eq!(Secrets::parse(&short).unwrap_err(), SecretsError::TooShort { position: 2, length: 5 });
        assert_eq!(format!("{:?}", secrets(OLD)), "Secrets(1 of them)");
    }

    #[test]
    fn a_rotated_secret_still_verifies_and_a_removed_one_does_not() {
        let id = RegistrationId::from_bytes([7; 16]);
        let token = secrets(OLD).sign(id, Epoch::from_seconds(1));
        let rotated = secrets(&format!("{NEW}, {OLD}"));
        assert_eq!(rotated.verify(token.as_str()), Ok((id, Epoch::from_seconds(1))));
        assert_ne!(rotated.sign(id, Epoch::from_seconds(1)), token, "the first signs");
        assert_eq!(secrets(NEW).verify(token.as_str()), Err(InvalidToken));
    }

    #[test]
    fn the_wire_form_does_not_change() {
        let token =
            secrets(OLD).sign(RegistrationId::from_bytes([7; 16]), Epoch::from_seconds(1_800_000_000));
        assert_eq!(token.as_str(), "BwcHBwcHBwcHBwcHBwcHBwBrSdIAZh6Y5YfF2WGt--o3N9JichjHaDQ");
    }

    #[test]
    fn a_token_of_an_unknown_secret_claims_an_epoch_and_another_text_does_not() {
        let token = secrets(OLD).sign(RegistrationId::from_bytes([7; 16]), Epoch::from_seconds(1));
        assert_eq!(claimed_epoch(token.as_str()), Some(Epoch::from_seconds(1)));
        for other in ["", &token.as_str()[..54], &format!("{}A", token.as_str()), &"%".repeat(55)] {
            assert_eq!(claimed_epoch(other), None, "{other}");
        }
    }

    #[test]
    fn no_debug_form_shows_a_token() {
        let id = RegistrationId::from_bytes([7; 16]);
        let endpoint = secrets(OLD).sign(id, Epoch::from_seconds(1));
        let message = secrets(OLD).sign_message(id, MessageId::from_bytes([1; 16]));
        assert_eq!(format!("{endpoint:?} {message:?}"), "EndpointToken(…) MessageToken(…)");
    }

    #[test]
    fn fingerprints_come_in_the_order_of_the_secrets() {
        let of = |secret: &str| Fingerprint::of(secret.as_bytes());
        assert_eq!(secrets(&format!("{NEW},{OLD}")).fingerprints(), [of(NEW), of(OLD)]);
    }

    proptest! {
        #[test]
        fn every_token_verifies_to_what_was_signed(id: [u8; 16], epoch in 0..=Epoch::MAX.as_seconds()) {
            let (id, epoch) = (RegistrationId::from_bytes(id), Epoch::from_seconds(epoch));
            let token = secrets(OLD).sign(id, epoch);
            prop_assert_eq!(token.as_str().len(), 55);
            prop_assert_eq!(secrets(OLD).verify(token.as_str()), Ok((id, epoch)));
        }

        #[test]
        fn no_other_text_verifies(place in 0usize..55, other in "[A-Za-z0-9_-]") {
            let secrets = secrets(OLD);
            let token = secrets.sign(RegistrationId::from_bytes([9; 16]), Epoch::from_seconds(5));
            let mut changed = token.as_str().to_owned();
            changed.replace_range(place..=place, &other);
            prop_assume!(changed != token.as_str());
            prop_assert_eq!(secrets.verify(&changed), Err(InvalidToken));
        }

        #[test]
        fn a_token_of_a_message_verifies_as_that_and_as_nothing_else(registration: [u8; 16], message: [u8; 16]) {
            let (registration, message) =
                (RegistrationId::from_bytes(registration), MessageId::from_bytes(message));
            let token = secrets(OLD).sign_message(registration, message);
            prop_assert_eq!(token.as_str().len(), 70);
            let rotated = secrets(&format!("{NEW},{OLD}"));
            prop_assert_eq!(rotated.verify_message(token.as_str()), Ok((registration, message)));
            prop_assert_eq!(secrets(NEW).verify_message(token.as_str()), Err(InvalidToken));
            prop_assert_eq!(rotated.verify(token.as_str()), Err(InvalidToken));
        }

        #[test]
        fn any_text_at_all_is_answered(text: String) {
            prop_assert_eq!(secrets(OLD).verify(&text), Err(InvalidToken));
            prop_assert_eq!(secrets(OLD).verify_message(&text), Err(InvalidToken));
        }
    }
}
