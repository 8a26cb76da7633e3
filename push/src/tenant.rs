//! Tenants: domains that pay, what each may have, and what its senders are told.

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

/// Most tenants: the roster is one record.
pub const TENANTS_MAX: usize = 500;
/// The longest note and webhook, in bytes.
pub const TEXT_BYTES_MAX: usize = 300;
/// Longest wait that senders are asked for whose tenant is suspended, or has used its month up: they ask again after
/// it.
const WAIT_MAX: TimeDelta = TimeDelta::hours(1);
/// The shares of a quota, in percent, at which its host is told.
pub const EVENTS: [u8; 2] = [80, 100];

/// The limits of a tenant; `None`: any number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Quotas {
    /// Most registrations that live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registrations: Option<u64>,
    /// Most pushes that are accepted in a calendar month, in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushes_per_month: Option<u64>,
    /// Rate at which its senders may push, all together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// A domain that pays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// When it was added.
    pub since: DateTime<Utc>,
    /// Its limits.
    #[serde(default)]
    pub quotas: Quotas,
    /// Where its host is told of a quota that is used up, or nearly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Since when nothing is accepted for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_since: Option<DateTime<Utc>>,
    /// The relay has counted as many pushes as may be accepted in this month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_up: Option<Month>,
    /// Of which shares of which quotas its host was told in this month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Told>,
}

/// The events that a tenant's host was told of in a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The month.
    pub month: Month,
    /// The quotas, and the percents of them.
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
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Pushes, Self::Registrations];

    /// As a label.
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
    /// It is suspended.
    Suspended(TimeDelta),
    /// Its pushes of this month are used up.
    UsedUp(TimeDelta),
}

impl Tenant {
    /// One that begins at `now`.
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

    /// Checks whether anything is accepted for it at `now`.
    ///
    /// # Errors
    /// Why nothing is.
    pub fn admit(&self, now: DateTime<Utc>) -> Result<(), Refusal> {
        if self.suspended_since.is_some() {
            return Err(Refusal::Suspended(WAIT_MAX));
        }
        match self.used_up {
            Some(month) if month == Month::of(now) => Err(Refusal::UsedUp(WAIT_MAX.min(month.end() - now))),
            _ => Ok(()),
        }
    }

    /// The events that its host has to be told of where so much of a quota is used: the percents that were not told in this month.
    /// They count as told from now on.
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

/// The tenants, and how often they were changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Roster {
    /// Grows with each change.
    #[serde(default)]
    pub version: u64,
    /// The tenants.
    pub tenants: ByTenant<Tenant>,
    /// Rows of registrations are kept beyond their end, since their tenants are or were suspended.
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
    /// There is no room.
    #[error("there are {TENANTS_MAX} tenants, and may be no more")]
    Full,
}

impl Roster {
    /// The roster as it is stored.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a roster is plain data")
    }

    /// Reads what [`Self::to_json`] made, of this version or another.
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

    /// The tenant of this name, to be changed.
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

    /// All tenants, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&TenantName, &mut Tenant)> {
        self.tenants.iter_mut()
    }

    /// The tenants that are suspended.
    pub fn suspended(&self) -> impl Iterator<Item = &TenantName> {
        self.tenants.iter().filter(|(_, tenant)| tenant.suspended_since.is_some()).map(|(name, _)| name)
    }

    /// Returns whether the tenant of a domain is suspended.
    #[must_use]
    pub fn suspends(&self, domain: &str) -> bool {
        self.tenants.of(domain).is_some_and(|(_, tenant)| tenant.suspended_since.is_some())
    }

    /// The part of the roster that the access list goes by.
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

/// The part of a tenant that the access list goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Nobody of it may register or get pushes.
    pub suspended: bool,
    /// Most registrations that live.
    pub registrations_max: Option<usize>,
}

#[cfg(test)]
mod tests;
