//! The usage of each tenant in a month: in all, by domain and by day.

use std::collections::BTreeMap;

use push::TenantName;
use push::tenant::Month;
use push::usage::{Counts, Usage, hour_of};

/// Hours of a day.
const DAY: i64 = 24;

/// The usage of all tenants in a month.
pub(super) struct Sums {
    pub(super) month: Month,
    pub(super) tenants: BTreeMap<TenantName, Sum>,
}

/// The usage of one tenant.
pub(super) struct Sum {
    pub(super) all: Counts,
    pub(super) domains: BTreeMap<String, Counts>,
    /// The usage of each day, from the first day of the month.
    pub(super) days: Vec<Counts>,
}

impl Sums {
    /// Sums up the usage by tenant. `known` tenants without usage are included.
    pub(super) fn of<'a>(month: Month, usage: &Usage, known: impl Iterator<Item = &'a TenantName>) -> Self {
        let (from, to) = (hour_of(month.start()), hour_of(month.end()));
        let days = usize::try_from((to - from) / DAY).unwrap_or(0);
        let nothing =
            || Sum { all: Counts::default(), domains: BTreeMap::new(), days: vec![Counts::default(); days] };
        let mut tenants: BTreeMap<_, _> = known.map(|name| (name.clone(), nothing())).collect();
        for (slot, counts) in usage {
            let sum = tenants.entry(slot.tenant.clone()).or_insert_with(nothing);
            sum.all += *counts;
            *sum.domains.entry(slot.domain.clone()).or_default() += *counts;
            let day = usize::try_from((slot.hour - from) / DAY).ok();
            if let Some(day) = day.and_then(|day| sum.days.get_mut(day)) {
                *day += *counts;
            }
        }
        Self { month, tenants }
    }
}
