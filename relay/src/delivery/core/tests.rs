//! The core against a small world that keeps what a store keeps, and answers its jobs.

use push::{Application, Body, Target};
use tokio_xmpp::jid::Jid;

use super::*;
use crate::stream::stanza::{Answer, Condition};
use world::{NARROW, World};

mod arrivals;
mod census;
mod crowds;
mod cues;
mod forgetting;
mod model;
mod moves;
mod once;
mod places;
mod presences;
mod readings;
mod refusals;
mod registrations;
mod retries;
mod sessions;
mod settling;
mod silence;
mod stand_ins;
mod stops;
mod sweeps;
mod tenants;
mod ticks;
mod world;

const ALICE: &str = "alice@example.com/Conv.AAAA";
const ALICE_AGAIN: &str = "alice@example.com/Conv.BBBB";
const TABLET: &str = "alice@example.com/tablet";
const BOB: &str = "bob@example.com/phone";

const GONE: Option<Condition> = Some(Condition::ItemNotFound);
const OFFLINE: Option<Condition> = Some(Condition::Other);

/// A push that has gone out to another full JID than the one that its registration names, whose session has ended.
fn at_another() -> (World, RegistrationId, MessageId) {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.leave(ALICE);
    world.greet(ALICE_AGAIN);
    let push = world.post(app);
    assert_eq!(world.take_sent(), [(push, ALICE_AGAIN.to_owned())]);
    (world, app, push)
}

/// A moment, with the lease.
fn now() -> Now {
    let wall = DateTime::UNIX_EPOCH;
    Now { wall, least: wall, monotonic: Instant::now(), leased: true }
}

/// Has a core without a world take an input.
fn handle(core: &mut Core, now: Now, input: Input) -> Vec<Action> {
    let mut actions = Vec::new();
    core.handle(input, now, &mut actions);
    actions
}

#[test]
fn a_push_is_sent_and_its_result_settles_it() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())]);
    world.answer(push, ALICE, None);
    assert!(world.is_settled());
}

#[test]
fn a_phone_that_comes_back_under_another_resource_gets_what_waits_and_the_registration_follows() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.take_sent();
    world.answer(push, ALICE, OFFLINE);
    assert_eq!(world.waiting(), [push]);
    world.greet(ALICE_AGAIN);
    assert_eq!(world.take_sent(), [(push, ALICE_AGAIN.to_owned())]);
    world.answer(push, ALICE_AGAIN, None);
    assert!(world.is_settled());
    assert_eq!(world.names(app), ALICE_AGAIN);
    let next = world.post(app);
    assert_eq!(world.take_sent(), [(next, ALICE_AGAIN.to_owned())]);
}

#[test]
fn a_new_push_goes_to_the_resource_that_has_taken_the_place_of_one_whose_session_has_ended() {
    let (world, _, push) = at_another();
    assert!(world.is_asked(push, ALICE_AGAIN) && !world.is_asked(push, ALICE));
}

#[test]
fn a_restart_between_presence_and_push_changes_nothing() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.pass(Duration::from_secs(61));
    world.greet(ALICE_AGAIN);
    world.pass(Duration::from_secs(61));
    world.restart();
    let push = world.post(app);
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())]);
    world.answer(push, ALICE, OFFLINE);
    assert_eq!(world.take_sent(), [(push, ALICE_AGAIN.to_owned())]);
}

#[test]
fn while_the_one_that_is_named_is_silent_another_that_greeted_since_is_asked_too() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.greet(ALICE_AGAIN);
    let push = world.post(app);
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())], "nothing speaks against it yet");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.take_sent(), []);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.take_sent(), [(push, ALICE_AGAIN.to_owned())]);
    world.answer(push, ALICE_AGAIN, None);
    assert!(world.is_settled());
    world.answer(push, ALICE, None);
    assert_eq!(world.names(app), ALICE_AGAIN, "a late result never moves");
}

#[test]
fn a_refusal_of_another_resource_ends_nothing_and_bars_it_until_it_greets_again() {
    let (mut world, app, push) = at_another();
    world.answer(push, ALICE_AGAIN, GONE);
    assert!(world.lives(app));
    assert_eq!(world.waiting(), [push]);
    world.post(app);
    let tried = world.take_sent();
    assert!(tried.iter().all(|(_, to)| to == ALICE), "{tried:?}");
    tried.iter().for_each(|(push, to)| world.answer(*push, to, OFFLINE));
    world.greet(ALICE_AGAIN);
    assert!(world.take_sent().iter().any(|(_, to)| to == ALICE_AGAIN), "another session, another answer");
}

#[test]
fn a_refusal_of_the_resource_that_is_named_ends_the_registration() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.take_sent();
    world.answer(push, ALICE, GONE);
    assert!(!world.lives(app) && world.is_settled());
}

#[test]
fn two_phones_of_one_account_with_different_applications_do_not_disturb_each_other() {
    let mut world = World::online();
    let (first, second) = (world.register(ALICE, 1), world.register(ALICE_AGAIN, 2));
    let (one, other) = (world.post(first), world.post(second));
    let mut sent = world.take_sent();
    sent.sort();
    let mut expected = vec![(one, ALICE.to_owned()), (other, ALICE_AGAIN.to_owned())];
    expected.sort();
    assert_eq!(sent, expected);
    world.answer(one, ALICE, None);
    world.answer(other, ALICE_AGAIN, None);
    assert!(world.is_settled());
    assert_eq!((world.names(first), world.names(second)), (ALICE.to_owned(), ALICE_AGAIN.to_owned()));
}

#[test]
fn who_is_not_on_the_access_list_gets_nothing_and_loses_nothing() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.admit("example.org");
    let push = world.post(app);
    world.greet(ALICE);
    assert_eq!((world.take_sent(), world.waiting()), (vec![], vec![push]));
    assert!(world.lives(app));
    world.admit("example.com");
    world.greet(ALICE);
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())]);
}

#[test]
fn whoever_leaves_the_access_list_gets_nothing_more_of_what_is_in_line_or_read() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let in_line = world.post_some(app, 6);
    assert_eq!(world.take_sent().len(), 4, "the window is full");
    world.admit("example.org");
    for push in &in_line[..4] {
        world.answer(*push, ALICE, None);
    }
    assert_eq!((world.take_sent(), world.waiting()), (vec![], in_line[4..].to_vec()));

    let more = world.post_some(app, 30);
    world.admit("example.com");
    world.greet(ALICE);
    let sent = world.take_sent();
    assert!(!sent.is_empty() && sent.len() < 30, "{sent:?}");
    world.admit("example.org");
    let pages = world.pages;
    for (push, to) in &sent {
        world.answer(*push, to, None);
    }
    world.greet(ALICE);
    world.pass(Duration::from_secs(40));
    assert_eq!((world.take_sent(), world.pages), (vec![], pages));
    assert_eq!(world.waiting().len(), 2 + more.len() - sent.len());
    assert!(world.lives(app));
}

#[test]
fn what_is_in_line_for_whoever_leaves_the_access_list_goes_into_the_mailbox_at_once() {
    let mut world = World::online();
    let apps = [ALICE, BOB].map(|jid| world.register(jid, 1));
    let [of_alice, of_bob] = apps.map(|app| world.post_some(app, 6));
    assert_eq!(world.take_sent().len(), 8, "the windows are full");
    world.admit("bob@example.com");
    assert_eq!(world.waiting(), of_alice[4..]);
    world.answer(of_bob[0], BOB, None);
    assert_eq!(world.take_sent(), of_bob[4..].iter().map(|push| (*push, BOB.to_owned())).collect::<Vec<_>>());
}

#[test]
fn nothing_is_sent_without_the_lease() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.leased = false;
    world.post(app);
    assert_eq!(world.take_sent(), []);
    world.lose_lease();
    assert!(world.finished && world.queued() == 1);
}

#[test]
fn a_stop_waits_for_answers_and_gives_the_rest_back() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let pushes: Vec<_> = (0..6).map(|_| world.post(app)).collect();
    assert_eq!(world.take_sent().len(), 4);
    world.stop();
    assert!(!world.finished);
    world.answer(pushes[0], ALICE, None);
    world.pass(Duration::from_secs(9));
    assert!(world.finished);
    assert_eq!(world.queued(), 5);
}

#[test]
fn cues_of_one_account_are_bounded_and_none_is_dropped() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.take_sent();
    world.answer(push, ALICE, OFFLINE);
    let before = world.pages;
    for number in 0..200 {
        world.greet(&format!("alice@example.com/{number}"));
        for (push, to) in world.take_sent() {
            world.answer(push, &to, if to == ALICE { OFFLINE } else { GONE });
        }
    }
    assert!(world.pages - before < 100, "{} pages", world.pages - before);
    world.greet(ALICE);
    world.pass(Duration::from_secs(120));
    assert!(world.take_sent().iter().any(|(_, to)| to == ALICE));
}

#[test]
fn a_relay_that_begins_with_a_long_queue_keeps_nothing_of_it_while_the_phones_answer() {
    let mut world = World::narrow();
    let apps: Vec<_> =
        (0..8).map(|user| world.register(&format!("user{user}@example.com/phone"), 1)).collect();
    world.disconnect();
    let pushes = 2 * NARROW.held;
    for push in 0..pushes {
        world.post(apps[push % apps.len()]);
    }
    world.reads_late = true;
    world.restart();
    assert_eq!((world.core().held, world.waiting().len()), (NARROW.held / 2, 0));
    world.reads_late = false;
    world.read_what_is_late();
    while !world.is_settled() {
        let sent = world.take_sent();
        assert!(!sent.is_empty(), "{:?}", world.rest());
        sent.into_iter().for_each(|(push, to)| world.answer(push, &to, None));
    }
    assert_eq!((world.waiting().len(), world.take_delivered_count()), (0, pushes));
}

#[test]
fn a_relay_that_nobody_answers_goes_on_receiving_after_a_moment() {
    let mut world = World::narrow();
    let app = world.register(ALICE, 1);
    let other = world.register(BOB, 1);
    world.disconnect();
    world.post_some(app, NARROW.held / 2);
    let answers = world.post(other);
    world.restart();
    world.stand_still(Duration::from_secs(2));
    world.greet(ALICE);
    assert!(world.take_sent().contains(&(answers, BOB.to_owned())), "{:?}", world.rest());
}

#[test]
fn the_number_of_pushes_in_flight_is_told_when_it_changes() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    world.take_measured();
    let push = world.post(app);
    world.greet(BOB);
    world.answer(push, ALICE, None);
    let told = world.take_measured().into_iter().filter(|measure| matches!(measure, Measure::InFlight(_)));
    assert_eq!(told.collect::<Vec<_>>(), [1, 0].map(Measure::InFlight));
}
