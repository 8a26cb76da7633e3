//! CPU time and memory of processes and of the machine, from `/proc`.

use std::fs;
use std::process::{self, Command};
use std::thread;

use anyhow::Context;

/// The unit of CPU time. Linux counts it for user space in hundredths of a second, on every architecture.
const TICK_SECONDS: f64 = 0.01;

/// A process that is measured.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its name for the reader.
    pub title: String,
    /// Its process id.
    pub pid: u32,
}

impl Process {
    /// Returns this process, the load generator: phones, senders, and the bare component.
    pub fn own() -> Self {
        Self { title: "load generator".to_owned(), pid: process::id() }
    }

    /// Returns the CPU time of all threads so far, in seconds.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = self.read("stat")?;
        // Skips the name, which may contain anything but ends at the last parenthesis. The third field follows it.
        let fields = stat.rsplit_once(')').context("a name in parentheses")?.1;
        let mut fields = fields.split_whitespace().skip(11).map(str::parse::<u64>);
        let (user, system) = (fields.next().context("utime")??, fields.next().context("stime")??);
        Ok((user + system) as f64 * TICK_SECONDS)
    }

    /// Returns the number of bytes that the process has had written to disks so far.
    pub fn bytes_written(&self) -> anyhow::Result<f64> {
        let io = self.read("io")?;
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes:")).context("write_bytes")?;
        Ok(line.trim().parse()?)
    }

    /// Returns the most memory that the process has had resident, in MiB.
    pub fn memory_peak_mib(&self) -> anyhow::Result<f64> {
        self.status_mib("VmHWM:")
    }

    /// Returns the resident memory of the process, in MiB.
    pub fn memory_mib(&self) -> anyhow::Result<f64> {
        self.status_mib("VmRSS:")
    }

    fn status_mib(&self, name: &'static str) -> anyhow::Result<f64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context(name)?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib / 1024.0)
    }

    fn read(&self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.pid);
        fs::read_to_string(&path).with_context(|| format!("{path} of {}", self.title))
    }
}

/// Returns the CPU time of all cores and processes so far, in seconds.
pub fn busy_seconds() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let line = stat.lines().next().context("a line")?;
    let fields = line.split_whitespace().skip(1).map(str::parse::<u64>).collect::<Result<Vec<_>, _>>()?;
    // user nice system idle iowait irq softirq steal; user includes the time of guests.
    let busy: u64 =
        fields.iter().take(8).enumerate().filter(|(at, _)| ![3, 4].contains(at)).map(|(_, t)| t).sum();
    Ok(busy as f64 * TICK_SECONDS)
}

/// Returns the number of cores of this machine.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Describes processor, kernel and the packages under test, in one line.
pub fn describe() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let information = read("/proc/cpuinfo");
    let model = information.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let kernel = read("/proc/sys/kernel/osrelease");
    let versions = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${Version}, ", "prosody", "prosody-modules", "ejabberd"])
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    let versions = versions.trim_end_matches(", ");
    format!("{} cores ({model}), Linux {}; {versions}", cores(), kernel.trim())
}
