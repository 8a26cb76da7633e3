//! `upwire restore`: replaces the database by a copy, and prints the losses.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use embedded::{BackupError, Ending, EndsSince, Losses, Restoration};

use crate::store;

/// Put a copy of the database back, while the server is stopped.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Puts FILE, a copy that `upwire backup` made, in the place of the database. The server has to be stopped. \
        FILE is checked first, and stays as it is; the present database is set aside under a name that is printed. What \
        has been registered since the copy was made is lost, and each endpoint that ends by that is printed: senders are \
        answered 503 for three days and then 410, and phones get new ones as they renew. What has ended since stays ended. Pushes that were delivered \
        since may come a second time.",
    after_long_help = "Example:\n  \
        systemctl stop upwire && upwire restore --database /var/lib/upwire/upwire.db /var/backups/upwire-2026-01-31.db\n  \
        systemctl start upwire\n\n\
        Exit codes: 0 restored; 1 the server runs, FILE is damaged or no copy, or a file cannot be read or written; \
        64 wrong usage."
)]
pub(crate) struct Options {
    /// The copy
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The SQLite file to replace; it may be missing
    #[arg(long, value_name = "FILE", env = "UPWIRE_DATABASE", default_value = "upwire.db")]
    database: PathBuf,

    /// Say what would happen, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Restores the copy, and prints the losses.
pub(crate) fn run(Options { file, database, dry_run }: &Options) -> anyhow::Result<()> {
    let restoration =
        Restoration::prepare(file, database, store::now()).map_err(|error| with_mend(error, file))?;
    let mut said = BufWriter::new(io::stdout());
    say(&mut said, &restoration)?;
    if *dry_run {
        writeln!(said, "nothing was changed")?;
        return Ok(said.flush()?);
    }
    said.flush()?;
    let contents = restoration.contents;
    let aside = restoration.put_in_place()?;
    // The restoration is done, even if stdout is closed.
    let _ = writeln!(
        said,
        "{} is restored, with {} registrations and {} pushes",
        database.display(),
        contents.registrations,
        contents.pushes
    );
    if let Some(aside) = aside {
        let _ = writeln!(said, "the database of before is {}: remove it when all is well", aside.display());
    }
    let _ = said.flush();
    Ok(())
}

/// Adds the remedy to an error.
fn with_mend(error: BackupError, copy: &Path) -> anyhow::Error {
    match &error {
        BackupError::InUse(_) => anyhow!("{error}: stop the server first"),
        BackupError::File { path, cause } if path == copy && cause.kind() == ErrorKind::NotFound => {
            anyhow!("{} does not exist; name a copy that `upwire backup` made", copy.display())
        }
        BackupError::Foreign { path, .. } if path == copy => {
            anyhow!("{error}; name a copy that `upwire backup` made")
        }
        BackupError::Damaged { path, .. } if path == copy => anyhow!("{error}; name another copy"),
        _ => error.into(),
    }
}

/// Prints the losses: one line for each endpoint that ends, then the rest.
fn say(said: &mut impl Write, restoration: &Restoration) -> anyhow::Result<()> {
    let mut count = 0_u64;
    restoration.ending(|Ending { account, id, why }| {
        count += 1;
        let why = match why {
            EndsSince::Registered => "registered since",
            EndsSince::BegunAnew => "begun anew since",
            EndsSince::Lapsed => "lapsed in the copy",
        };
        writeln!(said, "ends: {account} {id} ({why})")
    })?;
    match &restoration.losses {
        None => writeln!(said, "there is no database yet: no endpoint ends")?,
        Some(Err(error)) => writeln!(
            said,
            "the present database cannot be read ({error}): every endpoint that was registered since the copy ends"
        )?,
        Some(Ok(Losses { stay_ended, pushes, secret, secret_of_before })) => {
            writeln!(said, "{count} endpoints end; {stay_ended} of the copy have ended since, and stay so")?;
            writeln!(
                said,
                "{pushes} pushes of the present database are not in the copy, and are lost to it"
            )?;
            writeln!(said, "tenants and their usage stay as the present database has them")?;
            if *secret_of_before {
                writeln!(
                    said,
                    "the copy has a secret of the first start that the present database does not have: endpoints that \
                     it signed are in force again; `upwire secret retire` ends them"
                )?;
            }
            if *secret {
                writeln!(
                    said,
                    "the copy does not have the secret of the first start that the present database has: endpoints \
                     that it signed are dead, unless UPWIRE_SECRET holds it"
                )?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_copy_is_named_with_the_mend() {
        let folder = tempfile::tempdir().unwrap();
        let (file, database) = (folder.path().join("copy.db"), folder.path().join("upwire.db"));
        let options = Options { file: file.clone(), database, dry_run: false };
        for (text, problem) in
            [(None, "copy.db does not exist; "), (Some("text".repeat(300)), "is no database")]
        {
            if let Some(text) = text {
                std::fs::write(&file, text).unwrap();
            }
            let error = run(&options).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
            assert!(error.ends_with("; name a copy that `upwire backup` made"), "{error}");
        }
    }
}
