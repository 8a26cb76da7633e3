//! Runs the first seeds with all other tests, as many as 30 s hold.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use simulator::{Plan, run};

/// Time after which no further seed begins, once the least number has begun.
const LENGTH: Duration = Duration::from_secs(30);
/// Least number of seeds that run.
const SEEDS_MIN: u64 = 100;
/// Most seeds that run.
const SEEDS_MAX: u64 = 1000;
const THREADS: usize = 2;

#[test]
fn the_first_seeds_violate_no_invariant() {
    let (next, shown) = (AtomicU64::new(1), AtomicUsize::new(0));
    let until = Instant::now() + LENGTH;
    let failures: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let mut failures = Vec::new();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed > SEEDS_MAX || seed > SEEDS_MIN && Instant::now() >= until {
                            return failures;
                        }
                        let outcome = run(&Plan::of(seed));
                        shown.fetch_add(outcome.shown, Ordering::Relaxed);
                        let violation = outcome.violation;
                        failures.extend(violation.map(|violation| format!("seed {seed}: {violation:?}")));
                    }
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(shown.into_inner() > 0, "something is delivered");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [2, 3, 5, 8, 13] {
        let plan = Plan::of(seed);
        let (one, other) = (run(&plan), run(&plan));
        assert_eq!((one.hash, one.events), (other.hash, other.events), "seed {seed}");
        assert!(one.events > 100, "seed {seed}");
    }
}
