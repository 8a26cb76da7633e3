//! The relay: the rate at which it empties a queue, and its calls; beside another binary, if one is given.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use aws::{QueueSender, RegistrationsTable};
use chrono::{TimeDelta, Utc};
use e2e::bench::{Answering, Journal, LightPhone};
use e2e::machine::Process;
use e2e::{Upwire, XmppServer, hashed};
use futures::{TryStreamExt, stream};
use push::message::Wishes;
use push::ports::{QueueWriter, Registrations, Renewal};
use push::{Body, PushMessage, Registration, Target, Ttl, Urgency};
use tokio_xmpp::jid::FullJid;

use crate::{Calls, Cloud};

pub(crate) const PUSHES: usize = 5000;
/// Visibility timeout of the queue, as template.yaml has it.
pub(crate) const VISIBILITY: Duration = Duration::from_secs(60);
const PHONES: usize = 8;
pub(crate) const BODY_BYTES: usize = 1024;
const SENDS_AT_ONCE: usize = 16;
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);
/// Number of measurements of each binary, in turn.
const ROUNDS: usize = 3;

pub(crate) struct Relay {
    /// Time from the start of the relay to the arrival of the last push.
    pub(crate) time: Duration,
    pub(crate) calls: Calls,
    /// CPU seconds of each process in that time. The relay is the first.
    pub(crate) cpu: Vec<(String, f64)>,
    pub(crate) memory_peak_mib: f64,
}

/// The rounds of this relay, and those of the base.
pub(crate) struct Relays {
    pub(crate) this: Vec<Relay>,
    pub(crate) base: Vec<Relay>,
}

impl Relay {
    pub(crate) fn per_second(&self) -> f64 {
        PUSHES as f64 / self.time.as_secs_f64()
    }

    /// Returns the CPU time of the relay per push, in microseconds.
    pub(crate) fn micros(&self) -> f64 {
        self.cpu.first().map_or(0.0, |(_, seconds)| seconds * 1e6 / PUSHES as f64)
    }
}

/// A phone that answers each push.
pub(crate) struct Receiver {
    jid: FullJid,
    pub(crate) journal: Rc<Journal>,
    _answering: Answering,
}

/// Connects phones, each of an account of its own.
pub(crate) async fn receivers(server: &XmppServer) -> Vec<Receiver> {
    let mut phones = Vec::new();
    for _ in 0..PHONES {
        let phone = LightPhone::connect(server, &server.user().await).await;
        let (jid, journal) = (phone.jid().clone(), Rc::<Journal>::default());
        phones.push(Receiver { jid, journal: Rc::clone(&journal), _answering: phone.answer_all(journal) });
    }
    phones
}

/// Measures several rounds of this relay, in turn with the base.
pub(crate) async fn in_turn(
    server: &XmppServer,
    cloud: &Cloud,
    base: Option<&Path>,
) -> anyhow::Result<Relays> {
    let phones = receivers(server).await;
    let mut relays = Relays { this: Vec::new(), base: Vec::new() };
    let mut before = 0;
    for _ in 0..ROUNDS {
        relays.this.push(under_load(server, cloud, &phones, before, None).await?);
        before += PUSHES / PHONES;
        if base.is_some() {
            relays.base.push(under_load(server, cloud, &phones, before, base).await?);
            before += PUSHES / PHONES;
        }
    }
    Ok(relays)
}

/// Fills the queue while no relay runs, then starts one, and waits until everything has arrived and is deleted. Each
/// phone has got `before` pushes by then.
async fn under_load(
    server: &XmppServer,
    cloud: &Cloud,
    phones: &[Receiver],
    before: usize,
    binary: Option<&Path>,
) -> anyhow::Result<Relay> {
    // The queue is fresh. In the queue of the last relay, the emulator may hand out pushes to the poll of a relay that
    // has ended.
    let queue = cloud.sqs.queue(VISIBILITY, 1000).await.url;
    fill(cloud, &queue, phones).await?;
    let got = before + PUSHES / PHONES;

    let before = cloud.ways.calls();
    let watched = [
        Process { title: "fauxqs".to_owned(), pid: cloud.sqs.pid() },
        Process { title: "Prosody".to_owned(), pid: server.pid().context("Prosody runs")? },
        Process { title: "phones and proxies".to_owned(), pid: std::process::id() },
    ];
    let before_cpu = watched.iter().map(Process::cpu_seconds).collect::<anyhow::Result<Vec<_>>>()?;
    let started = Instant::now();
    let relay = Upwire::relay_on(server).set_all(cloud.variables());
    let mut relay = relay.set("UPWIRE_QUEUE_URL", &queue).set("UPWIRE_LOG", "warn");
    if let Some(binary) = binary {
        relay = relay.with_binary(binary);
    }
    let mut relay = relay.start_ready().await;
    let arrived = async || phones.iter().all(|phone| phone.journal.arrivals() >= got);
    e2e::eventually(DEADLINE, "all has arrived", arrived).await;
    let time = started.elapsed();
    let what = "all is deleted";
    e2e::eventually(DEADLINE, what, async || cloud.sqs.depth(&queue).await == 0).await;

    let calls = cloud.ways.calls_since(&before);
    let process = Process { title: "the relay".to_owned(), pid: relay.pid() };
    let memory_peak_mib = process.memory_peak_mib()?;
    let mut cpu = vec![(process.title.clone(), process.cpu_seconds()?)];
    for (process, before) in watched.into_iter().zip(before_cpu) {
        let spent = process.cpu_seconds()? - before;
        cpu.push((process.title, spent));
    }
    // The relay gives its lease back, so that the next one does not wait for the end of it.
    relay.terminate();
    relay.wait_exit(DEADLINE).await;
    Ok(Relay { time, calls, cpu, memory_peak_mib })
}

/// Makes a registration of each phone.
#[expect(clippy::disallowed_methods, reason = "the relay compares with its own clock")]
pub(crate) async fn rows(cloud: &Cloud, phones: &[Receiver]) -> anyhow::Result<Vec<Registration>> {
    let table = RegistrationsTable::new(&cloud.dynamodb.config(), &cloud.table);
    let mut rows: Vec<Registration> = Vec::new();
    for phone in phones {
        let target = Target {
            recipient: phone.jid.clone(),
            application: hashed("app").parse()?,
            instance: hashed("1").parse()?,
            vapid: None,
            legacy: None,
        };
        let registered = table.register(target, Utc::now(), TimeDelta::days(7), Renewal::Always, 1).await?;
        rows.push(registered.stored().context("the account is full")?);
    }
    Ok(rows)
}

async fn fill(cloud: &Cloud, queue: &str, phones: &[Receiver]) -> anyhow::Result<()> {
    let rows = rows(cloud, phones).await?;
    let queue = QueueSender::new(&cloud.sqs.config(), queue);
    let messages = (0..PUSHES).map(|number| message(number, &rows[number % PHONES]));
    stream::iter(messages.map(Ok))
        .try_for_each_concurrent(SENDS_AT_ONCE, |message| queue.send(message))
        .await
        .map_err(anyhow::Error::from)
}

/// Returns a push as the function queues it.
#[expect(clippy::disallowed_methods, reason = "the relay compares with its own clock")]
pub(crate) fn message(number: usize, row: &Registration) -> PushMessage {
    let chance = (number as u64).to_be_bytes();
    let wishes = Wishes { ttl: Ttl::from_seconds(86_400), urgency: Urgency::Normal, topic: None };
    PushMessage::new(chance, row, wishes, Body::from_bytes(&[0; BODY_BYTES]), Utc::now())
}
