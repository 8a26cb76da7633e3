//! Pushes at the end of a process, and while its lease is in doubt.

use super::*;

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
    let (mut core, now) = (world::core(world::WIDE, None, NARROW), now());
    let mut take = |input| handle(&mut core, now, input);
    for application in 0..9 {
        let (_, request) = world::users::registration(ALICE, application);
        take(Input::Stanza(Incoming::Request(request)));
    }
    take(Input::Stop);
    for _ in 0..7 {
        assert!(take(Input::Registered(Vec::new())).is_empty(), "nothing more is registered");
    }
    let last = take(Input::Registered(Vec::new()));
    assert!(matches!(last.as_slice(), [Action::Reply(_), Action::Finish]), "{last:?}");
}

#[test]
fn a_stop_tells_how_many_pushes_it_gives_back_unanswered() {
    for unanswered in [0, 2] {
        let mut world = World::online();
        let app = world.register(ALICE, 1);
        world.post_some(app, unanswered);
        world.stop();
        world.pass(Duration::from_secs(9));
        let told = world.take_measured().into_iter().filter(|told| matches!(told, Measure::Unanswered(_)));
        let expected = (unanswered > 0).then_some(Measure::Unanswered(unanswered));
        assert_eq!(told.collect::<Vec<_>>(), Vec::from_iter(expected));
    }
}
