//! Metrics in the embedded metric format of CloudWatch: lines of JSON in the log. A line costs as much as any other of
//! the log; a metric that is not sent costs nothing.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use chrono::{DateTime, TimeDelta, Utc};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use serde_json::{Map, Value, json};

use crate::measures::{ACCEPTED, DOUBTED, REFUSED, SHED, WITHDRAWN};

/// The namespace of the metrics.
const NAMESPACE: &str = "Upwire";
/// The only dimension. CloudWatch bills each value of a dimension as a metric of its own.
const DIMENSION: &str = "Stack";
/// Shortest time between two lines.
const INTERVAL: TimeDelta = TimeDelta::minutes(1);
/// Reasons of refusals that are not the sender's fault.
const UNAVAILABLE: [&str; 3] = ["unavailable", "in_doubt", "panicked"];

/// Returns a line that gives these metrics of a stack to CloudWatch. The fields in `rest` are for readers of the log
/// alone.
#[must_use]
pub fn line(stack: &str, metrics: &[(&str, f64)], rest: Map<String, Value>, at: DateTime<Utc>) -> String {
    let names: Vec<_> = metrics.iter().map(|(name, _)| json!({"Name": name})).collect();
    let mut line = rest;
    line.insert(
        "_aws".into(),
        json!({
            "Timestamp": at.timestamp_millis(),
            "CloudWatchMetrics": [{"Namespace": NAMESPACE, "Dimensions": [[DIMENSION]], "Metrics": names}],
        }),
    );
    line.insert(DIMENSION.into(), stack.into());
    line.extend(metrics.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
    Value::Object(line).to_string()
}

/// The name of a counter, and its label `reason`, or an empty text.
type Name = (String, String);

/// Counters for an environment that Lambda freezes between requests. They are written at the end of a request.
#[derive(Debug, Clone)]
pub struct Totals(Arc<State>);

#[derive(Debug)]
struct State {
    stack: String,
    counts: Mutex<BTreeMap<Name, Arc<AtomicU64>>>,
    told_at: Mutex<Option<DateTime<Utc>>>,
}

impl Totals {
    /// Makes counters of this stack, at 0.
    #[must_use]
    pub fn of(stack: String) -> Self {
        Self(Arc::new(State { stack, counts: Mutex::default(), told_at: Mutex::default() }))
    }

    /// Makes these counters the process's recorder of metrics.
    ///
    /// # Errors
    /// Another recorder is installed already.
    pub fn install(&self) -> Result<(), impl std::error::Error + Send + Sync + 'static + use<>> {
        metrics::set_global_recorder(self.clone())
    }

    /// Writes a line to stdout, unless it wrote one within the last minute.
    pub fn tell(&self, now: DateTime<Utc>) {
        if let Some(line) = self.due(now) {
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    }

    /// Returns the line, if one is due.
    fn due(&self, now: DateTime<Utc>) -> Option<String> {
        let mut told_at = self.0.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        if told_at.is_some_and(|told_at| now - told_at < INTERVAL) {
            return None;
        }
        *told_at = Some(now);
        Some(self.line(now))
    }

    fn line(&self, now: DateTime<Utc>) -> String {
        let counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let counts: Vec<_> = counts
            .iter()
            .map(|((name, reason), count)| (name.as_str(), reason.as_str(), count.swap(0, Relaxed)))
            .filter(|(_, _, count)| *count > 0)
            .collect();
        let of = |wanted: &str, counts_in: &dyn Fn(&str) -> bool| {
            let counted = counts.iter().filter(|(name, reason, _)| *name == wanted && counts_in(reason));
            counted.map(|(_, _, count)| *count as f64).sum::<f64>()
        };
        let is_ours = |reason: &str| UNAVAILABLE.contains(&reason);
        let metrics = [
            ("Accepted", of(ACCEPTED, &|_| true)),
            ("Withdrawn", of(WITHDRAWN, &|_| true)),
            ("Refused", of(REFUSED, &|reason| !is_ours(reason))),
            ("Unavailable", of(REFUSED, &is_ours)),
            ("Doubted", of(DOUBTED, &|_| true)),
            ("Shed", of(SHED, &|_| true)),
        ];
        let reasons = counts.iter().filter(|(_, reason, _)| !reason.is_empty());
        let reasons = reasons.fold(Map::<String, Value>::new(), |mut all, (name, reason, count)| {
            let kind = if *name == DOUBTED { "doubted" } else { "refused" };
            let kind = all.entry(kind).or_insert_with(|| json!({}));
            kind[*reason] = json!(count);
            all
        });
        line(&self.0.stack, &metrics, reasons, now)
    }
}

impl Recorder for Totals {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let reason = key.labels().find(|label| label.key() == "reason").map_or("", |label| label.value());
        let name = (key.name().to_owned(), reason.to_owned());
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        Counter::from_arc(Arc::clone(counts.entry(name).or_default()))
    }

    // The ingress has no gauges and no histograms.
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[cfg(test)]
mod tests {
    use metrics::counter;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn a_line_a_minute_tells_what_was_counted_since_the_last() {
        let totals = Totals::of("upwire".into());
        metrics::with_local_recorder(&totals, || {
            counter!(ACCEPTED).increment(2);
            counter!(REFUSED, "reason" => "gone").increment(3);
            counter!(REFUSED, "reason" => "throttled").increment(1);
            counter!(REFUSED, "reason" => "unavailable").increment(4);
            counter!(DOUBTED, "reason" => "secrets").increment(4);
        });
        let line: Value = serde_json::from_str(&totals.due(at(0)).unwrap()).unwrap();
        let expected = json!({
            "_aws": {"Timestamp": 1_800_000_000_000_u64, "CloudWatchMetrics": [{
                "Namespace": "Upwire", "Dimensions": [["Stack"]],
                "Metrics": [{"Name": "Accepted"}, {"Name": "Withdrawn"}, {"Name": "Refused"}, {"Name": "Unavailable"},
                    {"Name": "Doubted"}, {"Name": "Shed"}],
            }]},
            "Stack": "upwire", "Accepted": 2.0, "Withdrawn": 0.0, "Refused": 4.0, "Unavailable": 4.0, "Doubted": 4.0, "Shed": 0.0,
            "refused": {"gone": 3, "throttled": 1, "unavailable": 4}, "doubted": {"secrets": 4},
        });
        assert_eq!(line, expected);

        metrics::with_local_recorder(&totals, || counter!(ACCEPTED).increment(1));
        assert_eq!(totals.due(at(59)), None);
        let line: Value = serde_json::from_str(&totals.due(at(60)).unwrap()).unwrap();
        assert_eq!(
            (&line["Accepted"], &line["Refused"], line.get("refused")),
            (&json!(1.0), &json!(0.0), None)
        );
    }
}
