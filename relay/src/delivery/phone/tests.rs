use std::collections::BTreeSet;

use push::testing;

use super::*;

fn registration(number: u16) -> RegistrationId {
    let mut bytes = [0; RegistrationId::BYTES];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    RegistrationId::from_bytes(bytes)
}

/// Returns the moment `seconds` seconds after the start.
fn after(start: Instant, seconds: u64) -> Now {
    let wall = DateTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Now { wall, least: wall, monotonic: start + Duration::from_secs(seconds), leased: true }
}

#[test]
fn a_registration_that_was_refused_is_not_asked_for_until_an_hour_or_a_session_later() {
    let (start, mut phone) = (Instant::now(), Phone::default());
    phone.bar(registration(1), after(start, 0));
    phone.bar(registration(2), after(start, 0));
    assert!(phone.is_barred(registration(1), after(start, BARRED_MAX.as_secs() - 1)));
    assert!(!phone.is_barred(registration(1), after(start, BARRED_MAX.as_secs())));
    phone.lift_bar(registration(1));
    assert!(!phone.is_barred(registration(1), after(start, 1)));
    assert!(phone.is_barred(registration(2), after(start, 1)));
    phone.begin_session(after(start, 2));
    assert!(!phone.is_barred(registration(2), after(start, 2)));
}

#[test]
fn beyond_the_bound_the_bar_that_ends_first_is_lifted() {
    let (start, mut phone) = (Instant::now(), Phone::default());
    for number in 0..=BARRED_REGISTRATIONS_MAX as u16 {
        phone.bar(registration(number), after(start, number.into()));
    }
    let now = after(start, 300);
    assert!(!phone.is_barred(registration(0), now) && phone.is_barred(registration(1), now));
    assert!(phone.is_barred(registration(BARRED_REGISTRATIONS_MAX as u16), now));
}

#[test]
fn a_sign_of_life_undoes_an_end_and_an_absence_and_an_old_memory_does_not() {
    let (start, mut phone) = (Instant::now(), Phone::default());
    assert!(!phone.is_present(), "it was never seen");
    phone.greet(after(start, 10));
    assert!(phone.is_present());
    phone.end_session();
    assert!(phone.has_ended() && !phone.is_present());
    phone.recall(DateTime::UNIX_EPOCH + Duration::from_secs(5), false);
    assert_eq!(phone.seen_at(), Some(after(start, 10).wall));
    phone.show_life(after(start, 11));
    assert!(phone.is_present());
    phone.mark_away();
    assert!(phone.is_gone() && !phone.has_ended());
    phone.greet(after(start, 12));
    assert!(phone.is_present());
}

#[test]
fn what_an_earlier_process_saw_ends_no_session_of_this_one() {
    let (start, mut phone) = (Instant::now(), Phone::default());
    phone.recall(after(start, 5).wall, true);
    assert!(phone.has_ended());
    let mut phone = Phone::default();
    phone.show_life(after(start, 1));
    phone.recall(after(start, 5).wall, true);
    assert!(!phone.has_ended());
    assert_eq!((phone.seen_at(), phone.alive_at), (Some(after(start, 5).wall), Some(after(start, 5).wall)));
}

#[test]
fn a_session_that_has_ended_here_is_over_whatever_an_earlier_process_saw() {
    for ended in [true, false] {
        let (start, mut phone) = (Instant::now(), Phone::default());
        phone.end_session();
        phone.recall(after(start, 5).wall, ended);
        assert!(phone.has_ended());
    }
}

#[test]
fn only_a_full_jid_that_answers_is_proven_until_it_ends_is_away_or_silent() {
    let undo: [fn(&mut Phone); 3] = [Phone::end_session, Phone::mark_away, Phone::mark_silent];
    for undo in undo {
        let mut phone = Phone::default();
        assert_eq!(phone.trust(), Trust::Unproven);
        phone.prove();
        assert_eq!(phone.trust(), Trust::Proven);
        undo(&mut phone);
        assert_eq!(phone.trust(), Trust::Unproven);
    }
}

#[test]
fn a_probe_is_answered_by_a_later_sign_of_life_alone() {
    let (start, mut phone) = (Instant::now(), Phone::default());
    assert!(phone.lives_since_probe(), "nothing was asked");
    phone.greet(after(start, 1));
    assert!(phone.note_probe(after(start, 2)));
    assert!(!phone.lives_since_probe());
    phone.show_life(after(start, 3));
    assert!(phone.lives_since_probe());
}

#[test]
fn a_full_jid_that_leaves_the_first_of_its_probes_unanswered_is_silent() {
    let (start, mut phone) = (Instant::now(), Phone::default());
    phone.note_probe(after(start, 1));
    assert!(!phone.note_probe(after(start, 2)), "it owes a sign of life already");
    assert!(!phone.is_silent(after(start, 2)) && phone.is_silent(after(start, 3)));
    phone.forget_probe();
    assert!(!phone.is_silent(after(start, 3)));
}

#[test]
fn stand_ins_are_sought_once_in_each_silence() {
    let (start, mut phone) = (Instant::now(), Phone::default());
    assert!(!phone.relieve(), "nothing is unanswered");
    let row = testing::registration("juliet@example.com/phone", DateTime::UNIX_EPOCH);
    let pushes = [1, 2].map(|number| testing::push(number, &row, DateTime::UNIX_EPOCH));
    for (second, push) in pushes.iter().enumerate() {
        phone.line.insert(push);
        phone.line.send_first(after(start, second as u64).monotonic);
    }
    assert!(phone.relieve() && !phone.relieve());
    phone.line.land(pushes[0].id);
    assert!(phone.relieve() && !phone.relieve(), "the other one is unanswered still");
}

#[test]
fn what_was_given_up_unanswered_may_be_answered_until_a_while_or_a_session_later() {
    let ends: [fn(&mut Phone); 2] =
        [Phone::forget_unanswered, |phone| phone.begin_session(after(Instant::now(), 1))];
    for end in ends {
        let mut phone = Phone::default();
        assert!(!phone.has_unanswered());
        phone.mark_silent();
        assert!(phone.has_unanswered());
        end(&mut phone);
        assert!(!phone.has_unanswered());
    }
}

#[test]
fn whoever_has_greeted_since_the_last_sign_of_life_of_another_may_stand_in_for_it() {
    let start = Instant::now();
    let greeted = |second| {
        let mut phone = Phone::default();
        phone.greet(after(start, second));
        phone
    };
    let mut named = greeted(10);
    assert!(!greeted(10).may_replace(&named) && greeted(11).may_replace(&named));
    named.show_life(after(start, 12));
    assert!(!greeted(11).may_replace(&named) && greeted(13).may_replace(&named));
    named.end_session();
    assert!(greeted(1).may_replace(&named), "whoever has a session may");
}

#[test]
fn a_full_jid_whose_mailbox_is_read_or_is_to_be_read_is_not_idle() {
    let mut phone = Phone::default();
    assert!(!phone.is_reading() && phone.is_idle());
    phone.cue = Some(Cue::Guess);
    assert!(phone.is_reading() && !phone.is_idle());
    phone.reading = Some(Reading::new(1, Cue::Guess, BTreeSet::new()));
    phone.cue = None;
    assert!(phone.is_reading() && !phone.is_idle());
}
