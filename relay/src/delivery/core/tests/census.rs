//! The lapse of registrations that the access list forbids is told when the list changes, and then hourly.

use super::*;

const EVE: &str = "eve@example.org/phone";

/// Domains and registrations of each report since the last look, and when the first of each lapses.
fn told(world: &mut World) -> Vec<Vec<(String, usize, DateTime<Utc>)>> {
    let of_lapsing = |measure| match measure {
        Measure::Lapsing(lapsing) => Some(lapsing),
        _ => None,
    };
    let reports = world.take_measured().into_iter().filter_map(of_lapsing);
    let entry = |Lapsing { domain, registrations, first }| (domain, registrations, first);
    reports.map(|report| report.into_iter().map(entry).collect()).collect()
}

#[test]
fn domains_off_the_list_are_told_of_once_and_then_hourly_for_as_long_as_they_have_registrations() {
    let mut world = World::online();
    assert_eq!(told(&mut world), [[]], "of nobody, at the start");
    let first = world.register(EVE, 1);
    let first = world.expiry(first);
    world.pass(Duration::from_secs(1));
    world.register(EVE, 2);
    world.register(BOB, 1);
    assert_eq!(told(&mut world), Vec::<Vec<_>>::new());
    world.admit("example.com");
    let report = vec![("example.org".to_owned(), 2, first)];
    assert_eq!(told(&mut world), std::slice::from_ref(&report));

    // Neither pushes, nor cues, nor a list that is as it was.
    let bob = world.register(BOB, 1);
    world.post(bob);
    world.greet(EVE);
    world.admit("example.com");
    world.disconnect();
    world.connect();
    world.pass_by(TICK * 4, Duration::from_secs(3590));
    assert_eq!(told(&mut world), Vec::<Vec<_>>::new());
    world.pass(Duration::from_secs(11));
    assert_eq!(told(&mut world), std::slice::from_ref(&report));
    world.wall += Duration::from_secs(7 * 86_400);
    world.pass_by(TICK * 4, Duration::from_secs(3601));
    assert_eq!(told(&mut world), [[]], "they have lapsed");
    world.pass_by(TICK * 4, Duration::from_secs(2 * 3600));
    assert_eq!(told(&mut world), Vec::<Vec<_>>::new());
}

#[test]
fn a_bare_jid_on_the_list_does_not_lapse_and_the_fullest_domain_is_told_of_first() {
    let mut world = World::online();
    for jid in [ALICE, BOB, "carol@example.com/1", EVE] {
        world.register(jid, 1);
    }
    world.admit("alice@example.com");
    let report = &told(&mut world)[1];
    let counts: Vec<_> = report.iter().map(|(domain, count, _)| (domain.as_str(), *count)).collect();
    assert_eq!(counts, [("example.com", 2), ("example.org", 1)]);
    world.admit("*");
    assert_eq!(told(&mut world), [[]]);
}

#[test]
fn a_domain_without_room_is_counted_again_before_long_and_renewals_are_taken_meanwhile() {
    let mut world = World::bounded(DomainBounds { registrations: 2, mailbox: 10 });
    world.register(ALICE, 1);
    world.wall += Duration::from_secs(4 * 86_400);
    let bob = world.register(BOB, 1);
    assert_eq!(world.refused, 0);
    for (jid, refused) in [(ALICE, 0), (BOB, 0), (ALICE_AGAIN, 0)] {
        world.register(jid, 1);
        assert_eq!(world.refused, refused, "a renewal");
    }
    world.register(EVE, 1);
    assert_eq!(world.refused, 0, "another domain");
    world.register(BOB, 2);
    assert_eq!(world.refused, 1);
    world.end_registration(bob);
    world.register(BOB, 2);
    assert_eq!(world.refused, 2, "that is not known yet");
    world.pass(Duration::from_secs(590));
    world.register(BOB, 2);
    assert_eq!(world.refused, 3, "the last count began less than 10 min ago");
    world.pass(Duration::from_secs(11));
    world.register(BOB, 2);
    assert_eq!(world.refused, 3);
    world.restart();
    world.register(BOB, 3);
    assert_eq!(world.refused, 4, "the next process counts at its start");
    world.admit("*, example.com");
    world.register(BOB, 3);
    assert_eq!(world.refused, 4, "its domain is named");
}

#[test]
fn a_push_that_is_delivered_while_its_domain_is_trimmed_counts_as_gone_once() {
    let mut world = World::bounded(DomainBounds { registrations: 10, mailbox: 4 });
    let (alices, bobs) = (world.register(ALICE, 1), world.register(BOB, 1));
    let pushes = world.post_some(alices, 4);
    world.take_sent();
    pushes.iter().for_each(|push| world.answer(*push, ALICE, OFFLINE));
    world.greet(ALICE);
    assert_eq!((world.take_sent().len(), world.waiting().len()), (4, 4));
    let one_more = world.post(bobs);
    world.stalls = true;
    world.answer(one_more, BOB, OFFLINE);
    world.settle_one_batch();
    world.answer(pushes[0], ALICE, None);
    world.go_on_settling();
    assert_eq!((world.waiting().len(), world.dropped.contains(&pushes[0])), (4, true));
    world.post(bobs);
    world.check_bounds();
}

#[test]
fn a_push_that_leaves_the_mailbox_makes_room_for_another_of_its_domain() {
    for end in
        ["its delivery", "its delivery, which a stranger has told of before", "a later one in its place"]
    {
        let mut world = World::bounded(DomainBounds { registrations: 10, mailbox: 3 });
        let (alices, bobs) = (world.register(ALICE, 1), world.register(BOB, 1));
        let mut of_bob = world.post_some(bobs, 2);
        of_bob.iter().for_each(|push| world.answer(*push, BOB, OFFLINE));
        let first = world.post(alices);
        world.answer(first, ALICE, OFFLINE);
        if end.starts_with("its delivery") {
            if end != "its delivery" {
                world.answer(first, BOB, None);
            }
            world.greet(ALICE);
            world.answer(first, ALICE, None);
        } else {
            world.replaces = vec![first];
        }
        let second = world.post(alices);
        world.answer(second, ALICE, OFFLINE);
        of_bob.push(second);
        assert_eq!((world.waiting(), world.dropped.len()), (of_bob, 0), "after {end}");
    }
}

#[test]
fn a_push_that_waits_on_after_a_refusal_takes_no_further_room_in_its_domain() {
    let mut world = World::bounded(DomainBounds { registrations: 10, mailbox: 3 });
    let (alices, bobs) = (world.register(ALICE, 1), world.register(BOB, 1));
    let refused = world.waits_and_is_sent(alices);
    world.register(ALICE, 1);
    world.answer(refused, ALICE, GONE);
    assert!(world.lives(alices), "it was renewed meanwhile");
    let of_bob = world.post_some(bobs, 2);
    of_bob.iter().for_each(|push| world.answer(*push, BOB, OFFLINE));
    assert_eq!((world.waiting().len(), world.dropped.len()), (3, 0));
}

#[test]
fn a_count_without_the_lease_or_after_a_failure_comes_later() {
    let mut world = World::online();
    assert_eq!(told(&mut world), [[]], "of nobody, at the start");
    world.leased = false;
    world.admit("example.com");
    assert_eq!(told(&mut world), Vec::<Vec<_>>::new());
    world.leased = true;
    world.pass(TICK);
    assert_eq!(told(&mut world), [[]]);
    world.fail_the_count();
    world.stand_still(Duration::from_secs(3599));
    world.greet(BOB);
    assert_eq!(told(&mut world), Vec::<Vec<_>>::new());
    world.stand_still(Duration::from_secs(1));
    world.greet(BOB);
    assert_eq!(told(&mut world), [[]]);
}

#[test]
fn the_throttling_of_another_process_ends_when_the_registrations_are_counted() {
    let mut world = World::metered("2/1");
    let [elsewhere, here, _] = [ALICE, BOB, EVE].map(|jid| world.register(jid, 1));
    let until = world.wall + Duration::from_secs(60);
    world.post_some(here, 3);
    world.throttle_elsewhere(here, until);
    world.admit("*, example.com");
    assert_eq!(world.throttled.len(), 1, "this process has asked, too");
    world.throttle_elsewhere(elsewhere, until);
    world.admit("*, example.org");
    let lifted = world.throttled.split_off(1);
    assert!(lifted.len() == 1 && lifted[0] <= world.wall, "{lifted:?}");
}

#[test]
fn the_end_of_a_registration_makes_room_in_its_domain_for_its_waiting_pushes_alone() {
    const CAROL: &str = "carol@example.com/phone";
    for bob_answers in [true, false] {
        let mut world = World::bounded(DomainBounds { registrations: 10, mailbox: 5 });
        let [bobs, carols] = [BOB, CAROL].map(|jid| world.register(jid, 1));
        let [ends, other] = [1, 2].map(|application| world.register(ALICE, application));
        let of_bob = world.waits_and_is_sent(bobs);
        let [refused, in_flight, of_other] = [ends, ends, other].map(|app| world.post(app));
        [refused, in_flight, of_other].into_iter().for_each(|push| world.answer(push, ALICE, OFFLINE));
        world.greet(ALICE);
        world.answer(refused, ALICE, GONE);
        assert!(!world.lives(ends) && world.waiting() == [of_bob, of_other]);
        world.answer(in_flight, ALICE, None);
        if bob_answers {
            world.answer(of_bob, BOB, None);
        }
        let first = world.post(carols);
        world.answer(first, CAROL, OFFLINE);
        let room = 5 - world.waiting().len();
        world.post_some(carols, room);
        assert_eq!((world.waiting().len(), world.dropped.len()), (5, 0));
        world.post(carols);
        assert_eq!((world.waiting().len(), world.dropped.len()), (5, 1));
    }
}
