//! A push message (RFC 8030): what the ingress queues and the relay delivers.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use jid::FullJid;
use serde::{Deserialize, Serialize};

pub use self::{
    id::MessageId,
    wishes::{Topic, Ttl, Urgency, Wishes},
};
use crate::registration::{Application, Epoch, Instance, Registration, RegistrationId};

mod id;
mod wishes;

/// The largest body of a push, in bytes, as its sender sends it (docs/problems.md, "Why did my push get a 413?"; RFC 8030 §7.2).
pub const BODY_BYTES_MAX: usize = 4096;

/// Most bytes of the two headers that go in front of a body in `aesgcm` (docs/senders.md, "Encryption"). In base64,
/// headers and body fit into the 10,000 bytes that every XMPP server accepts for a stanza (RFC 6120 §13.12).
pub const KEY_HEADERS_BYTES_MAX: usize = 2048;

/// Time after acceptance at which a push with `TTL: 0` ("now or not at all") expires.
const IMMEDIATE: TimeDelta = TimeDelta::seconds(10);

/// The body that the application gets, in standard base64, as the queue and XMPP carry it. It consists of the bytes
/// that the application server sent; in `aesgcm`, the two headers go in front of them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Body(String);

impl Body {
    /// Encodes the raw bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(STANDARD.encode(bytes))
    }

    /// Returns the number of raw bytes.
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

/// The version of a queue entry's JSON. An unknown version does not deserialize.
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

/// Why a queue entry cannot be read. The error shows nothing of the entry, which holds an address and a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// Another version of Upwire, unknown to this one, wrote the entry.
    #[error("the entry is of version {0}, which this version of Upwire does not know")]
    UnknownVersion(u64),
    /// The text is no entry of Upwire's.
    #[error("the entry is malformed at line {line}, column {column}")]
    Malformed {
        /// The line, from 1.
        line: usize,
        /// The column, in bytes.
        column: usize,
    },
}

/// A push on its way, with all that its delivery needs: the relay reads nothing else. Its JSON is the queue's entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushMessage {
    #[serde(rename = "v")]
    version: EntryVersion,
    /// The id of the push, and of the IQ that carries it.
    pub id: MessageId,
    /// The registration for which the push was accepted.
    pub registration: RegistrationId,
    /// The life of that registration.
    pub epoch: Epoch,
    /// The full JID that registered.
    pub recipient: FullJid,
    /// The application.
    pub application: Application,
    /// The instance of the application.
    pub instance: Instance,
    /// Time of the sender's 201, in Unix milliseconds.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub accepted_at: DateTime<Utc>,
    /// Time from which the push may no longer be delivered, in Unix milliseconds.
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

impl PushMessage {
    /// Makes a push that is accepted at `now` for a living registration. The push expires when the sender wishes, at
    /// the latest one more lifetime after the registration expires. A predecessor's endpoint is not renewed: its pushes
    /// expire with it at the latest.
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
        // Never before `now`, whichever clock made the row.
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

    /// Returns the queue's entry, as JSON.
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
    /// [`BadEntry`], if another version wrote the entry, or if it is no entry.
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

    /// Returns whether the push must not be delivered any more.
    #[must_use]
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        let end = if self.is_immediate() { self.accepted_at + IMMEDIATE } else { self.expires_at };
        now >= end
    }

    /// Returns whether the push has `TTL: 0`: it gets one attempt, and is never kept (RFC 8030 §5.2).
    #[must_use]
    pub fn is_immediate(&self) -> bool {
        self.expires_at <= self.accepted_at
    }
}

#[cfg(test)]
mod tests;
