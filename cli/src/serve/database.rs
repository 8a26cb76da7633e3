//! Opens the database of `serve`, with a remedy for each failure.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::anyhow;
use embedded::{Database, OpenError};

use crate::private;

/// Opens the database, or creates it. A file of another program is not changed.
pub(super) fn open(path: &Path) -> anyhow::Result<Database> {
    let refusal = |error: OpenError| {
        let text = error.to_string();
        let mend = mend(&error, &text).map(|mend| format!("; {mend}")).unwrap_or_default();
        anyhow!("the database (UPWIRE_DATABASE) cannot be opened: {text}{mend}")
    };
    Database::examine(path).map_err(refusal)?;
    private::tighten(path)?;
    Database::open(path).map_err(refusal)
}

const NOT_ALLOWED: &str = "let this user write to it and to its folder, or name a file where it may";

fn mend(error: &OpenError, text: &str) -> Option<&'static str> {
    Some(match error {
        OpenError::InUse(_) => "one process for one database: end the other",
        OpenError::Newer { .. } => "run that upwire, or one that is newer still",
        OpenError::Foreign(_) => {
            "it was left as it is: name a file of Upwire's own, or one that is not there yet"
        }
        OpenError::Sqlite { .. } if text.contains("is locked") => "another program has it open: end it",
        OpenError::Sqlite { .. } if text.contains("not a database") => {
            "it was left as it is: name a file of Upwire's own, or one that is not there yet"
        }
        OpenError::Sqlite { .. } if text.contains("malformed") => {
            "it is damaged: put a backup in its place (upwire restore)"
        }
        OpenError::Sqlite { .. }
            if ["unable to open", "readonly"].iter().any(|refusal| text.contains(refusal)) =>
        {
            NOT_ALLOWED
        }
        OpenError::File { cause, .. } => match cause.kind() {
            ErrorKind::NotFound => "make its folder, or name a file in one that is there",
            ErrorKind::IsADirectory => "name a file in that folder",
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => NOT_ALLOWED,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room on that disk",
            _ => return None,
        },
        OpenError::Sqlite { .. } => return None,
    })
}
