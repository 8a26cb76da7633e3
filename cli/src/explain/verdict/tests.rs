//! Each verdict, from the facts that lead to it.

use chrono::DateTime;
use push::{MessageId, RegistrationId, Urgency};

use super::super::facts::{Paying, Phone, Process, Row, Waiting};
use super::*;

fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(100)
}

fn ago(time: TimeDelta) -> DateTime<Utc> {
    now() - time
}

fn living() -> Facts {
    let registration = Row {
        account: "juliet@example.com".into(),
        recipient: "juliet@example.com/phone".into(),
        since: Some(ago(TimeDelta::days(30))),
        renewed_at: ago(TimeDelta::days(5)),
        expires_at: now() + TimeDelta::days(2),
        throttled_until: None,
        bound_to_a_key: false,
        legacy: false,
    };
    Facts {
        id: Some("00".repeat(16)),
        token: Token::SignedBy { secret: 1, of: 1 },
        life: Life::Lives,
        registration: Some(registration),
        ..Facts::default()
    }
}

fn seen(mut facts: Facts, before: TimeDelta, ended: bool) -> Facts {
    facts.phones.push(Phone {
        jid: "juliet@example.com/phone".into(),
        seen_at: ago(before),
        session_has_ended: ended,
    });
    facts
}

fn told(outcome: &str, after: TimeDelta) -> Told {
    let accepted_at = ago(TimeDelta::minutes(10));
    Told {
        id: id(),
        registration: RegistrationId::from_bytes([1; 16]),
        accepted_at,
        expires_at: now(),
        outcome: outcome.into(),
        at: accepted_at + after,
        failures: 0,
        unanswered_at: None,
    }
}

fn id() -> MessageId {
    MessageId::new(Urgency::Normal, ago(TimeDelta::minutes(10)), [1; 8])
}

fn push(mut facts: Facts, waits: bool) -> Facts {
    facts.push = Some(Push {
        id: id(),
        accepted_at: None,
        waits_until: waits.then(|| now() + TimeDelta::hours(1)),
        unanswered_at: None,
        in_the_queue: false,
    });
    facts
}

fn remembering(mut facts: Facts, told: Told) -> Facts {
    facts.process.pushes.push(told);
    facts
}

#[test]
fn a_phone_that_is_away_is_named_as_the_cause() {
    let waiting = |facts: Facts, pushes| Facts { waiting: Waiting { pushes, ..Waiting::default() }, ..facts };
    let cases = [
        (
            waiting(seen(living(), TimeDelta::days(4), false), 3),
            "3 pushes wait: the phone has sent no presence and no registration for 4 days.",
        ),
        (
            waiting(seen(living(), TimeDelta::hours(3), true), 1),
            "1 push waits: the phone's session has ended, it was last seen 3 hours ago.",
        ),
        (
            waiting(seen(living(), TimeDelta::seconds(20), false), 1),
            "1 push waits: the phone was seen 20 s ago, and does not answer.",
        ),
        (
            waiting(living(), 1),
            "1 push waits: no phone of the account has been seen since it registered 5 days ago.",
        ),
        (
            push(seen(living(), TimeDelta::days(4), false), true),
            "It waits: the phone has sent no presence and no registration for 4 days.",
        ),
    ];
    for (facts, sentence) in cases {
        assert_eq!(verdict(&facts, now()), sentence);
    }
}

#[test]
fn what_the_process_remembers_comes_first() {
    let fate = |outcome, after| verdict(&remembering(push(living(), false), told(outcome, after)), now());
    assert_eq!(fate("delivered", TimeDelta::milliseconds(3_200)), "It was delivered 3.2 s after it came.");
    assert!(fate("expired", TimeDelta::hours(3)).starts_with("Its time ran out 3 hours after it came"));
    assert!(fate("dropped", TimeDelta::minutes(3)).contains("UPWIRE_MAILBOX_MAX"));
    assert!(fate("replaced", TimeDelta::minutes(3)).contains("A later push of its topic"));
    assert!(fate("ended", TimeDelta::minutes(3)).contains("registration ended 3 min after it came"));
    assert!(fate("held", TimeDelta::zero()).starts_with("The relay has it"));
    let last = remembering(living(), told("delivered", TimeDelta::seconds(60)));
    assert_eq!(verdict(&last, now()), "The last push was delivered 60 s after it came, 9 min ago.");
}

#[test]
fn a_registration_that_is_over_says_how() {
    let over = |life| verdict(&Facts { life, ..living() }, now());
    let revoked = over(Life::Revoked);
    for by in ["the application is gone", "its user with a command (XEP-0050)", "or by an operator"] {
        assert!(revoked.contains(by), "{revoked}");
    }
    assert!(over(Life::Replaced).contains("a newer endpoint, for 30 days"));
    assert!(over(Life::Missing).contains("no such registration"));
    let mut lapsed = Facts { life: Life::Expired, ..living() };
    lapsed.registration.as_mut().unwrap().expires_at = ago(TimeDelta::hours(5));
    assert!(verdict(&lapsed, now()).contains("lapsed 5 hours ago"));
    let foreign = Facts { token: Token::Foreign, ..living() };
    assert!(verdict(&foreign, now()).contains("No secret that is known here"));
}

#[test]
fn senders_that_are_asked_to_wait_are_named() {
    let mut facts = living();
    facts.registration.as_mut().unwrap().throttled_until = Some(now() + TimeDelta::seconds(40));
    assert!(verdict(&facts, now()).contains("429 for another 40 s"));
    assert!(verdict(&living(), now()).contains("no push has come to it lately"));
}

#[test]
fn a_tenant_that_is_suspended_or_has_used_its_month_up_is_named() {
    let tenant = |suspended_since, used_up_until| {
        Some(Paying { name: "example.com".into(), suspended_since, used_up_until })
    };
    let suspended = Facts { tenant: tenant(Some(ago(TimeDelta::days(3))), None), ..living() };
    let sentence =
        "the tenant example.com has been suspended for 3 days, until `upwire tenant resume example.com`.";
    assert_eq!(verdict(&suspended, now()), format!("Senders get 429: {sentence}"));
    let lapsed = Facts { life: Life::Expired, ..suspended.clone() };
    assert_eq!(verdict(&lapsed, now()), format!("Senders get 429: {sentence}"));
    assert_eq!(verdict(&push(suspended.clone(), true), now()), format!("It waits: {sentence}"));
    let revoked = Facts { life: Life::Revoked, ..suspended };
    assert!(verdict(&revoked, now()).contains("senders get 410"));
    let used_up = Facts { tenant: tenant(None, Some(now() + TimeDelta::days(12))), ..living() };
    assert_eq!(
        verdict(&used_up, now()),
        "Senders get 429 for another 12 days: the tenant example.com has used up its pushes of this month (`upwire tenant \
         set example.com --pushes-per-month`)."
    );
    let neither = Facts { tenant: tenant(None, None), ..living() };
    assert!(verdict(&neither, now()).contains("no push has come to it lately"));
}

/// Adds a push that waits by the process's memory, and is no longer in the mailbox.
fn left(facts: Facts) -> Facts {
    let mut facts = remembering(facts, told("waits", TimeDelta::seconds(20)));
    facts.process.pushes[0].expires_at = now() + TimeDelta::hours(1);
    facts.process.wait_no_more.push(id());
    facts
}

#[test]
fn a_push_that_left_the_mailbox_unseen_by_the_process_waits_no_more() {
    let unseen = "waited, and waits no more: its sender withdrew it, or a phone took it at this moment.";
    assert_eq!(verdict(&left(push(living(), false)), now()), format!("It {unseen}"));
    assert_eq!(verdict(&left(living()), now()), format!("Of the last push: it {unseen}"));
    let mut late = left(push(living(), false));
    late.process.pushes[0].expires_at = ago(TimeDelta::minutes(4));
    assert_eq!(verdict(&late, now()), "It waited, and its time ran out 4 min ago.");
    let mut anew = left(push(living(), false));
    anew.registration.as_mut().unwrap().since = Some(ago(TimeDelta::minutes(3)));
    assert_eq!(
        verdict(&anew, now()),
        "It waited, until its registration ended; the application has a newer endpoint, for 3 min."
    );
    let ended = Facts { life: Life::Revoked, ..left(push(living(), false)) };
    assert!(verdict(&ended, now()).starts_with("It does not wait, and its registration is over."));
    let endpoint = Facts { life: Life::Revoked, ..left(living()) };
    assert!(verdict(&endpoint, now()).starts_with("The registration was ended"));
}

#[test]
fn a_push_that_nobody_remembers_needs_its_location() {
    let unknown = push(Facts::default(), false);
    assert!(verdict(&unknown, now()).contains("does not remember it: give its whole Location"));
}

#[test]
fn a_process_that_was_not_asked_may_know_more() {
    let away = Process { unreachable: Some("refused".into()), ..Process::default() };
    let facts = Facts { process: away, ..push(living(), false) };
    assert!(verdict(&facts, now()).contains("did not answer"));
    let mut queued = facts;
    queued.push.as_mut().unwrap().in_the_queue = true;
    assert!(verdict(&queued, now()).contains("no server runs here"));
}
