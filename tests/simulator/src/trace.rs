//! The trace: a hash of all events and their moments, and a line for each event if the plan keeps them.

use std::{
    fmt::{self, Write},
    time::Duration,
};

/// The trace of one run.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: Hash,
    lines: Option<Vec<String>>,
    count: u64,
}

/// FNV-1a over text.
#[derive(Debug)]
struct Hash(u64);

impl Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

impl Trace {
    pub(crate) fn new(keep_lines: bool) -> Self {
        Self { hash: Hash(0xcbf2_9ce4_8422_2325), lines: keep_lines.then(Vec::new), count: 0 }
    }

    /// Notes an event at a moment of the simulated time.
    pub(crate) fn note(&mut self, at: Duration, event: fmt::Arguments<'_>) {
        self.count += 1;
        // A write into the hash never fails.
        let _ = writeln!(self.hash, "{} {event}", at.as_nanos());
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>10.3} {event}", at.as_secs_f64()));
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash.0
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default()
    }
}
