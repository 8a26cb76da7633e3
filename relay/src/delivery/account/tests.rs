use push::testing;

use super::*;

fn jid(number: usize) -> FullJid {
    format!("juliet@example.com/phone{number:02}").parse().unwrap()
}

/// So many seconds after the start.
fn after(start: Instant, seconds: u64) -> Now {
    let wall = DateTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Now { wall, least: wall, monotonic: start + Duration::from_secs(seconds), leased: true }
}

/// An account with as many full JIDs as it remembers, each seen a second after the one before.
fn full(start: Instant) -> Account {
    let mut account = Account::default();
    for number in 0..PHONES_MAX {
        account.phone(&jid(number)).greet(after(start, number as u64));
    }
    account
}

#[test]
fn beyond_the_bound_a_full_jid_whose_session_has_ended_is_forgotten_first() {
    let mut account = full(Instant::now());
    account.phone(&jid(5)).end();
    account.phone(&jid(99));
    assert_eq!(account.phones.len(), PHONES_MAX);
    assert!(!account.phones.contains_key(&jid(5)));
}

#[test]
fn beyond_the_bound_one_that_was_never_seen_is_forgotten_and_then_the_one_seen_longest_ago() {
    let start = Instant::now();
    let mut account = full(start);
    account.phones.insert(jid(7), Phone::default());
    account.phone(&jid(98)).greet(after(start, 100));
    assert!(!account.phones.contains_key(&jid(7)));
    account.phone(&jid(99)).greet(after(start, 101));
    assert!(!account.phones.contains_key(&jid(0)));
    assert!(account.phones.contains_key(&jid(1)) && account.phones.contains_key(&jid(98)));
}

#[test]
fn a_full_jid_with_a_push_in_line_is_not_forgotten() {
    let mut account = full(Instant::now());
    let registration = testing::registration(&jid(0).to_string(), DateTime::UNIX_EPOCH);
    account.phone(&jid(0)).line.insert(&testing::push(1, &registration, DateTime::UNIX_EPOCH));
    account.phone(&jid(99));
    assert!(account.phones.contains_key(&jid(0)) && !account.phones.contains_key(&jid(1)));
}

#[test]
fn a_full_jid_that_is_known_costs_no_other() {
    let mut account = full(Instant::now());
    account.phone(&jid(3));
    assert_eq!(account.phones.len(), PHONES_MAX);
}
