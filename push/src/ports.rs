//! Ports: the store and the queue that Upwire needs, by who uses them. SQLite and AWS each have an adapter.

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

/// The store or the queue could not do its part; nothing was promised to anyone.
#[derive(Debug)]
pub struct Unavailable(Box<dyn Error + Send + Sync>);

impl Unavailable {
    /// Wraps what the adapter was told. The text must hold no secret and no address.
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

/// The freshness that a row has to have. A store that has but one copy gives the freshest either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// It may be seconds old: cheaper, and enough to accept a push.
    Eventual,
    /// It shows every write that was durable before: whoever refuses for good asks so.
    Strong,
}

/// The choice to write a renewal that changes little, or not ([`Registration::needs_renewal`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// It is not: the row stands as it is, and costs nothing.
    WhereNeeded,
    /// It is, so that it outlives whatever was asked of the distributor before.
    Always,
}

/// The outcome of [`Registrations::register`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// It lives, by this row.
    Stored(Registration),
    /// A life of it begins, by this row.
    Begun(Registration),
    /// Its account has as many registrations as it may: nothing was stored.
    AccountFull,
}

impl Registered {
    /// The row; `None`: the account is full.
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
    /// The life has ended now.
    Revoked,
    /// It was over before.
    OverBefore,
    /// It goes on: it was renewed since, or it names another full JID.
    GoesOn,
}

/// A registration of an account; the last one of a page says where [`Mailbox::recipients`] or [`Accounts::living`] goes on.
pub type Registrant = (BareJid, RegistrationId);

/// A page, and where to go on; `None`: nowhere.
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
