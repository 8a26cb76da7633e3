//! The marker: one record beside the registrations that says which secrets sign endpoints, which table this is, and
//! until when its rows are complete. An ingress that disagrees with it must not tell senders that an endpoint ended.

use std::{collections::BTreeSet, fmt};

use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::Sha256;

use crate::{Epoch, Registration};

/// The text of which a fingerprint is the HMAC; it separates this use of a secret from its others.
const PURPOSE: &[u8] = b"upwire fingerprint\0";
/// How long senders are asked to wait whose rows may have been lost with a restored table.
pub const DOUBT: TimeDelta = TimeDelta::hours(72);
/// Most gaps that are remembered; beyond it the two oldest become one.
const GAPS_MAX: usize = 8;

/// What tells a secret from others and does not give it away: the HMAC of a fixed text, cut to 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The fingerprint of this secret.
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
    /// Of the secrets of endpoints; the first signs.
    pub secrets: Vec<Fingerprint>,
    /// Of the keys of predecessors.
    #[serde(default)]
    pub legacy: BTreeSet<Fingerprint>,
}

impl Keys {
    /// Whether every secret of `others` is among these.
    fn cover(&self, others: &Self) -> bool {
        others.secrets.iter().all(|secret| self.secrets.contains(secret))
            && others.legacy.is_subset(&self.legacy)
    }
}

/// Epochs that may have been given out with nothing to show for it in this table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Gap {
    /// In seconds; it is in the gap, since it had only begun.
    from: u64,
    /// In seconds; it is in the gap.
    to: u64,
    /// Unix seconds: until then an endpoint of the gap has not ended for certain.
    until: i64,
}

/// See the module. What a later version adds is skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Which table this is, where a name was given to it.
    #[serde(default)]
    table: Option<String>,
    /// The secrets of the relay.
    keys: Keys,
    /// In seconds; the rows of all epochs before it have been written here, but for those in a gap.
    seen_until: u64,
    #[serde(default)]
    gaps: Vec<Gap>,
}

/// What is stored is no marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the marker of the registrations' store is malformed")]
pub struct MalformedMarker;

/// Why an ingress cannot say that an endpoint has ended, or never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// No relay has ever used this table.
    Missing,
    /// This is another table than the one meant.
    Table,
    /// The relay has a secret that the ingress lacks.
    Secrets,
    /// The row may have been lost with a table that was restored, or replaced by an empty one.
    Restored,
}

impl Doubt {
    /// Its label in the metrics.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Table => "table",
            Self::Secrets => "secrets",
            Self::Restored => "restored",
        }
    }

    /// What the operator has to mend.
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
        }
    }
}

/// Why a relay must not start with what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The secret that signs is not among the new ones: every endpoint would be refused.
    #[error("lacks the secret that endpoints are signed with")]
    Secrets,
    /// The table has another id.
    #[error("names another table than this one")]
    Table,
}

impl Marker {
    /// The marker as it is stored.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a marker is plain data")
    }

    /// Reads what [`Self::to_json`] made, of this version or another.
    ///
    /// # Errors
    /// [`MalformedMarker`].
    pub fn parse(json: &str) -> Result<Self, MalformedMarker> {
        serde_json::from_str(json).map_err(|_| MalformedMarker)
    }

    /// The marker of a relay that begins to use a table at `now`. What may have been registered since the last that
    /// is known of, while the relay was down or in a table that this one was restored in place of, is a gap.
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
        Self { table, keys, seen_until: to.max(from), gaps }
    }

    /// Notes that every row of an epoch up to `now` has been written, and which secrets are in use.
    pub fn note(&mut self, keys: Keys, now: DateTime<Utc>) {
        self.keys = keys;
        self.seen_until = self.seen_until.max(seconds(now));
    }

    /// Whether a relay may go on with these secrets, in a table that it takes for this one.
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

    /// Which table this is, where a name was given to it.
    #[must_use]
    pub fn table(&self) -> Option<&str> {
        self.table.as_deref()
    }

    /// Whether an ingress with these secrets may refuse a token that none of them made.
    ///
    /// # Errors
    /// Why not.
    pub fn vouch(&self, keys: &Keys, table: Option<&str>) -> Result<(), Doubt> {
        if self.is_another_table(table) {
            return Err(Doubt::Table);
        }
        if keys.cover(&self.keys) { Ok(()) } else { Err(Doubt::Secrets) }
    }

    /// Whether a life that one of our tokens names, and of which `row` is all that is there, is over for certain.
    ///
    /// # Errors
    /// Why not.
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
        let lost = |gap: &Gap| gap.from <= epoch && epoch <= gap.to && now.timestamp() < gap.until;
        if epoch >= self.seen_until || self.gaps.iter().any(lost) { Err(Doubt::Restored) } else { Ok(()) }
    }

    fn is_another_table(&self, named: Option<&str>) -> bool {
        named.is_some_and(|named| self.table.as_deref() != Some(named))
    }
}

/// Whether a row tells by itself what became of a life: it is of that life, or of a later one.
#[must_use]
pub fn tells_of(row: Option<&Registration>, epoch: Epoch) -> bool {
    row.is_some_and(|row| row.epoch >= epoch)
}

fn seconds(now: DateTime<Utc>) -> u64 {
    u64::try_from(now.timestamp()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn epoch(seconds: u64) -> Epoch {
        Epoch::from_seconds(1_800_000_000 + seconds)
    }

    fn keys(secrets: &[&str], legacy: &[&str]) -> Keys {
        Keys {
            secrets: secrets.iter().map(|secret| Fingerprint::of(secret.as_bytes())).collect(),
            legacy: legacy.iter().map(|key| Fingerprint::of(key.as_bytes())).collect(),
        }
    }

    /// Of a table that has been in use for long.
    fn old(keys: Keys) -> Marker {
        Marker { table: Some("t".into()), keys, seen_until: epoch(1).as_seconds(), gaps: Vec::new() }
    }

    #[test]
    fn an_ingress_needs_every_secret_of_the_relay_and_may_have_more() {
        let marker = old(keys(&["b", "a"], &["l"]));
        for covering in [keys(&["a", "b"], &["l"]), keys(&["a", "c", "b"], &["m", "l"])] {
            assert_eq!(marker.vouch(&covering, Some("t")), Ok(()));
        }
        for lacking in
            [keys(&["a"], &["l"]), keys(&["a", "b"], &["m"]), keys(&["a", "b"], &[]), keys(&[], &[])]
        {
            assert_eq!(marker.vouch(&lacking, Some("t")), Err(Doubt::Secrets));
        }
        assert_eq!(marker.vouch(&keys(&["a", "b"], &["l"]), Some("u")), Err(Doubt::Table));
        assert_eq!(marker.vouch(&keys(&["a", "b"], &["l"]), None), Ok(()), "no table is named");
    }

    #[test]
    fn a_relay_needs_the_secret_that_signs_and_the_table() {
        let marker = old(keys(&["b", "a"], &["l"]));
        assert_eq!(marker.admit(&keys(&["c", "b"], &[]), Some("t")), Ok(()));
        assert_eq!(marker.admit(&keys(&["a", "c"], &["l"]), Some("t")), Err(Misfit::Secrets));
        assert_eq!(marker.admit(&keys(&["b"], &[]), Some("u")), Err(Misfit::Table));
        let nameless = Marker { table: None, ..marker };
        assert_eq!(nameless.admit(&keys(&["b"], &[]), Some("u")), Ok(()), "it gets that name");
    }

    #[test]
    fn what_a_new_or_restored_table_may_have_lost_is_in_doubt_for_three_days() {
        let new = Marker::begin(None, keys(&["a"], &[]), None, at(10));
        assert_eq!(new.vouch_over(epoch(10), None, at(10)), Err(Doubt::Restored), "an empty table");

        let restored = Marker::begin(Some(&old(keys(&["a"], &[]))), keys(&["b", "a"], &[]), None, at(100));
        assert_eq!(restored.table(), Some("t"));
        for (seconds, over) in [(0, Ok(())), (1, Err(Doubt::Restored)), (100, Err(Doubt::Restored))] {
            assert_eq!(restored.vouch_over(epoch(seconds), None, at(200)), over, "{seconds}");
        }
        let mut restored = restored;
        assert_eq!(restored.vouch_over(epoch(101), None, at(200)), Err(Doubt::Restored), "not noted yet");
        restored.note(keys(&["b", "a"], &[]), at(150));
        assert_eq!(restored.vouch_over(epoch(101), None, at(200)), Ok(()));
        let later = at(100) + DOUBT;
        assert_eq!(restored.vouch_over(epoch(1), None, later), Ok(()), "they had three days");
        let again = Marker::begin(Some(&restored), keys(&["b"], &[]), None, at(160));
        assert_eq!(
            again.vouch_over(epoch(50), None, at(200)),
            Err(Doubt::Restored),
            "a restart forgets no gap"
        );
        assert_eq!(again.vouch_over(epoch(120), None, at(200)), Ok(()));
    }

    #[test]
    fn gaps_are_bounded_and_none_is_forgotten_before_its_time() {
        let mut marker = Marker::begin(Some(&old(keys(&["a"], &[]))), keys(&["a"], &[]), None, at(1));
        for second in 1..100 {
            marker = Marker::begin(Some(&marker), keys(&["a"], &[]), None, at(10 * second));
            marker.note(keys(&["a"], &[]), at(10 * second + 1));
        }
        assert_eq!(marker.gaps.len(), GAPS_MAX);
        for lost in [1, 5, 500, 989] {
            assert_eq!(marker.vouch_over(epoch(lost), None, at(1000)), Err(Doubt::Restored), "{lost}");
        }
        let after = Marker::begin(Some(&marker), keys(&["a"], &[]), None, at(2000) + DOUBT);
        assert_eq!(after.gaps.len(), 1);
    }

    #[test]
    fn the_stored_form_does_not_change_and_a_later_one_is_read() {
        let marker = Marker::begin(Some(&old(keys(&["a"], &["l"]))), keys(&["a"], &["l"]), None, at(2));
        let text = r#"{"table":"t","keys":{"secrets":["8bcc7173580915c5fdd00de29a4d64eb"],"legacy":["ebaa66c5ba8f809c8723ac3594b48b83"]},"seen_until":1800000002,"gaps":[{"from":1800000001,"to":1800000002,"until":1800259202}]}"#;
        assert_eq!(marker.to_json(), text);
        let later = text.replacen('{', r#"{"more":[1],"#, 1);
        assert_eq!(Marker::parse(&later), Ok(marker));
    }
}
