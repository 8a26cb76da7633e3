//! The delays before a lost stream is tried again, and the choice of failures that are reported.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;

const DELAY_MIN: Duration = Duration::from_millis(250);
/// Longest delay before jitter, which at most doubles it.
const DELAY_MAX: Duration = Duration::from_secs(6);
/// Longest delay before jitter on this machine, where an attempt costs nothing. Phones come back as soon as their port
/// opens, and the port for components opens last. A component that is back by then hears their presence.
const DELAY_HERE_MAX: Duration = Duration::from_millis(1250);
/// A stream that held for this long resets the delays.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// Most reports of one failure before they become rarer.
const TOLD_MAX: u32 = 5;
/// Time after which a failure that goes on is reported again.
const TOLD_INTERVAL: Duration = Duration::from_secs(30);

/// Longest time for a server that stopped in good order to be back.
const RESTART_MAX: Duration = Duration::from_secs(30);

/// The delays between attempts to connect, and the reports of failures.
pub(super) struct Reconnect {
    delays: ExponentialBuilder,
    delay: <ExponentialBuilder as BackoffBuilder>::Backoff,
    told: u32,
    last: Option<(String, Instant)>,
    restart_until: Option<Instant>,
}

impl Reconnect {
    /// Makes the delays for a server on this machine, or elsewhere.
    pub(super) fn new(here: bool) -> Self {
        let delays = ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(DELAY_MIN)
            .with_max_delay(if here { DELAY_HERE_MAX } else { DELAY_MAX })
            .without_max_times();
        Self { delays, delay: delays.build(), told: 0, last: None, restart_until: None }
    }

    /// Notes that a stream has ended that held for this long.
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

    /// Notes that the server stopped in good order. Returns `false` if it did so less than 30 s ago, too: that is no
    /// restart.
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

    /// Notes a failure. Returns whether it is to be reported: one that goes on is reported now and then.
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

    /// Returns the longest of many delays.
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
