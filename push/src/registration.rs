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

/// A renewal that comes so shortly before the expiry starts a new life.
///
/// An ingress whose clock runs ahead may already have answered 410 for the old one, and an
/// endpoint that was refused once must never come back (docs/protocol.md,
/// "How Conversations treats an endpoint").
const LAPSE_MARGIN: TimeDelta = TimeDelta::seconds(5);

/// The longest that a distributor is told that its endpoint lives.
///
/// Distributors renew what expires within a day, and nothing before: so one that is there registers daily, and the
/// row of one that is away for longer lives on.
const ADVERTISED_MAX: TimeDelta = TimeDelta::hours(48);

/// A renewal that comes so shortly after the last one changes nothing. Less than a day, so that those that come
/// daily are written.
const RENEWAL_MIN: TimeDelta = TimeDelta::hours(20);

/// Time for which the row of a life that is over is kept, so that clocks which disagree by less still agree on
/// which epochs have been given out.
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
            /// The hash as stored.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes of the hash.
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
    /// The full JID that registers, and that pushes go to.
    pub recipient: FullJid,
    /// The application.
    pub application: Application,
    /// The instance of the application.
    pub instance: Instance,
    /// The application server that alone may push to it; `None`: whoever knows the endpoint.
    pub vapid: Option<VapidKey>,
    /// The endpoint is one that a predecessor has issued, and expires then, in milliseconds; `None`: it is ours.
    pub legacy: Option<DateTime<Utc>>,
}

impl Target {
    /// The id of the registration of this target.
    ///
    /// The resource is left out: a client that comes back under another one renews the same
    /// endpoint. So is the key: another one makes another life of the same registration. An endpoint of a
    /// predecessor has a registration of its own, beside the one that takes its place.
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

/// The key of a registration: a hash of bare JID, application and instance, and of a predecessor's endpoint its
/// expiry too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistrationId([u8; RegistrationId::BYTES]);

impl RegistrationId {
    /// Length in bytes.
    pub const BYTES: usize = 16;
    /// Into how many parts a store may divide the mailbox of an account.
    pub const PARTS: u8 = 4;

    /// The id as stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes of the id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// The part of its account's mailbox that its pushes are in, of [`Self::PARTS`].
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
        // The parse goes through `u128`, which would also take a sign or a shorter number.
        if text.len() != 2 * Self::BYTES || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(de::Error::custom("a registration id has 32 hexadecimal digits"));
        }
        u128::from_str_radix(&text, 16).map(|id| Self(id.to_be_bytes())).map_err(de::Error::custom)
    }
}

/// The Unix second at which one life of a registration began; part of the endpoint's token, so
/// that every life has its own URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(u64);

impl Epoch {
    /// The greatest epoch that a token can carry (40 bits; the year 36812).
    pub const MAX: Self = Self((1 << 40) - 1);

    /// The epoch that begins at this Unix second, bounded by [`Epoch::MAX`].
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

/// One row of the registrations' store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The recipient, and the names of application and instance.
    pub target: Target,
    /// The life that this row is in.
    pub epoch: Epoch,
    /// When the distributor registered or renewed last.
    pub renewed_at: DateTime<Utc>,
    /// When this life ends unless it is renewed.
    pub expires_at: DateTime<Utc>,
    /// The application is gone; this life is over.
    pub revoked: bool,
    /// Its senders are over their rate, and are asked to wait until then.
    pub throttled_until: Option<DateTime<Utc>>,
}

impl Registration {
    /// The row after `target` has registered at `now`.
    ///
    /// A registration that lives keeps its epoch, and with it its URL; one that lapsed, was
    /// revoked or never was starts a new one (docs/protocol.md, "How Conversations treats an endpoint").
    /// So does one whose key changes: to the senders of the former key the URL is refused from then on.
    #[must_use]
    pub fn renew(current: Option<&Self>, target: Target, now: DateTime<Utc>, lifetime: TimeDelta) -> Self {
        let beginning = Epoch::from_seconds(u64::try_from(now.timestamp()).unwrap_or(0));
        let (epoch, throttled_until) = match current {
            Some(row) if row.lives(now + LAPSE_MARGIN) && row.target.vapid == target.vapid => {
                (row.epoch, row.throttled_until)
            }
            // Two lives within one second, or a clock that went back: still a new URL.
            Some(row) => (beginning.max(Epoch::from_seconds(row.epoch.0 + 1)), None),
            None => (beginning, None),
        };
        Self { target, epoch, renewed_at: now, expires_at: now + lifetime, revoked: false, throttled_until }
    }

    /// Returns whether registering `target` at `now` changes more than some hours of the row's life. One that lives,
    /// for the same full JID and key, does as it is until `RENEWAL_MIN` of its life is over, if what is left is more
    /// than is advertised. The row of a predecessor's endpoint never changes: it has but one life, and no distributor
    /// renews it.
    #[must_use]
    pub fn needs_renewal(&self, target: &Target, now: DateTime<Utc>, lifetime: TimeDelta) -> bool {
        if target.legacy.is_some() {
            return false;
        }
        // A row from before the lifetime was shortened would promise more than is given now.
        let left = self.expires_at - now;
        let enough = (lifetime - RENEWAL_MIN).max(ADVERTISED_MAX);
        // Of a life that has lapsed, nothing is left.
        self.revoked || self.target != *target || left <= enough || left > lifetime
    }

    /// Until when a distributor is told at `now` that its endpoint lives.
    #[must_use]
    pub fn advertised_expiry(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.expires_at.min(now + ADVERTISED_MAX)
    }

    /// The second from which a row serves nothing any more and may be deleted: what is left of it then is
    /// its epoch, and a new life begins at a greater one anyway.
    #[must_use]
    pub fn purge_at(&self) -> DateTime<Utc> {
        self.expires_at + PURGE_AFTER
    }

    /// The life that its last renewal gave it.
    #[must_use]
    pub fn lifetime(&self) -> TimeDelta {
        self.expires_at - self.renewed_at
    }

    /// Returns how long its senders have to wait at `now` before they may push again.
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

#[cfg(test)]
mod tests;
