//! A registration (RFC 8030: subscription): who receives the pushes of one endpoint, and until when.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use jid::{BareJid, FullJid};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use crate::vapid::VapidKey;

/// Bytes in the hashes that name an application and an instance.
const HASH_BYTES: usize = 32;

/// A renewal within this time before the expiry begins a new life. Where the lifetime is short, half of it is enough.
///
/// An ingress whose clock runs ahead may already have answered 410 for the old life, or a store may write the renewal
/// late: it takes less than this for a write. An endpoint that was refused once must never come back (docs/protocol.md,
/// "How Conversations treats an endpoint").
const LAPSE_MARGIN: TimeDelta = TimeDelta::seconds(60);

/// Longest time to live that a distributor is told for its endpoint.
///
/// Distributors renew an endpoint only once it expires within a day. So an active distributor registers daily, while
/// the row of an absent one lives on for its whole lifetime.
const ADVERTISED_MAX: TimeDelta = TimeDelta::hours(48);

/// Shortest time between two renewals that are both written. Less than a day, so that daily renewals are written.
const RENEWAL_MIN: TimeDelta = TimeDelta::hours(20);

/// Time for which the row of an ended life is kept. Clocks that differ by less then agree on the epochs that were given
/// out.
pub const PURGE_AFTER: TimeDelta = TimeDelta::days(1);

/// Why an `application` or `instance` attribute was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// The attribute is absent or empty.
    #[error("no value provided")]
    Missing,
    /// The attribute is not padded standard base64.
    #[error("not valid base64")]
    NotBase64,
    /// The attribute does not decode to a SHA-256 hash.
    #[error("decodes to {0} bytes, expected 32")]
    WrongLength(usize),
}

fn parse_hash(text: &str) -> Result<[u8; HASH_BYTES], HashError> {
    if text.is_empty() {
        return Err(HashError::Missing);
    }
    let bytes = STANDARD.decode(text).map_err(|_| HashError::NotBase64)?;
    let length = bytes.len();
    bytes.try_into().map_err(|_| HashError::WrongLength(length))
}

macro_rules! target_hash {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; HASH_BYTES]);

        impl $name {
            /// Makes a hash from its stored bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
                Self(bytes)
            }

            /// Returns the bytes of the hash.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; HASH_BYTES] {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = HashError;

            /// Parses the attribute of a `<register/>`: standard base64 of 32 bytes
            /// (docs/protocol.md, "Register").
            fn from_str(text: &str) -> Result<Self, HashError> {
                parse_hash(text).map(Self)
            }
        }

        /// Standard base64, as on the wire.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&STANDARD.encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

target_hash! {
    /// The salted SHA-256 hash by which a distributor names an application.
    Application
}

target_hash! {
    /// The salted SHA-256 hash by which a distributor names one subscription of an application.
    Instance
}

/// The phone and application that an endpoint stands for, as the distributor names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The full JID that registers, and that gets the pushes.
    pub recipient: FullJid,
    /// The application.
    pub application: Application,
    /// The instance of the application.
    pub instance: Instance,
    /// The key of the only application server that may push; `None`: anyone who knows the endpoint may.
    pub vapid: Option<VapidKey>,
    /// The expiry of an endpoint that a predecessor issued, to the millisecond; `None`: the endpoint is ours.
    pub legacy: Option<DateTime<Utc>>,
}

impl Target {
    /// Returns the id of this target's registration.
    ///
    /// The hash leaves out the resource: a client that comes back under another resource renews the same endpoint. It
    /// leaves out the key: another key begins another life of the same registration. A predecessor's endpoint has a
    /// registration of its own, beside the one that takes its place.
    #[must_use]
    pub fn registration_id(&self) -> RegistrationId {
        let account: BareJid = self.recipient.to_bare();
        let digest = Sha256::new()
            .chain_update(b"upwire registration\0")
            .chain_update(account.as_str().as_bytes())
            .chain_update(b"\0")
            .chain_update(self.application.as_bytes())
            .chain_update(self.instance.as_bytes());
        let digest = match self.legacy {
            None => digest,
            Some(expiry) => digest.chain_update(expiry.timestamp_millis().to_be_bytes()),
        };
        let digest = digest.finalize();
        let mut id = [0; RegistrationId::BYTES];
        id.copy_from_slice(&digest[..RegistrationId::BYTES]);
        RegistrationId(id)
    }
}

/// The key of a registration: a hash of bare JID, application and instance. For a predecessor's endpoint, the hash
/// includes the expiry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistrationId([u8; RegistrationId::BYTES]);

impl RegistrationId {
    /// Length in bytes.
    pub const BYTES: usize = 16;
    /// Number of parts into which a store may divide the mailbox of an account.
    pub const PARTS: u8 = 4;

    /// Makes an id from its stored bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Returns the part of the account's mailbox that holds this registration's pushes, below [`Self::PARTS`].
    #[must_use]
    pub const fn part(&self) -> u8 {
        self.0[Self::BYTES - 1] % Self::PARTS
    }
}

/// Lower-case hexadecimal; not a secret, and reveals no address.
impl fmt::Display for RegistrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RegistrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistrationId({self})")
    }
}

impl Serialize for RegistrationId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RegistrationId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // `u128::from_str_radix` would also take a sign or fewer digits.
        if text.len() != 2 * Self::BYTES || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(de::Error::custom("a registration id has 32 hexadecimal digits"));
        }
        u128::from_str_radix(&text, 16).map(|id| Self(id.to_be_bytes())).map_err(de::Error::custom)
    }
}

/// The Unix second at which one life of a registration began. The endpoint's token contains it, so every life has its
/// own URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(u64);

impl Epoch {
    /// The greatest epoch that a token can carry (40 bits; the year 36812).
    pub const MAX: Self = Self((1 << 40) - 1);

    /// Makes the epoch that begins at this Unix second, at most [`Epoch::MAX`].
    #[must_use]
    pub fn from_seconds(seconds: u64) -> Self {
        Self(seconds.min(Self::MAX.0))
    }

    /// Unix seconds.
    #[must_use]
    pub const fn as_seconds(self) -> u64 {
        self.0
    }
}

/// A row of the registrations' store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The recipient, and the names of application and instance.
    pub target: Target,
    /// The life that this row is in.
    pub epoch: Epoch,
    /// Time of the last registration or renewal.
    pub renewed_at: DateTime<Utc>,
    /// Time at which this life ends unless it is renewed.
    pub expires_at: DateTime<Utc>,
    /// True if this life was ended before its expiry, because the application is gone.
    pub revoked: bool,
    /// Time until which senders are asked to wait because they are over their rate.
    pub throttled_until: Option<DateTime<Utc>>,
}

impl Registration {
    /// Returns the row after `target` has registered at `now`.
    ///
    /// A living registration keeps its epoch, and thereby its URL. A registration that lapsed, was revoked or did not
    /// exist gets a new epoch (docs/protocol.md, "How Conversations treats an endpoint"). A change of the key begins a
    /// new epoch, too: senders with the former key are refused from then on.
    #[must_use]
    pub fn renew(current: Option<&Self>, target: Target, now: DateTime<Utc>, lifetime: TimeDelta) -> Self {
        let beginning = Epoch::from_seconds(u64::try_from(now.timestamp()).unwrap_or(0));
        let margin = lapse_margin(lifetime);
        let (epoch, throttled_until) = match current {
            Some(row) if row.lives(now + margin) && row.target.vapid == target.vapid => {
                (row.epoch, row.throttled_until)
            }
            // A second life within one second, or after the clock went back, still gets a new URL.
            Some(row) => (beginning.max(Epoch::from_seconds(row.epoch.0 + 1)), None),
            None => (beginning, None),
        };
        Self { target, epoch, renewed_at: now, expires_at: now + lifetime, revoked: false, throttled_until }
    }

    /// Returns whether registering `target` at `now` has to be written. A living row with the same full JID and key
    /// stands as it is until `RENEWAL_MIN` of its lifetime is over, if more time is left than is advertised. The row of
    /// a predecessor's endpoint never changes: it has one life, and no distributor renews it.
    #[must_use]
    pub fn needs_renewal(&self, target: &Target, now: DateTime<Utc>, lifetime: TimeDelta) -> bool {
        if target.legacy.is_some() {
            return false;
        }
        // A row that was written before the lifetime was shortened may have more than the lifetime left.
        let left = self.expires_at - now;
        let enough = (lifetime - RENEWAL_MIN).max(ADVERTISED_MAX);
        // A lapsed life has no time left.
        self.revoked || self.target != *target || left <= enough || left > lifetime
    }

    /// Returns the expiry that a distributor is told at `now`. A renewal before it keeps the URL.
    #[must_use]
    pub fn advertised_expiry(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let keeps_until = self.expires_at - lapse_margin(self.lifetime());
        keeps_until.min(now + ADVERTISED_MAX)
    }

    /// Returns the time from which the row may be deleted. Only its epoch still matters then, and a new life begins at
    /// a greater one anyway.
    #[must_use]
    pub fn purge_at(&self) -> DateTime<Utc> {
        self.expires_at + PURGE_AFTER
    }

    /// Returns the lifetime that the last renewal gave.
    #[must_use]
    pub fn lifetime(&self) -> TimeDelta {
        self.expires_at - self.renewed_at
    }

    /// Returns the time that senders have to wait from `now` before they may push again; `None`: they may push.
    #[must_use]
    pub fn throttled_for(&self, now: DateTime<Utc>) -> Option<TimeDelta> {
        self.throttled_until.map(|until| until - now).filter(|wait| *wait > TimeDelta::zero())
    }

    /// Returns whether pushes are accepted at `now`.
    #[must_use]
    pub fn lives(&self, now: DateTime<Utc>) -> bool {
        !self.revoked && now < self.expires_at
    }
}

/// Returns the time before its expiry in which a renewal begins a new life.
fn lapse_margin(lifetime: TimeDelta) -> TimeDelta {
    LAPSE_MARGIN.min(lifetime / 2)
}

#[cfg(test)]
mod tests;
