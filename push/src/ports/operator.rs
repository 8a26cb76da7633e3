//! The port of an operator to the registrations' store.

use std::future::Future;

use chrono::{DateTime, Utc};
use jid::{BareJid, FullJid};

use super::Unavailable;
use crate::{Application, Instance, Registration, Target};

/// Erases what the store has of a person. Processes that serve the store need not be stopped.
pub trait Erasure: Clone + Send + Sync + 'static {
    /// Makes each registration of an account, living or not, [`nameless`], and forgets its full JIDs; returns
    /// how many registrations that were. Those that began within the last second may be left.
    fn forget(
        &self,
        account: &BareJid,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<usize, Unavailable>> + Send;
}

/// The full JID that a forgotten registration names.
pub const NOBODY: &str = "forgotten.invalid/registration";

/// Makes a registration forgotten: an ended row stays with its id and epoch, so that its URL does not come back. It
/// goes a day later, as other dead rows do; that of a predecessor's endpoint a day after that would have expired.
#[must_use]
pub fn nameless(row: &Registration, now: DateTime<Utc>) -> Registration {
    let legacy = row.target.legacy;
    Registration {
        target: Target {
            recipient: FullJid::new(NOBODY).expect("it is a full JID"),
            application: Application::from_bytes([0; 32]),
            instance: Instance::from_bytes([0; 32]),
            vapid: None,
            legacy,
        },
        epoch: row.epoch,
        renewed_at: now,
        expires_at: legacy.map_or(now, |expiry| expiry.max(now)),
        revoked: true,
        throttled_until: None,
    }
}
