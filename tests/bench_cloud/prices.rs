//! The cost of a push: the counted calls times list prices.

use e2e::prices::{
    ALARM_METRIC, BILLED_SECONDS, CUSTOM_METRIC, FUNCTION_GB, GB_SECONDS, HTTP_API, INVOCATION,
    LEASE_LOOK_SECONDS, LEASE_RENEWAL_SECONDS, MONTH_SECONDS, POLL_SECONDS, READ_BYTES, READ_UNIT, SECRET,
    SQS_CALL, WRITE_BYTES, WRITE_UNIT,
};

use crate::Calls;
use crate::mailbox::{BATCHES_OF_A_PAGE, DRAINED, SINGLES, Stored};

/// Most pushes that the relay reads from a mailbox at once.
const PAGE: usize = 16;

/// An entry of the bill, in US dollars per million pushes.
pub(crate) struct Item {
    pub(crate) what: &'static str,
    pub(crate) dollars: f64,
}

/// Returns the cost of a million accepted and delivered pushes behind a Function URL.
pub(crate) fn per_million(ingress: &Calls, accepted: usize, relay: &Calls, delivered: usize) -> Vec<Item> {
    let sqs = |calls: &Calls, pushes| {
        let count: usize = calls.iter().filter(|(call, _)| is_sqs(call)).map(|(_, count)| count).sum();
        count as f64 / pushes as f64 * SQS_CALL
    };
    let reads = *ingress.get("GetItem").unwrap_or(&0) as f64 / accepted as f64;
    vec![
        Item { what: "Lambda, invocations", dollars: INVOCATION },
        Item { what: "Lambda, 3 ms of 128 MB", dollars: BILLED_SECONDS * FUNCTION_GB * GB_SECONDS },
        Item { what: "DynamoDB, eventually consistent reads", dollars: reads * READ_UNIT / 2.0 },
        Item { what: "SQS, the function", dollars: sqs(ingress, accepted) },
        Item { what: "SQS, the relay", dollars: sqs(relay, delivered) },
    ]
}

/// The additional cost of a million pushes that wait in the mailbox, and are delivered from it.
pub(crate) struct Waiting {
    /// Bytes of an item.
    pub(crate) bytes: usize,
    pub(crate) kept: f64,
    pub(crate) drained: f64,
    /// The cost of a million tries of a phone that stays away, with a page waiting.
    pub(crate) tried: f64,
}

/// Returns the additional cost with bodies of this size.
pub(crate) fn waiting(stored: &Stored, body_bytes: usize) -> Waiting {
    let bytes = stored.overhead_bytes + body_bytes.div_ceil(3) * 4;
    let calls = |calls: &Calls, call| calls.get(call).copied().unwrap_or_default() as f64;
    // Writing or deleting an item takes units for itself, and for its entry in the index.
    let write = (bytes.div_ceil(WRITE_BYTES) + stored.entry_bytes.div_ceil(WRITE_BYTES)) as f64;
    let read = |bytes: usize| bytes.div_ceil(READ_BYTES) as f64;
    // Beside the counted calls, an update counts each push.
    let kept = calls(&stored.kept, "PutItem") * (write + 1.0) * WRITE_UNIT
        + calls(&stored.kept, "GetItem") * READ_UNIT;
    let entries = read(DRAINED * stored.entry_bytes);
    // Each page also reads its registrations: one here.
    let pages = |of: &Calls| calls(of, "BatchGetItem") / BATCHES_OF_A_PAGE as f64;
    let reads = calls(&stored.drained, "GetItem")
        + calls(&stored.drained, "Query") * entries
        + DRAINED as f64 * read(bytes)
        + pages(&stored.drained);
    let drained = DRAINED as f64 * write * WRITE_UNIT + reads * READ_UNIT;
    let tried = calls(&stored.tried, "GetItem")
        + calls(&stored.tried, "Query") * read(PAGE * stored.entry_bytes)
        + pages(&stored.tried) * (PAGE as f64 * read(bytes) + 1.0);
    Waiting {
        bytes,
        kept: kept / SINGLES as f64,
        drained: drained / DRAINED as f64,
        tried: tried * READ_UNIT / stored.tries as f64,
    }
}

/// Returns further costs that there may be.
pub(crate) fn others() -> Vec<Item> {
    // The result is in millions.
    let per_month = |seconds| MONTH_SECONDS / seconds / 1_000_000.0;
    vec![
        Item { what: "an HTTP API in front, per million requests", dollars: HTTP_API },
        Item {
            what: "renewals that are written (a read and a write), per million",
            dollars: READ_UNIT + WRITE_UNIT,
        },
        Item { what: "idle: the relay's polls, per month", dollars: per_month(POLL_SECONDS) * SQS_CALL },
        Item { what: "idle: the lease, per month", dollars: per_month(LEASE_RENEWAL_SECONDS) * WRITE_UNIT },
        Item {
            what: "idle: a second relay that stands by, per month",
            dollars: per_month(LEASE_LOOK_SECONDS) * READ_UNIT,
        },
        Item { what: "a secret in Secrets Manager, where it is not a parameter, per month", dollars: SECRET },
        Item { what: "metrics of the function's own (6), per month", dollars: 6.0 * CUSTOM_METRIC },
        Item { what: "metrics of the relay's own (6), per month", dollars: 6.0 * CUSTOM_METRIC },
        Item { what: "alarms beyond the ten that are free, each per month", dollars: ALARM_METRIC },
    ]
}

/// Returns whether a call goes to the queue and not to the table.
pub(crate) fn is_sqs(call: &str) -> bool {
    call.contains("Message")
}
