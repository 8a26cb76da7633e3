//! A model of the lease. Candidates go by these rules, each with a clock of its own. Requests to the store are delayed,
//! carried out late, and answered or not.

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::*;
use candidate::{Candidate, Rate, Way};
use world::{CANDIDATES, Event, STEP_MILLISECONDS, World};

mod candidate;
mod world;

fn events() -> impl Strategy<Value = Vec<Event>> {
    let who = || 0..CANDIDATES;
    let way = prop::sample::select(vec![Way::Open, Way::Open, Way::AnswersAreLost, Way::Cut]);
    let event = prop_oneof![
        12 => Just(Event::Round),
        3 => (2usize..20).prop_map(Event::Rounds),
        6 => (who(), way).prop_map(|(index, way)| Event::Way(index, way)),
        3 => (1u64..10).prop_map(|steps| Event::Pass(steps * STEP_MILLISECONDS)),
        4 => who().prop_map(Event::Act),
        4 => who().prop_map(Event::Reach),
        4 => who().prop_map(Event::Answer),
        1 => who().prop_map(Event::Fail),
        2 => who().prop_map(Event::Late),
        1 => who().prop_map(Event::Suspend),
        2 => who().prop_map(Event::Resume),
        1 => who().prop_map(Event::Crash),
    ];
    prop::collection::vec(event, 1..150)
}

fn rates(percent: std::ops::RangeInclusive<u32>, stops: bool) -> impl Strategy<Value = Vec<Rate>> {
    let rate = (0u64..1_000_000, percent).prop_map(move |(offset, percent)| Rate {
        offset: Duration::from_secs(offset),
        percent,
        stops,
    });
    prop::collection::vec(rate, CANDIDATES)
}

/// A step of time. `sent` may be late by one step.
const STEP: Duration = Duration::from_millis(STEP_MILLISECONDS);

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn two_never_may_send_whatever_their_clocks_show(rates in rates(100..=100, false), events in events()) {
        World::new(&rates).run(&events, MARGIN)?;
    }

    #[test]
    fn two_never_may_send_though_one_clock_goes_faster(rates in rates(98..=102, false), events in events()) {
        // 15 s by the fastest clock, less 14 s by the slowest, are 0.42 s.
        World::new(&rates).run(&events, Duration::from_millis(400))?;
    }

    #[test]
    fn one_is_elected_soon_once_the_store_answers(rates in rates(98..=102, false), events in events()) {
        let mut world = World::new(&rates);
        world.run(&events, MARGIN / 2)?;
        for index in 0..CANDIDATES {
            world.happen(Event::Resume(index));
            world.happen(Event::Way(index, Way::Open));
        }
        let deadline = world.now + 2 * LEASE + 4 * LOOK_INTERVAL;
        let (mut held_since, mut settled) = (None, false);
        while held_since.is_none_or(|since| world.now < since + 4 * LEASE) {
            world.run(&[Event::Pass(STEP_MILLISECONDS)], MARGIN / 2)?;
            for index in 0..CANDIDATES {
                world.run(&Way::Open.call(index), MARGIN / 2)?;
            }
            if held_since.is_none() && world.candidates.iter().any(Candidate::may_send) {
                held_since = Some(world.now);
            }
            // The first holder may have been about to lose the lease.
            if !settled && held_since.is_some_and(|since| world.now >= since + 2 * LEASE) {
                (settled, world.elections) = (true, 0);
            }
            prop_assert!(held_since.is_some() || world.now < deadline, "nobody is elected");
        }
        prop_assert_eq!(world.elections, 0, "whoever can renew the lease keeps it");
    }
}

/// Shows that the model is able to find that two may send.
#[test]
fn a_clock_that_stops_in_a_suspend_would_let_two_send() {
    let mut runner = TestRunner::new(Config { cases: 5_000, failure_persistence: None, ..Config::default() });
    let found = runner
        .run(&(rates(100..=100, true), events()), |(rates, events)| World::new(&rates).run(&events, STEP));
    assert!(found.is_err(), "no run of the model has found it");
}

#[test]
fn a_renewal_whose_answer_is_lost_is_found_by_a_look() {
    let (us, other) = (Holder([1; 16]), Holder([2; 16]));
    let second = Duration::from_secs(1);
    let tenure = |holder, count| Tenure { holder: Some(holder), count };
    let mut holding = Holding::new(us, tenure(us, 1), second);
    assert_eq!(holding.step(second), Step::Wait(6 * second));
    assert_eq!(holding.step(6 * second), Step::Renew(tenure(us, 1)));
    holding.note_renewal(Err(NoAnswer), 6 * second);
    assert_eq!(holding.step(6 * second), Step::Wait(7 * second));
    holding.note_renewal(Ok(None), 7 * second);
    assert_eq!(holding.step(7 * second), Step::Look);
    let mut taken = holding.clone();
    taken.note_look(Ok(Some(tenure(other, 2))), 7 * second);
    assert_eq!(taken.step(7 * second), Step::Lost);
    holding.note_look(Ok(Some(tenure(us, 2))), 7 * second);
    assert_eq!((holding.step(7 * second), holding.sends_until()), (Step::Renew(tenure(us, 2)), 15 * second));
    holding.note_renewal(Ok(Some(tenure(us, 3))), 8 * second);
    assert_eq!((holding.step(8 * second), holding.sends_until()), (Step::Wait(13 * second), 22 * second));
    assert_eq!(holding.step(22 * second), Step::Lost);
}
