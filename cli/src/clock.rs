//! `upwire clock`: tells the server that the machine's clock is right.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use chrono::{DateTime, Utc};
use metrics::{describe_gauge, gauge};
use push::Clock;

use crate::configuration::existing;

const IN_DOUBT: &str = "upwire_clock_in_doubt";

/// Describes the metric to the recorder.
pub(crate) fn describe_metrics() {
    describe_gauge!(IN_DOUBT, "1 while the machine's clock is wrong, and nothing is ended for good by it");
}

/// Sets the metric for whether the clock is in doubt.
pub(crate) fn show(is_in_doubt: bool) {
    gauge!(IN_DOUBT).set(f64::from(u8::from(is_in_doubt)));
}

/// Say that this machine's clock is right.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "`upwire serve` goes by the time that was last known, and by what has passed since, while this machine's clock \
        is more than an hour from that. It ends nothing for good then, and asks registrations to wait.",
    arg_required_else_help = true
)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Accept(Accept),
}

/// Have the server believe the clock as it is now.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Has the server on this database believe the clock of this machine as it is now, within a second if it runs, or \
        when it starts, within the hour. Look at the clock first (`date`): what is over by it is over for good then.",
    after_long_help = "Exit codes: 0 said; 1 it cannot be said; 64 wrong usage."
)]
struct Accept {
    /// The SQLite file
    #[arg(long, value_name = "FILE", env = "UPWIRE_DATABASE", default_value = "upwire.db")]
    database: PathBuf,
}

/// Returns the path of the file that accepts the clock, beside the database. It has the time by this machine's clock,
/// in Unix milliseconds.
pub(crate) fn acceptance(database: &Path) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(".clock-accepted");
    name.into()
}

/// Writes the file that accepts the clock.
pub(crate) fn run(Options { action: Action::Accept(accept) }: Options) -> anyhow::Result<()> {
    let said = accept_at(&accept.database, Clock::system().now())?;
    // Not `println!`: a closed stdout must not cause a panic after the work is done.
    let _ = writeln!(std::io::stdout(), "{said}");
    Ok(())
}

fn accept_at(database: &Path, now: DateTime<Utc>) -> anyhow::Result<String> {
    let file = acceptance(existing(database)?);
    // The file is written and then renamed, so that the server never reads half of it.
    let half = file.with_extension("half");
    let written = std::fs::write(&half, now.timestamp_millis().to_string());
    written
        .and_then(|()| std::fs::rename(&half, &file))
        .with_context(|| format!("{} cannot be written: do it as the server's user", file.display()))?;
    Ok(format!(
        "{now} is accepted: a server that runs believes it within a second, one that does not when it starts within the \
         hour; its log says so then"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_waits_for_a_server_that_does_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("upwire.db");
        std::fs::write(&database, "").unwrap();
        let said = accept_at(&database, DateTime::UNIX_EPOCH).unwrap();
        assert!(said.contains("is accepted") && said.contains("when it starts"), "{said}");
        assert_eq!(std::fs::read_to_string(acceptance(&database)).unwrap(), "0");
    }
}
