//! Owns a child process, its log and its signals. The child never outlives the test process.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::wait::eventually_some;

/// A shell that starts a watcher and becomes the program. The watcher blocks on a pipe whose other end only the test
/// process holds. When the test process dies in any way, the pipe closes, and the watcher kills the whole process
/// group. (`PR_SET_PDEATHSIG` would follow the *thread* that spawned, and each test has its own.) The program keeps the
/// shell's pid, so signals and the exit status are its own.
const LEASH: &str = r#"
exec 3<&0 </dev/null
(trap '' TERM; read -r _ <&3; kill -KILL -$$) >/dev/null 2>&1 &
exec "$@" 3<&-
"#;

/// A child process with its descendants, killed when this is dropped or the test process dies.
pub struct Tether {
    name: String,
    child: Child,
    log: PathBuf,
    /// The pipe to the watcher, held until `kill` and never written to. Closing it is the signal.
    leash: Option<ChildStdin>,
}

impl Tether {
    /// Starts `command` in a process group of its own, and appends its output to `log`.
    pub fn start(command: &Command, log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).expect("open the log");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", LEASH, "tether"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            shell.current_dir(folder);
        }
        let mut child = shell
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("share the log"))
            .stderr(output)
            .spawn()
            .expect("start /bin/sh");
        Self {
            name: command.get_program().to_string_lossy().into_owned(),
            leash: child.stdin.take(),
            child,
            log: log.to_path_buf(),
        }
    }

    /// Returns the program's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the path of the log.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Returns the output so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Returns the exit status, if the program has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("ask for the exit status of a child")
    }

    /// Sends SIGTERM to the program; returns at once.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGINT to the program, as Ctrl-C does; returns at once.
    pub fn interrupt(&mut self) {
        self.signal(Signal::INT);
    }

    /// Sends SIGHUP to the program; returns at once.
    pub fn hang_up(&mut self) {
        self.signal(Signal::HUP);
    }

    /// Stops the program by SIGSTOP: its connections stay up, and nobody serves them.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Lets the program continue after `pause`.
    pub fn unpause(&mut self) {
        self.signal(Signal::CONT);
    }

    fn signal(&mut self, signal: Signal) {
        // Once the status was read, the pid may be another process's.
        if self.exited().is_none() {
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    /// Sends SIGKILL to the program and all its descendants. Returns when the program has ended.
    pub fn kill(&mut self) -> ExitStatus {
        // This happens only once. While the watcher is in the group, the group's id cannot be another's.
        if self.leash.take().is_some() {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        self.child.wait().expect("wait for a killed child")
    }

    /// Waits for the program to end. Panics if it does not end before the deadline.
    pub async fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("{self:?} ends");
        eventually_some(deadline, &what, async || self.exited()).await
    }

    /// Panics with the end of the log if the program has ended.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.exited() {
            let signal = status.signal();
            panic!("{self:?} ended: {status}, signal {signal:?}; its log ends:\n{}", self.log_end());
        }
    }

    fn log_end(&self) -> String {
        const LINES_MAX: usize = 30;
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
    }
}

impl Drop for Tether {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Debug for Tether {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}, log {})", self.name, self.pid(), self.log.display())
    }
}
