use chrono::TimeDelta;

use super::*;
use crate::{
    tenant::{Roster, Tenant},
    testing,
};

fn count(meter: &Meter, domain: &str, counts: Counts, now: DateTime<Utc>) {
    let tally = Tally::default();
    meter.count(domain, counts, now, &tally);
    meter.take_over(&tally);
    assert_eq!(tally.take(), Usage::new());
}

fn push(bytes: u64) -> Counts {
    Counts { accepted: 1, bytes, ..Counts::default() }
}

#[test]
fn each_tenant_domain_and_hour_is_counted_and_nobody_else() {
    let (meter, now) = (Meter::default(), "2026-11-30T23:30:00Z".parse::<DateTime<Utc>>().unwrap());
    count(&meter, "example.com", push(1), now);
    assert!(meter.is_empty(), "it is no tenant");
    let mut roster = Roster::default();
    let name: TenantName = "*.example.com".parse().unwrap();
    roster.add(name.clone(), Tenant::new(now)).unwrap();
    meter.set_tenants(roster.standings());
    let of_hour = |hour| Slot { hour, tenant: name.clone(), domain: "a.example.com".into() };
    let many = Counts { accepted: 40, ..Counts::default() };
    let stored = [(of_hour(hour_of(now) - 100), many), (of_hour(hour_of(now) - 1000), many)].into();
    meter.begin_month(Month::of(now), &stored);
    for (domain, bytes) in [("a.example.com", 3), ("b.example.com", 4), ("a.example.com", 5)] {
        count(&meter, domain, push(bytes), now);
    }
    meter.note_registrations(&name, 7, now);
    meter.note_registrations(&name, 5, now);
    assert_eq!(meter.accepted_in(&name, Month::of(now)), 43);
    let next = now + TimeDelta::hours(1);
    count(&meter, "a.example.com", push(1), next);
    assert_eq!(meter.accepted_in(&name, Month::of(next)), 1, "a month begins");
    assert_eq!(meter.accepted_in(&name, Month::of(now)), 0);

    let taken = meter.take();
    assert!(meter.is_empty());
    let shown: Vec<_> =
        taken.iter().map(|(slot, counts)| (slot.hour - hour_of(now), &*slot.domain, *counts)).collect();
    let peak = Counts { registrations: 7, ..Counts::default() };
    let two = Counts { accepted: 2, bytes: 8, ..Counts::default() };
    assert_eq!(
        shown,
        [
            (0, "*.example.com", peak),
            (0, "a.example.com", two),
            (0, "b.example.com", push(4)),
            (1, "a.example.com", push(1))
        ]
    );
    count(&meter, "b.example.com", push(4), now);
    meter.give_back(taken.clone());
    let mut expected = taken;
    add(
        &mut expected,
        [(Slot { hour: hour_of(now), tenant: name, domain: "b.example.com".into() }, push(4))].into(),
    );
    assert_eq!(meter.take(), expected);
}

#[test]
fn beyond_the_bound_of_domains_a_further_one_counts_by_the_name_of_its_tenant() {
    let (meter, now) = (Meter::default(), "2026-11-30T23:30:00Z".parse::<DateTime<Utc>>().unwrap());
    let mut roster = Roster::default();
    roster.add("*.example.com".parse().unwrap(), Tenant::new(now)).unwrap();
    meter.set_tenants(roster.standings());
    for domain in (0..=DOMAINS_MAX).chain([0]) {
        count(&meter, &format!("{domain}.example.com"), push(1), now);
    }
    let taken = meter.take();
    let of = |domain: &str| {
        taken.iter().find(|(slot, _)| slot.domain == domain).map(|(_, counts)| counts.accepted)
    };
    assert_eq!(taken.len(), DOMAINS_MAX + 1);
    assert_eq!((of("*.example.com"), of("0.example.com"), of("4096.example.com")), (Some(1), Some(2), None));
}

#[test]
fn counts_add_up_each_by_itself_and_of_registrations_the_peak_stays() {
    let counts = |one: u64| Counts {
        accepted: one,
        delivered: 2 * one,
        waited: 3 * one,
        expired: 4 * one,
        dropped: 5 * one,
        bytes: 6 * one,
        registrations: 7 * one,
        read_units: Units { halves: 8 * one },
        write_units: Units { halves: 9 * one },
    };
    let mut sum = counts(10);
    sum += counts(1);
    assert_eq!(sum, Counts { registrations: 70, ..counts(11) });
    assert_eq!(Units { halves: 3 }.to_string(), "1.5");
}

#[test]
fn a_push_that_has_left_the_queue_counts_with_its_bytes() {
    let row = testing::registration("juliet@example.com/phone", DateTime::UNIX_EPOCH);
    let message = testing::push(1, &row, DateTime::UNIX_EPOCH);
    assert_eq!(Counts::accepted(&message), Counts { accepted: 1, bytes: 4, ..Counts::default() });
}

#[test]
fn each_drop_counts_but_for_pushes_that_are_still_in_the_queue() {
    let row = testing::registration("juliet@example.com/phone", DateTime::UNIX_EPOCH);
    let [queued, other, further] = [1, 2, 3].map(|number| testing::push(number, &row, row.renewed_at).id);
    let slot = Slot { hour: 1, tenant: "example.com".parse().unwrap(), domain: "example.com".into() };
    let one = Counts { dropped: 1, ..Counts::default() };
    for (dropped, count) in [(vec![queued], None), (vec![queued, other, further], Some(2))] {
        let drops = Drops { counts: Tally::default(), queued: Arc::new([queued].into()) };
        drops.counts.add([(slot.clone(), one)].into());
        drops.note(&dropped);
        assert_eq!(drops.counts.take().get(&slot).map(|counts| counts.dropped), count);
    }
}

#[test]
fn each_hour_begins_with_the_registrations_that_live() {
    let (meter, now) = (Meter::default(), DateTime::UNIX_EPOCH);
    let name: TenantName = "example.com".parse().unwrap();
    let mut roster = Roster::default();
    roster.add(name.clone(), Tenant::new(now)).unwrap();
    meter.set_tenants(roster.standings());
    meter.note_registrations(&name, 7, now);
    assert!(!meter.is_empty());
    assert_eq!((meter.registrations(&name), meter.take().len()), (7, 1));
    meter.note_peaks(now + TimeDelta::hours(1));
    let peaks: Vec<_> =
        meter.take().into_iter().map(|(slot, counts)| (slot.hour, counts.registrations)).collect();
    assert_eq!(peaks, [(hour_of(now) + 1, 7)]);
}

#[test]
fn units_are_counted_by_halves_and_earlier_counts_have_none() {
    let mut counts: Counts = serde_json::from_str(r#"{"accepted":3}"#).unwrap();
    assert_eq!((counts.accepted, counts.read_units), (3, Units::default()));
    for units in [0.5, 0.5, 2.0] {
        counts += Counts { read_units: units.into(), ..Counts::default() };
    }
    let json = serde_json::to_value(counts).unwrap();
    assert_eq!((&json["read_units"], &json["write_units"]), (&3.0.into(), &0.0.into()));
    assert_eq!(serde_json::from_value::<Counts>(json).unwrap(), counts);
}
