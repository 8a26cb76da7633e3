use chrono::DateTime;
use push::testing;

use super::*;
use crate::delivery::reading::Cue;

fn jid(number: usize) -> FullJid {
    format!("juliet@example.com/phone{number:02}").parse().unwrap()
}

/// Returns the moment `seconds` seconds after the start.
fn after(start: Instant, seconds: u64) -> Now {
    let wall = DateTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Now { wall, least: wall, monotonic: start + Duration::from_secs(seconds), leased: true }
}

/// Returns an account with as many full JIDs as it remembers, each seen a second after the one before.
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
    account.phone(&jid(5)).end_session();
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

/// Returns an account with one registration, which names this full JID.
fn named(jid: &FullJid) -> (Account, RegistrationId, Epoch) {
    let row = testing::registration(jid.as_str(), DateTime::UNIX_EPOCH);
    let mut account = Account::default();
    let id = row.target.registration_id();
    account.note_recipient(id, row.epoch, row.target.recipient);
    (account, id, row.epoch)
}

#[test]
fn a_registration_that_moved_stays_where_it_is_for_a_minute() {
    let start = Instant::now();
    let (mut account, id, _) = named(&jid(0));
    assert_eq!(account.follow(id, &jid(0), after(start, 0)), None, "it is there");
    assert_eq!(account.follow(id, &jid(1), after(start, 0)), Some(vec![jid(0)]));
    assert_eq!(account.follow(id, &jid(2), after(start, 59)), None);
    assert_eq!(account.named(id), Some(&jid(1)));
    assert_eq!(account.follow(id, &jid(2), after(start, 60)), Some(vec![jid(1)]));
}

#[test]
fn a_move_that_seemed_to_fail_may_have_been_made_and_is_undone_by_the_next_result() {
    let start = Instant::now();
    let (mut account, id, epoch) = named(&jid(0));
    assert_eq!(account.follow(id, &jid(1), after(start, 0)), Some(vec![jid(0)]));
    account.note_recipient(id, epoch, jid(0));
    assert_eq!(account.follow(id, &jid(0), after(start, 59)), None);
    assert_eq!(account.follow(id, &jid(0), after(start, 60)), Some(vec![jid(1)]));
    assert_eq!(account.follow(id, &jid(0), after(start, 120)), None, "once");
}

#[test]
fn an_undoing_that_seemed_to_fail_is_in_doubt_like_any_move() {
    let start = Instant::now();
    let (mut account, id, epoch) = named(&jid(0));
    account.follow(id, &jid(1), after(start, 0));
    account.note_recipient(id, epoch, jid(0));
    assert_eq!(account.follow(id, &jid(0), after(start, 70)), Some(vec![jid(1)]));
    // The move was made late, and is not undone yet.
    account.note_recipient(id, epoch, jid(1));
    assert_eq!(account.follow(id, &jid(1), after(start, 129)), None, "it may be written late");
    assert_eq!(account.follow(id, &jid(1), after(start, 130)), Some(vec![jid(0)]));
}

#[test]
fn only_a_move_that_was_made_counts_for_the_minute_between_two_moves() {
    let start = Instant::now();
    for (is_made, next) in [(false, Some(vec![jid(0)])), (true, None)] {
        let (mut account, id, epoch) = named(&jid(0));
        account.follow(id, &jid(1), after(start, 0));
        account.note_recipient(id, epoch, jid(0));
        assert_eq!(account.follow(id, &jid(0), after(start, 60)), Some(vec![jid(1)]));
        if is_made {
            account.note_moved(id, after(start, 60));
        } else {
            account.note_recipient(id, epoch, jid(0));
        }
        assert_eq!(account.follow(id, &jid(1), after(start, 119)), next);
    }
}

#[test]
fn a_registration_moves_on_from_either_full_jid_of_a_move_in_doubt() {
    let start = Instant::now();
    let (mut account, id, epoch) = named(&jid(0));
    account.follow(id, &jid(1), after(start, 0));
    account.note_recipient(id, epoch, jid(0));
    assert_eq!(account.follow(id, &jid(2), after(start, 60)), Some(vec![jid(0), jid(1)]));
    account.note_recipient(id, epoch, jid(1));
    assert_eq!(
        account.follow(id, &jid(1), after(start, 120)),
        Some(vec![jid(2)]),
        "this one is in doubt, too"
    );
}

#[test]
fn a_move_cannot_be_made_late_where_neither_its_full_jid_nor_its_life_is_back() {
    let start = Instant::now();
    for (elsewhere, later) in [(jid(2), 0), (jid(0), 1)] {
        let (mut account, id, epoch) = named(&jid(0));
        account.follow(id, &jid(1), after(start, 0));
        account.note_recipient(id, Epoch::from_seconds(epoch.as_seconds() + later), elsewhere.clone());
        assert_eq!(account.follow(id, &elsewhere, after(start, 60)), None);
        assert_eq!(
            account.follow(id, &jid(3), after(start, 61)),
            Some(vec![elsewhere]),
            "nothing was undone"
        );
    }
}

#[test]
fn a_registration_that_names_another_full_jid_without_a_move_has_no_move_to_undo() {
    let (mut account, id, epoch) = named(&jid(0));
    assert_eq!(account.note_recipient(id, epoch, jid(1)), Some(jid(0)));
    assert_eq!(account.follow(id, &jid(1), after(Instant::now(), 0)), None);
}

#[test]
fn beyond_the_bound_no_further_registration_is_remembered_and_those_that_are_known_move() {
    let number = |number: usize| RegistrationId::from_bytes((number as u128).to_be_bytes());
    let (mut account, id, epoch) = named(&jid(0));
    let one = account.named[&id].clone();
    account.named = (0..NAMED_MAX).map(|of_it| (number(of_it), one.clone())).collect();
    assert_eq!(account.note_recipient(number(NAMED_MAX), epoch, jid(1)), None);
    assert_eq!(account.named(number(NAMED_MAX)), None);
    assert_eq!(account.note_recipient(number(0), epoch, jid(1)), Some(jid(0)));
    assert_eq!(account.named(number(0)), Some(&jid(1)));
}

#[test]
fn a_registration_is_forgotten_with_the_life_that_ended_and_not_with_an_earlier_one() {
    let (mut account, id, epoch) = named(&jid(0));
    let later = testing::registration(jid(0).as_str(), DateTime::UNIX_EPOCH + Duration::from_secs(9)).epoch;
    account.note_recipient(id, later, jid(0));
    account.forget_registration(id, epoch);
    assert!(account.names(&jid(0)) && !account.names(&jid(1)));
    account.forget_registration(id, later);
    assert!(!account.names(&jid(0)));
}

#[test]
fn a_burst_of_cues_passes_and_then_one_each_second() {
    let start = Instant::now();
    let mut account = Account::default();
    let taken = (0..30).filter(|_| account.take_cue(after(start, 0))).count();
    assert_eq!(taken, CUES_BURST as usize);
    assert!(account.take_cue(after(start, 1)) && !account.take_cue(after(start, 1)));
}

#[test]
fn a_push_that_went_out_is_remembered_until_a_page_read_afterwards_tells_of_it() {
    let row = testing::registration(jid(0).as_str(), DateTime::UNIX_EPOCH);
    let push = testing::push(1, &row, DateTime::UNIX_EPOCH).id;
    let mut account = Account::default();
    account.note_asked(push);
    account.forget_page();
    assert!(account.was_asked(push), "it is not written yet");
    account.page_asked = true;
    account.note_asked_written(push);
    assert!(account.was_asked(push), "the page may have been read before");
    account.forget_page();
    assert!(!account.was_asked(push));
    account.page_asked = false;
    account.note_asked(push);
    account.note_asked_written(push);
    assert!(!account.was_asked(push));
}

#[test]
fn a_push_that_leaves_the_mailbox_while_a_page_is_on_its_way_is_remembered_until_that_has_come() {
    let row = testing::registration(jid(0).as_str(), DateTime::UNIX_EPOCH);
    let push = testing::push(1, &row, DateTime::UNIX_EPOCH).id;
    let mut account = Account::default();
    account.note_gone(push);
    assert!(!account.is_gone(push), "no page has it");
    account.page_asked = true;
    account.note_gone(push);
    assert!(account.is_gone(push));
    account.forget_page();
    assert!(!account.is_gone(push));
}

#[test]
fn the_full_jids_seen_lately_are_written_when_they_have_changed_and_once_a_minute_at_most() {
    let start = Instant::now();
    let is_written = |news| matches!(news, SeenNews::Write(_));
    let mut account = Account::default();
    account.phone(&jid(0)).greet(after(start, 0));
    assert_eq!(account.take_seen(after(start, 0)), SeenNews::None, "it has no registration");
    let (mut account, ..) = named(&jid(0));
    account.phone(&jid(0)).greet(after(start, 0));
    assert!(is_written(account.take_seen(after(start, 0))));
    account.phone(&jid(1)).greet(after(start, 1));
    assert_eq!(account.take_seen(after(start, 59)), SeenNews::Later);
    assert!(is_written(account.take_seen(after(start, 60))));
    assert_eq!(account.take_seen(after(start, 120)), SeenNews::None, "they are the same");
}

#[test]
fn an_account_is_idle_while_nothing_of_it_is_under_way() {
    let push = || {
        let row = testing::registration(jid(0).as_str(), DateTime::UNIX_EPOCH);
        testing::push(1, &row, DateTime::UNIX_EPOCH).id
    };
    let works: [&dyn Fn(&mut Account); 6] = [
        &|account| account.look = Look::Asked,
        &|account| account.page_asked = true,
        &|account| account.blocked.push_back(jid(0)),
        &|account| account.in_flight = 1,
        &|account| account.note_asked(push()),
        &|account| account.phone(&jid(0)).cue = Some(Cue::Guess),
    ];
    for (number, work) in works.into_iter().enumerate() {
        let mut account = full(Instant::now());
        assert!(account.is_idle());
        work(&mut account);
        assert!(!account.is_idle(), "{number}");
    }
}
