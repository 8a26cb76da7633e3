//! `upwire backup`: copies the database while the server runs.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use anyhow::anyhow;
use embedded::BackupError;

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
fn with_mend(error: BackupError) -> anyhow::Error {
    let text = error.to_string();
    let mend = match &error {
        BackupError::File { cause, .. } if cause.kind() == ErrorKind::NotFound => {
            "make that folder first, or name a file in one that is there"
        }
        _ if ["unable to open", "readonly", "Permission denied"]
            .iter()
            .any(|refusal| text.contains(refusal)) =>
        {
            "run this as the user that the server runs as (sudo -u upwire …)"
        }
        _ => return error.into(),
    };
    anyhow!("{text}; {mend}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_missing_is_named_with_the_mend() {
        let folder = tempfile::tempdir().unwrap();
        let (database, missing) = (folder.path().join("upwire.db"), folder.path().join("missing"));
        drop(embedded::Database::open(&database).unwrap());
        let error = run(&Options { file: missing.join("copy.db"), database }).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: ", missing.display())), "{error}");
        assert!(error.contains("; make that folder first") && !error.contains(".upwire-"), "{error}");
    }
}
