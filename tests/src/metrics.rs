//! The counters and gauges of a running `upwire`. They move a moment after the events that they count, so a test waits
//! for a value, and cannot read one.

use std::time::Duration;

use crate::upwire::Upwire;
use crate::{http, wait::settles};

/// Longest wait for a value. Generous: two cores run servers, clients and other tests at once, and delays of retries
/// add up.
const DEADLINE: Duration = Duration::from_secs(120);

impl Upwire {
    /// Waits until a metric has this value, summed over all its label sets; 0 if it is missing. Fails at once if a
    /// counter has passed the value, because it never falls.
    pub async fn metric_is(&self, name: &str, value: f64) {
        self.metric_is_where(name, &[], value).await;
    }

    /// Waits for a value as `metric_is` does, summed over the label sets that contain all these pairs.
    pub async fn metric_is_where(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let counts = ["_total", "_count"].iter().any(|suffix| name.ends_with(suffix));
        self.metric_settles(name, labels, &format!("is {value}"), |seen| {
            assert!(!counts || seen <= value, "{name} {labels:?} of {self:?}: {seen}, more than {value}");
            seen == value
        })
        .await;
    }

    /// Waits until a metric has reached this value. Returns its value then.
    pub async fn metric_reaches(&self, name: &str, value: f64) -> f64 {
        self.metric_settles(name, &[], &format!("reaches {value}"), |seen| seen >= value).await
    }

    /// Waits until `holds` is true of a metric, and returns its value. `what` says so in words.
    pub async fn metric_becomes(&self, name: &str, what: &str, holds: impl FnMut(f64) -> bool) -> f64 {
        self.metric_settles(name, &[], what, holds).await
    }

    /// Asserts that a counter has never moved. This proves something only after an event that comes later than the
    /// count would.
    pub async fn never_counted(&self, name: &str) {
        self.never_counted_where(name, &[]).await;
    }

    /// Asserts the same as `never_counted`, of the label sets that contain all these pairs.
    pub async fn never_counted_where(&self, name: &str, labels: &[(&str, &str)]) {
        let seen = self.read(name, labels).await;
        assert!(seen == 0.0, "{name} {labels:?} of {self:?}: {seen}, and should never have moved");
    }

    /// Waits until this number of pushes waits in the mailbox.
    pub async fn mailbox_holds(&self, count: usize) {
        self.metric_is("upwire_mailbox_depth", count as f64).await;
    }

    /// Waits until the queue is empty: the fate of every push is durable, or the push waits in the mailbox.
    pub async fn queue_empties(&self) {
        self.metric_is("upwire_queue_depth", 0.0).await;
    }

    /// Returns a metric as it is now, for a benchmark. A test must not judge by it.
    pub async fn measure(&self, name: &str) -> f64 {
        self.read(name, &[]).await
    }

    async fn metric_settles(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        what: &str,
        mut holds: impl FnMut(f64) -> bool,
    ) -> f64 {
        let what = format!("{name} {labels:?} of {self:?} {what}");
        settles(DEADLINE, &what, async || self.read(name, labels).await, |seen| holds(*seen)).await
    }

    async fn read(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let response = http::get(&format!("{}/metrics", self.admin_url)).await;
        sum(&response.text(), name, labels)
    }
}

/// Sums a metric of Prometheus' text format: one `name{label="value",…} number` on each line.
fn sum(metrics: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    metrics
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| series.split('{').next() == Some(name))
        .filter(|(series, _)| {
            labels.iter().all(|(label, value)| series.contains(&format!("{label}=\"{value}\"")))
        })
        .map(|(_, value)| value.parse::<f64>().expect("a metric's value is a number"))
        .sum()
}
