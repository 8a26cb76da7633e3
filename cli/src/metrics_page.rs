//! Compares the tables of docs/operations.md with the metrics that each process describes and sets at its start.
//! `UPDATE=1 cargo test -p upwire metrics_page` rewrites the tables.

use std::collections::BTreeMap;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use parking_lot::Mutex;

use crate::docs_page::DocsPage;
use crate::{canary, relay, serve};

const PAGE: DocsPage = DocsPage::new("operations.md", "metrics_page");
const BEGIN: &str = "<!-- generated: UPDATE=1 cargo test -p upwire metrics_page -->\n";
const END: &str = "<!-- generated until here -->\n";

/// A metric by its description.
#[derive(Debug, Clone, PartialEq)]
struct Metric {
    name: String,
    kind: String,
    meaning: String,
    /// The values of each label, in the order of the series.
    labels: BTreeMap<String, Vec<String>>,
}

impl Metric {
    fn note(&mut self, label: &str, value: &str) {
        let values = self.labels.entry(label.to_owned()).or_default();
        if !values.iter().any(|known| known == value) {
            values.push(value.to_owned());
        }
    }

    fn row(&self) -> String {
        let Self { name, kind, meaning, labels } = self;
        let names = labels.keys().map(String::as_str).collect::<Vec<_>>().join(",");
        let names = if names.is_empty() { names } else { format!("{{{names}}}") };
        let values = labels.iter().map(|(label, values)| format!(". `{label}`: `{}`", values.join("`, `")));
        format!("| `{name}{names}` | {kind} | {meaning}{} |\n", values.collect::<String>())
    }
}

/// Records the descriptions, and the series.
#[derive(Default)]
struct Descriptions(Mutex<Vec<Metric>>);

impl Descriptions {
    fn describe(&self, kind: &str, name: &KeyName, unit: Option<Unit>, meaning: &str) {
        let kind = unit.map_or(kind.to_owned(), |unit| format!("{kind}, {}", unit.as_str()));
        let (name, meaning) = (name.as_str().to_owned(), meaning.to_owned());
        self.0.lock().push(Metric { name, kind, meaning, labels: BTreeMap::new() });
    }

    fn register(&self, key: &Key) {
        let mut metrics = self.0.lock();
        let metric = metrics.iter_mut().find(|metric| metric.name == key.name());
        let metric = metric.unwrap_or_else(|| panic!("{} is counted, and not described", key.name()));
        key.labels().for_each(|label| metric.note(label.key(), label.value()));
    }
}

impl Recorder for Descriptions {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.describe("counter", &name, unit, &meaning);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.describe("gauge", &name, unit, &meaning);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.describe("histogram", &name, unit, &meaning);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.register(key);
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.register(key);
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.register(key);
        Histogram::noop()
    }
}

fn described_by(describe: fn()) -> Vec<Metric> {
    let descriptions = Descriptions::default();
    metrics::with_local_recorder(&descriptions, describe);
    descriptions.0.into_inner()
}

/// Returns the tables, by the processes that have the metrics.
fn tables() -> String {
    let of_relay = described_by(relay::describe_metrics);
    let of_serve = described_by(serve::describe_metrics);
    let (of_both, of_serve): (Vec<_>, _) = of_serve.into_iter().partition(|metric| of_relay.contains(metric));
    let of_relay = of_relay.into_iter().filter(|metric| !of_both.contains(metric)).collect();
    [
        table("`upwire serve` alone has:", of_serve),
        table("`upwire serve` and `upwire relay` have:", of_both),
        table("`upwire relay` alone has:", of_relay),
        table(
            "`upwire canary` writes ([A push each minute](#a-push-each-minute)):",
            described_by(canary::describe_metrics),
        ),
    ]
    .concat()
}

fn table(lead: &str, metrics: Vec<Metric>) -> String {
    let rows: String = metrics.iter().map(Metric::row).collect();
    format!("{lead}\n\n| metric | kind | meaning |\n| --- | --- | --- |\n{rows}\n")
}

#[test]
fn the_page_of_the_metrics_has_each_as_it_is_described() {
    let page = PAGE.text();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    PAGE.assert_is(&format!("{head}{BEGIN}\n{}{END}{tail}", tables()));
}
