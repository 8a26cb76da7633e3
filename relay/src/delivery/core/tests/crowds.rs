//! Pushes that find a relay with much to hold.

use super::*;

const EVE: &str = "eve@example.org/phone";

/// A phone that has answered before gets this many pushes, and answers none.
fn hold(world: &mut World, pushes: usize) {
    let app = world.register(BOB, 1);
    let proof = world.post(app);
    world.answer(proof, BOB, None);
    world.post_some(app, pushes);
}

#[test]
fn a_push_for_a_phone_that_never_answered_waits_in_the_mailbox_while_the_relay_is_nearly_full() {
    let full = NARROW.held / 8 * 7;
    for (held, has_room) in [(NARROW.held / 2 + 1, true), (full, true), (full + 1, false)] {
        let mut world = World::narrow();
        let app = world.register(EVE, 1);
        hold(&mut world, held - 1);
        let push = world.post(app);
        assert_eq!(world.core().held, if has_room { held } else { held - 1 });
        assert_eq!((world.is_queued(push), world.waiting().is_empty()), (has_room, has_room), "{held}");
    }
}

#[test]
fn a_push_for_a_phone_that_never_answered_waits_in_the_mailbox_while_its_domain_has_its_share() {
    // There are two domains.
    let share = NARROW.held / 2 / 2;
    for (of_domain, has_room) in [(share - 1, true), (share, false)] {
        let mut world = World::narrow();
        let app = world.register(EVE, 1);
        let apps = (0..32).map(|user| world.register(&format!("user{user}@example.org/phone"), 1));
        let apps: Vec<_> = apps.collect();
        (0..of_domain).for_each(|push| drop(world.post(apps[push % apps.len()])));
        hold(&mut world, NARROW.held / 2);
        let push = world.post(app);
        assert_eq!((world.is_queued(push), world.waiting().is_empty()), (has_room, has_room), "{of_domain}");
    }
}

#[test]
fn pushes_that_are_read_go_into_line_however_many_are_held() {
    let mut world = World::narrow();
    let app = world.register(EVE, 1);
    let first = world.post(app);
    world.answer(first, EVE, OFFLINE);
    let pushes = [first, world.post(app)];
    assert_eq!(world.waiting(), pushes);
    hold(&mut world, NARROW.held / 2 + 1);
    world.take_sent();
    world.greet(EVE);
    assert_eq!(world.take_sent(), pushes.map(|push| (push, EVE.to_owned())));
}

#[test]
fn a_push_that_finds_the_line_of_its_phone_full_comes_back_later() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.post_some(app, 4 + crate::delivery::line::LINE_MAX);
    assert!(world.postponed.is_empty());
    let push = world.post(app);
    assert!(world.postponed[&push] > world.wall + Duration::from_secs(1), "{:?}", world.postponed);
}
