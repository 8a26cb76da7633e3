//! The plan: the duration, the XMPP server, and the rate.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use e2e::Kind;

const USAGE: &str =
    "cargo bench -p e2e --bench soak -- [--hours HOURS] [--server prosody|ejabberd] [--rate PUSHES_A_SECOND]";
const SECONDS_PER_HOUR: f64 = 3600.0;
/// Shortest run in hours whose quarters prove anything.
const HOURS_MIN: f64 = 0.02;

pub(crate) struct Plan {
    pub(crate) length: Duration,
    pub(crate) kind: Kind,
    /// Time for which the ceiling is measured.
    pub(crate) ceiling_window: Duration,
    rate: Option<f64>,
}

impl Plan {
    /// Reads the command line; `cargo bench` adds `--bench` to it.
    pub(crate) fn read(arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let (mut hours, mut kind, mut rate) = (1.0, Kind::Prosody, None);
        let mut arguments = arguments.filter(|argument| argument != "--bench");
        while let Some(argument) = arguments.next() {
            let value = arguments.next().context(USAGE)?;
            match (argument.as_str(), value.as_str()) {
                ("--hours", value) => hours = value.parse().context(USAGE)?,
                ("--server", "prosody") => kind = Kind::Prosody,
                ("--server", "ejabberd") => kind = Kind::Ejabberd,
                ("--rate", value) => rate = Some(value.parse().context(USAGE)?),
                _ => bail!("{argument} {value}? {USAGE}"),
            }
        }
        ensure!(hours >= HOURS_MIN, "{HOURS_MIN} hours at least");
        ensure!(rate.is_none_or(|rate: f64| rate >= 1.0), USAGE);
        let length = Duration::from_secs_f64(hours * SECONDS_PER_HOUR);
        Ok(Self { length, kind, ceiling_window: Duration::from_secs(4), rate })
    }

    /// Returns the pushes per second to the phones that stay: half of the ceiling, unless another rate is asked for.
    pub(crate) fn rate(&self, ceiling: f64) -> f64 {
        self.rate.unwrap_or(ceiling / 2.0)
    }
}
