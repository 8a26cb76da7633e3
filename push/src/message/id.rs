//! The id of a push message.

use std::fmt;

use base64::{Engine, display, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::wishes::Urgency;
use crate::registration::RegistrationId;

/// The id of a push message, in its `Location` and as the id of the IQ that carries it.
///
/// An id begins with the urgency and the moment of acceptance. So ids order pushes as a mailbox hands them out: the
/// more urgent first, and within one urgency the older first. Random bits follow; the registration sets the last two.
/// The id tells the place of the push in its mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId([u8; MessageId::BYTES]);

impl MessageId {
    /// Length in bytes.
    pub const BYTES: usize = 16;
    /// Length of the text.
    const CHARACTERS: usize = 22;
    /// Number of random bytes.
    pub const CHANCE_BYTES: usize = 8;
    /// Number of bytes for the moment of acceptance: Unix microseconds, up to the year 4253.
    const MOMENT_BYTES: usize = 7;

    /// Makes the id of a push of this urgency, accepted at this moment.
    #[must_use]
    pub fn new(urgency: Urgency, accepted_at: DateTime<Utc>, chance: [u8; Self::CHANCE_BYTES]) -> Self {
        let micros = u64::try_from(accepted_at.timestamp_micros()).unwrap_or(0).to_be_bytes();
        let mut id = [0; Self::BYTES];
        id[0] = urgency.place();
        id[1..=Self::MOMENT_BYTES].copy_from_slice(&micros[8 - Self::MOMENT_BYTES..]);
        id[1 + Self::MOMENT_BYTES..].copy_from_slice(&chance);
        Self(id)
    }

    /// Makes an id from its stored bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the id, which order as the id does.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Returns the part of the id that orders pushes by age alone.
    #[must_use]
    pub fn age(&self) -> &[u8] {
        &self.0[1..]
    }

    /// Returns the part of the account's mailbox that holds the push: that of its registration
    /// ([`RegistrationId::part`]).
    #[must_use]
    pub const fn part(&self) -> u8 {
        self.0[Self::BYTES - 1] % RegistrationId::PARTS
    }

    /// Parses an id from an IQ or a URL; `None`: the text is no id of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != Self::CHARACTERS {
            return None;
        }
        let mut bytes = [0; Self::BYTES];
        URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

/// Base64url, 22 characters.
impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        display::Base64Display::new(&self.0, &URL_SAFE_NO_PAD).fmt(f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?)
            .ok_or_else(|| de::Error::custom("a message id has 22 characters of base64url"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_order_pushes_by_urgency_and_then_by_age() {
        let at = |micros: i64| DateTime::from_timestamp_micros(1_800_000_000_000_000 + micros).unwrap();
        let ids = [
            MessageId::new(Urgency::High, at(300), [9; 8]),
            MessageId::new(Urgency::Normal, at(255), [9; 8]),
            MessageId::new(Urgency::Normal, at(256), [0; 8]),
            MessageId::new(Urgency::Low, at(0), [0; 8]),
            MessageId::new(Urgency::VeryLow, at(0), [0; 8]),
        ];
        assert!(ids.is_sorted());
        assert!(ids[3].age() < ids[1].age(), "and by their age alone");
    }

    proptest! {
        #[test]
        fn an_id_reads_back(bytes: [u8; 16]) {
            let id = MessageId::from_bytes(bytes);
            prop_assert_eq!(MessageId::parse(&id.to_string()), Some(id));
        }

        #[test]
        fn any_text_is_an_id_or_none(text: String) {
            if let Some(id) = MessageId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
