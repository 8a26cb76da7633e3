//! A bound for each kind of log line, so that lines that others cause cannot fill the disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, interval};
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Most lines that one place in the code writes within [`INTERVAL`]. Debug and trace have no bound, since the operator
/// asked for them.
const LINES_MAX: u64 = 30;
const INTERVAL: Duration = Duration::from_secs(60);

/// Lines written within this interval, by the place that writes them. The number of places in the code is bounded.
#[derive(Debug, Clone, Default)]
pub(super) struct Written(Arc<Mutex<HashMap<Identifier, Lines>>>);

#[derive(Debug)]
struct Lines {
    of: &'static Metadata<'static>,
    since: Instant,
    written: u64,
    left_out: u64,
}

impl Written {
    /// Counts a line. Returns whether it is written.
    fn note(&self, of: &'static Metadata<'static>, now: Instant) -> bool {
        let mut places = self.0.lock();
        let lines = places.entry(of.callsite()).or_insert(Lines { of, since: now, written: 0, left_out: 0 });
        if now.duration_since(lines.since) >= INTERVAL {
            (lines.since, lines.written) = (now, 0);
        }
        if lines.written >= LINES_MAX {
            lines.left_out += 1;
            return false;
        }
        lines.written += 1;
        true
    }

    /// Returns the number of lines left out since the last call, for each place.
    fn left_out(&self) -> Vec<(u64, &'static Metadata<'static>)> {
        let mut places = self.0.lock();
        let left_out = places.values_mut().filter(|lines| lines.left_out > 0);
        left_out.map(|lines| (std::mem::take(&mut lines.left_out), lines.of)).collect()
    }

    /// Logs each minute the lines that were left out.
    pub(super) async fn report(self) {
        let mut interval = interval(INTERVAL);
        loop {
            interval.tick().await;
            for (count, of) in self.left_out() {
                tracing::warn!(
                    count,
                    of = of.target(),
                    line = of.line(),
                    "lines like those before were left out: more than {LINES_MAX} came within a minute"
                );
            }
        }
    }
}

/// The bound is a layer of the whole subscriber. A filter of one layer may not drop an event here, since its state in
/// tracing-subscriber would be left over.
impl<S: Subscriber> Layer<S> for Written {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        *event.metadata().level() > Level::INFO || self.note(event.metadata(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Result, Write};

    use tracing_subscriber::filter::LevelFilter;
    use tracing_subscriber::fmt;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_of_line_has_a_bound_and_what_is_left_out_is_counted() {
        let (log, written) = (Log::default(), Written::default());
        let made = log.clone();
        let layer =
            fmt::layer().with_ansi(false).with_writer(move || made.clone()).with_filter(LevelFilter::DEBUG);
        let subscriber = tracing_subscriber::registry().with(layer).with(written.clone());
        let _here = tracing::subscriber::set_default(subscriber);
        let flood = || {
            for push in 0..4497 {
                tracing::error!(push, "not accepted");
                tracing::debug!(push, "asked for");
            }
            tracing::error!("another kind");
        };
        let count = |text: &str| String::from_utf8(log.0.lock().clone()).unwrap().matches(text).count();
        flood();
        assert_eq!((count("not accepted"), count("asked for"), count("another kind")), (30, 4497, 1));
        tokio::time::advance(INTERVAL).await;
        flood();
        assert_eq!((count("not accepted"), count("another kind")), (60, 2));
        let reporting = tokio::spawn(written.report());
        tokio::task::yield_now().await;
        assert_eq!(count("count=8934"), 1, "{}", String::from_utf8_lossy(&log.0.lock()));
        tokio::time::advance(INTERVAL * 2).await;
        tokio::task::yield_now().await;
        assert_eq!(count("were left out"), 1);
        reporting.abort();
    }
}
