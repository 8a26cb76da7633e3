//! Parts that the measurements share: senders, an end to wait for, and the processor time spent by then.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::bench::Journal;
use e2e::machine::{self, Process};
use e2e::{Kind, Upwire, XmppServer};
use tokio::time::sleep;

/// Senders at a time, where pushes come as fast as they are taken.
pub(crate) const SENDERS: usize = 16;
/// Time after which pushes that stay away are lost.
const DEADLINE: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

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
