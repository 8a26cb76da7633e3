//! Options of `upwire tenant`, and the output for a tenant.

use push::tenant::Quota;

use super::*;
use crate::command_line::parse_options;

fn now() -> DateTime<Utc> {
    "2026-11-10T12:00:00Z".parse().unwrap()
}

/// Returns the changes that an option makes, or the error.
fn changes(option: &str, value: &str) -> Result<Changes, String> {
    let arguments = ["tenant", "set", "example.com", option, value];
    let parsed = parse_options::<Options>(arguments).map_err(|error| error.to_string())?;
    let Action::Set(Set { changes, .. }) = parsed.action else { panic!("a change") };
    changes.check().map_err(|error| error.to_string())?;
    Ok(changes)
}

fn shown(tenant: &Tenant, json: bool) -> String {
    let (name, mut out) = ("example.com".parse().unwrap(), Vec::new());
    Shown::of(&name, tenant).write(&mut out, json, now()).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_limit_that_is_refused_says_what_is_accepted() {
    for (option, wrong, right, mend) in [
        ("--rate", "off", "60/1", "as in 60/1; or none"),
        ("--registrations", "x", "5000", "it is no whole number; write it as in 5000; or none"),
        ("--pushes-per-month", "1.5", "0", "it is no whole number; write it as in 5000; or none"),
    ] {
        let refused = changes(option, wrong).unwrap_err();
        assert!(refused.contains(mend) && !refused.contains("or off"), "{refused}");
        assert!(changes(option, right).is_ok() && changes(option, "none").is_ok(), "{option}");
    }
}

#[test]
fn credentials_in_a_webhook_are_refused_and_not_shown() {
    for url in ["http://user:sesame@billing.example/", "https://sesame@billing.example/"] {
        let refused = changes("--webhook", url).unwrap_err();
        assert!(refused.contains("would not send") && refused.contains("leave them out"), "{refused}");
        assert!(!refused.contains("sesame"), "{refused}");
        let tenant = Tenant { webhook: Some(url.into()), ..Tenant::new(now()) };
        for json in [false, true] {
            let shown = shown(&tenant, json);
            assert!(shown.contains("//billing.example/") && !shown.contains("sesame"), "{shown}");
        }
    }
    assert!(changes("--webhook", "https://billing.example/@user").is_ok());
}

#[test]
fn control_characters_are_refused_and_those_that_are_stored_are_escaped() {
    for (option, text) in [
        ("--note", "pays\nyearly"),
        ("--note", "\u{1b}[2J"),
        ("--note", "\u{9b}2J"),
        ("--webhook", "https://billing.example/\n"),
    ] {
        assert!(changes(option, text).unwrap_err().contains("one line of plain text"), "{text:?}");
    }
    assert!(changes("--note", "zahlt jährlich").is_ok());
    let tenant = Tenant { note: Some("pays ä\n\u{1b}[2J".into()), ..Tenant::new(now()) };
    let shown = shown(&tenant, false);
    assert!(shown.ends_with("  pays ä\\n\\u{1b}[2J\n"), "{shown:?}");
}

#[test]
fn one_registration_is_not_several() {
    let with = |limit| {
        let quotas = Quotas { registrations: Some(limit), pushes_per_month: Some(limit), rate: None };
        shown(&Tenant { quotas, ..Tenant::new(now()) }, false)
    };
    assert!(with(1).contains("  1 registration  1 push a month\n"), "{}", with(1));
    assert!(with(2).contains("  2 registrations  2 pushes a month\n"), "{}", with(2));
}

#[test]
fn events_of_a_quota_come_again_after_it_was_changed_and_those_of_the_other_do_not() {
    let quotas = Quotas { registrations: Some(10), pushes_per_month: Some(10), rate: None };
    let mut tenant = Tenant { quotas, ..Tenant::new(now()) };
    let both = |tenant: &mut Tenant| {
        [Quota::Pushes, Quota::Registrations].map(|quota| tenant.note_used(quota, 10, now()).len())
    };
    assert_eq!(both(&mut tenant), [2, 2]);
    changes("--registrations", "11").unwrap().put_into(&mut tenant);
    assert_eq!(both(&mut tenant), [0, 1]);
    changes("--pushes-per-month", "9").unwrap().put_into(&mut tenant);
    assert_eq!(both(&mut tenant), [2, 0]);
    changes("--pushes-per-month", "9").unwrap().put_into(&mut tenant);
    assert_eq!(both(&mut tenant), [0, 0]);
}
