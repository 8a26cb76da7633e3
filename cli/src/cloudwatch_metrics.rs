//! The relay's metrics for CloudWatch: one line a minute to stdout, in the embedded metric format.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use chrono::{DateTime, Utc};
use functions::cloudwatch_format::line;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::{MissedTickBehavior, interval};

const INTERVAL: Duration = Duration::from_secs(60);

const STREAM_UP: &str = "upwire_xmpp_stream_up";
/// Counters whose growth since the last line is in each line.
const GROWTH: [(&str, &str); 5] = [
    ("Delivered", "upwire_pushes_delivered_total"),
    ("Kept", "upwire_mailbox_kept_total"),
    ("Dropped", "upwire_mailbox_dropped_total"),
    ("Expired", "upwire_pushes_expired_total"),
    ("Reconnects", "upwire_xmpp_reconnects_total"),
];

/// The values at the last line.
type Values = BTreeMap<String, f64>;

/// Writes a line a minute for this stack, until the future is dropped.
pub(crate) async fn tell(stack: String, metrics: PrometheusHandle, active: &str) {
    let (mut ticks, mut last) = (interval(INTERVAL), Values::new());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let values = values(&metrics.render());
        let _ = writeln!(std::io::stdout(), "{}", minute(&stack, &values, &last, active, now()));
        last = values;
    }
}

fn minute(stack: &str, values: &Values, last: &Values, active: &str, at: DateTime<Utc>) -> String {
    let value = |values: &Values, name: &str| values.get(name).copied().unwrap_or(0.0);
    // Of several relays, only the active one beats. The alarm takes the maximum of their heartbeats.
    let beats = value(values, active) > 0.0 && value(values, STREAM_UP) > 0.0;
    let mut metrics = vec![("Heartbeat", if beats { 1.0 } else { 0.0 })];
    metrics.extend(GROWTH.map(|(metric, name)| (metric, value(values, name) - value(last, name))));
    line(stack, &metrics, serde_json::Map::new(), at)
}

/// Reads the samples without labels from the text for Prometheus.
fn values(text: &str) -> Values {
    let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    samples.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

#[expect(clippy::disallowed_methods, reason = "the metrics are of this moment")]
fn now() -> DateTime<Utc> {
    Utc::now()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const TEXT: &str = "# TYPE upwire_pushes_delivered_total counter\nupwire_pushes_delivered_total 7\n\n\
        upwire_xmpp_stream_up 1\nupwire_relay_active 1\nupwire_pushes_refused_total{reason=\"gone\"} 3\n";

    #[test]
    fn a_heartbeat_is_an_active_relay_with_a_stream_and_counts_are_those_of_the_minute() {
        let at = DateTime::UNIX_EPOCH;
        let told = |values: &Values, last: &Values| -> Value {
            serde_json::from_str(&minute("upwire", values, last, "upwire_relay_active", at)).unwrap()
        };
        let first = values(TEXT);
        let line = told(&first, &Values::new());
        assert_eq!(
            (&line["Heartbeat"], &line["Delivered"], &line["Stack"]),
            (&1.0.into(), &7.0.into(), &"upwire".into())
        );
        let second = values(&TEXT.replace("total 7", "total 9").replace("stream_up 1", "stream_up 0"));
        let line = told(&second, &first);
        assert_eq!(
            (&line["Heartbeat"], &line["Delivered"], &line["Kept"]),
            (&0.0.into(), &2.0.into(), &0.0.into())
        );
    }
}
