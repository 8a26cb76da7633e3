//! The subject of the command: an endpoint, a push by its `Location` or id, or a registration by its id.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use push::{Epoch, MessageId, RegistrationId, Secrets};
use secrecy::SecretString;

use crate::configuration::reveal;

/// Lengths of the parts of a token, in bytes (push/token.rs).
const EPOCH_BYTES: usize = 5;
const MAC_BYTES: usize = 20;
const ENDPOINT_BYTES: usize = RegistrationId::BYTES + EPOCH_BYTES + MAC_BYTES;
const LOCATION_BYTES: usize = RegistrationId::BYTES + MessageId::BYTES + MAC_BYTES;

/// The least length of a predecessor's token.
const LEGACY_CHARACTERS_MIN: usize = 80;

/// The subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// One life of a registration, with the token.
    Endpoint(RegistrationId, Epoch, String),
    /// A push, with the token.
    Location(RegistrationId, MessageId, String),
    Registration(RegistrationId),
    Push(MessageId),
}

impl Subject {
    /// Reads a URL, its last part, or an id.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        if let Ok(id) = serde_json::from_value(text.into()) {
            return Ok(Self::Registration(id));
        }
        if let Some(id) = MessageId::parse(text) {
            return Ok(Self::Push(id));
        }
        if text.contains('.') && text.len() >= LEGACY_CHARACTERS_MIN {
            return Err("a predecessor has made this endpoint: `upwire registrations list --account JID` \
                 shows its registration once it got a push"
                .into());
        }
        let wrong = "it is no endpoint of Upwire's (55 characters behind /push/), no Location of a push, and no id; \
                     give the whole of it";
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong)?;
        let (id, rest) = bytes.split_first_chunk().ok_or(wrong)?;
        let id = RegistrationId::from_bytes(*id);
        match bytes.len() {
            ENDPOINT_BYTES => {
                let epoch = rest[..EPOCH_BYTES].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
                Ok(Self::Endpoint(id, Epoch::from_seconds(epoch), text.to_owned()))
            }
            LOCATION_BYTES => {
                let message = rest.first_chunk().ok_or(wrong)?;
                Ok(Self::Location(id, MessageId::from_bytes(*message), text.to_owned()))
            }
            _ => Err(wrong.into()),
        }
    }

    pub(super) fn registration(&self) -> Option<RegistrationId> {
        match self {
            Self::Endpoint(id, ..) | Self::Location(id, ..) | Self::Registration(id) => Some(*id),
            Self::Push(_) => None,
        }
    }

    pub(super) fn push(&self) -> Option<MessageId> {
        match self {
            Self::Location(_, id, _) | Self::Push(id) => Some(*id),
            Self::Endpoint(..) | Self::Registration(_) => None,
        }
    }

    pub(super) fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Endpoint(_, epoch, _) => Some(*epoch),
            _ => None,
        }
    }

    /// Returns the number of the secret that has signed it, from 1; `None`: none of them has, or it is not signed.
    pub(super) fn signed_by(&self, secrets: &[SecretString]) -> Option<usize> {
        let signed = |secret: &SecretString| {
            Secrets::parse(reveal(secret)).is_ok_and(|secret| match self {
                Self::Endpoint(_, _, token) => secret.verify(token).is_ok(),
                Self::Location(_, _, token) => secret.verify_message(token).is_ok(),
                Self::Registration(_) | Self::Push(_) => false,
            })
        };
        secrets.iter().position(signed).map(|place| place + 1)
    }

    pub(super) const fn is_signed(&self) -> bool {
        matches!(self, Self::Endpoint(..) | Self::Location(..))
    }
}

/// Reads the time of acceptance from the id of a push.
pub(super) fn accepted_at(id: MessageId) -> Option<DateTime<Utc>> {
    let micros = id.as_bytes()[1..8].iter().fold(0, |sum, byte| sum << 8 | i64::from(*byte));
    DateTime::from_timestamp_micros(micros)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use push::Urgency;

    use super::*;

    #[test]
    fn each_way_to_name_something_is_read_and_its_secret_found() {
        let list: Vec<SecretString> = ["a", "b"].map(|letter| SecretString::from(letter.repeat(32))).to_vec();
        let second = Secrets::parse(&"b".repeat(32)).unwrap();
        let (id, epoch) = (RegistrationId::from_bytes([0xab; 16]), Epoch::from_seconds(1_700_000_000));
        let moment = DateTime::from_timestamp(1_700_000_001, 5000).unwrap();
        let message = MessageId::new(Urgency::High, moment, [1; 8]);
        assert_eq!(accepted_at(message), Some(moment));

        let token = second.sign(id, epoch).as_str().to_owned();
        let endpoint = Subject::parse(&format!("https://push.example.com/push/{token}/")).unwrap();
        assert_eq!(endpoint, Subject::Endpoint(id, epoch, token));
        assert_eq!((endpoint.signed_by(&list), endpoint.signed_by(&list[..1])), (Some(2), None));
        let token = second.sign_message(id, message).as_str().to_owned();
        let location = Subject::parse(&format!("https://push.example.com/message/{token}")).unwrap();
        assert_eq!((location.registration(), location.push()), (Some(id), Some(message)));
        assert_eq!(location.signed_by(&list), Some(2));
        assert_eq!(Subject::parse(&id.to_string()), Ok(Subject::Registration(id)));
        assert_eq!(Subject::parse(&message.to_string()), Ok(Subject::Push(message)));
        assert!(
            Subject::parse(&format!("https://a/push/{0}.{0}.{0}", "x".repeat(40)))
                .unwrap_err()
                .contains("predecessor")
        );
        for wrong in ["", "https://push.example.com/", &location_without_its_end(&location)] {
            assert!(Subject::parse(wrong).unwrap_err().contains("the whole of it"), "{wrong}");
        }
    }

    fn location_without_its_end(location: &Subject) -> String {
        let Subject::Location(.., token) = location else { panic!("a location") };
        token[..60].to_owned()
    }
}
