//! Names of tenants, and maps that are keyed by them.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::domain_names;

/// A tenant's name: a domain, or `*.` and a domain for the subdomains of that domain. In A-labels and lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantName(String);

/// A name was no domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no domain; write it as example.com, or as *.example.com for its subdomains")]
pub struct BadTenantName(String);

impl FromStr for TenantName {
    type Err = BadTenantName;

    fn from_str(text: &str) -> Result<Self, BadTenantName> {
        let bad = || BadTenantName(text.to_owned());
        let entry = domain_names::read(text).and_then(Result::ok).ok_or_else(bad)?;
        if entry.node().is_some() {
            return Err(bad());
        }
        Ok(Self(domain_names::in_ascii(entry.domain().as_str()).to_ascii_lowercase()))
    }
}

impl TryFrom<String> for TenantName {
    type Error = BadTenantName;

    fn try_from(text: String) -> Result<Self, BadTenantName> {
        text.parse()
    }
}

impl From<TenantName> for String {
    fn from(name: TenantName) -> Self {
        name.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TenantName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns a name with U-labels, as addresses may have it.
#[must_use]
pub fn in_unicode(name: &TenantName) -> String {
    idna::domain_to_unicode(&name.0).0
}

/// A value for each tenant, found by the domain of a user. The most specific name wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByTenant<T>(BTreeMap<TenantName, T>);

impl<T> Default for ByTenant<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> FromIterator<(TenantName, T)> for ByTenant<T> {
    fn from_iter<I: IntoIterator<Item = (TenantName, T)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl<T> ByTenant<T> {
    /// Returns the tenant of a domain, with its value.
    #[must_use]
    pub fn of(&self, domain: &str) -> Option<(&TenantName, &T)> {
        if self.0.is_empty() {
            return None;
        }
        let domain = domain_names::in_ascii(domain).to_ascii_lowercase();
        let mut name = TenantName(domain);
        loop {
            if let Some(found) = self.0.get_key_value(&name) {
                return Some(found);
            }
            let below = name.0.strip_prefix("*.").unwrap_or(&name.0);
            let (_, parent) = below.split_once('.')?;
            name = TenantName(format!("*.{parent}"));
        }
    }

    /// Returns the value of the tenant of this name, after inserting the default if there was none.
    pub fn entry(&mut self, name: &TenantName) -> &mut T
    where
        T: Default,
    {
        self.0.entry(name.clone()).or_default()
    }

    pub(crate) fn insert(&mut self, name: TenantName, value: T) {
        self.0.insert(name, value);
    }

    pub(crate) fn remove(&mut self, name: &TenantName) -> Option<T> {
        self.0.remove(name)
    }

    pub(crate) fn get_mut(&mut self, name: &TenantName) -> Option<&mut T> {
        self.0.get_mut(name)
    }

    /// Returns the value of the tenant of this name.
    #[must_use]
    pub fn get(&self, name: &TenantName) -> Option<&T> {
        self.0.get(name)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&TenantName, &mut T)> {
        self.0.iter_mut()
    }

    /// Iterates over all tenants and their values, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&TenantName, &T)> {
        self.0.iter()
    }
}
