//! A full JID refuses a push of a registration.

use super::*;

#[test]
fn a_refusal_that_was_meant_for_an_earlier_life_does_not_hide_what_waits_for_this_one() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let of_the_first = world.post(app);
    world.take_sent();
    // The store ends that life by itself, as when another relay does.
    world.end_registration(app);
    world.register(ALICE, 1);
    let of_the_second = world.post(app);
    world.take_sent();
    world.answer(of_the_second, ALICE, OFFLINE);
    world.answer(of_the_first, ALICE, GONE);
    assert!(world.lives(app) && world.waiting() == [of_the_second]);
    world.take_sent();
    world.greet(ALICE);
    assert_eq!(world.take_sent(), [(of_the_second, ALICE.to_owned())]);
}

#[test]
fn a_refusal_that_was_meant_for_an_earlier_life_does_not_hide_what_waits_for_one_that_began_unheard() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let of_the_first = world.post(app);
    world.end_registration(app);
    world.register_unheard(ALICE, 1);
    let of_the_second = world.post(app);
    world.answer(of_the_second, ALICE, OFFLINE);
    world.answer(of_the_first, ALICE, GONE);
    assert!(world.lives(app) && world.waiting() == [of_the_second]);
    world.take_sent();
    world.greet(ALICE);
    assert_eq!(world.take_sent(), [(of_the_second, ALICE.to_owned())]);
}

#[test]
fn who_is_away_is_tried_for_a_new_push_that_the_one_in_its_place_refuses() {
    let mut world = World::online();
    let (moves, stays) = (world.register(ALICE, 1), world.register(ALICE, 2));
    let first = world.post(moves);
    world.pass(Duration::from_secs(31));
    world.greet(ALICE_AGAIN);
    world.answer(first, ALICE_AGAIN, None);
    assert_eq!((world.names(moves), world.names(stays)), (ALICE_AGAIN.to_owned(), ALICE.to_owned()));
    world.pass(Duration::from_secs(60));
    world.take_sent();
    let second = world.post(stays);
    assert_eq!(world.take_sent(), [(second, ALICE_AGAIN.to_owned())]);
    world.answer(second, ALICE_AGAIN, Some(Condition::ItemNotFound));
    assert_eq!(world.take_sent(), [(second, ALICE.to_owned())]);
}

#[test]
fn what_a_phone_left_unanswered_goes_to_no_other_once_its_registration_has_ended() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.greet(ALICE_AGAIN);
    let (refused, unanswered) = (world.post(app), world.post(app));
    assert_eq!(world.take_sent().len(), 2);
    world.answer(refused, ALICE, GONE);
    assert!(!world.lives(app));
    world.pass(Duration::from_secs(31));
    assert_eq!(world.take_sent(), []);
    assert!(world.is_settled(), "{unanswered}: {:?}", world.rest());
}

#[test]
fn whoever_has_refused_a_registration_is_not_asked_for_its_next_life() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let refused = world.post(app);
    world.take_sent();
    world.answer(refused, ALICE, GONE);
    assert_eq!(world.register(ALICE_AGAIN, 1), app);
    let push = world.post(app);
    assert_eq!(world.take_sent(), [(push, ALICE_AGAIN.to_owned())]);
    world.answer(push, ALICE_AGAIN, OFFLINE);
    assert_eq!((world.take_sent(), world.waiting()), (vec![], vec![push]));
}

#[test]
fn nothing_more_of_a_registration_goes_out_until_its_revocation_is_decided() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let pushes: Vec<_> = (0..6).map(|_| world.post(app)).collect();
    assert_eq!(world.take_sent().len(), 4, "the window is full");
    world.stalls = true;
    world.answer(pushes[0], ALICE, GONE);
    let late = world.post(app);
    assert_eq!(world.take_sent(), []);
    world.pass(TICK);
    world.register(ALICE, 1);
    world.go_on_settling();
    for push in &pushes[1..4] {
        world.answer(*push, ALICE, None);
    }
    world.pass(Duration::from_secs(3));
    let sent: Vec<_> = world.take_sent().into_iter().map(|(push, _)| push).collect();
    assert_eq!(sent, [pushes[0], pushes[4], pushes[5], late], "the registration goes on, and none overtakes");
}

#[test]
fn what_came_into_the_mailbox_behind_a_push_that_is_refused_goes_where_that_goes() {
    const HOLDS_IT: &str = "alice@example.com/tablet";
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let first = world.post(app);
    world.take_sent();
    world.answer(first, ALICE, OFFLINE);
    // The registration has moved, and moves no more for a minute.
    world.greet(ALICE_AGAIN);
    world.answer(first, ALICE_AGAIN, None);
    let second = world.post(app);
    world.take_sent();
    world.answer(second, ALICE_AGAIN, OFFLINE);
    world.greet(HOLDS_IT);
    world.answer(second, HOLDS_IT, None);
    world.register("alice@example.com/desktop", 2);
    world.take_sent();
    let refused = world.post(app);
    assert_eq!(world.take_sent(), [(refused, "alice@example.com/desktop".to_owned())]);
    let behind = world.post(app);
    assert!(world.take_sent().is_empty() && world.waiting().contains(&behind), "{:?}", world.rest());
    world.answer(refused, "alice@example.com/desktop", GONE);
    let sent = world.take_sent();
    assert_eq!(sent, [refused, behind].map(|push| (push, HOLDS_IT.to_owned())));
}

#[test]
fn a_push_in_flight_whose_registration_has_ended_goes_to_nobody_else() {
    for then in ["silence", "the end of the stream"] {
        let mut world = World::online();
        let app = world.register(ALICE, 1);
        world.greet(ALICE_AGAIN);
        let pushes = world.post_some(app, 2);
        assert_eq!(world.take_sent().len(), 2);
        world.answer(pushes[0], ALICE, GONE);
        assert!(!world.lives(app));
        if then == "silence" {
            world.greet(ALICE_AGAIN);
            world.pass(Duration::from_secs(3));
        } else {
            world.disconnect();
            world.connect();
        }
        assert_eq!(world.take_sent(), [], "after {then}");
        world.pass(Duration::from_secs(31));
        assert!(world.take_sent().is_empty() && world.is_settled(), "after {then}: {:?}", world.rest());
    }
}

#[test]
fn a_push_of_an_earlier_life_goes_to_nobody_else_once_a_later_life_has_ended() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let earlier = world.post(app);
    world.end_registration(app);
    world.register(ALICE, 1);
    let later = world.post(app);
    let to_alice = |push| (push, ALICE.to_owned());
    assert_eq!(world.take_sent(), [to_alice(earlier), to_alice(later)]);
    world.answer(later, ALICE, GONE);
    assert!(!world.lives(app));
    world.greet(ALICE_AGAIN);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.take_sent(), []);
}

#[test]
fn a_push_that_waits_and_is_refused_goes_out_again_if_its_registration_was_renewed_meanwhile() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.waits_and_is_sent(app);
    world.register(ALICE, 1);
    world.answer(push, ALICE, GONE);
    assert!(world.lives(app));
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())]);
}
