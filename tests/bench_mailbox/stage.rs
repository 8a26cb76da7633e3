//! Parts that the measurements share: what waits at first, an end to wait for, and the processor time spent by then.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use e2e::bench::{BODY_BYTES, Journal};
use e2e::machine::{self, Process};
use e2e::{Kind, Upwire, XmppServer};
use embedded::Database;
use futures::{StreamExt, TryStreamExt, stream};
use push::message::Wishes;
use push::ports::{Mailbox, Registrations, Renewal, Waiting};
use push::{Body, MailboxBounds, PushMessage, Registration, Target, Ttl, Urgency};
use tokio::time::sleep;

use crate::plan::Case;

/// Senders at a time, where pushes come as fast as they are taken.
pub(crate) const SENDERS: usize = 16;
/// Time after which pushes that stay away are lost.
const DEADLINE: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// More than share a commit.
const WRITES_AT_ONCE: usize = 1024;

/// One measurement: so many pushes from a beginning to an end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) pushes: usize,
    pub(crate) time: Duration,
    /// CPU seconds that each took.
    pub(crate) upwire: f64,
    pub(crate) xmpp_server: f64,
    /// Share of the machine that other processes took; the kernel's own work for us is among it.
    pub(crate) others: f64,
}

impl Run {
    pub(crate) fn per_second(&self) -> f64 {
        self.pushes as f64 / self.time.as_secs_f64()
    }
}

/// The processor time of all processes at some moment.
pub(crate) struct Watch<'a> {
    processes: [&'a Process; 2],
    at: Instant,
    spent: [f64; 2],
    own: f64,
    machine: f64,
}

impl<'a> Watch<'a> {
    pub(crate) fn start(upwire: &'a Process, xmpp_server: &'a Process) -> anyhow::Result<Self> {
        let processes = [upwire, xmpp_server];
        let spent = [upwire.cpu_seconds()?, xmpp_server.cpu_seconds()?];
        let (own, machine) = (Process::own().cpu_seconds()?, machine::busy_seconds()?);
        Ok(Self { processes, at: Instant::now(), spent, own, machine })
    }

    /// The measurement that ends now.
    pub(crate) fn stop(&self, pushes: usize) -> anyhow::Result<Run> {
        let time = self.at.elapsed();
        let upwire = self.processes[0].cpu_seconds()? - self.spent[0];
        let xmpp_server = self.processes[1].cpu_seconds()? - self.spent[1];
        let own = Process::own().cpu_seconds()? - self.own;
        let others = (machine::busy_seconds()? - self.machine - upwire - xmpp_server - own).max(0.0);
        let others = others / time.as_secs_f64() / machine::cores() as f64;
        Ok(Run { pushes, time, upwire, xmpp_server, others })
    }
}

pub(crate) fn processes(upwire: &Upwire, server: &XmppServer) -> anyhow::Result<(Process, Process)> {
    let pid = server.pid().context("the XMPP server runs")?;
    Ok((
        Process { title: "upwire serve".to_owned(), pid: upwire.pid() },
        Process { title: server_name(server.kind).to_owned(), pid },
    ))
}

/// Waits until everything that was accepted has arrived, and Upwire has nothing left of it.
pub(crate) async fn arrive(upwire: &Upwire, waiting: f64, journal: &Journal) -> anyhow::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    while journal.under_way() > 0 {
        ensure!(Instant::now() < deadline, "lost: {} pushes have not arrived", journal.under_way());
        sleep(POLL_INTERVAL).await;
    }
    reaches(upwire, "upwire_queue_depth", 0.0).await?;
    reaches(upwire, "upwire_mailbox_depth", waiting).await
}

/// Waits until a gauge has this value.
pub(crate) async fn reaches(upwire: &Upwire, metric: &str, expected: f64) -> anyhow::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let value = upwire.measure(metric).await;
        if value == expected {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{metric} stays at {value} instead of {expected}");
        sleep(POLL_INTERVAL).await;
    }
}

/// Makes a database in which so much waits, in the order in which it would have come; the phones are named by number.
#[expect(clippy::disallowed_methods, reason = "the push server compares with its own clock")]
pub(crate) async fn fill(
    file: &Path,
    crowd: Case,
    bounds: MailboxBounds,
    target: impl Fn(usize) -> Target,
) -> anyhow::Result<()> {
    let (database, now) = (Database::open(file)?, Utc::now());
    let lifetime = TimeDelta::days(7);
    stream::iter(0..crowd.phones)
        .map(|phone| database.register(target(phone), now, lifetime, Renewal::Always, crowd.phones))
        .buffer_unordered(WRITES_AT_ONCE)
        .try_for_each(async |_| Ok(()))
        .await?;
    stream::iter(0..crowd.pushes())
        .map(|number| {
            let registration = Registration::renew(None, target(number % crowd.phones), now, lifetime);
            database.keep(push(number, &registration, now), bounds)
        })
        .buffer_unordered(WRITES_AT_ONCE)
        .try_for_each(async |_| Ok(()))
        .await?;
    Ok(())
}

fn push(number: usize, registration: &Registration, now: DateTime<Utc>) -> Waiting {
    let wishes = Wishes { ttl: Ttl::from_seconds(7 * 86_400), urgency: Urgency::Normal, topic: None };
    let body = Body::from_bytes(&[number.to_le_bytes()[0]; BODY_BYTES]);
    let accepted_at = now + TimeDelta::microseconds(number as i64);
    let chance = (number as u64).to_be_bytes();
    Waiting { message: PushMessage::new(chance, registration, wishes, body, accepted_at), asked_at: None }
}

/// The server as people write it.
pub(crate) fn server_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Prosody => "Prosody",
        Kind::Ejabberd => "ejabberd",
    }
}

/// The middle one; of two, the lower.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}
