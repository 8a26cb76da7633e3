//! Pushes that find a relay with much to hold.

use super::*;

const EVE: &str = "eve@example.org/phone";

/// Returns the registration of a phone that has answered.
fn answered(world: &mut World) -> RegistrationId {
    let app = world.register(BOB, 1);
    let proof = world.post(app);
    world.answer(proof, BOB, None);
    app
}

/// Returns registrations of phones that never answered, each of another account.
fn unanswered(world: &mut World, phones: usize) -> Vec<RegistrationId> {
    (0..phones).map(|user| world.register(&format!("user{user}@example.org/phone"), 1)).collect()
}

#[test]
fn a_push_for_a_phone_that_never_answered_waits_in_the_mailbox_while_the_relay_is_nearly_full() {
    let mut world = World::narrow();
    let (busy, apps) = (answered(&mut world), unanswered(&mut world, 3));
    let full = NARROW.held / 8 * 7;
    for (app, (held, has_room)) in
        apps.into_iter().zip([(NARROW.held / 2 + 1, true), (full, true), (full + 1, false)])
    {
        world.post_some(busy, held - 1 - world.core().held);
        let push = world.post(app);
        assert_eq!((world.is_queued(push), world.waiting().is_empty()), (has_room, has_room), "{held}");
    }
}

#[test]
fn a_push_for_a_phone_that_never_answered_waits_in_the_mailbox_while_its_domain_has_its_share() {
    let mut world = World::narrow();
    // There are two domains.
    let (share, phones) = (NARROW.held / 2 / 2, 32);
    let (busy, apps) = (answered(&mut world), unanswered(&mut world, phones + 2));
    for push in 0..share - 1 {
        world.post(apps[push % phones]);
    }
    world.post_some(busy, NARROW.held / 2 - share + 1);
    for (app, has_room) in [(apps[phones], true), (apps[phones + 1], false)] {
        let push = world.post(app);
        assert_eq!((world.is_queued(push), world.waiting().is_empty()), (has_room, has_room));
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
    let busy = answered(&mut world);
    world.post_some(busy, NARROW.held / 2 + 1);
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

#[test]
fn no_mailbox_is_read_on_a_guess_while_its_domain_has_as_many_pushes_in_memory_as_the_relay_may_hold() {
    for (held, read) in [(NARROW.held - 1, 1), (NARROW.held, 0)] {
        let mut world = World::narrow();
        let app = world.register(ALICE, 1);
        let late = world.post(app);
        world.answer(late, ALICE, None);
        world.restart();
        world.register(ALICE, 1);
        let busy = answered(&mut world);
        world.post_some(busy, held);
        let pages = world.pages;
        world.keep_late(late);
        assert_eq!(world.pages - pages, read, "{held}");
    }
}
