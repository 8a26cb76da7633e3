//! The routes of an account's pushes at one moment, for all of its registrations.
//!
//! An account may have thousands of full JIDs. Each of them is looked at once here, and not once for each registration.

use std::{cmp::Reverse, collections::BTreeMap};

use push::RegistrationId;
use tokio_xmpp::jid::FullJid;

use super::{Now, phone::Phone};

/// The routes of one account's pushes at one moment.
pub(crate) struct Routes<'a> {
    phones: &'a BTreeMap<FullJid, Phone>,
    /// The full JIDs that take pushes, seen last first.
    there: Vec<(&'a FullJid, &'a Phone)>,
    now: Now,
}

impl<'a> Routes<'a> {
    pub(super) fn new(phones: &'a BTreeMap<FullJid, Phone>, now: Now) -> Self {
        let mut there: Vec<_> = phones.iter().filter(|(_, phone)| phone.takes_pushes(now)).collect();
        there.sort_unstable_by_key(|(jid, phone)| Reverse((phone.seen_at(), *jid)));
        Self { phones, there, now }
    }

    /// Returns the full JID that pushes of a registration go to, as `Account::route` does.
    pub(crate) fn route<'b>(&'b self, registration: RegistrationId, named: &'b FullJid) -> &'b FullJid {
        let phone = self.phones.get(named).filter(|phone| phone.is_to_be_replaced(self.now));
        phone.and_then(|phone| self.stand_in(registration, named, phone)).unwrap_or(named)
    }

    /// Returns a full JID to ask beside those that were asked and are silent: the one that the registration names, or
    /// its stand-in.
    pub(crate) fn other_than<'b>(
        &'b self,
        asked: &[FullJid],
        registration: RegistrationId,
        named: &'b FullJid,
    ) -> Option<&'b FullJid> {
        let phone = self.phones.get(named);
        let takes = |phone: &&Phone| phone.takes_pushes(self.now) && !phone.is_barred(registration, self.now);
        if !asked.contains(named) && phone.as_ref().is_some_and(takes) {
            return Some(named);
        }
        let unknown = Phone::default();
        self.stand_in(registration, named, phone.unwrap_or(&unknown)).filter(|other| !asked.contains(other))
    }

    /// Returns the stand-in for this phone: the full JID seen last that has not refused the registration.
    fn stand_in(&self, registration: RegistrationId, named: &FullJid, phone: &Phone) -> Option<&'a FullJid> {
        let others = self.there.iter().take_while(|(_, other)| other.may_replace(phone));
        let mut willing = others.filter(|(_, other)| !other.is_barred(registration, self.now));
        willing.find(|(jid, _)| *jid != named).map(|(jid, _)| *jid)
    }
}

#[cfg(test)]
mod tests;
