//! Tenants: domains that pay, with their quotas and the refusals that their senders get.

use std::{collections::BTreeSet, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

pub use self::{
    by_tenant::{BadTenantName, ByTenant, TenantName, in_unicode},
    month::{BadMonth, Month},
};
use crate::rate::Rate;

mod by_tenant;
mod month;

/// Most tenants. The roster is one record, so it has to stay small.
pub const TENANTS_MAX: usize = 500;
/// Most bytes of a note or a webhook's URL.
pub const TEXT_BYTES_MAX: usize = 300;
/// Longest wait that senders are asked for while their tenant is suspended or has used up its month.
const WAIT_MAX: TimeDelta = TimeDelta::hours(1);
/// The shares of a quota, in percent, at which the tenant's host is told.
pub const EVENTS: [u8; 2] = [80, 100];

/// The limits of a tenant; `None`: any number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Quotas {
    /// Most registrations that live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registrations: Option<u64>,
    /// Most pushes accepted in a calendar month, in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushes_per_month: Option<u64>,
    /// Rate at which all of its senders together may push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// A domain that pays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// Time at which the tenant was added.
    pub since: DateTime<Utc>,
    /// Its limits.
    #[serde(default)]
    pub quotas: Quotas,
    /// URL at which the host is told that a quota is used up, or nearly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// A note for operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Time since which the tenant is suspended: nothing is accepted for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_since: Option<DateTime<Utc>>,
    /// The month whose quota of pushes is used up, by the relay's count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_up: Option<Month>,
    /// The events that the host was told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Told>,
}

/// The events that a tenant's host was told of in a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The month.
    pub month: Month,
    /// The quotas, each with the percentage that was reached.
    pub events: BTreeSet<(Quota, u8)>,
}

/// A quota that a tenant's host is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quota {
    /// Pushes in a month.
    Pushes,
    /// Registrations.
    Registrations,
}

impl Quota {
    /// Every quota.
    pub const ALL: [Self; 2] = [Self::Pushes, Self::Registrations];

    /// Returns the label in metrics and events.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pushes => "pushes",
            Self::Registrations => "registrations",
        }
    }
}

/// Why nothing is accepted for a tenant at present, and when its senders may ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The tenant is suspended.
    Suspended(TimeDelta),
    /// The tenant has used up its pushes of this month.
    UsedUp(TimeDelta),
}

impl Tenant {
    /// Makes a tenant that begins at `now`, without limits.
    #[must_use]
    pub const fn new(now: DateTime<Utc>) -> Self {
        Self {
            since: now,
            quotas: Quotas { registrations: None, pushes_per_month: None, rate: None },
            webhook: None,
            note: None,
            suspended_since: None,
            used_up: None,
            told: None,
        }
    }

    /// Checks whether anything is accepted for the tenant at `now`.
    ///
    /// # Errors
    /// The reason why not.
    pub fn admit(&self, now: DateTime<Utc>) -> Result<(), Refusal> {
        if self.suspended_since.is_some() {
            return Err(Refusal::Suspended(WAIT_MAX));
        }
        match self.used_up {
            Some(month) if month == Month::of(now) => Err(Refusal::UsedUp(WAIT_MAX.min(month.end() - now))),
            _ => Ok(()),
        }
    }

    /// Returns the percentages of a quota that are reached, and that the host was not told of in this month. They count
    /// as told from now on.
    pub fn note_used(&mut self, quota: Quota, used: u64, now: DateTime<Utc>) -> Vec<u8> {
        let max = match quota {
            Quota::Pushes => self.quotas.pushes_per_month,
            Quota::Registrations => self.quotas.registrations,
        };
        let Some(max) = max else { return Vec::new() };
        let month = Month::of(now);
        let reached =
            EVENTS.iter().filter(|percent| u128::from(used) * 100 >= u128::from(max) * u128::from(**percent));
        let told = self.told.take().filter(|told| told.month == month);
        let mut told = told.unwrap_or(Told { month, events: BTreeSet::new() });
        let new = reached.copied().filter(|percent| told.events.insert((quota, *percent))).collect();
        self.told = Some(told).filter(|told| !told.events.is_empty());
        new
    }
}

/// The list of all tenants, with a version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Roster {
    /// Grows with each change.
    #[serde(default)]
    pub version: u64,
    /// The tenants.
    pub tenants: ByTenant<Tenant>,
    /// True if rows of registrations are kept beyond their end, because their tenants are or were suspended.
    #[serde(default)]
    pub keeps_rows: bool,
}

/// The stored text is no roster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record of the tenants is malformed")]
pub struct MalformedRoster;

/// Why a roster was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// Another tenant has this name.
    #[error("{0} is a tenant already")]
    Exists(TenantName),
    /// No tenant has this name.
    #[error("{0} is no tenant")]
    Unknown(TenantName),
    /// The roster has as many tenants as it may.
    #[error("there are {TENANTS_MAX} tenants, and may be no more")]
    Full,
}

impl Roster {
    /// Returns the roster as it is stored.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a roster is plain data")
    }

    /// Parses JSON that [`Self::to_json`] of this version or another made.
    ///
    /// # Errors
    /// [`MalformedRoster`].
    pub fn parse(json: &str) -> Result<Self, MalformedRoster> {
        serde_json::from_str(json).map_err(|_| MalformedRoster)
    }

    /// Adds a tenant.
    ///
    /// # Errors
    /// [`RosterError`].
    pub fn add(&mut self, name: TenantName, tenant: Tenant) -> Result<(), RosterError> {
        if self.tenants.get(&name).is_some() {
            return Err(RosterError::Exists(name));
        }
        if self.tenants.iter().len() >= TENANTS_MAX {
            return Err(RosterError::Full);
        }
        self.tenants.insert(name, tenant);
        Ok(())
    }

    /// Returns the tenant of this name, mutably.
    ///
    /// # Errors
    /// [`RosterError::Unknown`].
    pub fn get_mut(&mut self, name: &TenantName) -> Result<&mut Tenant, RosterError> {
        self.tenants.get_mut(name).ok_or_else(|| RosterError::Unknown(name.clone()))
    }

    /// Removes a tenant.
    ///
    /// # Errors
    /// [`RosterError::Unknown`].
    pub fn remove(&mut self, name: &TenantName) -> Result<Tenant, RosterError> {
        self.tenants.remove(name).ok_or_else(|| RosterError::Unknown(name.clone()))
    }

    /// Iterates over all tenants, mutably.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&TenantName, &mut Tenant)> {
        self.tenants.iter_mut()
    }

    /// Returns the suspended tenants.
    pub fn suspended(&self) -> impl Iterator<Item = &TenantName> {
        self.tenants.iter().filter(|(_, tenant)| tenant.suspended_since.is_some()).map(|(name, _)| name)
    }

    /// Returns whether the tenant of a domain is suspended.
    #[must_use]
    pub fn suspends(&self, domain: &str) -> bool {
        self.tenants.of(domain).is_some_and(|(_, tenant)| tenant.suspended_since.is_some())
    }

    /// Returns the part of the roster that the access list uses.
    #[must_use]
    pub fn standings(&self) -> Standings {
        let standing = |tenant: &Tenant| Standing {
            suspended: tenant.suspended_since.is_some(),
            registrations_max: tenant
                .quotas
                .registrations
                .map(|max| usize::try_from(max).unwrap_or(usize::MAX)),
        };
        Arc::new(self.tenants.iter().map(|(name, tenant)| (name.clone(), standing(tenant))).collect())
    }
}

/// The standing of each tenant.
pub type Standings = Arc<ByTenant<Standing>>;

/// The part of a tenant that the access list uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// True if no user of the tenant may register or get pushes.
    pub suspended: bool,
    /// Most registrations that live.
    pub registrations_max: Option<usize>,
}

#[cfg(test)]
mod tests;
