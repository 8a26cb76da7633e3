//! The rate at which other accounts get their waiting pushes while DynamoDB has trouble with one account, beside the
//! same load without trouble.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use aws::{QueueSender, RegistrationsTable};
use chrono::{TimeDelta, Utc};
use e2e::bench::{Journal, LightPhone};
use e2e::{Phone, Trouble, TroubledWay, Upwire, User, XmppServer, eventually, hashed};
use futures::future::try_join_all;
use push::ports::{QueueWriter, Registrations, Renewal};
use push::{Registration, Target};
use serde_json::json;
use tokio_xmpp::jid::BareJid;

use crate::Cloud;
use crate::relay::message;

/// Number of accounts without trouble.
pub(crate) const OTHERS: usize = 8;
/// Number of pushes that wait for each account, the one with trouble included.
const PUSHES_EACH: usize = 250;
const PUSHES_EACH_QUICK: usize = 50;
/// Number of measurements of each kind of trouble, in turn with none.
const ROUNDS: usize = 3;
const KINDS: [Trouble; 3] = [Trouble::Throttled, Trouble::Slow, Trouble::Cut];
const DEADLINE: Duration = Duration::from_secs(300);

/// Pushes of the other accounts that were handed out and removed per second, without trouble and with it.
#[derive(Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) alone: f64,
    pub(crate) beside: f64,
}

/// The rounds of a kind of trouble.
pub(crate) struct Rounds {
    pub(crate) trouble: Trouble,
    pub(crate) pairs: Vec<Pair>,
}

impl Rounds {
    pub(crate) fn title(&self) -> &'static str {
        match self.trouble {
            Trouble::Throttled => "others' rate while one account is throttled ÷ alone",
            Trouble::Slow => "others' rate while one account's call is slowed ÷ alone",
            Trouble::Cut => "others' rate while one account's answers are cut ÷ alone",
            Trouble::Lost => "others' rate while one account's answers are lost ÷ alone",
        }
    }

    /// Returns the median ratio of the rounds.
    pub(crate) fn ratio(&self) -> f64 {
        let mut ratios: Vec<f64> = self.pairs.iter().map(|pair| pair.beside / pair.alone).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    }
}

/// Measures all kinds of trouble, in turn with none.
pub(crate) async fn measured(
    server: &XmppServer,
    cloud: &Cloud,
    is_quick: bool,
) -> anyhow::Result<Vec<Rounds>> {
    let (pushes, rounds) = if is_quick { (PUSHES_EACH_QUICK, 1) } else { (PUSHES_EACH, ROUNDS) };
    let mut users = Vec::new();
    for _ in 0..=OTHERS {
        users.push(server.user().await);
    }
    // The first run warms everything up.
    drained(server, cloud, &users, pushes, Trouble::Throttled, false).await?;
    let mut kinds = Vec::new();
    for trouble in KINDS {
        let mut pairs = Vec::new();
        for _ in 0..rounds {
            let rate = async |on| drained(server, cloud, &users, pushes, trouble, on).await;
            pairs.push(Pair { alone: rate(false).await?, beside: rate(true).await? });
        }
        kinds.push(Rounds { trouble, pairs });
    }
    Ok(kinds)
}

/// Lets pushes wait for all users, has all phones come back at once, and returns the rate of the others. The first user
/// is not among them.
async fn drained(
    server: &XmppServer,
    cloud: &Cloud,
    users: &[User],
    pushes: usize,
    trouble: Trouble,
    is_on: bool,
) -> anyhow::Result<f64> {
    let (mailbox, queue) =
        (cloud.dynamodb.mailbox_table().await, cloud.sqs.queue(Duration::from_secs(60), 1000).await.url);
    let way = TroubledWay::to(&cloud.dynamodb.endpoint, users[0].jid.as_str(), trouble);
    let (endpoint, proxy) = way.open().await;
    let mut relay = Upwire::relay_on(server)
        .set_all(cloud.variables())
        .set("AWS_ENDPOINT_URL_DYNAMODB", &endpoint)
        .set("UPWIRE_MAILBOX_TABLE", &mailbox)
        .set("UPWIRE_QUEUE_URL", &queue)
        .set("UPWIRE_MAILBOX_MAX", pushes)
        .set("UPWIRE_LOG", "error")
        .start_ready()
        .await;
    let component = relay.component.jid.clone();
    fill(server, cloud, users, &component, &queue, pushes).await?;
    let all = pushes * users.len();
    relay.metric_reaches("upwire_mailbox_kept_total", all as f64).await;

    way.switch(is_on);
    let mut phones = Vec::new();
    for user in users {
        phones.push(LightPhone::connect(server, user).await);
    }
    let started = Instant::now();
    let mut answering = Vec::new();
    for mut phone in phones {
        phone.greet(&component).await?;
        let journal = Rc::<Journal>::default();
        answering.push((Rc::clone(&journal), phone.answer_all(journal)));
    }
    let arrived = async || answering[1..].iter().all(|(journal, _)| journal.arrivals() >= pushes);
    eventually(DEADLINE, "the others have what waited for them", arrived).await;
    let left = if is_on { pushes } else { 0 };
    eventually(DEADLINE, "what the others had is removed", async || waiting(cloud, &mailbox).await <= left)
        .await;
    let time = started.elapsed();
    ensure!(!is_on || way.met() > 0, "{trouble:?} was never met");
    way.switch(false);
    for (_, phone) in answering {
        phone.leave().await?;
    }
    relay.terminate();
    relay.wait_exit(DEADLINE).await;
    proxy.abort();
    Ok((pushes * OTHERS) as f64 / time.as_secs_f64())
}

/// Registers phones that leave, and queues pushes for them in turn.
#[expect(clippy::disallowed_methods, reason = "the relay compares with its own clock")]
async fn fill(
    server: &XmppServer,
    cloud: &Cloud,
    users: &[User],
    component: &BareJid,
    queue: &str,
    pushes: usize,
) -> anyhow::Result<()> {
    let table = RegistrationsTable::new(&cloud.dynamodb.config(), &cloud.table);
    let mut rows: Vec<Registration> = Vec::new();
    for user in users {
        let phone = Phone::connect(server, user, "phone").await;
        phone.endpoint(component, "app").await;
        let target = Target {
            recipient: phone.jid().clone(),
            application: hashed("app").parse()?,
            instance: hashed("1").parse()?,
            vapid: None,
            legacy: None,
        };
        phone.leave(DEADLINE).await;
        let registered =
            table.register(target, Utc::now(), TimeDelta::days(7), Renewal::WhereNeeded, 1).await?;
        rows.push(registered.stored().context("the account is full")?);
    }
    let queue = QueueSender::new(&cloud.sqs.config(), queue);
    for _ in 0..pushes {
        // The relay knows pushes by their ids, whatever their recipients. So the random parts of two pushes in one
        // moment have to differ.
        try_join_all(rows.iter().map(|row| queue.send(message(rand::random::<u64>() as usize, row)))).await?;
    }
    Ok(())
}

/// Returns the number of pushes that wait in this mailbox.
async fn waiting(cloud: &Cloud, mailbox: &str) -> usize {
    let asked = json!({"TableName": mailbox, "IndexName": "by_registration", "Select": "COUNT"});
    let counted = cloud.dynamodb.call("DynamoDB_20120810.Scan", asked).await;
    counted["Count"].as_u64().map_or(usize::MAX, |count| count as usize)
}
