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
