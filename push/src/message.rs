//! A push message (RFC 8030): what the ingress queues and the relay delivers.

use std::fmt;

use base64::{
    Engine, display,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use chrono::{DateTime, TimeDelta, Utc};
use jid::FullJid;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use crate::{Application, Epoch, Instance, Registration, RegistrationId};

/// The largest body of a push, in bytes, as its sender sends it (docs/problems.md, "Why did my push get a 413?"; RFC 8030 §7.2).
pub const BODY_BYTES_MAX: usize = 4096;

/// Most bytes of the two headers that go in front of a body in `aesgcm` (docs/senders.md, "Encryption"). With them, in base64, the
/// push is within the 10000 bytes that every XMPP server takes for a stanza (RFC 6120 §13.12).
pub const KEY_HEADERS_BYTES_MAX: usize = 2048;

/// How long `TTL: 0` ("now or not at all") leaves a push on its way through the queue, before
/// "now" is over.
const IMMEDIATE: TimeDelta = TimeDelta::seconds(10);

/// Names a push message, in its `Location` and as the id of the IQ that carries it.
///
/// It begins with the urgency and the moment of acceptance, so that ids order pushes as a mailbox
/// hands them out: the more urgent first, and the older first among those of one urgency. Chance follows, but for the
/// last two bits, which the registration gives. The id tells the place of the push in its mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId([u8; MessageId::BYTES]);

impl MessageId {
    /// Length in bytes.
    pub const BYTES: usize = 16;
    /// Length of its text.
    const CHARACTERS: usize = 22;
    /// Bytes of chance in it.
    pub const CHANCE_BYTES: usize = 8;
    /// Bytes of the moment of acceptance: microseconds, until the year 4253.
    const MOMENT_BYTES: usize = 7;

    /// The id of a push of this urgency accepted at this moment.
    #[must_use]
    pub fn new(urgency: Urgency, accepted_at: DateTime<Utc>, chance: [u8; Self::CHANCE_BYTES]) -> Self {
        let micros = u64::try_from(accepted_at.timestamp_micros()).unwrap_or(0).to_be_bytes();
        let mut id = [0; Self::BYTES];
        id[0] = urgency.place();
        id[1..=Self::MOMENT_BYTES].copy_from_slice(&micros[8 - Self::MOMENT_BYTES..]);
        id[1 + Self::MOMENT_BYTES..].copy_from_slice(&chance);
        Self(id)
    }

    /// An id as stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes of the id; they order as the id does.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// The part of the id that orders pushes by their age alone, whatever their urgency.
    #[must_use]
    pub fn age(&self) -> &[u8] {
        &self.0[1..]
    }

    /// The part of its account's mailbox: that of its registration ([`RegistrationId::part`]).
    #[must_use]
    pub const fn part(&self) -> u8 {
        self.0[Self::BYTES - 1] % RegistrationId::PARTS
    }

    /// Reads the id back from an IQ or a URL; `None` for anything that is not one of ours.
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

/// The body that the application gets, in the form that the queue and XMPP carry, standard base64: the bytes that the
/// application server sent, behind the two headers that go with them where they are in `aesgcm`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Body(String);

impl Body {
    /// Encodes the raw bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(STANDARD.encode(bytes))
    }

    /// How many raw bytes it has.
    #[must_use]
    pub fn byte_count(&self) -> usize {
        let padding = self.0.bytes().rev().take_while(|byte| *byte == b'=').count();
        (self.0.len() / 4 * 3).saturating_sub(padding)
    }

    /// Standard base64 of the raw bytes.
    #[must_use]
    pub fn as_base64(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} characters)", self.0.len())
    }
}

/// How long a push may wait, in seconds (RFC 8030 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(u32);

impl Ttl {
    /// Kept for this many seconds; zero: now or not at all.
    #[must_use]
    pub const fn from_seconds(seconds: u32) -> Self {
        Self(seconds)
    }

    /// Parses the header's value: decimal digits alone. A number too large for any clock is
    /// taken as the largest.
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

/// How much a push is worth waking a phone for (RFC 8030 §5.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Urgency {
    /// Advertisements.
    VeryLow,
    /// Updates.
    Low,
    /// Messages; what a push without the header is.
    #[default]
    Normal,
    /// Calls and alerts.
    High,
}

impl Urgency {
    /// Parses the header's value. An unknown one is normal: senders delete a subscription on 400,
    /// and urgency is only a hint.
    #[must_use]
    pub fn parse(value: &str) -> Self {
        match value {
            "very-low" => Self::VeryLow,
            "low" => Self::Low,
            "high" => Self::High,
            _ => Self::Normal,
        }
    }

    /// The place of this urgency among all: the highest comes first.
    const fn place(self) -> u8 {
        match self {
            Self::High => 0,
            Self::Normal => 1,
            Self::Low => 2,
            Self::VeryLow => 3,
        }
    }
}

/// A later push of the same topic replaces one that still waits (RFC 8030 §5.4).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Topic(String);

impl Topic {
    /// Most characters of a topic (RFC 8030 §5.4).
    pub const CHARACTERS_MAX: usize = 32;

    /// Parses the header's value: at most 32 characters of base64url; padding is dropped, since
    /// some senders add it (docs/senders.md, "What senders do").
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let topic = value.trim_end_matches('=');
        let base64url = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        (!topic.is_empty() && value.len() <= Self::CHARACTERS_MAX && topic.bytes().all(base64url))
            .then(|| Self(topic.to_owned()))
    }

    /// A topic that pushes about this thing share with each other, and with no others.
    #[must_use]
    pub fn of(thing: &str) -> Self {
        let digest = Sha256::new().chain_update(b"upwire topic\0").chain_update(thing).finalize();
        Self(URL_SAFE_NO_PAD.encode(&digest[..Self::CHARACTERS_MAX / 4 * 3]))
    }

    /// The text, without padding.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The version of a queue entry's JSON; another one does not deserialize.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u64", try_from = "u64")]
struct EntryVersion;

impl From<EntryVersion> for u64 {
    fn from(_: EntryVersion) -> Self {
        1
    }
}

impl TryFrom<u64> for EntryVersion {
    type Error = &'static str;

    fn try_from(version: u64) -> Result<Self, &'static str> {
        if version == u64::from(Self) { Ok(Self) } else { Err("unknown version") }
    }
}

/// Why a queue entry cannot be read. It shows nothing of the entry: that holds an address and a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// A version of Upwire that this one does not know wrote it.
    #[error("the entry is of version {0}, which this version of Upwire does not know")]
    UnknownVersion(u64),
    /// It is no entry of Upwire's.
    #[error("the entry is malformed at line {line}, column {column}")]
    Malformed {
        /// From 1.
        line: usize,
        /// In bytes.
        column: usize,
    },
}

/// One push on its way, with all that its delivery needs: the relay reads nothing else. Its JSON
/// is the queue's entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushMessage {
    #[serde(rename = "v")]
    version: EntryVersion,
    /// Its id, also that of the IQ.
    pub id: MessageId,
    /// The registration that it was accepted for.
    pub registration: RegistrationId,
    /// The life of that registration.
    pub epoch: Epoch,
    /// The full JID that registered.
    pub recipient: FullJid,
    /// The application.
    pub application: Application,
    /// The instance of the application.
    pub instance: Instance,
    /// When the sender got its 201, in Unix milliseconds.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub accepted_at: DateTime<Utc>,
    /// When it may no longer be delivered, in Unix milliseconds.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub expires_at: DateTime<Utc>,
    /// Its urgency.
    #[serde(default)]
    pub urgency: Urgency,
    /// Its topic, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<Topic>,
    /// The body that the application gets.
    pub body: Body,
}

/// The wishes of the sender, beside the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wishes {
    /// How long to keep it.
    pub ttl: Ttl,
    /// How urgent it is.
    pub urgency: Urgency,
    /// Its topic, by which it replaces an older push.
    pub topic: Option<Topic>,
}

impl PushMessage {
    /// A push accepted at `now` for a registration that lives; it is kept for as long as the sender wishes, but not
    /// beyond the registration's expiry and one more renewal, which a predecessor's endpoint does not get.
    #[must_use]
    pub fn new(
        mut chance: [u8; MessageId::CHANCE_BYTES],
        registration: &Registration,
        wishes: Wishes,
        body: Body,
        now: DateTime<Utc>,
    ) -> Self {
        let target = &registration.target;
        let id = target.registration_id();
        let last = &mut chance[MessageId::CHANCE_BYTES - 1];
        *last = *last - *last % RegistrationId::PARTS + id.part();
        let renewal = if target.legacy.is_some() { TimeDelta::zero() } else { registration.lifetime() };
        // Of an old row with a long life, or of one made by a clock that runs ahead, not before `now`.
        let renewed_once_more = (registration.expires_at + renewal).max(now);
        let expires_at = now + TimeDelta::seconds(i64::from(wishes.ttl.as_seconds()));
        Self {
            version: EntryVersion,
            id: MessageId::new(wishes.urgency, now, chance),
            registration: id,
            epoch: registration.epoch,
            recipient: target.recipient.clone(),
            application: target.application,
            instance: target.instance,
            accepted_at: now,
            expires_at: expires_at.min(renewed_once_more),
            urgency: wishes.urgency,
            topic: wishes.topic,
            body,
        }
    }

    /// The queue's entry: JSON.
    ///
    /// # Panics
    /// Never: every part of a push is text or a number.
    #[must_use]
    pub fn to_entry(&self) -> String {
        serde_json::to_string(self).expect("a push has no map and nothing that fails to serialize")
    }

    /// Reads a queue's entry.
    ///
    /// # Errors
    /// [`BadEntry`], if another version wrote it or nobody did.
    pub fn from_entry(entry: &[u8]) -> Result<Self, BadEntry> {
        #[derive(Deserialize)]
        struct Versioned {
            v: u64,
        }
        serde_json::from_slice(entry).map_err(|error| match serde_json::from_slice(entry) {
            Ok(Versioned { v }) if EntryVersion::try_from(v).is_err() => BadEntry::UnknownVersion(v),
            _ => BadEntry::Malformed { line: error.line(), column: error.column() },
        })
    }

    /// Whether it must not be delivered any more.
    #[must_use]
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        let end = if self.is_immediate() { self.accepted_at + IMMEDIATE } else { self.expires_at };
        now >= end
    }

    /// `TTL: 0`: one attempt, never kept (RFC 8030 §5.2).
    #[must_use]
    pub fn is_immediate(&self) -> bool {
        self.expires_at <= self.accepted_at
    }
}

#[cfg(test)]
mod tests;
