//! The report on the canary's pushes: for people, for Prometheus, and for CloudWatch.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use functions::cloudwatch_format::line;
use metrics::{Unit, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;

const MISSING: &str = "upwire_canary_missing";
const SECONDS: &str = "upwire_canary_seconds";
const RUN_AT: &str = "upwire_canary_run_timestamp_seconds";

/// The outcome of a run.
#[derive(Debug)]
pub(super) struct Report {
    sent: u32,
    /// The time of each push that arrived, in seconds.
    times: Vec<f64>,
}

impl Report {
    /// Makes a report on `sent` pushes, none of which has arrived.
    pub(super) fn of(sent: u32) -> Self {
        Self { sent, times: Vec::new() }
    }

    pub(super) fn arrived(&mut self, time: Duration) {
        self.times.push(time.as_secs_f64());
    }

    pub(super) fn missing(&self) -> usize {
        self.sent as usize - self.times.len()
    }

    /// Returns the time within which `percent` of the arrived pushes came; `None`: none arrived.
    fn quantile(&self, percent: usize) -> Option<f64> {
        let mut times = self.times.clone();
        times.sort_by(f64::total_cmp);
        let rank = (times.len() * percent).div_ceil(100).max(1);
        times.get(rank - 1).copied()
    }

    fn quantiles(&self) -> Option<(f64, f64)> {
        self.quantile(50).zip(self.quantile(95))
    }

    pub(super) fn print(&self) -> io::Result<()> {
        let arrived = self.times.len();
        match self.quantiles() {
            Some((p50, p95)) => {
                writeln!(io::stdout(), "{arrived} of {} arrived; p50 {p50:.3} s, p95 {p95:.3} s", self.sent)
            }
            None => writeln!(io::stdout(), "none of {} arrived", self.sent),
        }
    }

    /// Replaces the file atomically, so that a reader never finds a part of it.
    pub(super) fn write(&self, file: &Path, at: DateTime<Utc>) -> io::Result<()> {
        let new = file.with_extension("new");
        std::fs::write(&new, self.prometheus(at))?;
        std::fs::rename(new, file)
    }

    fn prometheus(&self, at: DateTime<Utc>) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || self.record(at));
        recorder.handle().render()
    }

    /// Describes the metrics to the recorder, and gives it their values.
    fn record(&self, at: DateTime<Utc>) {
        describe_gauge!(MISSING, "Pushes of the last run that did not arrive");
        describe_gauge!(SECONDS, Unit::Seconds, "Time from the POST of a push to the phone");
        describe_gauge!(RUN_AT, Unit::Seconds, "Unix time at which the last run ended");
        gauge!(MISSING).set(self.missing() as f64);
        if let Some((p50, p95)) = self.quantiles() {
            gauge!(SECONDS, "quantile" => "0.5").set(p50);
            gauge!(SECONDS, "quantile" => "0.95").set(p95);
        }
        gauge!(RUN_AT).set(at.timestamp() as f64);
    }

    pub(super) fn tell(&self, stack: &str, at: DateTime<Utc>) -> io::Result<()> {
        writeln!(io::stdout(), "{}", self.embedded(stack, at))
    }

    fn embedded(&self, stack: &str, at: DateTime<Utc>) -> String {
        let mut metrics = vec![("CanaryMissing", self.missing() as f64)];
        if let Some((p50, p95)) = self.quantiles() {
            metrics.extend([("CanaryP50", p50), ("CanaryP95", p95)]);
        }
        line(stack, &metrics, serde_json::Map::new(), at)
    }
}

/// Describes the metrics to the recorder, with the values of a run.
#[cfg(test)]
pub(crate) fn describe_metrics() {
    let mut report = Report::of(1);
    report.arrived(Duration::from_secs(1));
    report.record(DateTime::UNIX_EPOCH);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn report(sent: u32, times: &[u64]) -> Report {
        let mut report = Report::of(sent);
        times.iter().for_each(|time| report.arrived(Duration::from_millis(*time)));
        report
    }

    #[test]
    fn quantiles_are_those_of_what_arrived() {
        let times: Vec<_> = (1..=20).rev().map(|number| number * 1000).collect();
        assert_eq!(report(20, &times).quantiles(), Some((10.0, 19.0)));
        assert_eq!(report(5, &[250]).quantiles(), Some((0.25, 0.25)));
        assert_eq!(report(5, &[]).quantiles(), None);
    }

    #[test]
    fn what_is_missing_is_told_to_both() {
        let at = DateTime::UNIX_EPOCH;
        let some = report(3, &[500, 250]);
        let text = some.prometheus(at);
        for sample in [
            "\nupwire_canary_seconds{quantile=\"0.5\"} 0.25\n",
            "\nupwire_canary_seconds{quantile=\"0.95\"} 0.5\n",
            "\nupwire_canary_missing 1\n",
        ] {
            assert!(text.contains(sample), "{text}");
        }
        let line: Value = serde_json::from_str(&some.embedded("upwire", at)).unwrap();
        let values = (&line["CanaryMissing"], &line["CanaryP50"], &line["CanaryP95"]);
        assert_eq!(values, (&json!(1.0), &json!(0.25), &json!(0.5)));
        let none = report(3, &[]);
        assert!(none.prometheus(at).contains("upwire_canary_missing 3\n"));
        let line: Value = serde_json::from_str(&none.embedded("upwire", at)).unwrap();
        assert_eq!((&line["CanaryMissing"], line.get("CanaryP50")), (&json!(3.0), None));
    }
}
