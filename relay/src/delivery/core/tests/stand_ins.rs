//! Pushes that are to be taken by others of the account than the one that their registration names.

use super::*;

/// An account whose phone is away, with two registrations of its, and something that waits for the first.
fn away() -> (World, [RegistrationId; 2], MessageId) {
    let mut world = World::online();
    let apps = [1, 2].map(|application| world.register(ALICE, application));
    let push = world.post(apps[0]);
    world.take_sent();
    world.answer(push, ALICE, OFFLINE);
    assert_eq!(world.waiting(), [push]);
    (world, apps, push)
}

#[test]
fn a_registration_that_moves_while_its_push_goes_into_the_mailbox_moves_back_with_its_phone() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.pass(TICK);
    world.greet(TABLET);
    let [taken, missed] = [world.post(app), world.post(app)];
    world.take_sent();
    world.pass(Duration::from_secs(3));
    assert_eq!(world.take_sent(), [taken, missed].map(|push| (push, TABLET.to_owned())));
    world.stalls = true;
    for jid in [TABLET, ALICE] {
        world.answer(missed, jid, OFFLINE);
    }
    world.answer(taken, TABLET, None);
    world.go_on_settling();
    world.take_sent().into_iter().for_each(|(push, to)| world.answer(push, &to, None));
    assert_eq!(world.names(app), TABLET);
    world.check_names();

    world.leave(TABLET);
    world.pass(Duration::from_secs(61));
    world.greet(ALICE);
    world.post(app);
    let to_alice = world.take_sent().into_iter().filter(|(_, to)| to == ALICE);
    to_alice.for_each(|(push, to)| world.answer(push, &to, None));
    assert_eq!(world.names(app), ALICE);
}

#[test]
fn what_a_silent_phone_leaves_in_line_goes_to_the_one_that_was_away() {
    let (mut world, [_, app], push) = away();
    world.greet(ALICE_AGAIN);
    world.answer(push, ALICE_AGAIN, None);
    world.pass(Duration::from_secs(3));
    world.take_sent();
    let pushes = world.post_some(app, 9);
    let sent = world.take_sent();
    assert!(sent.iter().all(|(_, to)| to == ALICE_AGAIN) && sent.len() < 9, "{sent:?}");
    world.pass(Duration::from_secs(3));
    assert_eq!(world.take_sent().first(), Some(&(pushes[sent.len()], ALICE.to_owned())));
}

#[test]
fn what_was_read_for_one_that_is_silent_by_now_is_read_for_the_next() {
    let (mut world, _, push) = away();
    world.reads_late = true;
    world.greet(ALICE_AGAIN);
    let of_the_tablet = world.register(TABLET, 3);
    let immediate = world.post_for(of_the_tablet, 0);
    world.take_sent();
    world.read_what_is_late();
    assert_eq!(world.take_sent(), [], "it is for the tablet, which came last");
    world.pass(Duration::from_secs(2) + TICK);
    for _ in 0..4 {
        world.read_what_is_late();
    }
    let sent = world.take_sent();
    assert!(sent.contains(&(push, ALICE_AGAIN.to_owned())), "{immediate}, {sent:?}: {:?}", world.rest());
}

#[test]
fn what_waits_for_a_full_jid_is_found_though_another_registration_of_it_has_moved_since() {
    let mut world = World::online();
    let mut apps = [1, 2].map(|application| (world.register(ALICE, application), application));
    apps.sort();
    for (app, _) in apps {
        let push = world.post(app);
        world.answer(push, ALICE, OFFLINE);
    }
    let waits = world.waiting();
    world.restart();
    let [(_, found), (other, _)] = apps;
    world.register(ALICE_AGAIN, found);
    world.take_sent();
    world.pass(TICK);
    let sent = world.take_sent();
    assert!(sent.iter().any(|(_, to)| to == ALICE), "{other} of {waits:?}, {sent:?}: {:?}", world.rest());
}

#[test]
fn what_waits_for_a_phone_that_falls_silent_goes_to_the_one_that_stands_in() {
    let mut world = World::online();
    let [first, second] = [1, 2].map(|application| world.register(ALICE, application));
    world.greet(ALICE_AGAIN);
    let unanswered = world.post(first);
    assert_eq!(world.take_sent(), [(unanswered, ALICE.to_owned())]);
    // Nobody has looked for this one yet.
    let waits = world.post_untried(second);
    world.pass(Duration::from_secs(2) + TICK);
    let mut sent = world.take_sent();
    sent.sort();
    assert_eq!(sent, [unanswered, waits].map(|push| (push, ALICE_AGAIN.to_owned())));
}

#[test]
fn where_many_are_silent_others_are_asked_for_all_of_them_a_few_at_each_tick() {
    let mut world = World::online();
    let accounts = 0..200;
    let mut silent = BTreeSet::new();
    for account in accounts.clone() {
        let app = world.register(&format!("user{account}@example.com/old"), 1);
        world.greet(&format!("user{account}@example.com/new"));
        silent.insert((world.post(app), format!("user{account}@example.com/new")));
        world.stand_still(Duration::from_millis(1));
    }
    assert_eq!(world.take_sent().len(), accounts.len());
    world.stand_still(Duration::from_secs(1));
    let mut asked = BTreeSet::new();
    let mut most = 0;
    for _ in 0..60 {
        let tick = world.tick_interval();
        assert!(tick < TICK, "many are in flight");
        world.pass_by(tick, tick);
        let sent = world.take_sent();
        most = most.max(sent.len());
        asked.extend(sent);
    }
    assert_eq!(asked, silent);
    assert!(most < accounts.len() / 2, "{most} in one tick");
}

/// A push that its phone has left unanswered for so long that it is given up there. A stand-in was asked, too, and has
/// some time left.
fn given_up_beside_a_stand_in() -> (World, MessageId) {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.greet(ALICE_AGAIN);
    let push = world.post(app);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.take_sent(), [ALICE, ALICE_AGAIN].map(|to| (push, to.to_owned())));
    assert!(!world.is_asked(push, ALICE) && world.is_asked(push, ALICE_AGAIN));
    (world, push)
}

#[test]
fn a_push_that_its_phone_left_unanswered_waits_as_such_though_the_stand_in_fails() {
    let (mut world, push) = given_up_beside_a_stand_in();
    world.answer(push, ALICE_AGAIN, OFFLINE);
    assert!(world.mailbox[&push].1.is_some(), "the server may deliver it still");
}

#[test]
fn a_late_result_of_a_phone_settles_its_push_though_a_stand_in_is_asked() {
    let (mut world, push) = given_up_beside_a_stand_in();
    world.answer(push, ALICE, None);
    assert!(world.is_settled(), "{:?}", world.rest());
}

#[test]
fn a_full_jid_that_has_failed_is_tried_again_though_a_stand_in_has_taken_its_pushes() {
    let mut world = World::online();
    let [app, other] = [1, 2].map(|application| world.register(ALICE, application));
    world.greet(TABLET);
    let [failed, unanswered] = [(); 2].map(|()| world.post(app));
    world.pass(Duration::from_secs(2) + TICK);
    assert_eq!(world.take_sent().len(), 4, "each goes to both");
    world.answer(failed, ALICE, OFFLINE);
    world.answer(unanswered, TABLET, None);
    world.answer(failed, TABLET, None);
    world.leave(TABLET);
    let next = world.post(other);
    world.pass(Duration::from_secs(5));
    assert!(world.take_sent().contains(&(next, ALICE.to_owned())), "{:?}", world.rest());
}

#[test]
fn a_silent_full_jid_gets_its_waiting_pushes_once_a_stand_in_has_taken_the_unanswered_one() {
    let mut world = World::online();
    let [app, other] = [1, 2].map(|application| world.register(ALICE, application));
    world.greet(TABLET);
    let unanswered = world.post(app);
    world.pass(Duration::from_secs(2) + TICK);
    assert_eq!(world.take_sent().len(), 2, "it goes to both");
    let waits = world.post_untried(other);
    world.answer(unanswered, TABLET, None);
    assert_eq!(world.take_sent(), [(waits, ALICE.to_owned())], "{:?}", world.rest());
}

#[test]
fn a_push_in_the_line_of_a_stand_in_that_has_failed_goes_into_no_further_line() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.greet(ALICE_AGAIN);
    let others = world.register(TABLET, 2);
    world.post(app);
    world.pass(Duration::from_secs(1));
    let of_the_tablet = world.post_some(others, 4);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.take_sent().len(), 5, "the tablet is to be asked, too; its window is full");
    world.answer(of_the_tablet[0], TABLET, OFFLINE);
    assert_eq!(world.take_sent(), [(of_the_tablet[0], ALICE_AGAIN.to_owned())]);
    world.pass(TICK);
    assert_eq!(world.take_sent(), []);
}
