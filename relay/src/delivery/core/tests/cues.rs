//! Cues of mailboxes, and pushes that come into them meanwhile.

use super::*;

/// A full JID for which a push waits, and whose account has no cue left for now.
fn out_of_cues() -> (World, MessageId) {
    let mut world = World::online();
    let apps: Vec<_> = (0..20).map(|application| world.register(ALICE, application)).collect();
    let push = world.post(apps[0]);
    world.take_sent();
    world.answer(push, ALICE, OFFLINE);
    world.greet(ALICE);
    assert_eq!((world.take_sent(), world.waiting()), (vec![], vec![push]));
    (world, push)
}

#[test]
fn a_cue_that_was_put_off_is_taken_when_the_account_has_one_again() {
    let (mut world, push) = out_of_cues();
    world.pass(TICK);
    assert_eq!(world.take_sent(), []);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())]);
}

#[test]
fn a_cue_that_was_put_off_is_not_taken_for_a_full_jid_whose_session_has_ended_meanwhile() {
    let (mut world, _) = out_of_cues();
    world.leave(ALICE);
    world.pass(Duration::from_secs(1) + TICK);
    assert_eq!(world.take_sent(), []);
}

#[test]
fn beyond_the_bound_of_mailboxes_that_are_to_be_read_none_is_added() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.answer(push, ALICE, OFFLINE);
    world.leased = false;
    world.fill_cues();
    world.greet(ALICE);
    assert_eq!(world.core().cued.len(), 65_536);
}

#[test]
fn beyond_the_bound_of_full_jids_that_have_time_to_answer_none_is_added() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.post(app);
    world.stand_still(TICK);
    world.fill_catching_up();
    world.greet(ALICE);
    assert_eq!(world.core().catching_up.len(), 65_536);
}

#[test]
fn a_presence_begins_a_reading_anew_that_left_out_a_push_that_the_server_may_deliver() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.pass(Duration::from_secs(31));
    world.take_sent();
    world.reads_late = true;
    world.pass(Duration::from_secs(3));
    world.greet(ALICE);
    for _ in 0..3 {
        world.read_what_is_late();
    }
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())]);
}

#[test]
fn a_full_jid_off_the_access_list_is_not_tried_for_a_push_that_is_kept() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.restart();
    world.admit("example.org");
    let push = world.post(app);
    assert_eq!(world.waiting(), [push]);
    assert!(world.core().phone(&ALICE.parse().unwrap()).is_none());
}

#[test]
fn a_full_jid_that_failed_a_while_ago_is_tried_for_a_new_push_at_once_unless_that_is_replaced() {
    for is_replaced in [true, false] {
        let mut world = World::online();
        let app = world.register(ALICE, 1);
        let waits = world.post(app);
        world.answer(waits, ALICE, OFFLINE);
        world.take_sent();
        world.pass(Duration::from_secs(2) + TICK);
        assert_eq!(world.take_sent(), [(waits, ALICE.to_owned())]);
        world.answer(waits, ALICE, OFFLINE);
        world.pass(Duration::from_secs(2) + TICK);
        assert_eq!(world.take_sent(), [], "the next try comes after 4 s");
        world.stalls = true;
        let next = world.post(app);
        if is_replaced {
            world.replaces = vec![next];
        }
        world.go_on_settling();
        let tried = if is_replaced { vec![] } else { vec![waits, next] };
        let tried: Vec<_> = tried.into_iter().map(|push| (push, ALICE.to_owned())).collect();
        assert_eq!(world.take_sent(), tried);
    }
}

#[test]
fn a_full_jid_that_failed_just_now_is_tried_for_a_new_push_after_2_s() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let waits = world.post(app);
    world.answer(waits, ALICE, OFFLINE);
    world.pass(Duration::from_secs(2) + TICK);
    world.answer(waits, ALICE, OFFLINE);
    world.take_sent();
    let next = world.post(app);
    assert_eq!(world.take_sent(), []);
    world.pass(Duration::from_secs(2) + TICK);
    assert_eq!(world.take_sent(), [waits, next].map(|push| (push, ALICE.to_owned())));
}

#[test]
fn a_push_that_comes_into_the_mailbox_late_goes_to_the_stand_in_at_once_or_when_it_answers() {
    for has_one_in_flight in [false, true] {
        let mut world = World::online();
        let app = world.register(ALICE, 1);
        let late = world.post(app);
        world.stalls = true;
        world.answer(late, ALICE, OFFLINE);
        let others = world.register(TABLET, 2);
        world.greet(TABLET);
        world.take_sent();
        let in_flight = has_one_in_flight.then(|| world.post(others));
        assert_eq!(world.take_sent().len(), usize::from(has_one_in_flight));
        world.go_on_settling();
        if let Some(push) = in_flight {
            assert_eq!(world.take_sent(), []);
            world.answer(push, TABLET, None);
        }
        assert_eq!(world.take_sent(), [(late, TABLET.to_owned())], "{:?}", world.rest());
    }
}
