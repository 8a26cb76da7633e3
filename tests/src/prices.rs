//! The bill of AWS: list prices times units. `make bench-cloud` counts the calls. End-to-end tests read the units of
//! the mailbox off DynamoDB's answers.

use std::fmt::Write;

use chrono::{DateTime, TimeDelta};
use push::{
    Application, Body, Instance, MessageId, PushMessage, Registration, Target, Ttl, Urgency, message::Wishes,
};

/// Price of a million invocations of the function. All prices are US dollars in us-east-1 without free tiers, as
/// aws.amazon.com/…/pricing lists them in 2026.
pub const INVOCATION: f64 = 0.20;
/// Price of a million GB-seconds, x86_64.
pub const GB_SECONDS: f64 = 16.6667;
/// Price of a million requests to an HTTP API in front of the function. A Function URL costs nothing of its own.
pub const HTTP_API: f64 = 1.00;
/// Price of a million calls to SQS, of up to 64 KiB each, with any number of entries.
pub const SQS_CALL: f64 = 0.40;
/// Price of a million read units. A unit is a strongly consistent read of up to 4 KiB; an eventually consistent read
/// costs half of it.
pub const READ_UNIT: f64 = 0.125;
/// Bytes of a read unit.
pub const READ_BYTES: usize = 4096;
/// Price of a million write units, of up to 1 KiB each.
pub const WRITE_UNIT: f64 = 0.625;
/// Bytes of a write unit.
pub const WRITE_BYTES: usize = 1024;
/// Price of a gigabyte that leaves AWS, beyond the 100 GB a month that are free.
pub const TRANSFER_GB: f64 = 0.09;
/// Price of a custom metric in CloudWatch for a month.
pub const CUSTOM_METRIC: f64 = 0.30;
/// Price of a metric that an alarm watches for a month, beyond ten.
pub const ALARM_METRIC: f64 = 0.10;
/// Price of a dashboard for a month, beyond three.
pub const DASHBOARD: f64 = 3.00;
/// Price of a secret in Secrets Manager for a month.
pub const SECRET: f64 = 0.40;
/// Price of a customer managed key in KMS for a month.
pub const KMS_KEY: f64 = 1.00;
/// Price of a vCPU of Fargate for an hour, Linux: on arm64, and on x86_64.
pub const VCPU_HOUR: [f64; 2] = [0.03238, 0.04048];
/// Price of a gigabyte of memory of Fargate for an hour: on arm64, and on x86_64.
pub const TASK_GB_HOUR: [f64; 2] = [0.00356, 0.004445];
/// Price of a public IPv4 address for an hour.
pub const ADDRESS_HOUR: f64 = 0.005;

/// Time that Lambda bills for a push on a function of 128 MB, whose two calls take some milliseconds on AWS.
pub const BILLED_SECONDS: f64 = 0.003;
/// Time that Lambda bills for a forgery.
const FORGERY_SECONDS: f64 = 0.001;
/// Memory of the function in gigabytes.
pub const FUNCTION_GB: f64 = 0.125;
/// vCPUs and gigabytes of a relay's task, as infra/fargate.yaml has them.
pub const TASK: (f64, f64) = (0.25, 0.5);
/// Pushes of `upwire canary` in a minute, by default.
pub const CANARY_PUSHES: f64 = 5.0;
/// Number of custom metrics of `upwire canary`.
pub const CANARY_METRICS: f64 = 3.0;
/// Hours of a month, as AWS bills them.
pub const MONTH_HOURS: f64 = 730.0;
/// Seconds of a month of 30 days.
pub const MONTH_SECONDS: f64 = 30.0 * 86_400.0;
/// Time between two polls of an idle relay.
pub const POLL_SECONDS: f64 = 20.0;
/// Time between two renewals of the lease.
pub const LEASE_RENEWAL_SECONDS: f64 = 5.0;
/// Time between two looks at the lease by a relay that stands by.
pub const LEASE_LOOK_SECONDS: f64 = 1.0;

/// Most entries in one call to SQS.
const BATCH: f64 = 10.0;
/// Bytes of an answer of SQS for each entry beside its body: ids, the receipt, attributes, headers, TLS.
const ENVELOPE_BYTES: usize = 600;
/// Bytes of an item of the mailbox beside the entry: keys and attributes.
const ITEM_BYTES: usize = 130;
/// Bytes of an entry of the mailbox's index.
const INDEX_BYTES: usize = 130;
/// Most pushes in one page of a mailbox.
const PAGE: f64 = 16.0;
/// Number of pushes of one registration that wait for a phone when it comes back.
pub const DRAINED: usize = 100;
/// Number of metrics that the alarms of the stack watch, with default parameters.
pub const ALARM_METRICS: u32 = 19;
const ALARM_METRICS_FREE: f64 = 10.0;
/// Number of custom metrics of the function, and of the relay.
const METRICS: f64 = 6.0;
/// Requests that one environment of the function serves in a second.
const REQUESTS_PER_ENVIRONMENT: f64 = 10.0;

/// Sizes of bodies that docs/aws/cost.md lists, in bytes.
const BODIES: [usize; 3] = [400, 1024, 4096];

/// Returns the size of a queue entry for a body of this size, in bytes.
///
/// # Panics
/// Never: the addresses are valid.
#[must_use]
pub fn entry_bytes(body: usize) -> usize {
    let target = Target {
        recipient: "juliet@example.com/Conversations.r4nD".parse().expect("an address"),
        application: Application::from_bytes([1; 32]),
        instance: Instance::from_bytes([2; 32]),
        vapid: None,
        legacy: None,
    };
    let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a moment");
    let registration = Registration::renew(None, target, now, TimeDelta::days(7));
    let wishes = Wishes { ttl: Ttl::from_seconds(86_400), urgency: Urgency::Normal, topic: None };
    let body = Body::from_bytes(&vec![0; body]);
    PushMessage::new([7; MessageId::CHANCE_BYTES], &registration, wishes, body, now).to_entry().len()
}

/// Returns the cost of a million pushes that are accepted and delivered behind a Function URL. A call to SQS receives
/// or deletes `entries_per_call` of them.
#[must_use]
pub fn delivered(entries_per_call: f64) -> f64 {
    let function = INVOCATION + BILLED_SECONDS * FUNCTION_GB * GB_SECONDS + READ_UNIT / 2.0 + SQS_CALL;
    function + 2.0 * SQS_CALL / entries_per_call
}

/// Returns the cost of transferring a million pushes to a relay outside of AWS.
#[must_use]
pub fn transfer(body: usize) -> f64 {
    (entry_bytes(body) + ENVELOPE_BYTES) as f64 * 1e6 / 1e9 * TRANSFER_GB
}

/// Returns the additional cost of a million pushes that wait and are delivered from the mailbox, by the units that
/// `aws::mailbox` names.
#[must_use]
pub fn waiting(body: usize) -> f64 {
    let (writes, reads) = waiting_units(body, DRAINED);
    writes * WRITE_UNIT + reads * READ_UNIT
}

/// Returns the write and read units of one such push, if `drained` of them are delivered at once.
#[must_use]
pub fn waiting_units(body: usize, drained: usize) -> (f64, f64) {
    let bytes = entry_bytes(body) + ITEM_BYTES;
    let row = (bytes.div_ceil(WRITE_BYTES) + 1) as f64;
    let read = |bytes: usize| bytes.div_ceil(READ_BYTES) as f64;
    // The item is written, counted, and removed.
    let writes = row + 1.0 + row;
    // Keeping the push reads its registration. Each page reads the index and the registration, and each push its item.
    let pages = (drained as f64 / PAGE).ceil();
    let page = read(drained * INDEX_BYTES) + 1.0;
    (writes, 1.0 + pages * page / drained as f64 + read(bytes))
}

/// Returns the additional cost of a million pushes to a full mailbox. Each drops the oldest push, and none is
/// delivered.
#[must_use]
pub fn dropped(body: usize) -> f64 {
    let (writes, reads) = dropped_units(body);
    writes * WRITE_UNIT + reads * READ_UNIT
}

/// Returns the write and read units of one such push.
#[must_use]
pub fn dropped_units(body: usize) -> (f64, f64) {
    let row = ((entry_bytes(body) + ITEM_BYTES).div_ceil(WRITE_BYTES) + 1) as f64;
    // The item and its index entry are written, and those of the oldest push are removed. The count costs one more
    // unit, although its condition stops the write.
    let writes = 2.0 * row + 1.0;
    // The row of counts, the registration and the index are read.
    let reads = 2.0 + (DRAINED * INDEX_BYTES).div_ceil(READ_BYTES) as f64;
    (writes, reads)
}

/// Returns the cost of a million forgeries, which the function answers without a call.
#[must_use]
pub fn forgeries() -> f64 {
    INVOCATION + FORGERY_SECONDS * FUNCTION_GB * GB_SECONDS
}

/// Returns the cost of a month of forgeries, `each_second` in a second.
fn flood(each_second: f64, in_front: f64) -> f64 {
    each_second * MONTH_SECONDS / 1e6 * (forgeries() + in_front)
}

fn per_month(seconds: f64, price: f64) -> f64 {
    MONTH_SECONDS / seconds / 1e6 * price
}

/// Returns the cost of a relay's task on Fargate for a month: on arm64, and on x86_64.
#[must_use]
pub fn tasks() -> [f64; 2] {
    let (processors, gigabytes) = TASK;
    [0, 1].map(|kind| (processors * VCPU_HOUR[kind] + gigabytes * TASK_GB_HOUR[kind]) * MONTH_HOURS)
}

/// Returns the cost of a public address for a month.
#[must_use]
pub fn address() -> f64 {
    ADDRESS_HOUR * MONTH_HOURS
}

/// Returns the cost of the pushes of `upwire canary` for a month, behind a Function URL.
#[must_use]
pub fn canary_pushes() -> f64 {
    per_month(60.0 / CANARY_PUSHES, delivered(1.0))
}

/// Returns the cost of the metrics of `upwire canary` for a month.
#[must_use]
pub fn canary_metrics() -> f64 {
    CANARY_METRICS * CUSTOM_METRIC
}

/// Returns the tables of docs/aws/cost.md.
#[must_use]
pub fn tables() -> String {
    let mut page = String::from("| a million pushes | USD |\n| --- | --- |\n");
    let mut row = |what: &str, dollars: f64| {
        let _ = writeln!(page, "| {what} | {dollars:.2} |");
    };
    row("Function URL, few at a time: each push has a receive and a delete of its own", delivered(1.0));
    row("Function URL, under load: ten to a call", delivered(BATCH));
    row("HTTP API, few at a time", delivered(1.0) + HTTP_API);
    row("HTTP API, under load", delivered(BATCH) + HTTP_API);
    for body in BODIES {
        row(
            &format!("in addition, to a relay outside of AWS, beyond 100 GB a month: bodies of {body} bytes"),
            transfer(body),
        );
    }
    for body in BODIES {
        row(
            &format!("in addition, waiting for a phone that comes back: bodies of {body} bytes"),
            waiting(body),
        );
    }
    for body in BODIES {
        row(
            &format!("in addition, for a phone that stays away with a full mailbox: bodies of {body} bytes"),
            dropped(body),
        );
    }
    row("forgeries", forgeries());
    page.push_str("\n| each month | USD |\n| --- | --- |\n");
    let mut row = |what: &str, dollars: f64| {
        let _ = writeln!(page, "| {what} | {dollars:.2} |");
    };
    row("polls of a relay that is idle", per_month(POLL_SECONDS, SQS_CALL));
    row("its lease", per_month(LEASE_RENEWAL_SECONDS, WRITE_UNIT));
    row("each relay that stands by", per_month(LEASE_LOOK_SECONDS, READ_UNIT));
    row("the secret (0 with `EndpointSecret`)", SECRET);
    let alarms = f64::from(ALARM_METRICS);
    row(
        &format!("alarms: {ALARM_METRICS} metrics, of which an account has ten free"),
        (alarms - ALARM_METRICS_FREE) * ALARM_METRIC,
    );
    row("alarms, where the account's ten are in use", alarms * ALARM_METRIC);
    row("the dashboard, where the account's three free ones are in use", DASHBOARD);
    row("own metrics of the function, while it is used", METRICS * CUSTOM_METRIC);
    row("own metrics of the relay", METRICS * CUSTOM_METRIC);
    let [arm, x86] = tasks();
    row("each task of the relay on Fargate, arm64", arm);
    row("each task of the relay on Fargate, x86_64", x86);
    row("a public address of a task", address());
    row("pushes of the canary, five a minute, behind a Function URL", canary_pushes());
    row("metrics of the canary", canary_metrics());
    row("a key of yours in KMS", KMS_KEY);
    page.push_str("\n| a flood of forgeries, for a month | USD |\n| --- | --- |\n");
    let mut row = |what: &str, dollars: f64| {
        let _ = writeln!(page, "| {what} | {dollars:.0} |");
    };
    row("Function URL, an account's 1000 environments", flood(1000.0 * REQUESTS_PER_ENVIRONMENT, 0.0));
    row("Function URL, `ReservedConcurrency=20`", flood(20.0 * REQUESTS_PER_ENVIRONMENT, 0.0));
    row(
        "HTTP API, `RequestsPerSecond=200` as the template has it: what is beyond is refused",
        flood(200.0, HTTP_API),
    );
    page
}
