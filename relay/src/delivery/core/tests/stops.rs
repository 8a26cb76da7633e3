//! Pushes at the end of a process, and while its lease is in doubt.

use push::testing;

use super::*;
use crate::stream::stanza::Query;

#[test]
fn a_late_result_during_a_stop_settles_a_push_that_waits_and_was_in_line() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let pushes = world.post_some(app, 3);
    assert_eq!(world.take_sent().len(), 3);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.waiting(), pushes);
    world.greet(ALICE);
    assert_eq!(world.take_sent().len(), 1, "one at a time after silence");
    world.stop();
    world.answer(pushes[2], ALICE, None);
    assert_eq!(world.waiting(), pushes[..2]);
}

#[test]
fn nobody_is_asked_for_a_sign_of_life_while_the_lease_has_lapsed() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.pass(Duration::from_secs(31));
    assert_eq!((world.take_sent().len(), world.waiting()), (1, vec![push]));
    world.greet(ALICE);
    assert_eq!(world.take_sent().len(), 1);
    world.leased = false;
    let pages = world.pages;
    world.disconnect();
    world.connect();
    world.pass(Duration::from_secs(30));
    assert_eq!(world.pages, pages, "nothing that is read could go out");
    world.leased = true;
    world.pass(Duration::from_secs(1));
    assert!(world.pages > pages, "it is read once the lease is back");
}

#[test]
fn a_request_that_waits_when_the_relay_ends_is_answered() {
    let mut core = world::core(world::WIDE, None, NARROW);
    let wall = DateTime::UNIX_EPOCH;
    let now = Now { wall, least: wall, monotonic: Instant::now(), leased: true };
    let mut take = |input| {
        let mut actions = Vec::new();
        core.handle(input, now, &mut actions);
        actions
    };
    for _ in 0..9 {
        let register = Query::Register(Ok(Box::new(testing::target(ALICE))));
        let request = Request::new(ALICE.parse().unwrap(), "r".into(), register);
        take(Input::Stanza(Incoming::Request(request)));
    }
    take(Input::Stop);
    for _ in 0..7 {
        assert!(take(Input::Registered(Vec::new())).is_empty(), "nothing more is registered");
    }
    let last = take(Input::Registered(Vec::new()));
    assert!(matches!(last.as_slice(), [Action::Reply(_), Action::Finish]), "{last:?}");
}
