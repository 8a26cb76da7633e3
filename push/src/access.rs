//! Access lists: the users who may register and get pushes.

use std::str::FromStr;

use jid::{BareJid, Jid};

use crate::{
    domain_names,
    tenant::{Roster, Standing, Standings, TenantName},
};

/// The users who may register: domains, bare JIDs, or everyone (docs/protocol.md, "Register").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessList {
    /// `*`: any user of any server; these are named beside it.
    Everyone(Vec<BareJid>),
    /// The users of these domains, and these users.
    Only(Vec<BareJid>),
    /// Another list, and the tenants.
    And(Box<Self>, Standings),
}

/// An entry of an access list is wrong. It is named by its number, from 1 on: its text may be a JID, which no log has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAccessList {
    /// The entry is neither a domain nor a bare JID.
    #[error(
        "entry {0} is neither a domain, nor a bare JID, nor *: write example.com, *.example.com or juliet@example.net"
    )]
    NoJid(usize),
    /// The entry is a pattern that is not supported.
    #[error(
        "entry {0} is no pattern that there is: *.example.com stands for the subdomains of example.com, and * alone for everyone"
    )]
    Pattern(usize),
}

impl FromStr for AccessList {
    type Err = BadAccessList;

    /// Parses a comma-separated list; `*` anywhere in it admits everyone.
    fn from_str(list: &str) -> Result<Self, BadAccessList> {
        let entries = || list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let parse = |(number, entry): (usize, &str)| {
            let read = domain_names::read(entry).ok_or(BadAccessList::Pattern(number))?;
            read.map_err(|_| BadAccessList::NoJid(number))
        };
        let everyone = entries().any(|entry| entry == "*");
        let numbered = (1..).zip(entries()).filter(|(_, entry)| *entry != "*");
        let named = numbered.map(parse).collect::<Result<_, _>>()?;
        Ok(if everyone { Self::Everyone(named) } else { Self::Only(named) })
    }
}

impl AccessList {
    /// Returns the default: the component's parent domain (`notify.example.com` → `example.com`).
    #[must_use]
    pub fn parent_domain(component: &BareJid) -> Self {
        let parent =
            component.domain().as_str().split_once('.').and_then(|(_, parent)| BareJid::new(parent).ok());
        Self::Only(parent.into_iter().collect())
    }

    /// Adds the tenants of a roster. A suspended tenant is not admitted, even if the list names it.
    #[must_use]
    pub fn and_tenants(self, roster: &Roster) -> Self {
        Self::And(Box::new(self), roster.standings())
    }

    /// Returns whether there are any tenants.
    #[must_use]
    pub fn has_tenants(&self) -> bool {
        matches!(self, Self::And(_, tenants) if tenants.iter().len() > 0)
    }

    /// Returns the tenant of a domain.
    #[must_use]
    pub fn tenant_of(&self, domain: &str) -> Option<(&TenantName, &Standing)> {
        match self {
            Self::And(_, tenants) => tenants.of(domain),
            Self::Everyone(_) | Self::Only(_) => None,
        }
    }

    /// Returns whether a user may register.
    #[must_use]
    pub fn admits(&self, user: &Jid) -> bool {
        match self {
            Self::Everyone(_) => true,
            Self::Only(_) => self.names(user),
            Self::And(list, _) => self
                .tenant_of(user.domain().as_str())
                .map_or_else(|| list.admits(user), |(_, tenant)| !tenant.suspended),
        }
    }

    /// Returns whether an entry or a tenant covers the user. `*` names nobody.
    #[must_use]
    pub fn names(&self, user: &Jid) -> bool {
        match self {
            Self::Everyone(entries) | Self::Only(entries) => {
                entries.iter().any(|entry| domain_names::covers(entry, user))
            }
            Self::And(list, _) => self.tenant_of(user.domain().as_str()).is_some() || list.names(user),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(list: &str, user: &str) -> bool {
        list.parse::<AccessList>().unwrap().admits(&user.parse().unwrap())
    }

    #[test]
    fn domains_and_bare_jids_are_admitted_and_nobody_else() {
        assert!(admits("example.com", "juliet@example.com/phone"));
        assert!(!admits("example.com", "juliet@evil-example.com/phone"));
        assert!(!admits("example.com", "juliet@sub.example.com/phone"));
        assert!(admits("other.org, juliet@example.com", "juliet@example.com/phone"));
        assert!(!admits("juliet@example.com", "romeo@example.com/phone"));
        assert!(admits("*", "anyone@anywhere.net/x"));
        assert!(!admits("", "juliet@example.com/phone"));
        for wrong in ["a b", "juliet@example.com/phone", "*@example.com", "example.*"] {
            assert!(format!("example.com,{wrong}").parse::<AccessList>().is_err(), "{wrong}");
        }
        let error = "example.*".parse::<AccessList>().unwrap_err().to_string();
        assert!(error.contains("*.example.com stands for"), "{error}");
        let error = "*, ,juliet@example.com/phone".parse::<AccessList>().unwrap_err().to_string();
        assert!(error.starts_with("entry 2 is neither a domain"), "{error}");
        assert!(admits("example.com, *.example.com", "juliet@sub.example.com/phone"));
    }

    #[test]
    fn everyone_is_admitted_and_only_entries_are_names() {
        let list: AccessList = "*, example.com, romeo@example.org".parse().unwrap();
        for (user, named) in [
            ("juliet@example.com/phone", true),
            ("romeo@example.org", true),
            ("juliet@example.org/phone", false),
            ("anyone@anywhere.net", false),
        ] {
            let user = user.parse().unwrap();
            assert!(list.admits(&user));
            assert_eq!(list.names(&user), named, "{user}");
        }
        let subdomains: AccessList = "*, *.example.com".parse().unwrap();
        assert!(subdomains.names(&"juliet@chat.example.com".parse().unwrap()));
        assert!(!subdomains.names(&"juliet@example.com".parse().unwrap()));
    }

    #[test]
    fn a_list_has_tenants_if_its_roster_has_any() {
        let list = "*".parse::<AccessList>().unwrap();
        let mut roster = Roster::default();
        assert!(!list.has_tenants() && !list.clone().and_tenants(&roster).has_tenants());
        roster.add("example.com".parse().unwrap(), crate::Tenant::new(chrono::DateTime::UNIX_EPOCH)).unwrap();
        assert!(list.and_tenants(&roster).has_tenants());
    }

    #[test]
    fn tenants_add_to_a_list_and_a_suspended_one_is_left_out_of_any() {
        let mut roster = Roster::default();
        let mut suspended = crate::Tenant::new(chrono::DateTime::UNIX_EPOCH);
        roster.add("*.example.org".parse().unwrap(), suspended.clone()).unwrap();
        suspended.suspended_since = Some(suspended.since);
        roster.add("example.com".parse().unwrap(), suspended).unwrap();
        for list in ["*", "example.com, romeo@example.net"] {
            let list = list.parse::<AccessList>().unwrap();
            let both = list.clone().and_tenants(&roster);
            let user = |text: &str| text.parse::<Jid>().unwrap();
            assert!(
                both.admits(&user("juliet@chat.example.org/x"))
                    && both.names(&user("juliet@chat.example.org"))
            );
            assert!(list.admits(&user("juliet@example.com")) && !both.admits(&user("juliet@example.com")));
            assert!(both.names(&user("juliet@example.com")));
            assert!(roster.suspends("example.com") && !roster.suspends("chat.example.org"));
            for other in ["romeo@example.net", "anyone@example.org"] {
                let other = user(other);
                assert_eq!(
                    (list.admits(&other), list.names(&other)),
                    (both.admits(&other), both.names(&other))
                );
            }
        }
    }

    #[test]
    fn the_default_is_the_parent_domain() {
        let component = BareJid::new("notify.example.com").unwrap();
        assert_eq!(AccessList::parent_domain(&component), "example.com".parse().unwrap());
        let orphan = BareJid::new("notify").unwrap();
        assert_eq!(AccessList::parent_domain(&orphan), AccessList::Only(Vec::new()));
    }
}
