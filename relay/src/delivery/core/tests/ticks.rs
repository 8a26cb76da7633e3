//! The ticks: how often they come, and when they judge nobody.

use super::*;
use crate::clock::STANDSTILL;

#[test]
fn ticks_come_more_often_from_a_number_of_pushes_in_flight_on_but_not_right_after_a_standstill() {
    let mut world = World::narrow();
    let busy = NARROW.in_flight / 16;
    let apps: Vec<_> =
        (0..busy).map(|user| world.register(&format!("user{user}@example.com/phone"), 1)).collect();
    world.pass(TICK);
    for (before, app) in apps.into_iter().enumerate() {
        assert_eq!((world.core().in_flight, world.tick_interval()), (before, TICK));
        world.post(app);
    }
    let crowded = world.tick_interval();
    assert!(crowded < TICK, "{crowded:?}");
    world.pass_by(STANDSTILL, STANDSTILL);
    assert_eq!(world.tick_interval(), TICK, "answers are to be read first");
    world.pass(TICK);
    assert_eq!(world.tick_interval(), crowded);
}

#[test]
fn while_the_lease_is_in_doubt_nobody_is_judged() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.leased = false;
    world.pass(Duration::from_secs(31));
    assert!(world.is_asked(push, ALICE), "another relay may have delivered it");
    world.leased = true;
    world.answer(push, ALICE, None);
    assert!(world.is_settled(), "{:?}", world.rest());
}
