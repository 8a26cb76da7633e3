//! Parts that the measurements share: pushes that wait at first, conditions to wait for, and the CPU time that was
//! spent.

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

/// Number of senders at a time, if pushes come as fast as they are taken.
pub(crate) const SENDERS: usize = 16;
/// Time after which missing pushes are lost.
const DEADLINE: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Number of writes at once, more than share a commit.
const WRITES_AT_ONCE: usize = 1024;

/// One measurement of a number of pushes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) pushes: usize,
    pub(crate) time: Duration,
    /// CPU seconds of Upwire, and of the XMPP server.
    pub(crate) upwire: f64,
    pub(crate) xmpp_server: f64,
    /// Share of the machine that other processes took. It includes the kernel's own work for the benchmark.
    pub(crate) others: f64,
}

impl Run {
    pub(crate) fn per_second(&self) -> f64 {
        self.pushes as f64 / self.time.as_secs_f64()
    }
}

/// The CPU time of all processes at a moment.
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

    /// Returns the measurement, which ends now.
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

/// Waits until everything that was accepted has arrived, the queue is empty, and `waiting` pushes are in the mailbox.
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

/// Makes a database in which these pushes wait, in the order in which they would have come. `target` gets the number of
/// a phone.
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

/// Returns the server's name as people write it.
pub(crate) fn server_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Prosody => "Prosody",
        Kind::Ejabberd => "ejabberd",
    }
}

/// Returns the median; of two middle values, the lower.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}
