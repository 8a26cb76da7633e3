//! Facts about an endpoint or a push.

use chrono::{DateTime, Utc};
use push::ports::Seen;
use push::tenant::Month;
use push::{MessageId, Registration, Tenant, TenantName};
use serde::Serialize;

use crate::trail::Told;

/// The origin of the URL, by its signature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Token {
    /// This secret has signed the URL. Secrets are counted from 1; the first one signs at present.
    SignedBy { secret: usize, of: usize },
    /// None of the known secrets has signed the URL.
    Foreign,
    /// No secret is known.
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
    /// The life has lapsed.
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
    /// Time until which the tenant has used up its pushes of the month.
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
    /// Acceptance of the oldest one.
    pub(super) oldest_accepted_at: Option<DateTime<Utc>>,
    /// Number of the registration's pushes in the queue; `None`: the queue cannot be read.
    pub(super) in_the_queue: Option<usize>,
}

/// The push that the command is about, and its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Push {
    pub(super) id: MessageId,
    pub(super) accepted_at: Option<DateTime<Utc>>,
    /// Expiry of the push, if it is in the mailbox.
    pub(super) waits_until: Option<DateTime<Utc>>,
    /// Time at which it last went out unanswered.
    pub(super) unanswered_at: Option<DateTime<Utc>>,
    pub(super) in_the_queue: bool,
}

/// The answer of the running process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Process {
    /// Why the process was not asked.
    pub(super) unreachable: Option<String>,
    /// The push that the command is about, or the last ones of the registration.
    pub(super) pushes: Vec<Told>,
    /// Pushes of these that wait by the process's memory, but not by the store, which was read later.
    pub(super) wait_no_more: Vec<MessageId>,
}

/// All facts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Facts {
    pub(super) id: Option<String>,
    pub(super) token: Token,
    pub(super) life: Life,
    pub(super) registration: Option<Row>,
    pub(super) tenant: Option<Paying>,
    /// The phones that were seen lately, the latest first.
    pub(super) phones: Vec<Phone>,
    pub(super) waiting: Waiting,
    pub(super) push: Option<Push>,
    pub(super) process: Process,
}
