//! The usage of tenants, counted by the hour in memory until a store takes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::AddAssign,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    message::{MessageId, PushMessage},
    tenant::{ByTenant, Month, Standings, TenantName},
};

/// Most slots that wait for a store. Further counts go to a slot with the tenant's name as its domain.
const DOMAINS_MAX: usize = 4096;

/// An hour, as the number of hours since 1970, in UTC.
pub type Hour = i64;

/// Returns the hour of a moment.
#[must_use]
pub const fn hour_of(moment: DateTime<Utc>) -> Hour {
    moment.timestamp().div_euclid(3600)
}

/// The unit of counting: one domain of a tenant in one hour.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot {
    /// The hour.
    pub hour: Hour,
    /// The tenant.
    pub tenant: TenantName,
    /// The domain; the tenant's name for counts that belong to no single domain.
    pub domain: String,
}

/// The counts of a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Pushes that left the queue, whatever their outcome.
    #[serde(default)]
    pub accepted: u64,
    /// Pushes that a phone has acknowledged.
    #[serde(default)]
    pub delivered: u64,
    /// Pushes that were put into the mailbox.
    #[serde(default)]
    pub waited: u64,
    /// Pushes whose time ran out.
    #[serde(default)]
    pub expired: u64,
    /// Pushes that were dropped because too many waited.
    #[serde(default)]
    pub dropped: u64,
    /// Bytes of the bodies of accepted pushes.
    #[serde(default)]
    pub bytes: u64,
    /// The peak number of living registrations.
    #[serde(default)]
    pub registrations: u64,
    /// Read units that DynamoDB has billed.
    #[serde(default)]
    pub read_units: Units,
    /// Write units that DynamoDB has billed.
    #[serde(default)]
    pub write_units: Units,
}

/// Capacity units that a database bills, in steps of half a unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "f64", into = "f64")]
pub struct Units {
    halves: u64,
}

impl From<f64> for Units {
    fn from(units: f64) -> Self {
        Self { halves: (units * 2.0).round() as u64 }
    }
}

impl From<Units> for f64 {
    fn from(units: Units) -> Self {
        units.halves as Self / 2.0
    }
}

impl AddAssign for Units {
    fn add_assign(&mut self, other: Self) {
        self.halves += other.halves;
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&f64::from(*self).to_string())
    }
}

impl Counts {
    /// Returns the counts of a push that has left the queue.
    #[must_use]
    pub fn accepted(message: &PushMessage) -> Self {
        Self { accepted: 1, bytes: message.body.byte_count() as u64, ..Self::default() }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.delivered += other.delivered;
        self.waited += other.waited;
        self.expired += other.expired;
        self.dropped += other.dropped;
        self.bytes += other.bytes;
        self.registrations = self.registrations.max(other.registrations);
        self.read_units += other.read_units;
        self.write_units += other.write_units;
    }
}

/// The counts of some hours.
pub type Usage = BTreeMap<Slot, Counts>;

/// Adds the counts of `other`.
pub fn add(usage: &mut Usage, other: Usage) {
    for (slot, counts) in other {
        *usage.entry(slot).or_default() += counts;
    }
}

/// Counts that belong to one step of a store. The store takes them, and writes them within that step. The meter takes
/// over counts that the store has left when the step is done. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Mutex<Usage>>);

impl Tally {
    /// Takes the counts.
    #[must_use]
    pub fn take(&self) -> Usage {
        std::mem::take(&mut self.lock())
    }

    /// Adds counts. A store gives back the counts of a failed step in this way.
    pub fn add(&self, usage: Usage) {
        add(&mut self.lock(), usage);
    }

    /// Multiplies the counts by `times`.
    pub fn repeat(&self, times: usize) {
        let one = self.take();
        (0..times).for_each(|_| self.add(one.clone()));
    }

    /// Locks the counts, which are whole after every step. A panic that poisoned the lock was reported elsewhere.
    fn lock(&self) -> MutexGuard<'_, Usage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The counts of drops that belong to one step of a store.
#[derive(Debug, Clone, Default)]
pub struct Drops {
    /// Before the step: the counts of one drop. After it: the counts of all drops that the store has not made durable.
    pub counts: Tally,
    /// Pushes that are still in the queue. Their drops are counted when they leave it.
    pub queued: Arc<BTreeSet<MessageId>>,
}

impl Drops {
    /// Multiplies the counts by the number of dropped pushes that are not in the queue.
    pub fn note(&self, dropped: &[MessageId]) {
        self.counts.repeat(dropped.iter().filter(|id| !self.queued.contains(id)).count());
    }
}

/// Counts for tenants, and for no other domain. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    tenants: Standings,
    /// The counts that no store has taken yet.
    pending: Usage,
    /// Pushes that were accepted in this month, also before this process started.
    month: Option<(Month, ByTenant<u64>)>,
    /// Registrations that live.
    registrations: ByTenant<u64>,
}

impl Meter {
    /// Counts for these tenants from now on.
    pub fn set_tenants(&self, tenants: Standings) {
        self.lock().tenants = tenants;
    }

    /// Sets the pushes accepted in a month: the counts that the store has, and those that it has not taken yet.
    pub fn begin_month(&self, month: Month, stored: &Usage) {
        let mut counted = self.lock();
        let mut accepted = ByTenant::default();
        let within = hour_of(month.start())..hour_of(month.end());
        for (slot, counts) in stored.iter().chain(&counted.pending) {
            if within.contains(&slot.hour) {
                *accepted.entry(&slot.tenant) += counts.accepted;
            }
        }
        counted.month = Some((month, accepted));
    }

    /// Adds counts to `tally` for the tenant of a domain, if the domain has one. The store takes them with its step.
    pub fn count(&self, domain: &str, counts: Counts, now: DateTime<Utc>, tally: &Tally) {
        let mut counted = self.lock();
        let Some(tenant) = counted.tenants.of(domain).map(|(name, _)| name.clone()) else { return };
        counted.note_accepted(&tenant, counts.accepted, now);
        drop(counted);
        let slot = Slot { hour: hour_of(now), tenant, domain: domain.to_owned() };
        tally.add([(slot, counts)].into());
    }

    /// Takes over the counts that the store has not taken with its step.
    pub fn take_over(&self, tally: &Tally) {
        let mut counted = self.lock();
        for (slot, counts) in tally.take() {
            let has_room = counted.pending.len() < DOMAINS_MAX || counted.pending.contains_key(&slot);
            let slot = if has_room { slot } else { Slot { domain: slot.tenant.to_string(), ..slot } };
            *counted.pending.entry(slot).or_default() += counts;
        }
    }

    /// Notes how many registrations of a tenant live.
    pub fn note_registrations(&self, tenant: &TenantName, registrations: u64, now: DateTime<Utc>) {
        let mut counted = self.lock();
        *counted.registrations.entry(tenant) = registrations;
        counted.note_peak(tenant, registrations, now);
    }

    /// Notes for the present hour how many registrations of each tenant live.
    pub fn note_peaks(&self, now: DateTime<Utc>) {
        let mut counted = self.lock();
        let living = counted.registrations.iter().filter(|(name, _)| counted.tenants.get(name).is_some());
        let living: Vec<_> = living.map(|(name, count)| (name.clone(), *count)).collect();
        for (name, count) in living {
            counted.note_peak(&name, count, now);
        }
    }

    /// Returns how many pushes of a tenant were accepted in `month`; 0 for a month that is not counted at present.
    #[must_use]
    pub fn accepted_in(&self, tenant: &TenantName, month: Month) -> u64 {
        let counted = self.lock();
        let known = counted.month.as_ref().filter(|(known, _)| *known == month);
        known.and_then(|(_, accepted)| accepted.get(tenant)).copied().unwrap_or(0)
    }

    /// Returns the last known number of a tenant's living registrations.
    #[must_use]
    pub fn registrations(&self, tenant: &TenantName) -> u64 {
        self.lock().registrations.get(tenant).copied().unwrap_or(0)
    }

    /// Returns whether no counts wait for a store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().pending.is_empty()
    }

    /// Takes the counts since the last call.
    #[must_use]
    pub fn take(&self) -> Usage {
        std::mem::take(&mut self.lock().pending)
    }

    /// Takes back counts that the store failed to write.
    pub fn give_back(&self, usage: Usage) {
        add(&mut self.lock().pending, usage);
    }

    /// Locks the counts, which are whole after every step. A panic that poisoned the lock was reported elsewhere.
    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn note_accepted(&mut self, tenant: &TenantName, accepted: u64, now: DateTime<Utc>) {
        let month = Month::of(now);
        if self.month.as_ref().is_none_or(|(known, _)| *known < month) {
            self.month = Some((month, ByTenant::default()));
        }
        if let Some((_, counts)) = self.month.as_mut().filter(|(known, _)| *known == month) {
            *counts.entry(tenant) += accepted;
        }
    }

    fn note_peak(&mut self, tenant: &TenantName, registrations: u64, now: DateTime<Utc>) {
        let slot = Slot { hour: hour_of(now), tenant: tenant.clone(), domain: tenant.to_string() };
        *self.pending.entry(slot).or_default() += Counts { registrations, ..Counts::default() };
    }
}

#[cfg(test)]
mod tests;
