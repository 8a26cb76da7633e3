//! The store of an operator's commands: a database on this machine, or tables on AWS.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use aws::{MailboxTable, RegistrationsTable};
use chrono::{DateTime, Utc};
use embedded::{Database, OpenError};
use push::ports::{Mailbox, OperatorStore};
use tokio::runtime::Runtime;

use crate::aws_configuration;
use crate::configuration::ConfigurationError;

/// The default path of the database.
const DATABASE: &str = "upwire.db";

/// The remedy if this user may not use the database.
const AS_ITS_USER: &str =
    "run it as the user that the server runs as, for example with `sudo -u upwire` in front of the command";

/// Ends the help of these commands.
pub(crate) const AFTER_HELP: &str = "\
It works on the database of `upwire serve`, which may run meanwhile (UPWIRE_DATABASE), or on the tables on AWS \
(UPWIRE_REGISTRATIONS_TABLE and UPWIRE_MAILBOX_TABLE, with AWS_REGION and credentials as for `upwire relay`).

Exit codes: 0 done; 1 the database or a table cannot be used; 64 wrong usage or configuration.";

/// Which store.
#[derive(Debug, clap::Args)]
pub(crate) struct StoreOptions {
    /// The SQLite file [default: upwire.db, unless tables are named]
    #[arg(long, value_name = "FILE", env = "UPWIRE_DATABASE", global = true)]
    database: Option<PathBuf>,

    /// The DynamoDB table of registrations: the stack's output RegistrationsTable
    #[arg(long, value_name = "NAME", env = "UPWIRE_REGISTRATIONS_TABLE", global = true)]
    registrations_table: Option<String>,

    /// The DynamoDB table of pushes that wait for phones: the stack's output MailboxTable
    #[arg(long, value_name = "NAME", env = "UPWIRE_MAILBOX_TABLE", global = true)]
    mailbox_table: Option<String>,
}

impl StoreOptions {
    /// Returns the path of the database; `None`: the store is on AWS.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        let file = || self.database.clone().unwrap_or_else(|| DATABASE.into());
        self.registrations_table.is_none().then(file)
    }

    /// Returns the names of the tables of registrations and of mailboxes.
    pub(crate) fn tables(&self) -> (String, Option<String>) {
        (self.registrations_table.clone().unwrap_or_default(), self.mailbox_table.clone())
    }
}

/// Work on a store of either kind.
pub(crate) trait Work {
    /// Does the work.
    async fn on<S: OperatorStore, M: Mailbox>(self, store: S, mailbox: M) -> anyhow::Result<()>;
}

/// Does the work on the store that the options name.
pub(crate) fn run(options: StoreOptions, work: impl Work) -> anyhow::Result<()> {
    let outcome = Runtime::new()?.block_on(async {
        match options {
            StoreOptions { database: Some(_), registrations_table: Some(_), .. } => {
                let problem = "is given, and UPWIRE_REGISTRATIONS_TABLE too";
                Err(ConfigurationError::new("UPWIRE_DATABASE", problem, "give one of the two").into())
            }
            StoreOptions { registrations_table: Some(table), mailbox_table, .. } => {
                let mailbox_table = mailbox_table.ok_or_else(|| {
                    let mend = "set it to the stack's output MailboxTable";
                    ConfigurationError::new("UPWIRE_MAILBOX_TABLE", "is missing", mend)
                })?;
                let config = aws_configuration::read().await?;
                let registrations = RegistrationsTable::new(&config, &table);
                work.on(registrations, MailboxTable::new(&config, &mailbox_table)).await
            }
            StoreOptions { database, .. } => {
                let file = database.unwrap_or_else(|| DATABASE.into());
                let exists = file.try_exists().map_err(|cause| {
                    let path = file.clone();
                    cannot_be_opened(&file, &OpenError::File { path, cause })
                })?;
                if !exists {
                    let problem = format!("{} does not exist", file.display());
                    let mend = "name the database of `upwire serve`, or set UPWIRE_REGISTRATIONS_TABLE";
                    return Err(ConfigurationError::new("UPWIRE_DATABASE", problem, mend).into());
                }
                let database = Database::beside(&file).map_err(|error| cannot_be_opened(&file, &error))?;
                let outcome = work.on(database.clone(), database.clone()).await;
                // The server has the number of waiting pushes in memory, so it has to count again.
                database.note_change_beside().await?;
                outcome
            }
        }
    });
    match outcome {
        // The reader of stdout has closed the pipe.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        outcome => outcome,
    }
}

/// Makes the error, with the remedy.
fn cannot_be_opened(file: &Path, error: &OpenError) -> anyhow::Error {
    let mend = match error {
        OpenError::Newer { .. } => "use the upwire that serves it",
        OpenError::File { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied => AS_ITS_USER,
        OpenError::Sqlite { .. } if may_not_write(file) => AS_ITS_USER,
        _ => "name the database of `upwire serve`, or look at the file and its disk",
    };
    anyhow!("the database (UPWIRE_DATABASE) cannot be opened: {error}; {mend}")
}

/// Returns whether this user may not write the file. SQLite does not tell this reason from others.
fn may_not_write(file: &Path) -> bool {
    let opened = OpenOptions::new().write(true).open(file);
    opened.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Returns the time at which the command runs.
#[expect(clippy::disallowed_methods, reason = "the edge: the moment is passed down from here")]
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_permission_is_told_whose_database_it_is_and_nothing_of_versions() {
        let path = PathBuf::from("/var/lib/upwire/upwire.db");
        let said = |error: OpenError| cannot_be_opened(&path, &error).to_string();
        let file = |kind: io::ErrorKind| OpenError::File { path: path.clone(), cause: kind.into() };
        let denied = said(file(io::ErrorKind::PermissionDenied));
        assert!(denied.contains("as the user that the server runs as") && denied.contains("sudo -u upwire"));
        assert!(!denied.contains("the upwire that serves it"), "{denied}");
        let newer = said(OpenError::Newer { path: path.clone(), found: 9, known: 5 });
        assert!(newer.contains("use the upwire that serves it") && !newer.contains("sudo"), "{newer}");
        let other = said(file(io::ErrorKind::IsADirectory));
        assert!(!other.contains("sudo") && !other.contains("the upwire that serves it"), "{other}");
    }
}
