//! The server's log: checks whether it is kept, and whether it grows without bound.

use std::fs;
use std::path::{Path, PathBuf};

use super::finding::Finding;

/// Size of a log file beyond which it is not rotated.
const LOG_FILE_BYTES_MAX: u64 = 256 << 20;
/// journald's default for the most that it keeps: 4 GB.
const JOURNAL_BYTES_MAX: u64 = 4 << 30;

/// The folders of journald.
pub(super) struct Places {
    /// The folder of the persistent journal.
    kept: PathBuf,
    /// The folder of the journal in memory.
    passing: PathBuf,
}

impl Places {
    pub(super) fn of_system() -> Self {
        Self { kept: "/var/log/journal".into(), passing: "/run/log/journal".into() }
    }
}

/// Checks this file, or the journal if no file is given.
pub(super) fn check(file: Option<&Path>, places: &Places) -> Finding {
    match file {
        Some(file) => log_file(file),
        None if places.kept.is_dir() => journal(bytes_below(&places.kept)),
        None if places.passing.is_dir() => {
            let mend = "mkdir -p /var/log/journal && systemctl restart systemd-journald";
            let why = "after a crash of the machine nobody can tell what became of pushes";
            Finding::warning("journal", "the journal is in memory alone", why, mend)
        }
        None => Finding::skipped(
            "journal",
            "there is no journal here, and no file of the log was named (--log-file)",
        ),
    }
}

fn log_file(file: &Path) -> Finding {
    let shown = file.display();
    let bytes = match fs::metadata(file) {
        Ok(file) => file.len(),
        Err(error) => {
            let what = format!("{shown} cannot be looked at: {error}");
            let mend = format!("name the file that the server writes to: upwire serve >> {shown} 2>&1");
            return Finding::warning(
                "journal",
                what,
                "without a log, nobody finds out what went wrong",
                mend,
            );
        }
    };
    let what = format!("{shown} has {} MiB", bytes >> 20);
    if bytes <= LOG_FILE_BYTES_MAX {
        return Finding::ok("journal", what);
    }
    let mend = format!(
        "have it rotated: printf '{shown} {{\\n weekly\\n rotate 4\\n compress\\n missingok\\n copytruncate\\n}}\\n' \
         > /etc/logrotate.d/upwire"
    );
    Finding::warning("journal", what, "it grows until the disk is full, and then pushes are refused", mend)
}

fn journal(bytes: u64) -> Finding {
    let what = format!("the journal has {} MiB", bytes >> 20);
    if bytes <= JOURNAL_BYTES_MAX {
        return Finding::ok("journal", what);
    }
    let mend = "journalctl --vacuum-size=1G, and SystemMaxUse=1G in /etc/systemd/journald.conf";
    Finding::warning("journal", what, "it takes the room of pushes that wait", mend)
}

/// Returns the size of the readable files below a folder.
fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_below(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_journal_that_is_in_memory_alone_or_too_large_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places { kept: folder.path().join("kept"), passing: folder.path().join("passing") };
        let level = || check(None, &places).level;
        assert_eq!(level(), Level::Skipped);
        fs::create_dir(&places.passing).unwrap();
        assert_eq!(level(), Level::Warning);
        let below = places.kept.join("machine");
        fs::create_dir_all(&below).unwrap();
        assert_eq!(level(), Level::Ok);
        let journal = fs::File::create(below.join("system.journal")).unwrap();
        journal.set_len(JOURNAL_BYTES_MAX + 1).unwrap();
        assert_eq!(level(), Level::Warning);
    }

    #[test]
    fn a_log_that_nobody_rotates_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("upwire.log");
        let level = || check(Some(&log), &Places::of_system()).level;
        assert_eq!(level(), Level::Warning, "it is not there");
        let file = fs::File::create(&log).unwrap();
        assert_eq!(level(), Level::Ok);
        file.set_len(LOG_FILE_BYTES_MAX + 1).unwrap();
        assert_eq!(level(), Level::Warning);
    }
}
