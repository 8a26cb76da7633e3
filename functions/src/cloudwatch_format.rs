//! Metrics as CloudWatch finds them in a log: its embedded metric format, a line of JSON. A metric that is not sent
//! costs nothing, a line as much as any other of the log.

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
/// Their only dimension: each metric costs by the number of its values.
const DIMENSION: &str = "Stack";
/// At most one line in this time.
const INTERVAL: TimeDelta = TimeDelta::minutes(1);
/// Refusals that are no fault of the sender.
const UNAVAILABLE: [&str; 3] = ["unavailable", "in_doubt", "panicked"];

/// A line that gives these metrics of a stack to CloudWatch, and in `rest` what is for readers of the log alone.
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

/// The name of a counter, and its reason, if it has one.
type Name = (String, String);

/// Counts, in an environment that is frozen between requests: what there is to tell is told at the end of one.
#[derive(Debug, Clone)]
pub struct Totals(Arc<State>);

#[derive(Debug)]
struct State {
    stack: String,
    counts: Mutex<BTreeMap<Name, Arc<AtomicU64>>>,
    told_at: Mutex<Option<DateTime<Utc>>>,
}

impl Totals {
    /// Of an environment of this stack.
    #[must_use]
    pub fn of(stack: String) -> Self {
        Self(Arc::new(State { stack, counts: Mutex::default(), told_at: Mutex::default() }))
    }

    /// Counts what the ingress counts, from now on.
    ///
    /// # Errors
    /// Something else does already.
    pub fn install(&self) -> Result<(), impl std::error::Error + Send + Sync + 'static + use<>> {
        metrics::set_global_recorder(self.clone())
    }

    /// Writes a line to stdout, unless it has done so within the last minute.
    pub fn tell(&self, now: DateTime<Utc>) {
        if let Some(line) = self.due(now) {
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    }

    /// The line that is due, if one is.
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

    // The ingress has neither.
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
