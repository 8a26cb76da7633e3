//! A registration follows its phone to the full JID that takes its pushes.

use super::*;

#[test]
fn a_registration_for_which_nothing_waits_moves_without_a_reading() {
    let (mut world, app, push) = at_another();
    let pages = world.pages;
    world.answer(push, ALICE_AGAIN, None);
    assert_eq!((world.names(app).as_str(), world.pages), (ALICE_AGAIN, pages));
}

#[test]
fn the_minute_between_two_moves_begins_when_the_first_is_made() {
    let (mut world, app, push) = at_another();
    world.stalls = true;
    world.answer(push, ALICE_AGAIN, None);
    world.pass(Duration::from_secs(30));
    world.go_on_settling();
    world.leave(ALICE_AGAIN);
    world.greet(TABLET);
    for (seconds, named) in [(59, ALICE_AGAIN), (1, TABLET)] {
        world.pass(Duration::from_secs(seconds));
        let push = world.post(app);
        world.answer(push, TABLET, None);
        assert_eq!(world.names(app), named);
    }
}

#[test]
fn while_settling_is_behind_a_result_settles_its_push_and_the_next_one_moves_the_registration() {
    let (mut world, app, push) = at_another();
    world.fall_behind();
    world.answer(push, ALICE_AGAIN, None);
    world.go_on_settling();
    assert!(world.is_settled() && world.names(app) == ALICE);
    let next = world.post(app);
    world.answer(next, ALICE_AGAIN, None);
    assert_eq!(world.names(app), ALICE_AGAIN);
}

#[test]
fn while_settling_is_behind_a_late_result_leaves_its_push_waiting() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.waiting(), [push]);
    world.fall_behind();
    world.answer(push, ALICE, None);
    world.go_on_settling();
    assert_eq!(world.waiting(), [push]);
}

#[test]
fn a_result_moves_no_registration_that_is_being_stored() {
    let (mut world, app, push) = at_another();
    world.register_slowly(ALICE, 1, |world| {
        world.answer(push, ALICE_AGAIN, None);
        assert_eq!(world.names(app), ALICE);
    });
    assert!(world.is_settled() && world.names(app) == ALICE);
}

#[test]
fn a_registration_that_moves_is_stored_once_that_is_done() {
    let (mut world, app, push) = at_another();
    world.stalls = true;
    world.answer(push, ALICE_AGAIN, None);
    let stored = world.renewals.len();
    world.register(ALICE, 1);
    assert_eq!(world.renewals.len(), stored);
    world.go_on_settling();
    assert_eq!((world.renewals.len(), world.names(app).as_str()), (stored + 1, ALICE));
}

#[test]
fn a_result_of_the_full_jid_that_a_push_named_hides_no_move_since() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post_for(app, 0);
    world.register(ALICE_AGAIN, 1);
    world.restart();
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())], "at once, before the store is asked");
    world.answer(push, ALICE, None);
    let next = world.post(app);
    assert_eq!(world.take_sent(), [(next, ALICE_AGAIN.to_owned())]);
}

#[test]
fn a_stand_in_reads_for_a_full_jid_to_which_a_registration_has_moved_and_which_was_not_read_since() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    for (jid, application) in [(ALICE_AGAIN, 2), (TABLET, 3)] {
        world.register(jid, application);
        world.leave(jid);
    }
    let waits = world.post(app);
    world.answer(waits, ALICE, OFFLINE);
    assert_eq!(world.waiting(), [waits]);
    world.take_sent();
    world.fall_behind();
    world.register(ALICE_AGAIN, 1);
    let immediate = world.post_for(app, 0);
    assert_eq!(world.take_sent(), [(immediate, ALICE_AGAIN.to_owned())]);
    world.greet(TABLET);
    // It falls silent before its mailbox is read.
    world.pass(Duration::from_secs(2));
    world.take_sent();
    world.go_on_settling();
    assert_eq!(world.take_sent(), [(waits, TABLET.to_owned())], "{:?}", world.rest());
}
