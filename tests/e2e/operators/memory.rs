//! An operator's list holds one page in memory, not all that it lists.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use chrono::TimeDelta;
use e2e::machine::Process;
use e2e::{folder, profile_folder};
use embedded::Database;
use futures::{StreamExt, TryStreamExt, stream};
use push::ports::{Registrations, Renewal};

use crate::ports::{WEEK, at, target};

/// Number of rows: many more than the 1,000 of a page.
const ROWS: usize = 20_000;
/// Most memory in MiB that a list of a million rows may take.
const MIB_MAX: f64 = 50.0;
const WRITES_AT_ONCE: usize = 1024;

async fn fill(file: &Path, rows: usize) {
    let database = Database::open(file).unwrap();
    // The rows are compared with the present, which is later than the suite's moments.
    let life = WEEK + TimeDelta::days(36_500);
    let register = |row: usize| {
        let (database, target) = (database.clone(), target(&format!("user{row}"), "app"));
        async move { database.register(target, at(0), life, Renewal::Always, 9).await.map(drop) }
    };
    let all = stream::iter(0..rows).map(register).buffer_unordered(WRITES_AT_ONCE);
    all.try_for_each(async |()| Ok(())).await.unwrap();
}

/// Lists all rows line by line. Returns the number of lines, and the most memory of the command in MiB.
fn list(file: &Path) -> (usize, f64) {
    let mut command = Command::new(profile_folder().join("upwire"));
    command.env_clear().env("UPWIRE_DATABASE", file).args(["registrations", "list", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let process = Process { title: "upwire registrations".into(), pid: child.id() };
    let (mut lines, mut peak) = (0, 0.0_f64);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        assert!(line.unwrap().contains("application"));
        lines += 1;
        // The command runs on as long as the pipe cannot hold the rest.
        if lines % 500 == 0
            && let Ok(mib) = process.memory_peak_mib()
        {
            peak = peak.max(mib);
        }
    }
    assert!(child.wait().unwrap().success());
    (lines, peak)
}

#[tokio::test]
async fn a_list_of_many_holds_no_more_than_one_of_few() {
    let folder = folder("operator-memory");
    let (few, many) = (folder.join("few.db"), folder.join("many.db"));
    fill(&few, ROWS / 10).await;
    fill(&many, ROWS).await;
    let ((short, of_few), (long, of_many)) = (list(&few), list(&many));
    assert_eq!((short, long), (ROWS / 10, ROWS));
    assert!(of_few > 0.0 && of_many < MIB_MAX, "{of_many} MiB");
    // A row takes some 500 bytes: all of them would add 9 MB.
    assert!(of_many < of_few + 4.0, "{of_many} MiB of {ROWS} rows, {of_few} of a tenth");
}
