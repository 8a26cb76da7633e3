//! The marker: one record beside the registrations. It says which secrets sign endpoints, which table this is, and
//! until when its rows are complete. An ingress that disagrees with the marker must not tell senders that an endpoint
//! ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::Sha256;

use crate::{
    message::Urgency,
    registration::{Epoch, Registration},
};

/// The text whose HMAC is a fingerprint. It separates this use of a secret from its others.
const PURPOSE: &[u8] = b"upwire fingerprint\0";
/// Time for which an endpoint is not refused for good if its row may have been lost with a restored table.
pub const DOUBT: TimeDelta = TimeDelta::hours(72);
/// Longest gap between notes that counts as a restart of the relay. A longer gap may mean a restored table.
const RESTART_MAX: TimeDelta = TimeDelta::hours(1);
/// Time for which the relay's request to shed pushes holds. The relay repeats it; if the relay ends, pushes are
/// accepted again by themselves.
pub const SHED_FOR: TimeDelta = TimeDelta::seconds(90);
/// Most predecessors' keys whose first use is remembered, beside those in use.
const LEGACY_KEYS_MAX: usize = 16;
/// Most gaps that are remembered. Beyond it, the two oldest are merged.
const GAPS_MAX: usize = 8;

/// Identifies a secret without revealing it: the HMAC of a fixed text, truncated to 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// Returns the fingerprint of this secret.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        let keyed = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
        let made = keyed.chain_update(PURPOSE).finalize().into_bytes();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&made[..16]);
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = u128::from_str_radix(&text, 16).ok().filter(|_| text.len() == 32);
        number.map(|number| Self(number.to_be_bytes())).ok_or_else(|| de::Error::custom("no fingerprint"))
    }
}

/// The fingerprints of the secrets that one half of the server has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Fingerprints of the secrets of endpoints; the first one signs.
    pub secrets: Vec<Fingerprint>,
    /// Fingerprints of the keys of predecessors.
    #[serde(default)]
    pub legacy: BTreeSet<Fingerprint>,
}

impl Keys {
    /// Returns whether every secret of `others` is among these.
    fn cover(&self, others: &Self) -> bool {
        others.secrets.iter().all(|secret| self.secrets.contains(secret))
            && others.legacy.is_subset(&self.legacy)
    }
}

/// Epochs that may have been given out without a row in this table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Gap {
    /// First Unix second of the gap, inclusive: that second had only begun when it was noted.
    from: u64,
    /// Last Unix second of the gap, inclusive.
    to: u64,
    /// Unix second until which an endpoint of the gap is not certain to have ended.
    until: i64,
}

impl Gap {
    /// Returns whether the gap may have lost a living row of this epoch, or its last renewal. The table has `row`.
    fn may_have_taken(&self, epoch: u64, row: Option<&Registration>) -> bool {
        let restored = self.to - self.from > RESTART_MAX.num_seconds().unsigned_abs();
        match row.filter(|row| row.epoch.as_seconds() == epoch) {
            // The row has lapsed. The restored table would not show a renewal within the gap. A row that began after
            // the gap was renewed after it, too.
            Some(row) => restored && epoch < self.to && self.from <= seconds(row.expires_at),
            // A restored row that has lapsed is purged, too: its absence proves nothing.
            None => epoch <= self.to && (restored || self.from <= epoch),
        }
    }
}

/// The relay's request not to accept certain pushes, because older ones wait in the queue for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Shed {
    /// The highest urgency that is not accepted.
    urgency: Urgency,
    /// Unix second at which the request lapses.
    until: i64,
}

/// The marker. Fields that a later version adds are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The name of this table, if it was given one.
    #[serde(default)]
    table: Option<String>,
    /// The secrets of the relay.
    keys: Keys,
    /// Unix second. All rows of earlier epochs have been written to this table, but for those in a gap.
    seen_until: u64,
    #[serde(default)]
    gaps: Vec<Gap>,
    /// Unix second at which the first relay began to use this table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    begun: Option<u64>,
    /// Unix second since which each key of a predecessor is in use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    legacy_since: BTreeMap<Fingerprint, i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shed: Option<Shed>,
}

/// The stored text is no marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the marker of the registrations' store is malformed")]
pub struct MalformedMarker;

/// Why an ingress cannot say that an endpoint has ended, or never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// No relay has ever used this table.
    Missing,
    /// This is not the table that the ingress names.
    Table,
    /// The relay has a secret that the ingress lacks.
    Secrets,
    /// The row, or its last renewal, may have been lost with a table that was restored, or replaced by an empty one.
    Restored,
    /// The table is new, and a secret that is unknown here signed the token: perhaps that of the table before.
    Begun,
}

impl Doubt {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::Missing, Self::Table, Self::Secrets, Self::Restored, Self::Begun];

    /// Returns the label in the metrics.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Table => "table",
            Self::Secrets => "secrets",
            Self::Restored => "restored",
            Self::Begun => "new",
        }
    }

    /// Returns the remedy, in words for the operator.
    #[must_use]
    pub const fn mend(self) -> &'static str {
        match self {
            Self::Missing => {
                "no relay has used this table: name the table of the relay in UPWIRE_REGISTRATIONS_TABLE, or start \
                 the relay on this one"
            }
            Self::Table => {
                "the table is not the one that UPWIRE_TABLE_ID names: correct UPWIRE_REGISTRATIONS_TABLE, or give \
                 the function and the relay the same UPWIRE_TABLE_ID (the stack's parameter TableId)"
            }
            Self::Secrets => {
                "the relay has a secret that is missing here: set UPWIRE_SECRET, and UPWIRE_LEGACY_SECRET or \
                 UPWIRE_LEGACY_PASETO_KEY, to all that the relay has; or restart the relay without those that \
                 were retired"
            }
            Self::Restored => {
                "rows of this table may be missing: if it was restored from a backup, phones register again within \
                 72 hours, and nothing is to be done; if it is new, name the one that has the registrations"
            }
            Self::Begun => {
                "a token is older than this table, and no secret here made it: set UPWIRE_SECRET to the secret of \
                 before (a database of before may hold it: put that one back), or for a predecessor's token \
                 UPWIRE_LEGACY_SECRET or UPWIRE_LEGACY_PASETO_KEY; if there were no endpoints before, a stranger \
                 made the token up, and nothing is to be done; such tokens are refused for good when the table is \
                 72 hours old"
            }
        }
    }
}

/// Why a relay must not start with the secrets and the table that it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The secret that signs at present is not among the new ones: every endpoint would be refused.
    #[error("lacks the secret that endpoints are signed with")]
    Secrets,
    /// The table has another id.
    #[error("names another table than this one")]
    Table,
}

impl Marker {
    /// Returns the marker as it is stored.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a marker is plain data")
    }

    /// Parses JSON that [`Self::to_json`] of this version or another made.
    ///
    /// # Errors
    /// [`MalformedMarker`].
    pub fn parse(json: &str) -> Result<Self, MalformedMarker> {
        serde_json::from_str(json).map_err(|_| MalformedMarker)
    }

    /// Returns the marker of a relay that begins to use a table at `now`. Registrations after `seen_until` may be
    /// missing: the relay was down, or this table is a restored copy of an older state. Their epochs form a gap.
    #[must_use]
    pub fn begin(found: Option<&Self>, keys: Keys, table: Option<String>, now: DateTime<Utc>) -> Self {
        let to = seconds(now);
        let from = found.map_or(0, |found| found.seen_until);
        let mut gaps: Vec<_> = found.into_iter().flat_map(|found| &found.gaps).copied().collect();
        gaps.retain(|gap| now.timestamp() < gap.until);
        if from <= to {
            gaps.push(Gap { from, to, until: (now + DOUBT).timestamp() });
        }
        while let [first, second, ..] = gaps[..]
            && gaps.len() > GAPS_MAX
        {
            let (from, to) = (first.from.min(second.from), first.to.max(second.to));
            gaps.splice(0..2, [Gap { from, to, until: first.until.max(second.until) }]);
        }
        let table = table.or_else(|| found.and_then(|found| found.table.clone()));
        let legacy_since = found.map_or_else(BTreeMap::new, |found| found.legacy_since.clone());
        let begun = found.map_or(Some(to), |found| found.begun);
        let mut marker =
            Self { table, keys, seen_until: to.max(from), gaps, begun, legacy_since, shed: None };
        marker.note_legacy(now);
        marker
    }

    /// Notes that the rows of all epochs before `now` have been written, and which secrets are in use.
    pub fn note(&mut self, keys: Keys, now: DateTime<Utc>) {
        self.keys = keys;
        self.note_legacy(now);
        self.seen_until = self.seen_until.max(seconds(now));
    }

    /// Returns the time since which a key of a predecessor is in use.
    #[must_use]
    pub fn legacy_since(&self, key: Fingerprint) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(*self.legacy_since.get(&key)?, 0)
    }

    /// Notes the first use of each predecessor's key. A key that was removed and comes back keeps its first use.
    fn note_legacy(&mut self, now: DateTime<Utc>) {
        for key in &self.keys.legacy {
            self.legacy_since.entry(*key).or_insert(now.timestamp());
        }
        while self.legacy_since.len() > LEGACY_KEYS_MAX + self.keys.legacy.len() {
            let unused = self.legacy_since.iter().filter(|(key, _)| !self.keys.legacy.contains(key));
            let Some(oldest) = unused.min_by_key(|(_, since)| **since).map(|(key, _)| *key) else { return };
            self.legacy_since.remove(&oldest);
        }
    }

    /// Asks the ingress to refuse pushes of this urgency and of less, for [`SHED_FOR`].
    pub fn shed(&mut self, urgency: Urgency, now: DateTime<Utc>) {
        self.shed = Some(Shed { urgency, until: (now + SHED_FOR).timestamp() });
    }

    /// Returns the time for which pushes of this urgency are refused; `None`: they are accepted.
    #[must_use]
    pub fn shed_for(&self, urgency: Urgency, now: DateTime<Utc>) -> Option<TimeDelta> {
        let shed = self.shed.filter(|shed| urgency <= shed.urgency)?;
        let left = DateTime::from_timestamp(shed.until, 0)? - now;
        Some(left).filter(|left| *left > TimeDelta::zero())
    }

    /// Checks whether a relay may go on with these secrets, and with this name for the table.
    ///
    /// # Errors
    /// [`Misfit`].
    pub fn admit(&self, keys: &Keys, table: Option<&str>) -> Result<(), Misfit> {
        if self.is_another_table(table) && self.table.is_some() {
            return Err(Misfit::Table);
        }
        let signs = self.keys.secrets.first();
        if signs.is_some_and(|signs| !keys.secrets.contains(signs)) { Err(Misfit::Secrets) } else { Ok(()) }
    }

    /// Returns the name of this table, if it was given one.
    #[must_use]
    pub fn table(&self) -> Option<&str> {
        self.table.as_deref()
    }

    /// Checks whether an ingress with these secrets may refuse a token that none of them made.
    ///
    /// # Errors
    /// The reason why not.
    pub fn vouch(&self, keys: &Keys, table: Option<&str>) -> Result<(), Doubt> {
        if self.is_another_table(table) {
            return Err(Doubt::Table);
        }
        if keys.cover(&self.keys) { Ok(()) } else { Err(Doubt::Secrets) }
    }

    /// Checks whether a token that claims this epoch, and that no secret here made, may be refused for good. A token
    /// that is older than this table may come from a secret that was lost with the former table.
    ///
    /// # Errors
    /// The reason why not.
    pub fn vouch_unknown(&self, claimed: Option<Epoch>, now: DateTime<Utc>) -> Result<(), Doubt> {
        let Some(begun) = self.begun else { return Ok(()) };
        let of_before = claimed.is_none_or(|claimed| claimed.as_seconds() < begun);
        let new = seconds(now) < begun.saturating_add(DOUBT.num_seconds().unsigned_abs());
        if of_before && new { Err(Doubt::Begun) } else { Ok(()) }
    }

    /// Checks whether the life that one of our tokens names is over for certain. The table has `row`.
    ///
    /// # Errors
    /// The reason why not.
    pub fn vouch_over(
        &self,
        epoch: Epoch,
        row: Option<&Registration>,
        now: DateTime<Utc>,
    ) -> Result<(), Doubt> {
        if tells_of(row, epoch) {
            return Ok(());
        }
        let epoch = epoch.as_seconds();
        let shows = row.is_some_and(|row| row.epoch.as_seconds() == epoch);
        let taken = |gap: &Gap| now.timestamp() < gap.until && gap.may_have_taken(epoch, row);
        if !shows && epoch >= self.seen_until || self.gaps.iter().any(taken) {
            Err(Doubt::Restored)
        } else {
            Ok(())
        }
    }

    fn is_another_table(&self, named: Option<&str>) -> bool {
        named.is_some_and(|named| self.table.as_deref() != Some(named))
    }
}

/// Returns whether the row alone proves that a life is over: it was revoked, or a later one began.
#[must_use]
pub fn tells_of(row: Option<&Registration>, epoch: Epoch) -> bool {
    row.is_some_and(|row| row.epoch > epoch || row.epoch == epoch && row.revoked)
}

fn seconds(now: DateTime<Utc>) -> u64 {
    u64::try_from(now.timestamp()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
