//! `upwire backup`: copies the database while the server runs.

use std::io::Write;
use std::path::PathBuf;

use crate::configuration::existing;

/// Copy the database, while the server runs or not.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Copies the database of `upwire serve` to FILE, as one moment left it, while the server runs or not. The \
        copy is whole by itself, is checked, and only its owner may read it: it has addresses, pushes and the secret of \
        the first start in it. Nothing is overwritten. `upwire restore` puts it back.",
    after_long_help = "Example, from cron, as the user that runs the server:\n  \
        upwire backup --database /var/lib/upwire/upwire.db /var/backups/upwire-$(date +%F).db\n\n\
        Exit codes: 0 copied; 1 FILE exists, or a file cannot be read or written; 64 wrong usage."
)]
pub(crate) struct Options {
    /// The copy
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The SQLite file
    #[arg(long, value_name = "FILE", env = "UPWIRE_DATABASE", default_value = "upwire.db")]
    database: PathBuf,
}

/// Makes the copy, and prints what it contains.
pub(crate) fn run(Options { file, database }: &Options) -> anyhow::Result<()> {
    let contents = embedded::back_up(existing(database)?, file).map_err(with_mend)?;
    // Not `println!`: a closed stdout must not cause a panic after the work is done.
    let _ = writeln!(
        std::io::stdout(),
        "{} has {} registrations and {} pushes; keep it as safe as the server's secret",
        file.display(),
        contents.registrations,
        contents.pushes
    );
    Ok(())
}

/// Adds the remedy to an error. SQLite does not name the cause if the file system refuses.
fn with_mend(error: embedded::BackupError) -> anyhow::Error {
    let text = error.to_string();
    if ["unable to open", "readonly", "Permission denied"].iter().any(|refusal| text.contains(refusal)) {
        anyhow::anyhow!("{text}; run this as the user that the server runs as (sudo -u upwire …)")
    } else {
        error.into()
    }
}
