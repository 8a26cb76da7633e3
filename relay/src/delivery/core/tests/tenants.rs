//! Tenants: their quotas of registrations, what is counted for them, and that none delays another.

use push::{Roster, Tenant, tenant::Quotas};

use super::*;

fn roster(registrations: Option<u64>) -> Roster {
    let mut roster = Roster::default();
    let quotas = Quotas { registrations, ..Quotas::default() };
    let tenant = Tenant { quotas, ..Tenant::new(DateTime::UNIX_EPOCH) };
    roster.add("example.com".parse().unwrap(), tenant).unwrap();
    roster
}

/// The last count of registrations that was told.
fn living(world: &mut World) -> Option<usize> {
    let of_tenant = |measure| match measure {
        Measure::Living(name, living) if name.as_str() == "example.com" => Some(living),
        _ => None,
    };
    world.take_measured().into_iter().filter_map(of_tenant).next_back()
}

#[test]
fn a_tenant_has_as_many_registrations_as_its_quota_and_each_of_them_is_renewed() {
    let mut world = World::bounded(DomainBounds { registrations: 0, mailbox: 10_000 });
    world.serve(&roster(Some(2)));
    let first = world.register(ALICE, 1);
    world.register(BOB, 1);
    assert_eq!((world.refused, living(&mut world)), (0, Some(2)));
    world.register(BOB, 2);
    assert_eq!(world.refused, 1);
    world.register(ALICE, 1);
    assert_eq!(world.refused, 1, "it lives");
    // A census finds that one has ended.
    world.end_registration(first);
    world.pass(Duration::from_secs(3601));
    assert_eq!(living(&mut world), Some(1));
    world.register(BOB, 2);
    assert_eq!((world.refused, living(&mut world)), (1, Some(2)));
    world.serve(&roster(None));
    world.register(BOB, 3);
    assert_eq!(world.refused, 1, "the quota is lifted");
}

#[test]
fn each_push_of_a_tenant_counts_once_for_what_has_become_of_it() {
    let mut world = World::online();
    world.serve(&roster(None));
    let (app, elsewhere) = (world.register(ALICE, 1), world.register("eve@example.org/phone", 1));
    for registration in [app, elsewhere] {
        let push = world.post(registration);
        let to = world.take_sent()[0].1.clone();
        world.answer(push, &to, None);
        world.queue_again(push);
    }
    assert_eq!((world.counted.accepted, world.counted.delivered, world.counted.expired), (1, 1, 0));
    assert!(world.counted.bytes > 0);
    // A waiting push is counted as accepted where it is kept, and here when it is delivered.
    let waits = world.waits_and_is_sent(app);
    world.answer(waits, ALICE, None);
    assert_eq!((world.counted.accepted, world.counted.delivered), (1, 2));
    let late = world.post_for(app, 60);
    world.take_sent();
    world.pass(Duration::from_secs(120));
    world.answer(late, ALICE, None);
    assert_eq!(world.counted.delivered + world.counted.expired, 3);
}

/// A world with a tenant whose phones are all gone, their registrations, and one of another tenant whose phone answers.
fn with_phones_gone(gone: usize) -> (World, Vec<RegistrationId>, RegistrationId) {
    let mut world = World::narrow();
    let mut both = roster(None);
    both.add("gone.example".parse().unwrap(), Tenant::new(DateTime::UNIX_EPOCH)).unwrap();
    world.serve(&both);
    let app = world.register(BOB, 1);
    let first = world.post(app);
    world.answer(first, BOB, None);
    let gone = (0..gone).map(|number| world.register(&format!("user{number}@gone.example/phone"), 1));
    let gone = gone.collect();
    world.take_sent();
    (world, gone, app)
}

/// A push goes out with no time passed, and is answered.
fn arrives_at_once(world: &mut World, registration: RegistrationId, round: usize) {
    let phone = world.names(registration);
    let push = world.post(registration);
    assert!(world.take_sent().contains(&(push, phone.clone())), "at once, in round {round}");
    world.answer(push, &phone, None);
    assert!(!world.is_queued(push));
}

#[test]
fn a_tenant_whose_phones_are_all_gone_costs_another_nothing() {
    let (mut world, gone, app) = with_phones_gone(NARROW.in_flight);
    for round in 0..3 {
        for registration in &gone {
            world.post_some(*registration, 4);
        }
        arrives_at_once(&mut world, app, round);
        // They are found to be gone.
        world.pass_by(Duration::from_secs(5), Duration::from_secs(35));
    }
}

#[test]
fn more_phones_that_are_gone_than_the_relay_holds_pushes_leave_places_to_another_tenant() {
    let (mut world, gone, app) = with_phones_gone(NARROW.held + 100);
    for (round, registration) in gone.iter().enumerate() {
        world.post(*registration);
        if round % 60 == 0 {
            arrives_at_once(&mut world, app, round);
        }
    }
    arrives_at_once(&mut world, app, gone.len());
    // A phone that has not answered yet has a place, too.
    let new = world.register(ALICE, 1);
    arrives_at_once(&mut world, new, gone.len());
    // Those that are there after all get what waits.
    let mut sent = world.take_sent();
    world.pass_by(Duration::from_secs(1), Duration::from_secs(30));
    for registration in &gone {
        let phone = world.names(*registration);
        world.greet(&phone);
    }
    while !world.is_settled() {
        sent.extend(world.take_sent());
        assert!(!sent.is_empty(), "{:?}", world.rest());
        for (push, phone) in std::mem::take(&mut sent) {
            world.answer(push, &phone, None);
        }
    }
}

#[test]
fn a_push_that_expires_unanswered_and_then_fails_counts_as_expired() {
    let mut world = World::online();
    world.serve(&roster(None));
    let app = world.register(ALICE, 1);
    let push = world.post_for(app, 5);
    world.stand_still(Duration::from_secs(10));
    world.answer(push, ALICE, OFFLINE);
    assert!(world.is_settled(), "{:?}", world.rest());
    assert_eq!((world.counted.accepted, world.counted.delivered, world.counted.expired), (1, 0, 1));
}

#[test]
fn a_push_that_an_earlier_process_put_into_the_mailbox_counts_when_its_copy_leaves_the_queue() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.waits_and_is_sent(app);
    world.restart();
    world.serve(&roster(None));
    world.pass(TICK);
    assert_eq!(world.take_sent(), [(push, ALICE.to_owned())]);
    for _ in 0..2 {
        world.queue_again(push);
        assert!(!world.is_queued(push));
        assert_eq!((world.counted.accepted, world.counted.waited), (1, 1), "once");
    }
}

#[test]
fn a_push_that_the_queue_gives_again_while_its_late_result_is_settled_counts_as_delivered_once() {
    let mut world = World::online();
    world.serve(&roster(None));
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.waiting(), [push]);
    world.stalls = true;
    world.answer(push, ALICE, None);
    world.queue_again(push);
    world.go_on_settling();
    world.pass(Duration::from_secs(4));
    assert!(world.is_queued(push), "it comes back later");
    world.pass(Duration::from_secs(2));
    assert!(world.is_settled(), "{:?}", world.rest());
    assert_eq!(world.counted.delivered, 1);
}

#[test]
fn a_push_that_is_read_while_its_late_result_is_settled_counts_as_delivered_once() {
    let mut world = World::online();
    world.serve(&roster(None));
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.pass(Duration::from_secs(31));
    world.stalls = true;
    world.answer(push, ALICE, None);
    let pages = world.pages;
    world.greet(ALICE);
    assert_eq!((world.waiting(), world.pages), (vec![push], pages + 1), "it is read");
    world.go_on_settling();
    assert!(world.is_settled(), "{:?}", world.rest());
    assert_eq!((world.counted.delivered, world.take_delivered_count()), (1, 1));
}

#[test]
fn a_push_that_could_not_be_kept_counts_when_the_queue_gives_it_after_its_late_result() {
    let mut world = World::online();
    world.serve(&roster(None));
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.stalls = true;
    world.pass(Duration::from_secs(31));
    // Without the lease, the push goes back to the queue.
    world.leased = false;
    world.go_on_settling();
    world.leased = true;
    world.answer(push, ALICE, None);
    world.pass(Duration::from_secs(6));
    assert!(world.is_settled(), "{:?}", world.rest());
    assert_eq!((world.counted.accepted, world.counted.delivered), (1, 1));
}

#[test]
fn the_counts_of_the_last_push_of_a_batch_are_settled_with_it() {
    let mut world = World::online();
    world.serve(&roster(None));
    let [app, elsewhere] = [ALICE, "eve@example.org/phone"].map(|jid| world.register(jid, 1));
    world.stalls = true;
    let mut deliver = |app, times| {
        for _ in 0..times {
            let (push, phone) = (world.post(app), world.names(app));
            world.answer(push, &phone, None);
        }
    };
    // The first is a batch of its own. The second has no counts, so the next batch is full before the last counts.
    deliver(elsewhere, 2);
    deliver(app, BATCH_MAX / 2 + 3);
    world.settle_one_batch();
    world.settle_one_batch();
    assert_eq!((world.counted.delivered, world.queued()), (BATCH_MAX as u64 / 2, 3));
}

#[test]
fn a_late_result_for_which_nothing_was_known_to_wait_counts_when_the_push_is_found_in_the_mailbox() {
    let mut world = World::online();
    world.serve(&roster(None));
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.restart_before_the_queue_answers();
    world.serve(&roster(None));
    world.greet(ALICE);
    world.answer(push, ALICE, None);
    world.take_sent();
    // Each time, a write that had been given up puts it there.
    for _ in 0..2 {
        world.keep_late(push);
        assert_eq!((world.take_sent(), world.waiting()), (vec![], vec![]));
        assert_eq!(world.counted.delivered, 1, "once");
    }
    assert_eq!(world.take_delivered_count(), 1);
}

#[test]
fn a_push_of_the_queue_that_is_found_in_the_mailbox_counts_as_one_that_waits() {
    let mut world = World::online();
    let app = world.register(ALICE, 1);
    let push = world.post(app);
    world.answer(push, ALICE, OFFLINE);
    assert_eq!(world.waiting(), [push]);
    world.reads_late = true;
    world.restart();
    world.serve(&roster(None));
    world.queue_again(push);
    world.greet(ALICE);
    assert!(world.is_queued(push));
    for _ in 0..4 {
        world.read_what_is_late();
    }
    assert!(!world.is_queued(push) && world.waiting() == [push], "{:?}", world.rest());
    assert_eq!((world.counted.accepted, world.counted.waited), (1, 1));
}
