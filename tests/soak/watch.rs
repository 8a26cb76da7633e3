//! Looks at the push server again and again, and keeps the observations by quarters.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use e2e::Upwire;
use e2e::bench::Journal;
use e2e::machine::Process;
use tokio::time::sleep;

const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Number of looks in an interval. Latencies are judged by intervals, so that a disturbance of one affects no other.
const LOOKS_PER_INTERVAL: usize = 10;
pub(crate) const QUARTERS: usize = 4;
const BYTES_PER_MIB: f64 = 1_048_576.0;

/// The journals of pushes to phones that stay, and to phones that come and go.
#[derive(Default)]
pub(crate) struct Journals {
    pub(crate) stayers: Rc<Journal>,
    pub(crate) roamers: Rc<Journal>,
}

impl Journals {
    fn both(&self) -> [&Rc<Journal>; 2] {
        [&self.stayers, &self.roamers]
    }

    pub(crate) fn posted(&self) -> usize {
        self.both().map(|journal| journal.posted_so_far()).iter().sum()
    }

    pub(crate) fn errors(&self) -> u64 {
        self.both().map(|journal| journal.errors()).iter().sum()
    }

    /// Waits for the pushes that were accepted, until the deadline. Returns the number of those that have not arrived.
    pub(crate) async fn lost_after(&self, deadline: Duration) -> usize {
        let under_way = || self.both().map(|journal| journal.under_way()).iter().sum();
        let begin = Instant::now();
        while under_way() > 0 && begin.elapsed() < deadline {
            sleep(super::POLL_INTERVAL).await;
        }
        under_way()
    }
}

/// The figures of a quarter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quarter {
    /// Average memory.
    pub(crate) memory_mib: f64,
    /// Medians of the intervals' own p50 and p99.
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Largest size of the database and its log.
    pub(crate) file_mib: f64,
    /// CPU time of the push server per push that arrived at a phone that stays, in microseconds.
    pub(crate) cpu_micros: f64,
    /// Pushes per second that arrived at phones that stay.
    pub(crate) per_second: f64,
}

#[derive(Default)]
struct Looks {
    memory_mib: Vec<f64>,
    file_mib: Vec<f64>,
    p50: Vec<Duration>,
    p99: Vec<Duration>,
    arrived: usize,
    cpu_seconds: f64,
    seconds: f64,
}

/// The observations so far, and the state since the last look.
pub(crate) struct Watch<'a> {
    process: Process,
    database: PathBuf,
    journals: &'a Journals,
    begin: Instant,
    length: Duration,
    /// Latencies of the current interval.
    times: Vec<Duration>,
    looks: usize,
    last: (Instant, f64),
    quarters: [Looks; QUARTERS],
}

impl<'a> Watch<'a> {
    pub(crate) fn of(upwire: &Upwire, length: Duration, journals: &'a Journals) -> Self {
        Self {
            process: Process { title: "upwire serve".to_owned(), pid: upwire.pid() },
            database: upwire.database(),
            journals,
            begin: Instant::now(),
            length,
            times: Vec::new(),
            looks: 0,
            last: (Instant::now(), 0.0),
            quarters: Default::default(),
        }
    }

    /// Waits a moment, and looks. Returns whether the run goes on.
    pub(crate) async fn look(&mut self) -> anyhow::Result<bool> {
        sleep(LOOK_INTERVAL).await;
        let (memory_mib, cpu) = (self.process.memory_mib()?, self.process.cpu_seconds()?);
        let file_mib = bytes_of(&self.database) as f64 / BYTES_PER_MIB;
        let times = self.journals.stayers.forget_oldest();
        self.journals.roamers.forget_oldest();
        let now = Instant::now();
        let ran = now.duration_since(self.begin);
        if ran >= self.length {
            return Ok(false);
        }
        let quarter = (ran.as_secs_f64() / self.length.as_secs_f64() * QUARTERS as f64) as usize;
        let looks = &mut self.quarters[quarter.min(QUARTERS - 1)];
        looks.memory_mib.push(memory_mib);
        looks.file_mib.push(file_mib);
        if self.looks > 0 {
            looks.arrived += times.len();
            looks.cpu_seconds += cpu - self.last.1;
            looks.seconds += now.duration_since(self.last.0).as_secs_f64();
        }
        self.last = (now, cpu);
        self.looks += 1;
        self.times.extend(times);
        if self.looks.is_multiple_of(LOOKS_PER_INTERVAL) && !self.times.is_empty() {
            self.times.sort_unstable();
            looks.p50.push(self.times[self.times.len() / 2]);
            looks.p99.push(self.times[self.times.len() * 99 / 100]);
            self.times.clear();
        }
        Ok(true)
    }

    pub(crate) fn quarters(&self) -> [Quarter; QUARTERS] {
        [0, 1, 2, 3].map(|place| self.quarters[place].sum_up())
    }
}

impl Looks {
    fn sum_up(&self) -> Quarter {
        let average = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let median = |times: &[Duration]| {
            let mut times = times.to_vec();
            times.sort_unstable();
            times.get(times.len() / 2).copied().unwrap_or_default()
        };
        Quarter {
            memory_mib: average(&self.memory_mib),
            p50: median(&self.p50),
            p99: median(&self.p99),
            file_mib: self.file_mib.iter().copied().fold(0.0, f64::max),
            cpu_micros: self.cpu_seconds * 1e6 / self.arrived as f64,
            per_second: self.arrived as f64 / self.seconds,
        }
    }
}

/// Returns the bytes of the database and its log.
fn bytes_of(database: &Path) -> u64 {
    let log = database.with_extension("db-wal");
    let bytes = [database, &log].map(|file| fs::metadata(file).map_or(0, |file| file.len()));
    bytes.iter().sum()
}
