//! Steps that are done once, and again only where they failed.

use super::*;
use crate::delivery::known::Knowledge;

#[test]
fn a_mark_of_throttling_that_was_not_stored_is_asked_for_by_the_next_push() {
    let mut world = World::metered("2/1");
    let app = world.register(ALICE, 1);
    world.throttles_failing = 1;
    world.post_some(app, 3);
    assert_eq!((world.throttled.len(), world.throttles_failing), (0, 0), "it was tried, and failed");
    world.post(app);
    assert_eq!(world.throttled.len(), 1, "it is tried again");
    world.post(app);
    assert_eq!(world.throttled.len(), 1, "and then not until that moment");
    let until = world.throttled[0];
    while world.wall <= until {
        world.pass(TICK);
    }
    world.post_some(app, 3);
    assert_eq!(world.throttled.len(), 2);
}

#[test]
fn a_mark_of_throttling_that_was_skipped_is_asked_for_when_settling_keeps_up_again() {
    let mut world = World::metered("2/1");
    let (app, loud) = (world.register(ALICE, 1), world.register(BOB, 1));
    world.stalls = true;
    // Each fate waits to be settled.
    while world.core().settling_keeps_up() {
        let push = world.post(loud);
        world.take_sent();
        world.answer(push, BOB, None);
    }
    world.post_some(app, 4);
    world.go_on_settling();
    let before = world.throttled.len();
    world.post(app);
    assert_eq!(world.throttled.len(), before + 1);
}

#[test]
fn a_push_that_came_into_the_mailbox_after_its_delivery_leaves_it() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.answer(push, ALICE, None);
    world.take_sent();
    world.keep_late(push);
    assert_eq!((world.take_sent(), world.waiting()), (vec![], vec![]));
    assert_eq!(world.take_delivered_count(), 1);
}

#[test]
fn a_push_that_comes_into_the_mailbox_once_more_after_its_removal_leaves_it_again() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.waits_and_is_sent(app);
    world.answer(push, ALICE, None);
    world.take_sent();
    assert_eq!(world.waiting(), []);
    world.keep_late(push);
    assert_eq!((world.take_sent(), world.waiting()), (vec![], vec![]));
    assert_eq!(world.take_delivered_count(), 1);
}

/// No reading finds it while a push is in flight.
#[test]
fn a_push_that_comes_into_the_mailbox_after_its_delivery_leaves_it_beside_a_push_in_flight() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.answer(push, ALICE, None);
    let in_flight = world.post(app);
    world.take_sent();
    world.keep_late(push);
    assert_eq!((world.take_sent(), world.waiting()), (vec![], vec![]));
    world.answer(in_flight, ALICE, None);
    assert_eq!(world.take_delivered_count(), 2);
}

#[test]
fn a_push_that_comes_into_the_mailbox_after_its_late_result_leaves_it_and_is_counted() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.pass(Duration::from_secs(29));
    world.stalls = true;
    world.pass(Duration::from_secs(1) + TICK);
    world.fail_settling();
    world.answer(push, ALICE, None);
    world.take_sent();
    world.keep_late(push);
    assert_eq!((world.take_sent(), world.waiting()), (vec![], vec![]));
    assert_eq!(world.take_delivered_count(), 1);
}

/// A write that was given up has put it into the mailbox, so the queue has it, too.
#[test]
fn a_push_that_was_rejected_and_comes_from_the_queue_while_it_waits_leaves_both() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let rejected = world.post(app);
    world.answer(rejected, ALICE, OFFLINE);
    world.pass(Duration::from_secs(2) + TICK);
    let taken = world.post_for(app, 0);
    world.answer(rejected, ALICE, OFFLINE);
    world.answer(taken, ALICE, None);
    world.pass(Duration::from_secs(2) + TICK);
    world.take_sent();
    let alice = ALICE.parse().unwrap();
    assert_eq!(world.core().known.of(&alice), Some(Knowledge::Nothing), "but for what was rejected");
    world.queue_again(rejected);
    world.pass(Duration::from_secs(3));
    assert_eq!((world.take_sent(), world.queued()), (vec![(rejected, ALICE.to_owned())], 0));
    world.answer(rejected, ALICE, None);
    assert_eq!(world.waiting(), []);
    assert_eq!(world.take_delivered_count(), 2);
}

/// It was to go into the mailbox, which failed, and the queue has given it again.
#[test]
fn a_late_result_settles_a_push_that_was_given_up_and_is_at_another_full_jid_now() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.pass(Duration::from_secs(29));
    world.stalls = true;
    world.pass(Duration::from_secs(1) + TICK);
    world.fail_settling();
    world.register(ALICE_AGAIN, 1);
    world.take_sent();
    world.queue_again(push);
    assert_eq!(world.take_sent(), [(push, ALICE_AGAIN.to_owned())]);
    world.answer(push, ALICE, None);
    assert!(world.is_settled(), "{:?}", world.rest());
    assert_eq!(world.names(app), ALICE_AGAIN, "a late result moves nothing");
}

#[test]
fn a_push_that_the_queue_gives_again_is_settled_and_counted_once() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.answer(push, ALICE, None);
    world.take_sent();
    world.queue_again(push);
    assert_eq!((world.take_sent(), world.queued()), (vec![], 0));
    assert_eq!(world.take_delivered_count(), 1);
}

#[test]
fn a_push_of_which_two_full_jids_give_a_result_is_counted_once() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.greet(ALICE_AGAIN);
    let push = world.post(app);
    world.answer(push, ALICE, OFFLINE);
    world.answer(push, ALICE_AGAIN, OFFLINE);
    assert_eq!(world.waiting(), [push]);
    world.restart();
    world.take_sent();
    world.pass(Duration::from_secs(3));
    let asked = world.take_sent();
    assert!(!asked.is_empty(), "it is tried again");
    // Each was asked by the process before, too.
    world.answer(push, ALICE_AGAIN, None);
    world.answer(push, ALICE, None);
    world.pass(Duration::from_secs(200));
    assert!(world.is_settled(), "{:?}", world.rest());
    assert_eq!(world.take_delivered_count(), 1);
}

#[test]
fn a_result_that_comes_before_the_queue_gives_its_push_again_is_counted_once() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())]);
    world.restart_before_the_queue_answers();
    world.answer(push, ALICE, None);
    assert_eq!(world.take_delivered_count(), 0, "nothing of it is known yet");
    world.queue_again(push);
    world.answer(push, ALICE, None);
    assert_eq!((world.take_sent(), world.queued()), (vec![], 0));
    assert_eq!(world.take_delivered_count(), 1);
}

#[test]
fn a_push_that_is_withdrawn_while_it_is_in_flight_may_arrive_and_is_counted() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.waits_and_is_sent(app);
    world.withdraw(push);
    world.answer(push, ALICE, None);
    world.pass(Duration::from_secs(200));
    assert!(world.is_settled() && world.take_sent().is_empty());
    assert_eq!(world.take_delivered_count(), 1);
}

#[test]
fn a_push_that_is_withdrawn_while_it_is_in_flight_and_fails_does_not_wait_again() {
    for end in ["an error", "silence", "the end of the session", "the end of the stream"] {
        let mut world = World::online();
        let app = world.register(ALICE, 1);
        let push = world.waits_and_is_sent(app);
        world.withdraw(push);
        match end {
            "an error" => world.answer(push, ALICE, OFFLINE),
            "silence" => world.pass(Duration::from_secs(31)),
            "the end of the session" => world.leave(ALICE),
            _ => {
                world.disconnect();
                world.connect();
            }
        }
        assert_eq!(world.waiting(), [], "after {end}");
        world.greet(ALICE);
        world.pass(Duration::from_secs(200));
        assert_eq!((world.take_sent(), world.waiting()), (vec![], vec![]), "after {end}");
        assert_eq!(world.take_delivered_count(), 0);
    }
}

/// An earlier process put it into the mailbox, and did not come to delete it from the queue.
#[test]
fn a_push_that_the_queue_gives_again_goes_out_no_more_once_it_is_replaced_in_the_mailbox() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.answer(push, ALICE, OFFLINE);
    assert_eq!(world.waiting(), [push]);
    world.reads_late = true;
    world.restart();
    world.queue_again(push);
    world.pass(TICK);
    world.replaces = vec![push];
    let next = world.post(app);
    assert_eq!(world.waiting(), [next]);
    world.take_sent();
    for _ in 0..4 {
        world.read_what_is_late();
    }
    assert_eq!(world.take_sent(), [(next, ALICE.to_owned())]);
    assert!(!world.is_queued(push), "{:?}", world.rest());
}

#[test]
fn while_settling_stands_still_no_more_is_taken_from_the_queue_than_the_relay_may_hold() {
    let mut world = World::narrow();
    let app = world.register(BOB, 1);
    let answer_all = |world: &mut World| {
        for (push, to) in world.take_sent() {
            world.answer(push, &to, None);
        }
    };
    world.stalls = true;
    for _ in 0..NARROW.held + 50 {
        world.post(app);
        answer_all(&mut world);
    }
    assert_eq!((world.core().held, world.queued()), (NARROW.held, NARROW.held + 50), "all is answered");
    world.pass(Duration::from_secs(31));
    assert_eq!(world.take_sent(), []);
    world.go_on_settling();
    while !world.is_settled() {
        let sent = world.take_sent();
        assert!(!sent.is_empty(), "{:?}", world.rest());
        sent.into_iter().for_each(|(push, to)| world.answer(push, &to, None));
    }
    assert_eq!(world.take_delivered_count(), NARROW.held + 50);
}
