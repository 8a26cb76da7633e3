//! The folders of this run of the tests, under `target/e2e`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, test_kill_process};

/// Returns the folder of cargo's profile that this test binary was built into (`target/debug`). The `upwire` binary of
/// the same build is there.
pub fn profile_folder() -> PathBuf {
    let executable = std::env::current_exe().expect("the test binary has a path");
    let folder = executable.parent().expect("the test binary is in a folder");
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("deps" | "examples") => folder.parent().expect("cargo's folders are nested"),
        _ => folder,
    }
    .to_path_buf()
}

/// Returns the folder of all that is built and installed.
pub fn target_folder() -> PathBuf {
    profile_folder().join("..")
}

/// Creates a fresh, empty folder of this run. The folder and its logs stay until a later run finds that this process
/// has ended.
pub fn folder(name: &str) -> PathBuf {
    static RUN: OnceLock<PathBuf> = OnceLock::new();
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let run = RUN.get_or_init(|| {
        let runs = target_folder().join("e2e");
        remove_ended_runs(&runs);
        runs.join(process::id().to_string())
    });
    let folder = run.join(format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir_all(&folder).expect("create a folder under target/e2e");
    folder.canonicalize().expect("the folder was just made")
}

fn remove_ended_runs(runs: &Path) {
    for run in fs::read_dir(runs).into_iter().flatten().flatten() {
        let pid = run.file_name().to_str().and_then(|name| name.parse().ok());
        let alive = |pid: i32| {
            pid != process::id() as i32
                && Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid).is_ok())
        };
        if !pid.is_some_and(alive) {
            // Two runs may clean up at once. A folder that one cannot remove, the other has removed.
            drop(fs::remove_dir_all(run.path()));
        }
    }
}
