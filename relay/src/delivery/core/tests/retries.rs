//! Full JIDs that failed are tried again, or answer before.

use super::*;

/// A full JID that has failed, a push that waits for it, and one that it takes.
fn away() -> (World, RegistrationId, MessageId) {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let waits = world.post(app);
    world.answer(waits, ALICE, OFFLINE);
    let immediate = world.post_for(app, 0);
    assert_eq!(world.take_sent(), [waits, immediate].map(|push| (push, ALICE.to_owned())));
    world.answer(immediate, ALICE, None);
    (world, app, waits)
}

#[test]
fn a_full_jid_that_was_away_and_answers_gets_its_waiting_pushes_2_s_later() {
    let (mut world, _, waits) = away();
    assert_eq!(world.take_sent(), []);
    world.pass(Duration::from_secs(2) + TICK);
    assert_eq!(world.take_sent(), [(waits, ALICE.to_owned())]);
}

#[test]
fn a_full_jid_that_fails_after_it_has_answered_is_tried_again_as_soon_as_after_its_first_failure() {
    let (mut world, _, waits) = away();
    world.pass(Duration::from_secs(2) + TICK);
    world.answer(waits, ALICE, OFFLINE);
    world.take_sent();
    world.pass(Duration::from_secs(2) + TICK);
    assert_eq!(world.take_sent(), [(waits, ALICE.to_owned())]);
}

#[test]
fn a_full_jid_that_fails_beyond_the_bound_of_retries_is_left_to_the_sweep() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.take_sent();
    world.fill_retries();
    world.answer(push, ALICE, OFFLINE);
    world.pass(Duration::from_secs(3));
    assert_eq!((world.take_sent(), world.waiting()), (vec![], vec![push]));
}

#[test]
fn a_push_that_was_given_up_goes_out_again_2_s_after_the_answer_to_a_later_one() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let first = world.post(app);
    world.pass(Duration::from_secs(20));
    let second = world.post(app);
    world.pass(Duration::from_secs(10) + TICK);
    assert_eq!((world.take_sent().len(), world.waiting()), (2, vec![first]));
    world.answer(second, ALICE, None);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.take_sent(), []);
    world.pass(Duration::from_secs(1) + TICK);
    assert_eq!(world.take_sent(), [(first, ALICE.to_owned())]);
}

#[test]
fn a_push_that_was_rejected_and_read_again_meanwhile_is_put_off() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let left = world.post(app);
    world.admit("example.org");
    let [rejected, taken] = [(); 2].map(|()| world.post(app));
    world.admit("example.com");
    world.take_sent();
    world.stand_still(Duration::from_millis(1));
    world.greet(ALICE);
    assert_eq!(world.take_sent(), [rejected, taken].map(|push| (push, ALICE.to_owned())));
    world.answer(rejected, ALICE, OFFLINE);
    // The mailbox is read once the new session has had its time to answer what the old one left.
    world.pass(Duration::from_secs(2));
    assert_eq!(world.take_sent(), [], "nobody knows whether it is there");
    assert!(world.core().pushes[&rejected].lines.len() == 1, "{:?}", world.rest());
    world.answer(taken, ALICE, None);
    assert_eq!(world.take_sent(), [(left, ALICE.to_owned())]);
    assert!(!world.core().pushes.contains_key(&rejected), "{:?}", world.rest());
}

/// Returns the time until a phone takes this push. It answers pings, rejects one push and leaves another unanswered.
fn time_until_taken(world: &mut World, push: MessageId, rejected: MessageId, ignored: MessageId) -> Duration {
    let mut passed = Duration::ZERO;
    loop {
        for (sent, _) in world.take_sent() {
            match sent {
                _ if sent == ignored => {}
                _ if sent == rejected => world.answer(sent, ALICE, OFFLINE),
                _ => world.answer(sent, ALICE, None),
            }
        }
        let phone = &world.core().phone(&ALICE.parse().unwrap()).unwrap();
        if !phone.lives_since_probe() {
            world.answer_probe(ALICE, None);
        }
        if !world.is_queued(push) && !world.waiting().contains(&push) {
            return passed;
        }
        world.pass(TICK);
        passed += TICK;
        assert!(passed < Duration::from_secs(600), "{:?}", world.rest());
    }
}

#[test]
fn an_application_that_rejects_and_one_that_never_answers_keep_the_others_of_their_phone_waiting_once() {
    let mut world = World::online();
    let [rejecting, silent, other] = [1, 2, 3].map(|application| world.register(ALICE, application));
    let [rejected, ignored] = [rejecting, silent].map(|app| world.post(app));
    world.take_sent();
    world.answer(rejected, ALICE, OFFLINE);
    let push = world.post(other);
    let first = time_until_taken(&mut world, push, rejected, ignored);
    let later: Vec<Duration> = (0..20)
        .map(|_| {
            let push = world.post(other);
            let taken = time_until_taken(&mut world, push, rejected, ignored);
            world.pass(Duration::from_secs(7));
            taken
        })
        .collect();
    assert!(first < Duration::from_secs(90), "{first:?}");
    assert!(later.iter().all(|time| *time < Duration::from_secs(5)), "{later:?}");
}
