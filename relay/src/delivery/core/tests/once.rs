//! What is done once, and again only where it failed.

use super::*;

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
