//! Facts about an endpoint or a push.

use chrono::{DateTime, Utc};
use push::ports::Seen;
use push::tenant::Month;
use push::{MessageId, Registration, Tenant, TenantName};
use serde::Serialize;

use crate::trail::Told;

/// The origin of the URL: ours, or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Token {
    /// It was signed by this secret of so many, from 1; the first signs.
    SignedBy { secret: usize, of: usize },
    /// None of the secrets that are known here has signed it.
    Foreign,
    /// No secret is known here.
    Unchecked,
    /// An id was given, which is not signed.
    #[default]
    Absent,
}

/// The state of a registration, or of the life that the endpoint names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Life {
    Lives,
    /// It lapsed.
    Expired,
    Revoked,
    /// Another life has begun since.
    Replaced,
    /// The store has no row.
    #[default]
    Missing,
}

/// A row of the registrations' store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    pub(super) account: String,
    pub(super) recipient: String,
    pub(super) since: Option<DateTime<Utc>>,
    pub(super) renewed_at: DateTime<Utc>,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) throttled_until: Option<DateTime<Utc>>,
    pub(super) bound_to_a_key: bool,
    pub(super) legacy: bool,
}

impl Row {
    pub(super) fn of(row: &Registration, now: DateTime<Utc>) -> Self {
        let since = i64::try_from(row.epoch.as_seconds()).ok();
        Self {
            account: row.target.recipient.to_bare().to_string(),
            recipient: row.target.recipient.to_string(),
            since: since.and_then(|since| DateTime::from_timestamp(since, 0)),
            renewed_at: row.renewed_at,
            expires_at: row.expires_at,
            throttled_until: row.throttled_for(now).and(row.throttled_until),
            bound_to_a_key: row.target.vapid.is_some(),
            legacy: row.target.legacy.is_some(),
        }
    }
}

/// The tenant whose domain the account is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Paying {
    pub(super) name: String,
    pub(super) suspended_since: Option<DateTime<Utc>>,
    /// Its pushes of the month are used up until then.
    pub(super) used_up_until: Option<DateTime<Utc>>,
}

impl Paying {
    pub(super) fn of(name: &TenantName, tenant: &Tenant, now: DateTime<Utc>) -> Self {
        let used_up = tenant.used_up.filter(|month| *month == Month::of(now));
        Self {
            name: name.to_string(),
            suspended_since: tenant.suspended_since,
            used_up_until: used_up.map(Month::end),
        }
    }
}

/// A full JID of the account that was seen lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Phone {
    pub(super) jid: String,
    pub(super) seen_at: DateTime<Utc>,
    pub(super) session_has_ended: bool,
}

impl From<&Seen> for Phone {
    fn from(seen: &Seen) -> Self {
        Self { jid: seen.jid.to_string(), seen_at: seen.seen_at, session_has_ended: seen.ended }
    }
}

/// The waiting pushes of the registration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Waiting {
    pub(super) pushes: usize,
    /// When the oldest of them was accepted.
    pub(super) oldest_accepted_at: Option<DateTime<Utc>>,
    /// Pushes of it in the queue, where that can be read.
    pub(super) in_the_queue: Option<usize>,
}

/// Where the push is that is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Push {
    pub(super) id: MessageId,
    pub(super) accepted_at: Option<DateTime<Utc>>,
    /// When its time runs out, where it is in the mailbox.
    pub(super) waits_until: Option<DateTime<Utc>>,
    /// When it last went out without an answer.
    pub(super) unanswered_at: Option<DateTime<Utc>>,
    pub(super) in_the_queue: bool,
}

/// The answer of the running process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Process {
    /// Why it was not asked.
    pub(super) unreachable: Option<String>,
    /// The push that is asked about, or the last ones of the registration.
    pub(super) pushes: Vec<Told>,
    /// Pushes of these that wait as far as the process remembers, and do not by the store, which was read later.
    pub(super) wait_no_more: Vec<MessageId>,
}

/// All of that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Facts {
    pub(super) id: Option<String>,
    pub(super) token: Token,
    pub(super) life: Life,
    pub(super) registration: Option<Row>,
    pub(super) tenant: Option<Paying>,
    /// The last that was seen comes first.
    pub(super) phones: Vec<Phone>,
    pub(super) waiting: Waiting,
    pub(super) push: Option<Push>,
    pub(super) process: Process,
}
