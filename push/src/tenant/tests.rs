use super::*;

fn name(text: &str) -> TenantName {
    text.parse().unwrap()
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

#[test]
fn a_name_is_a_domain_or_the_subdomains_of_one() {
    assert_eq!(name("Example.COM").as_str(), "example.com");
    assert_eq!(name("*.example.com").as_str(), "*.example.com");
    assert_eq!(name("bücher.example"), name("xn--bcher-kva.example"));
    for wrong in ["", "*", "juliet@example.com", "a b", "example.*", "example.com/phone"] {
        assert!(wrong.parse::<TenantName>().is_err(), "{wrong}");
    }
}

#[test]
fn a_name_is_shown_as_addresses_have_it() {
    assert_eq!(in_unicode(&name("xn--bcher-kva.example")), "bücher.example");
    assert_eq!(in_unicode(&name("*.example.com")), "*.example.com");
}

#[test]
fn the_most_specific_name_wins() {
    let of = |names: &[&str], domain: &str| {
        let tenants: ByTenant<()> = names.iter().map(|text| (name(text), ())).collect();
        tenants.of(domain).map(|(name, ())| name.to_string())
    };
    let all = ["example.com", "*.example.com", "*.a.example.com", "b.a.example.com", "bücher.example"];
    for (domain, tenant) in [
        ("example.com", Some("example.com")),
        ("c.example.com", Some("*.example.com")),
        ("a.example.com", Some("*.example.com")),
        ("c.a.example.com", Some("*.a.example.com")),
        ("b.a.example.com", Some("b.a.example.com")),
        ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
        ("bücher.example", Some("xn--bcher-kva.example")),
        ("evil-example.com", None),
        ("com", None),
    ] {
        assert_eq!(of(&all, domain).as_deref(), tenant, "{domain}");
    }
    assert_eq!(of(&["*.example.com"], "example.com"), None);
}

#[test]
fn a_roster_says_what_it_was_told_and_skips_what_a_later_version_adds() {
    let mut roster = Roster::default();
    let now = at("2026-11-29T12:00:00Z");
    let tenant = Tenant { note: Some("pays".into()), ..Tenant::new(now) };
    roster.add(name("example.com"), tenant.clone()).unwrap();
    assert_eq!(
        roster.add(name("example.com"), tenant.clone()),
        Err(RosterError::Exists(name("example.com")))
    );
    roster.get_mut(&name("example.com")).unwrap().quotas.rate = Some("10/2".parse().unwrap());
    assert_eq!(Roster::parse(&roster.to_json()), Ok(roster.clone()));
    let later = roster.to_json().replacen('{', "{\"later\":1,", 1);
    assert_eq!(Roster::parse(&later), Ok(roster.clone()));
    assert_eq!(Roster::parse("nothing"), Err(MalformedRoster));
    assert!(roster.remove(&name("example.org")).is_err());
    assert!(roster.remove(&name("example.com")).is_ok());
    assert_eq!(roster.tenants.iter().len(), 0);
    for number in 0..TENANTS_MAX {
        roster.add(name(&format!("d{number}.example")), tenant.clone()).unwrap();
    }
    assert_eq!(roster.add(name("example.com"), tenant), Err(RosterError::Full));
    assert!(roster.to_json().len() < 400_000, "an item of DynamoDB");
}

#[test]
fn suspension_and_a_month_that_is_used_up_keep_senders_waiting() {
    let now = at("2026-11-30T23:59:00Z");
    let mut tenant = Tenant::new(now);
    assert_eq!(tenant.admit(now), Ok(()));
    tenant.used_up = Some(Month::of(now));
    assert_eq!(tenant.admit(now), Err(Refusal::UsedUp(TimeDelta::minutes(1))), "the month ends then");
    assert_eq!(tenant.admit(at("2026-11-02T00:00:00Z")), Err(Refusal::UsedUp(WAIT_MAX)));
    assert_eq!(tenant.admit(at("2026-12-01T00:00:00Z")), Ok(()));
    tenant.suspended_since = Some(now);
    assert_eq!(tenant.admit(at("2027-12-01T00:00:00Z")), Err(Refusal::Suspended(WAIT_MAX)));
}

#[test]
fn a_host_is_told_once_of_each_share_in_each_month() {
    let now = at("2026-11-30T23:59:00Z");
    let mut tenant = Tenant::new(now);
    assert!(tenant.note_used(Quota::Pushes, 1000, now).is_empty(), "there is no quota");
    tenant.quotas = Quotas { pushes_per_month: Some(10), registrations: Some(3), rate: None };
    assert!(tenant.note_used(Quota::Pushes, 7, now).is_empty() && tenant.told.is_none());
    assert_eq!(tenant.note_used(Quota::Pushes, 8, now), [80]);
    assert!(tenant.note_used(Quota::Pushes, 9, now).is_empty());
    assert_eq!(tenant.note_used(Quota::Registrations, 3, now), [80, 100]);
    assert_eq!(tenant.note_used(Quota::Pushes, 10, now), [100]);
    assert_eq!(tenant.note_used(Quota::Pushes, 10, at("2026-12-01T00:00:00Z")), [80, 100]);
}

#[test]
fn months_are_those_of_the_calendar() {
    let month: Month = "2026-12".parse().unwrap();
    assert_eq!((month.start(), month.end()), (at("2026-12-01T00:00:00Z"), at("2027-01-01T00:00:00Z")));
    assert_eq!((month.to_string(), String::from(month)), ("2026-12".to_owned(), "2026-12".to_owned()));
    for wrong in ["2026", "2026-13", "2026-00", "x-1", "2026-1-1"] {
        assert!(wrong.parse::<Month>().is_err(), "{wrong}");
    }
}
