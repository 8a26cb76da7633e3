//! Pushes held for an account that the operator has erased.

use super::*;

#[test]
fn an_account_that_is_erased_is_dropped_once_nothing_of_it_is_under_way() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let bystander = world.register(BOB, 1);
    world.greet(ALICE);
    world.post_some(app, 12);
    let sent = world.take_sent();
    assert!(!sent.is_empty() && sent.len() < 12, "{sent:?}");

    // The store has done its part.
    world.end_registration(app);
    world.forget("alice@example.com");
    assert_eq!(world.queued(), sent.len(), "what was in line has left the queue");
    sent.iter().for_each(|(push, to)| world.answer(*push, to, OFFLINE));
    world.pass(Duration::from_secs(1));
    assert!(world.is_settled() && world.take_sent().is_empty());
    let held: Vec<_> = world.core().accounts.keys().map(ToString::to_string).collect();
    assert_eq!(held, ["bob@example.com"]);
    assert_eq!(world.post_some(bystander, 1).len(), world.take_sent().len());
}

#[test]
fn what_lives_still_is_delivered_though_it_was_to_be_forgotten() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.post_some(app, 12);
    let sent = world.take_sent();
    world.forget("alice@example.com");
    assert_eq!(world.waiting().len(), 12 - sent.len(), "what was in line waits");
    sent.iter().for_each(|(push, to)| world.answer(*push, to, None));
    world.greet(ALICE);
    for _ in 0..12 {
        for (push, to) in world.take_sent() {
            world.answer(push, &to, None);
        }
    }
    assert!(world.is_settled());
}

#[test]
fn the_mailbox_of_another_account_is_read_though_one_is_erased_meanwhile() {
    let mut world = World::online();
    let app = world.register(BOB, 1);
    let push = world.post(app);
    world.answer(push, BOB, OFFLINE);
    world.take_sent();
    world.fall_behind();
    world.greet(BOB);
    assert_eq!(world.take_sent(), []);
    world.forget("alice@example.com");
    world.go_on_settling();
    assert_eq!(world.take_sent(), [(push, BOB.to_owned())]);
}

#[test]
fn the_mailbox_of_another_account_is_read_on_though_one_is_erased_meanwhile() {
    let mut world = World::online();
    let app = world.register(BOB, 1);
    let first = world.post(app);
    world.answer(first, BOB, OFFLINE);
    world.post_some(app, 30);
    world.take_sent();
    world.greet(BOB);
    world.fall_behind();
    let mut taken = 0;
    loop {
        let sent = world.take_sent();
        if sent.is_empty() {
            break;
        }
        taken += sent.len();
        sent.into_iter().for_each(|(push, to)| world.answer(push, &to, None));
    }
    assert!(taken < 31, "{taken}");
    world.forget("alice@example.com");
    world.go_on_settling();
    assert!(!world.take_sent().is_empty(), "{:?}", world.rest());
}

#[test]
fn another_account_is_looked_up_though_one_is_erased_meanwhile() {
    let mut world = World::online();
    let app = world.register(BOB, 1);
    world.restart();
    let immediate = world.post_for(app, 0);
    world.fall_behind();
    world.answer(immediate, BOB, OFFLINE);
    world.forget("alice@example.com");
    world.go_on_settling();
    world.take_sent();
    world.greet(BOB);
    let push = world.post(app);
    assert_eq!(world.take_sent(), [(push, BOB.to_owned())]);
}

#[test]
fn a_push_of_another_account_goes_out_again_in_a_new_session_though_one_is_erased_meanwhile() {
    let mut world = World::online();
    let app = world.register(BOB, 1);
    let push = world.post(app);
    world.take_sent();
    world.stand_still(TICK);
    world.greet(BOB);
    world.forget("alice@example.com");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.take_sent(), [(push, BOB.to_owned())]);
}

#[test]
fn beyond_the_bound_of_accounts_that_are_to_be_forgotten_none_is_added() {
    let mut world = World::online();
    world.register(ALICE, 1);
    world.fill_forgetting();
    world.forget("alice@example.com");
    assert_eq!(world.core().accounts.len(), 1);
    // Nothing was under way for the others.
    world.pass(TICK);
    world.forget("alice@example.com");
    assert!(world.core().accounts.is_empty());
}
