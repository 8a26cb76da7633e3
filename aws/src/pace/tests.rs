//! The pace against a simulated queue whose answers are short.

use std::collections::VecDeque;

use super::*;

/// Round trip to SQS, in milliseconds.
const ROUND_TRIP: u64 = 12;
const SIMULATED: u64 = 60_000;
const POLL: u64 = 20_000;

/// The size of answers: short ones from a queue with less than a thousand entries, whole ones from a queue with more.
#[derive(Clone, Copy)]
enum Answers {
    Short,
    Whole,
}

struct Outcome {
    /// Wait of entries in milliseconds: the median, and the 99th percentile.
    p50: u64,
    p99: u64,
    polls_per_entry: f64,
    left: usize,
    polls_most: usize,
}

/// Returns a pseudorandom number.
fn chance(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// Simulates one minute in steps of a millisecond, with `rate` entries a second. Our clock is ahead by `skew`
/// milliseconds.
fn simulate(rate: u64, answers: Answers, skew: i64, backlog: usize) -> Outcome {
    let (mut pace, mut seed) = (Pace::new(), rate);
    let mut queue: VecDeque<u64> = std::iter::repeat_n(0, backlog).collect();
    // The time at which each poll reaches the queue.
    let mut polls: Vec<u64> = vec![0];
    // For each answer: the time of its arrival, the time at which its poll began, and the times at which its entries
    // were sent.
    let mut under_way: Vec<(u64, u64, Vec<u64>)> = Vec::new();
    let (mut next, mut waits, mut made, mut most, mut due) = (0, Vec::new(), 1, 1, 0.0);
    for now in 1..=SIMULATED {
        due += rate as f64 / 1000.0 * (chance(&mut seed) % 200) as f64 / 99.5;
        while due >= 1.0 {
            due -= 1.0;
            queue.push_back(now);
        }
        polls.retain(|began| {
            let is_there = now >= began + ROUND_TRIP / 2;
            if !is_there || queue.is_empty() && now < began + POLL {
                return true;
            }
            let most = match answers {
                Answers::Short => 1 + (chance(&mut seed) % 3) as usize,
                Answers::Whole => BATCH_MAX,
            };
            let entries = queue.drain(..most.min(queue.len())).collect();
            under_way.push((now + ROUND_TRIP / 2, *began, entries));
            false
        });
        under_way.retain(|(at, began, entries)| {
            if now < *at {
                return true;
            }
            let age = |sent: &u64| TimeDelta::milliseconds((now - sent) as i64 + skew);
            let gist = Gist {
                entries: entries.len(),
                took: Duration::from_millis(now - began),
                ages: entries.first().map(age).zip(entries.last().map(age)),
            };
            let delay = pace.note(gist).as_millis() as u64;
            if delay > 0 {
                next = now + delay;
            }
            waits.extend(entries.iter().map(|sent| now - sent));
            false
        });
        while polls.len() + under_way.len() < pace.wanted() {
            polls.push(now.max(next));
            made += 1;
        }
        most = most.max(polls.len() + under_way.len());
    }
    waits.sort_unstable();
    let at = |percent: usize| waits.get(waits.len() * percent / 100).copied().unwrap_or(0);
    let polls_per_entry = f64::from(made) / waits.len() as f64;
    Outcome { p50: at(50), p99: at(99), polls_per_entry, left: queue.len(), polls_most: most }
}

#[test]
fn short_answers_do_not_hold_up_what_comes() {
    for (rate, polls_per_entry) in [(5, 1.1), (50, 0.65), (150, 0.65), (500, 0.65)] {
        let outcome = simulate(rate, Answers::Short, 0, 0);
        let Outcome { p50, p99, polls_per_entry: polls, left, .. } = outcome;
        assert!(p50 <= 150 && p99 <= 300, "{rate}/s: {p50} ms, {p99} ms");
        assert!(polls <= polls_per_entry, "{rate}/s: {polls}");
        assert!(left <= 150, "{rate}/s: {left} are left");
    }
}

#[test]
fn whole_answers_cost_less_the_more_comes() {
    for (rate, polls_per_entry) in [(5, 1.1), (50, 0.5), (150, 0.3), (500, 0.25)] {
        let Outcome { p99, polls_per_entry: polls, .. } = simulate(rate, Answers::Whole, 0, 0);
        assert!(p99 <= 200, "{rate}/s: {p99} ms");
        assert!(polls <= polls_per_entry, "{rate}/s: {polls}");
    }
}

#[test]
fn a_clock_that_is_wrong_costs_neither_time_nor_polls_for_long() {
    for skew in [-5000, 5000] {
        for rate in [2, 50, 500] {
            let Outcome { p99, polls_per_entry, left, .. } = simulate(rate, Answers::Short, skew, 0);
            assert!(p99 <= 400 && left <= 150, "{skew} ms, {rate}/s: {p99} ms, {left} are left");
            assert!(polls_per_entry <= 1.3, "{skew} ms, {rate}/s: {polls_per_entry}");
        }
    }
}

#[test]
fn what_has_waited_while_no_relay_ran_is_taken_by_many_polls_at_once() {
    let Outcome { polls_most, left, .. } = simulate(5, Answers::Short, 0, 900);
    assert!(polls_most == POLLS_MAX && left <= 5, "{polls_most} polls, {left} are left");
}

#[test]
fn an_idle_queue_has_one_poll() {
    let mut pace = Pace::new();
    for _ in 0..5 {
        pace.note(Gist { entries: BATCH_MAX, ..Gist::default() });
    }
    assert_eq!(pace.wanted(), 6);
    pace.note(Gist::default());
    assert_eq!(pace.wanted(), 1);
    pace.note(Gist { entries: BATCH_MAX, ..Gist::default() });
    pace.failed();
    assert_eq!(pace.wanted(), 1);
}
