//! docs/aws/cost.md has the costs that the prices and the counted units yield.

use std::collections::BTreeMap;
use std::env;
use std::fs;

use e2e::prices;
use serde_json::Value;

use super::template::{ROOT, python, translated};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/aws/cost.md");
const BEGIN: &str = "<!-- computed: UPDATE=1 cargo test -p e2e --test e2e -- template_cost -->\n";
const END: &str = "<!-- computed until here -->\n";

#[test]
fn the_page_on_costs_says_what_the_units_cost() {
    let page = fs::read_to_string(PAGE).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    let right = format!("{head}{BEGIN}\n{}\n{END}{tail}", prices::tables());
    if env::var_os("UPDATE").is_some() {
        fs::write(PAGE, &right).unwrap();
    }
    assert_eq!(fs::read_to_string(PAGE).unwrap(), right);
}

/// The known numbers come from a review of AWS's price lists.
#[test]
fn the_computation_agrees_with_what_was_computed_elsewhere() {
    let near = |computed: f64, known: f64| (computed / known - 1.0).abs() < 0.05;
    assert!(near(prices::delivered(1.0), 1.47), "{}", prices::delivered(1.0));
    assert!(near(prices::delivered(10.0), 0.76), "{}", prices::delivered(10.0));
    let (least, most) = (prices::transfer(400), prices::transfer(4096));
    assert!((0.12..0.16).contains(&least) && (0.5..0.65).contains(&most), "{least} {most}");
    for body in [400, 1024] {
        assert!((3.0..9.0).contains(&prices::dropped(body)), "{}", prices::dropped(body));
    }
}

/// Counts the metrics that the alarms under each condition watch; `""`: those of every stack.
fn alarm_metrics(template: &Value) -> BTreeMap<&str, usize> {
    let mut metrics = BTreeMap::new();
    let resources = template["Resources"].as_object().unwrap().values();
    for alarm in resources.filter(|resource| resource["Type"] == "AWS::CloudWatch::Alarm") {
        let watched = alarm["Properties"]["Metrics"].as_array();
        let own = |watched: &Vec<Value>| watched.iter().filter(|one| one.get("MetricStat").is_some()).count();
        *metrics.entry(alarm["Condition"].as_str().unwrap_or_default()).or_default() +=
            watched.map_or(1, own);
    }
    metrics
}

#[test]
fn the_alarms_of_the_template_watch_as_many_metrics_as_the_page_on_costs_counts() {
    let template = translated(&["Deployment=Canary10Percent5Minutes"]);
    let metrics = alarm_metrics(&template);
    assert_eq!(template["Parameters"]["RelayAlarm"]["Default"], "true");
    assert_eq!(metrics[""] + metrics["HasRelayAlarm"], prices::ALARM_METRICS as usize, "{metrics:?}");
    assert_eq!([metrics["HasHeartbeat"], metrics["HasCanary"], metrics["IsGradual"]], [1, 1, 6]);
    assert_eq!(metrics.len(), 5, "{metrics:?}");
    let page = fs::read_to_string(PAGE).unwrap();
    assert!(page.contains("alarms watch one metric more each, a gradual `Deployment` six"));
}

/// Some pages name a price in a sentence.
#[test]
fn sentences_say_the_prices_that_are_computed() {
    let [arm, x86] = prices::tasks().map(|dollars| format!("{dollars:.2}"));
    let address = format!("{:.2}", prices::address());
    let (pushes, metrics) = (prices::canary_pushes(), prices::canary_metrics());
    for (file, sentence) in [
        ("docs/aws/cost.md", format!("each of two tasks costs {arm} (arm64) or {x86} a month")),
        ("docs/aws/cost.md", format!("a public address {address}")),
        ("template.yaml", format!("A public address for the relay ({address} USD a month)")),
        ("docs/aws/deploy.md", format!("in which the secret is; {} USD a month", prices::KMS_KEY)),
        (
            "docs/operations.md",
            format!("five pushes a minute are {pushes:.2} a month, the metrics {metrics:.2}"),
        ),
    ] {
        let text = fs::read_to_string(format!("{ROOT}/{file}")).unwrap();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(&sentence), "{file}: {sentence}");
    }
}

#[test]
fn a_task_on_fargate_and_the_canary_are_as_large_as_they_are_priced() {
    let parse = "import json; from samtranslator.yaml_helper import yaml_parse; \
                 print(json.dumps(yaml_parse(open('infra/fargate.yaml').read())['Resources']['Task']))";
    let task = python(&["-c", parse]);
    let of_1024 = |name: &str| task["Properties"][name].as_str().unwrap().parse::<f64>().unwrap() / 1024.0;
    assert_eq!((of_1024("Cpu"), of_1024("Memory")), prices::TASK);
}
