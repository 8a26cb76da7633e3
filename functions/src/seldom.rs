//! Log lines that others can cause. Each kind is written at most once a minute, with the number of its occasions.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Shortest time between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(60);

/// One kind of log line, held in a `static` beside the code that writes it. Repeated causes cannot flood the log.
#[derive(Debug)]
pub struct Seldom(Mutex<State>);

#[derive(Debug)]
struct State {
    written: Option<Instant>,
    /// Number of occasions since the last line.
    times: u64,
}

impl Seldom {
    /// Makes a kind without any lines yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(State { written: None, times: 0 }))
    }

    /// Returns the number of occasions since the last line, including this one, if a line is due; otherwise `None`.
    pub fn due(&self) -> Option<u64> {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.times += 1;
        if state.written.is_some_and(|written| now.saturating_duration_since(written) < INTERVAL) {
            return None;
        }
        state.written = Some(now);
        Some(std::mem::take(&mut state.times))
    }
}

impl Default for Seldom {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_once_a_minute_and_counts_those_that_were_not() {
        let (line, start) = (Seldom::new(), Instant::now());
        let at = |seconds| line.due_at(start + Duration::from_secs(seconds));
        assert_eq!(at(0), Some(1));
        assert_eq!([at(1), at(59), at(59)], [None; 3]);
        assert_eq!(at(60), Some(4));
        assert_eq!(at(119), None);
        assert_eq!(at(1000), Some(2));
        assert_eq!(at(900), None, "a moment that was taken earlier");
    }
}
