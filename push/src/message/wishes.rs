//! The wishes of a sender: the request headers of RFC 8030.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The wishes of the sender, beside the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wishes {
    /// Time for which to keep the push.
    pub ttl: Ttl,
    /// Its urgency.
    pub urgency: Urgency,
    /// The topic, by which the push replaces an older one.
    pub topic: Option<Topic>,
}

/// Longest wait of a push, in seconds (RFC 8030 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(u32);

impl Ttl {
    /// Makes a TTL of this many seconds; 0: deliver now or not at all.
    #[must_use]
    pub const fn from_seconds(seconds: u32) -> Self {
        Self(seconds)
    }

    /// Parses the header's value, which has decimal digits alone. A number beyond 32 bits counts as the largest.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let digits = !value.is_empty() && value.bytes().all(|c| c.is_ascii_digit());
        digits.then(|| Self(value.parse().unwrap_or(u32::MAX)))
    }

    /// Whole seconds.
    #[must_use]
    pub const fn as_seconds(self) -> u32 {
        self.0
    }
}

/// The urgency of a push, by which a phone may decide whether to wake up (RFC 8030 §5.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Urgency {
    /// Advertisements.
    VeryLow,
    /// Updates.
    Low,
    /// Messages. The urgency of a push without the header.
    #[default]
    Normal,
    /// Calls and alerts.
    High,
}

impl Urgency {
    /// Parses the header's value. An unknown urgency counts as normal: senders delete a subscription on 400, and
    /// urgency is only a hint.
    #[must_use]
    pub fn parse(value: &str) -> Self {
        match value {
            "very-low" => Self::VeryLow,
            "low" => Self::Low,
            "high" => Self::High,
            _ => Self::Normal,
        }
    }

    /// Returns the rank of this urgency; 0 is the highest.
    pub(super) const fn place(self) -> u8 {
        match self {
            Self::High => 0,
            Self::Normal => 1,
            Self::Low => 2,
            Self::VeryLow => 3,
        }
    }
}

/// The topic of a push. A later push of the same topic replaces one that still waits (RFC 8030 §5.4).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Topic(String);

impl Topic {
    /// Most characters of a topic (RFC 8030 §5.4).
    pub const CHARACTERS_MAX: usize = 32;

    /// Parses the header's value: at most 32 characters of base64url. Padding is dropped, since some senders add it
    /// (docs/senders.md, "What senders do").
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let topic = value.trim_end_matches('=');
        let base64url = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        (!topic.is_empty() && value.len() <= Self::CHARACTERS_MAX && topic.bytes().all(base64url))
            .then(|| Self(topic.to_owned()))
    }

    /// Returns the topic that all pushes about this thing share, and no others.
    #[must_use]
    pub fn of(thing: &str) -> Self {
        let digest = Sha256::new().chain_update(b"upwire topic\0").chain_update(thing).finalize();
        Self(URL_SAFE_NO_PAD.encode(&digest[..Self::CHARACTERS_MAX / 4 * 3]))
    }

    /// Returns the text, without padding.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_digits_alone_and_saturates() {
        assert_eq!(Ttl::parse("0"), Some(Ttl(0)));
        assert_eq!(Ttl::parse("86400"), Some(Ttl(86400)));
        assert_eq!(Ttl::parse("99999999999999999999"), Some(Ttl(u32::MAX)));
        for wrong in ["", "-1", "+1", "1.5", "1 2", "soon", "٣"] {
            assert_eq!(Ttl::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_topic_is_at_most_32_characters_of_base64url() {
        assert_eq!(Topic::parse("upd-_9=="), Some(Topic("upd-_9".into())));
        assert!(Topic::parse(&"a".repeat(32)).is_some());
        for wrong in ["", "==", "a+b", "a b", "a=b", &"a".repeat(33)] {
            assert_eq!(Topic::parse(wrong), None, "{wrong}");
        }
        let (one, other) = (Topic::of("$event"), Topic::of(""));
        assert_eq!((Topic::parse(one.as_str()).as_ref(), one.as_str().len()), (Some(&one), 32));
        assert_ne!(one, other);
    }

    #[test]
    fn an_unknown_urgency_is_normal() {
        use Urgency::{High, Low, Normal, VeryLow};
        let named = ["very-low", "low", "normal", "high", "apocalyptic"].map(Urgency::parse);
        assert_eq!(named, [VeryLow, Low, Normal, High, Normal]);
    }
}
