//! The mailbox: the calls with which a push for a phone that is away is kept, tried and handed out.

use std::time::Duration;

use anyhow::{Context, ensure};
use aws::{QueueSender, RegistrationsTable};
use chrono::{TimeDelta, Utc};
use e2e::{Phone, Upwire, XmppServer, eventually, hashed};
use push::ports::{QueueWriter, Registrations, Renewal};
use push::{Registration, RegistrationId, Target};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::relay::{BODY_BYTES, VISIBILITY, message};
use crate::{Calls, Cloud};

/// Number of pushes that are kept one by one.
pub(crate) const SINGLES: usize = 20;
/// Number of pushes that wait when the phone comes back.
pub(crate) const DRAINED: usize = 100;
/// Seconds after the last push in which tries are counted. A phone that failed is tried again after 2, 4 and 8 s.
pub(crate) const TRIES_SECONDS: u64 = 15;
/// Batch reads for one page: one of its pushes, and one of their registrations.
pub(crate) const BATCHES_OF_A_PAGE: usize = 2;
const DEADLINE: Duration = Duration::from_secs(60);

/// The counted calls.
pub(crate) struct Stored {
    /// Calls that kept all [`SINGLES`], without tries.
    pub(crate) kept: Calls,
    /// Calls that handed out all [`DRAINED`].
    pub(crate) drained: Calls,
    /// Number of tries of the phone meanwhile; `tried` has their calls.
    pub(crate) tries: usize,
    pub(crate) tried: Calls,
    /// Bytes of an item beside the body.
    pub(crate) overhead_bytes: usize,
    /// Bytes of an entry of the index.
    pub(crate) entry_bytes: usize,
}

/// Keeps pushes for a phone that has left, then has it come back.
pub(crate) async fn stored(server: &XmppServer, cloud: &Cloud) -> anyhow::Result<Stored> {
    // The queue is fresh. In the queue of the last relay, the emulator may hand out a push to the poll of a relay that
    // has ended.
    let queue = cloud.sqs.queue(VISIBILITY, 1000).await.url;
    let relay = Upwire::relay_on(server)
        .set_all(cloud.variables())
        .set("UPWIRE_QUEUE_URL", &queue)
        .set("UPWIRE_LOG", "warn")
        .start_ready()
        .await;
    let component = &relay.component.jid;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(component).await;
    phone.endpoint(component, "app").await;
    let row = row(cloud, &phone).await?;
    phone.disconnect().await;

    let before = cloud.ways.calls();
    send(cloud, &queue, &row, 0..SINGLES, Some(&relay)).await?;
    sleep(Duration::from_secs(TRIES_SECONDS)).await;
    let (kept, tried) = parted(&cloud.calls_to_table_since(&before))?;
    let tries = tried.get("BatchGetItem").copied().unwrap_or_default() / BATCHES_OF_A_PAGE;
    ensure!(tries > 0, "the phone is never tried");
    let item = item(cloud).await?;

    send(cloud, &queue, &row, SINGLES..DRAINED, None).await?;
    relay.metric_reaches("upwire_mailbox_kept_total", DRAINED as f64).await;
    let phone = Phone::connect(server, &user, "phone").await;
    let before = cloud.ways.calls();
    phone.greet(component).await;
    phone.wait_for_pushes(DRAINED, DEADLINE).await;
    eventually(DEADLINE, "the mailbox is empty", async || waiting(cloud).await == 0).await;
    let drained = cloud.calls_to_table_since(&before);
    ensure!(phone.pushes().len() == DRAINED, "{} pushes came instead of {DRAINED}", phone.pushes().len());
    Ok(Stored {
        kept,
        drained,
        tries,
        tried,
        overhead_bytes: bytes(&item, &[]) - BODY_BYTES.div_ceil(3) * 4,
        entry_bytes: bytes(&item, &["entry", "asked_at", "purge_at"]),
    })
}

/// Separates the calls that kept pushes from those that tried their phone. A push that is kept takes a read of its
/// registration and a write (and the update that counts it, which is not among these). The first push also takes a read
/// of the counts, and a query of each part of the index. The phone's first failure takes a query of its own part.
fn parted(calls: &Calls) -> anyhow::Result<(Calls, Calls)> {
    let kept =
        [("GetItem", SINGLES + 1), ("PutItem", SINGLES), ("Query", usize::from(RegistrationId::PARTS) + 1)];
    let kept = Calls::from(kept.map(|(call, count)| (call.to_owned(), count)));
    let mut tried = calls.clone();
    for (call, count) in &kept {
        let rest = tried.get(call).and_then(|all| all.checked_sub(*count));
        let rest = rest.with_context(|| format!("{SINGLES} pushes were kept with {calls:?}"))?;
        tried.insert(call.clone(), rest);
    }
    tried.retain(|_, count| *count > 0);
    ensure!(!tried.contains_key("PutItem"), "{SINGLES} pushes were written more than once: {calls:?}");
    Ok((kept, tried))
}

/// Sends pushes to the queue. With a relay, waits after each push until it is kept.
async fn send(
    cloud: &Cloud,
    queue: &str,
    row: &Registration,
    numbers: std::ops::Range<usize>,
    relay: Option<&Upwire>,
) -> anyhow::Result<()> {
    let queue = QueueSender::new(&cloud.sqs.config(), queue);
    for number in numbers {
        queue.send(message(number, row)).await?;
        if let Some(relay) = relay {
            relay.metric_reaches("upwire_mailbox_kept_total", (number + 1) as f64).await;
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the relay compares with its own clock")]
async fn row(cloud: &Cloud, phone: &Phone) -> anyhow::Result<Registration> {
    let table = RegistrationsTable::new(&cloud.dynamodb.config(), &cloud.table);
    let target = Target {
        recipient: phone.jid().clone(),
        application: hashed("app").parse()?,
        instance: hashed("1").parse()?,
        vapid: None,
        legacy: None,
    };
    let registered = table.register(target, Utc::now(), TimeDelta::days(7), Renewal::WhereNeeded, 1).await?;
    registered.stored().context("the account is full")
}

async fn waiting(cloud: &Cloud) -> u64 {
    let asked = json!({"TableName": cloud.mailbox, "IndexName": "by_registration", "Select": "COUNT"});
    cloud.dynamodb.call("DynamoDB_20120810.Scan", asked).await["Count"].as_u64().unwrap_or_default()
}

/// Returns one item of the mailbox, as the table has it.
async fn item(cloud: &Cloud) -> anyhow::Result<Value> {
    let pushes = "attribute_exists(place)";
    let asked = json!({"TableName": cloud.mailbox, "FilterExpression": pushes});
    let found = cloud.dynamodb.call("DynamoDB_20120810.Scan", asked).await;
    found["Items"].get(0).cloned().context("something waits")
}

/// Returns the size of an item without these attributes, as DynamoDB counts it (developer guide, "Item sizes and
/// formats").
fn bytes(item: &Value, without: &[&str]) -> usize {
    let attributes = item.as_object().into_iter().flatten();
    let counted = attributes.filter(|(name, _)| !without.contains(&name.as_str()));
    counted.map(|(name, value)| name.len() + value_bytes(value)).sum()
}

fn value_bytes(value: &Value) -> usize {
    let text = |kind: &str| value[kind].as_str();
    if let Some(number) = text("N") {
        number.len().div_ceil(2) + 1
    } else if let Some(base64) = text("B") {
        base64.trim_end_matches('=').len() * 3 / 4
    } else {
        text("S").map_or(0, str::len)
    }
}
