//! When a stream that was lost is tried again, and which failures are told.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;

const DELAY_MIN: Duration = Duration::from_millis(250);
/// Jitter adds as much again at most.
const DELAY_MAX: Duration = Duration::from_secs(6);
/// The same on this machine, where an attempt costs nothing. Phones come back as soon as their port opens, and the port
/// for components opens last: their presence is heard by a component that is there by then.
const DELAY_HERE_MAX: Duration = Duration::from_millis(1250);
/// A stream that held for so long starts the delays anew.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// Most failures that are told one by one.
const TOLD_MAX: u32 = 5;
/// Time after which a failure that goes on is told again.
const TOLD_INTERVAL: Duration = Duration::from_secs(30);

/// A server that stopped in good order may take so long to be back.
const RESTART_MAX: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Reconnect {
    delays: ExponentialBuilder,
    delay: <ExponentialBuilder as BackoffBuilder>::Backoff,
    told: u32,
    last: Option<(String, Instant)>,
    restart_until: Option<Instant>,
}

impl Reconnect {
    /// For a server on this machine, or elsewhere.
    pub(super) fn new(here: bool) -> Self {
        let delays = ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(DELAY_MIN)
            .with_max_delay(if here { DELAY_HERE_MAX } else { DELAY_MAX })
            .without_max_times();
        Self { delays, delay: delays.build(), told: 0, last: None, restart_until: None }
    }

    /// A stream has ended that held for so long.
    pub(super) fn note_stream(&mut self, held: Duration) {
        if held >= STABLE_AFTER {
            self.delay = self.delays.build();
            self.told = 0;
        }
    }

    /// Returns the delay before the next attempt.
    pub(super) fn next_delay(&mut self) -> Duration {
        self.delay.next().unwrap_or(DELAY_MAX)
    }

    /// Notes that the server stopped in good order. `false`: it did so just now, too, and that is no restart.
    pub(super) fn note_stop(&mut self, now: Instant) -> bool {
        let first = !self.is_restart(now);
        if first {
            self.restart_until = Some(now + RESTART_MAX);
        }
        first
    }

    /// Returns whether the server may be restarting.
    pub(super) fn is_restart(&self, now: Instant) -> bool {
        self.restart_until.is_some_and(|until| now < until)
    }

    /// Notes a failure. Returns whether it is to be told: one that goes on is told now and then.
    pub(super) fn note_failure(&mut self, error: &str, now: Instant) -> bool {
        let recurs = self.last.as_ref().is_some_and(|(last, at)| last == error && now < *at + TOLD_INTERVAL);
        if recurs && self.told >= TOLD_MAX {
            return false;
        }
        self.told = if recurs { self.told + 1 } else { self.told.max(1) };
        self.last = Some((error.to_owned(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest of many delays.
    fn longest(here: bool) -> Duration {
        let mut reconnect = Reconnect::new(here);
        (0..1000).map(|_| reconnect.next_delay()).max().unwrap()
    }

    #[test]
    fn a_port_that_opens_is_found_soon() {
        let here = longest(true);
        assert!(here > DELAY_HERE_MAX && here < Duration::from_secs(3), "{here:?}");
        // A connection that is under way when the port opens finds it within 3 s more: a lost SYN is sent again.
        let elsewhere = longest(false);
        assert!(elsewhere > DELAY_MAX && elsewhere <= Duration::from_secs(12), "{elsewhere:?}");
    }

    #[test]
    fn delays_grow_until_a_stream_has_held() {
        let mut reconnect = Reconnect::new(false);
        assert!(reconnect.next_delay() <= 2 * DELAY_MIN);
        let late = (0..20).map(|_| reconnect.next_delay()).last().unwrap();
        assert!(late >= DELAY_MAX);
        reconnect.note_stream(STABLE_AFTER / 2);
        assert!(reconnect.next_delay() >= DELAY_MAX);
        reconnect.note_stream(STABLE_AFTER);
        assert!(reconnect.next_delay() <= 2 * DELAY_MIN);
    }

    #[test]
    fn a_stop_in_order_is_a_restart_for_a_while() {
        let (mut reconnect, start) = (Reconnect::new(true), Instant::now());
        assert!(!reconnect.is_restart(start));
        assert!(reconnect.note_stop(start));
        assert!(reconnect.is_restart(start + RESTART_MAX / 2));
        assert!(!reconnect.note_stop(start + RESTART_MAX / 2), "a stream that ends each time is a failure");
        assert!(!reconnect.is_restart(start + RESTART_MAX));
        assert!(reconnect.note_stop(start + 2 * RESTART_MAX));
    }

    #[tokio::test]
    async fn a_failure_that_goes_on_is_told_now_and_then_and_another_one_at_once() {
        let (mut reconnect, start) = (Reconnect::new(true), Instant::now());
        let mut told = |error, seconds| reconnect.note_failure(error, start + Duration::from_secs(seconds));
        let first: Vec<bool> = (0..8).map(|second| told("refused", second)).collect();
        assert_eq!(first, [true, true, true, true, true, false, false, false]);
        assert!(told("conflict", 9));
        assert!(!told("conflict", 20));
        assert!(told("conflict", 39));
        assert!(!told("conflict", 60));
        assert!(told("conflict", 69));
    }
}
