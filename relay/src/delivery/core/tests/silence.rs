//! Phones that leave pushes unanswered, and the others of their accounts.

use super::*;

const SILENT_AFTER: Duration = Duration::from_secs(2);

#[test]
fn pushes_in_line_behind_a_full_window_wait_in_the_mailbox_after_two_seconds_of_silence() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let pushes = world.post_some(app, 6);
    assert_eq!(world.take_sent().len(), 4);
    world.pass(SILENT_AFTER - TICK);
    assert_eq!(world.waiting(), []);
    world.pass(TICK);
    assert_eq!(world.waiting(), pushes[4..]);
}

#[test]
fn pushes_in_line_behind_a_failure_wait_in_the_mailbox_after_two_seconds_of_silence() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let pushes = world.post_some(app, 5);
    world.answer(pushes[0], ALICE, OFFLINE);
    assert_eq!(world.take_sent().len(), 4);
    world.pass(SILENT_AFTER - TICK);
    assert_eq!(world.waiting(), [pushes[0]]);
    world.pass(TICK);
    assert_eq!(world.waiting(), [pushes[0], pushes[4]]);
}

#[test]
fn a_push_that_may_not_wait_ends_at_once_if_its_phone_is_silent_after_a_failure() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let pushes = world.post_some(app, 2);
    world.answer(pushes[0], ALICE, OFFLINE);
    world.pass(SILENT_AFTER + TICK);
    assert_eq!(world.take_sent().len(), 2);
    let immediate = world.post_for(app, 0);
    assert!(world.take_sent().is_empty() && !world.is_queued(immediate));
}

#[test]
fn a_silent_phone_whose_window_has_room_gets_a_new_push_at_once() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.post(app);
    world.take_sent();
    world.pass(SILENT_AFTER + TICK);
    let push = world.post(app);
    assert_eq!((world.take_sent(), world.waiting()), (vec![(push, ALICE.to_owned())], vec![]));
}

#[test]
fn nothing_is_read_for_a_phone_that_answers_after_a_silence_with_nothing_in_line() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let (pushes, pages) = (world.post_some(app, 4), world.pages);
    world.pass(SILENT_AFTER + TICK);
    pushes.into_iter().for_each(|push| world.answer(push, ALICE, None));
    assert!(world.is_settled());
    assert_eq!(world.pages, pages);
}

#[test]
fn a_stand_in_that_was_just_asked_keeps_its_line() {
    let mut world = World::online();
    let [app, of_stand_in] = [(ALICE, 1), (ALICE_AGAIN, 2)].map(|(jid, number)| world.register(jid, number));
    let push = world.post(app);
    world.pass(SILENT_AFTER);
    assert_eq!(world.take_sent(), [ALICE, ALICE_AGAIN].map(|to| (push, to.to_owned())));
    world.post_some(of_stand_in, 5);
    assert_eq!(world.take_sent().len(), 3, "the window is full");
    world.pass(TICK);
    assert_eq!(world.waiting(), []);
}

/// Silent pushes of accounts with another phone, sent with this time between them. Returns the numbers of those that the
/// others get at each tick.
fn asked_at_each_tick(accounts: usize, apart: Duration) -> Vec<usize> {
    let mut world = World::narrow();
    for account in 0..accounts {
        let app = world.register(&format!("user{account}@example.com/old"), 1);
        world.greet(&format!("user{account}@example.com/new"));
        world.post(app);
        world.stand_still(apart);
    }
    assert_eq!(world.take_sent().len(), accounts);
    world.stand_still(SILENT_AFTER);
    let mut tick = || {
        world.pass(TICK);
        world.take_sent().len()
    };
    (0..3).map(|_| tick()).collect()
}

#[test]
fn others_are_asked_for_a_few_silent_pushes_at_each_tick_and_for_those_of_one_moment_at_once() {
    let at_most = NARROW.in_flight / 16;
    assert_eq!(asked_at_each_tick(2 * at_most + 4, Duration::from_millis(1)), [at_most, at_most, 4]);
    assert_eq!(asked_at_each_tick(2 * at_most + 4, Duration::ZERO), [2 * at_most + 4, 0, 0]);
}

#[test]
fn a_push_that_a_stand_in_has_does_not_go_again_to_its_phone_that_is_back() {
    let mut world = World::online();
    let [app, of_stand_in] = [(ALICE, 1), (ALICE_AGAIN, 2)].map(|(jid, number)| world.register(jid, number));
    let push = world.post(app);
    world.pass(SILENT_AFTER);
    assert_eq!(world.take_sent(), [ALICE, ALICE_AGAIN].map(|to| (push, to.to_owned())));
    world.greet(ALICE);
    world.pass(Duration::from_secs(1));
    // The stand-in answers, though not this push yet.
    let other = world.post(of_stand_in);
    world.answer(other, ALICE_AGAIN, None);
    world.take_sent();
    world.pass(Duration::from_secs(1) + TICK);
    assert_eq!(world.take_sent(), []);
}

#[test]
fn a_push_of_an_earlier_session_goes_to_the_full_jid_that_its_registration_names_by_then() {
    let mut world = World::online();
    let [app, other] = [1, 2].map(|number| world.register(ALICE, number));
    let push = world.post(app);
    world.stand_still(TICK);
    world.greet(ALICE);
    world.register(ALICE_AGAIN, 1);
    world.pass(Duration::from_secs(1));
    // The phone is not silent.
    let answered = world.post(other);
    world.answer(answered, ALICE, None);
    world.take_sent();
    world.pass(Duration::from_secs(1));
    assert_eq!(world.take_sent(), [(push, ALICE_AGAIN.to_owned())]);
}
