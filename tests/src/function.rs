//! The cloud function as it runs on AWS: its binary behind AWS' own Runtime Interface Emulator, and a proxy in front
//! that turns HTTP into the events of a Function URL.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::tether::Tether;
use crate::{
    http,
    run::{folder, profile_folder},
    tcp_ports::free_port,
    wait::eventually,
};

const START_DEADLINE: Duration = Duration::from_secs(300);
/// Number of execution environments. As on AWS, each serves one request at a time.
const ENVIRONMENTS: &str = "4";

/// A running function, killed when dropped.
pub struct Function {
    /// The URL at which senders reach it: `http://127.0.0.1:…`.
    pub url: String,
    port: u16,
    variables: BTreeMap<&'static str, String>,
    command: Command,
    log: PathBuf,
    process: Tether,
}

impl Function {
    /// Starts the function with these variables, and no others of Upwire's or AWS'.
    pub async fn start(variables: &BTreeMap<&'static str, String>) -> Self {
        Self::start_of(&profile_folder(), variables).await
    }

    /// Starts the function of the binaries in this folder, as `start` does.
    pub async fn start_of(binaries: &Path, variables: &BTreeMap<&'static str, String>) -> Self {
        let port = free_port();
        let command = command(binaries, port, variables);
        let log = folder("function").join("log");
        let process = Tether::start(&command, &log);
        let (url, variables) = (format!("http://127.0.0.1:{port}"), variables.clone());
        let mut function = Self { url, port, variables, command, log, process };
        function.answers().await;
        function
    }

    /// Replaces the function by another version, on the same port.
    pub async fn replace_by(&mut self, binaries: &Path) {
        self.kill();
        self.command = command(binaries, self.port, &self.variables);
        self.start_again().await;
    }

    async fn answers(&mut self) {
        let (process, url) = (&mut self.process, &self.url);
        let (what, client) = (format!("{process:?} answers"), http::client());
        eventually(START_DEADLINE, &what, async || {
            process.assert_running();
            let response = http::try_send(&client, "GET", url, &[], "").await;
            response.is_ok_and(|response| response.status == 200)
        })
        .await;
    }

    /// Kills the function by SIGKILL amid its requests. Returns when it has ended.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the function after `kill`, on the same port.
    pub async fn start_again(&mut self) {
        self.process = Tether::start(&self.command, &self.log);
        self.answers().await;
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

fn command(binaries: &Path, port: u16, variables: &BTreeMap<&'static str, String>) -> Command {
    // A build of an older tree names the binary differently.
    let names = ["upwire-ingress", "ingress"].map(|name| binaries.join(name));
    let [binary, _] = &names;
    let binary = names.iter().find(|binary| binary.exists()).unwrap_or(binary);
    assert!(binary.exists(), "no {}: `cargo build -p functions` first", binary.display());
    let mut command = Command::new("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/local/function-url.py"));
    command.arg("--binary").arg(binary);
    command.args(["--port", &port.to_string(), "--environments", ENVIRONMENTS]);
    command.envs(variables);
    command
}
