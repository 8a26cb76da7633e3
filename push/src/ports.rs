//! Ports: the store and the queue that Upwire needs, grouped by their users. SQLite and AWS each have an adapter.

use std::{error::Error, fmt};

use jid::BareJid;

use crate::registration::{Registration, RegistrationId};

pub mod ingress;
pub mod operator;
pub mod relay;

pub use ingress::{Markers, NotQueued, QueueWriter, Registrations, Store, Tenants, Withdrawals};
pub use operator::{OperatorStore, TenantsWriter};
pub use relay::{
    Account, Accounts, Delivery, Holder, Kept, Lease, Mailbox, MarkerWriter, QueueReader, RelayRegistrations,
    SEEN_MAX, Seen, Settlement, Tenure, Trimmed, Waiting,
};

/// The store or the queue failed; nothing was promised to anyone.
#[derive(Debug)]
pub struct Unavailable(Box<dyn Error + Send + Sync>);

impl Unavailable {
    /// Wraps the adapter's error. The text must hold no secret and no address.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Unavailable {}

/// The consistency of a read. A store with one copy of its data always reads strongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// The row may be seconds old. Cheaper, and enough to accept a push.
    Eventual,
    /// The row shows every write that was durable before. Needed before an endpoint is refused for good.
    Strong,
}

/// The choice to write, or to skip, a renewal that changes little ([`Registration::needs_renewal`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// A renewal that changes little is skipped: the row stands, and no write is paid for.
    WhereNeeded,
    /// Every renewal is written, so that an answer to an earlier push cannot revoke the registration.
    Always,
}

/// The outcome of [`Registrations::register`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// The registration lived already, or is a predecessor's. This is its row.
    Stored(Registration),
    /// The registration did not live before. This is its row.
    Begun(Registration),
    /// The account has as many registrations as it may: nothing was stored.
    AccountFull,
}

impl Registered {
    /// Returns the row; `None`: the account is full.
    #[must_use]
    pub fn stored(self) -> Option<Registration> {
        match self {
            Self::Stored(row) | Self::Begun(row) => Some(row),
            Self::AccountFull => None,
        }
    }
}

/// The outcome of [`Registrations::revoke`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// The revocation ended the life.
    Revoked,
    /// The life was over before.
    OverBefore,
    /// The life goes on: it was renewed since, or it names another full JID.
    GoesOn,
}

/// A registration and its account. The last one of a page tells [`Mailbox::recipients`] and [`Accounts::living`] where
/// to go on.
pub type Registrant = (BareJid, RegistrationId);

/// A page, and where to go on; `None`: it was the last page.
pub type Page<T> = (Vec<T>, Option<Registrant>);

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn an_account_that_is_full_has_no_row() {
        let row = crate::testing::registration("juliet@example.com/phone", DateTime::UNIX_EPOCH);
        for registered in [Registered::Stored(row.clone()), Registered::Begun(row.clone())] {
            assert_eq!(registered.stored().as_ref(), Some(&row));
        }
        assert_eq!(Registered::AccountFull.stored(), None);
        assert_eq!(Unavailable::new("the disk is full").to_string(), "the disk is full");
    }
}
