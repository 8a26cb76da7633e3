//! Keeps the database's files private, since they contain JIDs and a secret.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;

/// The permission bits of all but the owner.
const OTHERS: u32 = 0o077;
/// Suffixes that SQLite and the lock add to the database's name.
const ENDINGS: [&str; 4] = ["", "-wal", "-shm", ".lock"];

/// Removes the permissions of group and others from the database's files, and logs that. Missing files are skipped.
pub(crate) fn tighten(database: &Path) -> anyhow::Result<()> {
    for ending in ENDINGS {
        let mut name = OsString::from(database);
        name.push(ending);
        let file = Path::new(&name);
        let mode = match fs::metadata(file) {
            Ok(metadata) if metadata.is_file() => metadata.permissions().mode(),
            Ok(_) => continue,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            // Opening the file reports this error better.
            Err(_) => return Ok(()),
        };
        if mode & OTHERS == 0 {
            continue;
        }
        let shown = file.display();
        fs::set_permissions(file, Permissions::from_mode(mode & !OTHERS & 0o7777)).with_context(|| {
            format!("others may read {shown} (UPWIRE_DATABASE), and that cannot be changed: run `chmod 600` as its owner")
        })?;
        tracing::warn!(
            "others might read {shown}, which has addresses and a secret in it; now its owner alone may"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_is_left_and_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("upwire.db");
        tighten(&database).unwrap();
        assert!(!database.exists());
        let wal = folder.path().join("upwire.db-wal");
        for (file, mode) in [(&database, 0o644), (&wal, 0o660)] {
            fs::write(file, "").unwrap();
            fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
        }
        tighten(&database).unwrap();
        for file in [&database, &wal] {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
