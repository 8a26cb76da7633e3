//! The two halves on AWS, and the stack that they run in.

mod copy_table;
mod halves;
mod lease;
mod levers;
mod marker;
mod metrics;
mod restored;
mod shed;
pub(crate) mod stack;
pub(crate) mod start;
pub(crate) mod template;
mod template_alarms;
mod template_cost;
mod throttled;
mod troubles;
mod upgrade;
mod versions;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use aws::{RegistrationsTable, RelayLease};
use e2e::{
    Component, ENDPOINT_SECRET, Emulator, Function, Phone, Queues, SOON, Upwire, UpwireBuilder, Ways,
    XmppServer, eventually, eventually_some, http, profile_folder,
};
use futures::future::join_all;
use serde_json::json;
use tokio::sync::Semaphore;

/// Longest wait for the mailbox: longer than the longest delay before a phone that sends no presence is tried again.
const RETRIED: Duration = Duration::from_secs(180);
/// Visibility timeout of the queue: entries of a killed relay show again after it.
const VISIBILITY: Duration = Duration::from_secs(5);
const RECEIVES_MAX: u32 = 1000;
/// The `Retry-After` of a 503 in doubt, for an endpoint that may still live.
const IN_DOUBT: Option<&str> = Some("600");

/// The tests under load, a few at a time: the emulator and the function share two cores. Each test works for some
/// seconds, then waits for a lease to end or an outage to pass.
pub(crate) static UNDER_LOAD: Semaphore = Semaphore::const_new(3);

/// The parts on AWS, and the ways to them.
pub(crate) struct Cloud {
    pub(crate) emulator: &'static Emulator,
    pub(crate) queues: Queues,
    pub(crate) table: String,
    pub(crate) mailbox: String,
    /// The ways from the function to AWS.
    pub(crate) ingress_ways: Ways,
    /// The ways from the relay to AWS.
    pub(crate) relay_ways: Ways,
    pub(crate) function: Function,
}

impl Cloud {
    pub(crate) async fn new() -> Self {
        Self::with([]).await
    }

    /// Starts the parts on AWS, with more variables for the function.
    pub(crate) async fn with<const N: usize>(more: [(&'static str, String); N]) -> Self {
        Self::of(&profile_folder(), more).await
    }

    /// Starts the parts on AWS, with the function of the binaries in this folder.
    pub(crate) async fn of<const N: usize>(binaries: &Path, more: [(&'static str, String); N]) -> Self {
        let emulator = Emulator::shared_stage().await;
        let (queues, table) = (emulator.queue(VISIBILITY, RECEIVES_MAX).await, emulator.table().await);
        let mailbox = emulator.mailbox_table().await;
        let (ingress_ways, relay_ways) = (ways(emulator).await, ways(emulator).await);
        let mut variables = ingress_ways.variables();
        variables.insert("UPWIRE_SECRET", ENDPOINT_SECRET.to_owned());
        variables.insert("UPWIRE_QUEUE_URL", queues.url.clone());
        variables.insert("UPWIRE_REGISTRATIONS_TABLE", table.clone());
        variables.insert("UPWIRE_MAILBOX_TABLE", mailbox.clone());
        variables.extend(more);
        let function = Function::start_of(binaries, &variables).await;
        Self { emulator, queues, table, mailbox, ingress_ways, relay_ways, function }
    }

    pub(crate) fn relay_on(&self, server: &XmppServer) -> UpwireBuilder {
        self.relay_by(&self.relay_ways, server, server.component())
    }

    /// Prepares a relay as a given component, which reaches AWS by these ways.
    pub(crate) fn relay_by(&self, ways: &Ways, server: &XmppServer, component: Component) -> UpwireBuilder {
        Upwire::relay_as(server, component)
            .set("UPWIRE_PUBLIC_URL", &self.function.url)
            .set("UPWIRE_QUEUE_URL", &self.queues.url)
            .set("UPWIRE_REGISTRATIONS_TABLE", &self.table)
            .set("UPWIRE_MAILBOX_TABLE", &self.mailbox)
            .set("UPWIRE_ACK_TIMEOUT", 5)
            .set_all(ways.variables())
    }

    /// Returns the lease of the relays.
    pub(crate) fn lease(&self) -> RelayLease {
        RegistrationsTable::new(&self.emulator.config(), &self.table).lease()
    }

    /// Returns the number of pushes that wait.
    pub(crate) async fn waiting(&self) -> u64 {
        let count = json!({"TableName": self.mailbox, "IndexName": "by_registration", "Select": "COUNT"});
        let counted = self.emulator.call("DynamoDB_20120810.Scan", count).await;
        counted["Count"].as_u64().unwrap()
    }

    pub(crate) async fn mailbox_empties(&self) {
        eventually(RETRIED, "the mailbox is empty", async || self.waiting().await == 0).await;
    }

    pub(crate) async fn queue_empties(&self) {
        self.emulator.queue_holds(&self.queues.url, 0).await;
    }
}

/// Opens the ways of one more process to AWS.
pub(crate) async fn ways(emulator: &Emulator) -> Ways {
    Ways::to(&emulator.endpoint, &emulator.endpoint).await
}

pub(crate) async fn phones(server: &XmppServer, relay: &Upwire) -> (Vec<Phone>, Vec<String>) {
    let phones =
        join_all((0..3).map(async |_| Phone::connect(server, &server.user().await, "phone").await)).await;
    let endpoints = join_all(phones.iter().map(|phone| phone.endpoint(&relay.component.jid, "app"))).await;
    (phones, endpoints)
}

pub(crate) fn calls<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    expected.map(|(call, count)| (call.to_owned(), count)).into()
}

/// Sends until the answer is not 503 and costs exactly these calls. The SDK repeats or gives up a call that the
/// emulator answers slowly.
pub(crate) async fn costing<const N: usize>(
    ways: &Ways,
    expected: [(&str, usize); N],
    mut send: impl AsyncFnMut() -> http::Response,
) -> http::Response {
    let expected = calls(expected);
    eventually_some(SOON, &format!("it costs {expected:?}"), async || {
        let before = ways.calls();
        let answer = send().await;
        (answer.status != 503 && ways.calls_since(&before) == expected).then_some(answer)
    })
    .await
}
