//! New pushes: into a line, or into the mailbox behind those that wait there.

use super::*;

/// A phone that is away, and its first push, which waits.
fn away() -> (World, RegistrationId, MessageId) {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.answer(push, ALICE, OFFLINE);
    world.take_sent();
    assert_eq!(world.waiting(), [push]);
    (world, app, push)
}

#[test]
fn a_second_entry_of_a_push_that_is_held_takes_no_room() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.queue_again(push);
    assert_eq!(world.core().held, 1);
    world.answer(push, ALICE, None);
    assert_eq!(world.core().held, 0);
}

#[test]
fn a_push_that_comes_while_the_mailbox_is_being_read_goes_into_line() {
    let (mut world, app, _) = away();
    world.post_some(app, 20);
    world.greet(ALICE);
    let push = world.post(app);
    assert!(world.is_queued(push) && !world.waiting().contains(&push));
}

#[test]
fn a_push_of_ttl_0_goes_out_at_once_though_others_wait() {
    let (mut world, app, _) = away();
    let immediate = world.post_for(app, 0);
    assert_eq!(world.take_sent(), [(immediate, ALICE.to_owned())]);
}

#[test]
fn a_new_push_for_a_phone_that_has_just_failed_waits_and_is_tried_two_seconds_later() {
    let (mut world, app, first) = away();
    world.pass(Duration::from_secs(2));
    assert_eq!(world.take_sent(), [(first, ALICE.to_owned())]);
    // The next try is due 4 s after this failure.
    world.answer(first, ALICE, OFFLINE);
    let second = world.post(app);
    assert_eq!((world.take_sent(), world.waiting()), (vec![], vec![first, second]));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.take_sent(), [first, second].map(|push| (push, ALICE.to_owned())));
}

#[test]
fn a_phone_that_is_away_is_tried_ever_later_though_more_waits_than_its_window() {
    let (mut world, app, _) = away();
    world.post_some(app, 5);
    let mut tries = 0;
    for _ in 0..4 * 60 {
        world.pass(TICK);
        let sent = world.take_sent();
        tries += usize::from(!sent.is_empty());
        sent.into_iter().for_each(|(push, to)| world.answer(push, &to, OFFLINE));
    }
    assert_eq!(tries, 4, "after 2 s, 4 s, 8 s and 16 s");
}

#[test]
fn a_push_goes_into_the_line_of_a_stand_in_though_nothing_is_known_of_the_mailbox_of_its_phone() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.leave(ALICE);
    world.greet(ALICE_AGAIN);
    world.pass(Duration::from_secs(61));
    world.restart();
    world.greet(ALICE_AGAIN);
    let push = world.post(app);
    assert_eq!((world.take_sent(), world.waiting()), (vec![(push, ALICE_AGAIN.to_owned())], vec![]));
}

#[test]
fn a_push_that_expires_in_line_is_not_sent() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let pushes = world.post_some(app, 4);
    let expires = world.post_for(app, 5);
    assert_eq!(world.take_sent().len(), 4);
    world.stand_still(Duration::from_secs(10));
    world.answer(pushes[0], ALICE, None);
    assert_eq!(world.take_sent(), []);
    assert!(!world.is_queued(expires));
}
