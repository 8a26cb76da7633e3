//! Runs the real `upwire serve`, or `upwire relay`, beside an XMPP server.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::tether::Tether;
use crate::xmpp_server::{Component, XmppServer};
use crate::{
    http,
    run::{folder, profile_folder},
    tcp_ports::free_port,
    wait::{eventually, eventually_some},
};

/// Longest wait for readiness: longer than the longest delay between two connections. A server that starts slowly may
/// cost several delays.
const READY_DEADLINE: Duration = Duration::from_secs(300);
/// Longest wait for an event. Generous: two cores run servers, clients and other tests at once, and delays of retries
/// add up.
const EVENT_DEADLINE: Duration = Duration::from_secs(120);
const DATABASE: &str = "upwire.db";
/// Secret that signs the endpoints of an `upwire relay` and of the function beside it.
pub const ENDPOINT_SECRET: &str = "a-secret-of-relay-and-function-0123456789";

/// An `upwire` before its start.
#[derive(Clone)]
pub struct UpwireBuilder {
    component: Component,
    arguments: Vec<String>,
    descriptors: Option<u32>,
    variables: BTreeMap<String, String>,
    binary: PathBuf,
    folder: PathBuf,
}

/// A running `upwire serve` or `upwire relay`, killed when dropped.
pub struct Upwire {
    /// The component that it connects as.
    pub component: Component,
    /// The URL at which senders reach it, `http://127.0.0.1:…`; a relay's is the URL of the function.
    pub public_url: String,
    /// The base URL of `/healthz`, `/readyz` and `/metrics`.
    pub admin_url: String,
    command: Command,
    folder: PathBuf,
    process: Tether,
}

impl Upwire {
    /// Prepares an `upwire serve` as a fresh component of this server, with a fresh database.
    pub fn on(server: &XmppServer) -> UpwireBuilder {
        Self::as_component(server, server.component())
    }

    /// Prepares an `upwire serve` as this component of the server.
    pub fn as_component(server: &XmppServer, component: Component) -> UpwireBuilder {
        Self::beside(&server.component_address(), component)
    }

    /// Prepares an `upwire serve` that connects to this address as this component.
    pub fn beside(address: &str, component: Component) -> UpwireBuilder {
        let listen = format!("127.0.0.1:{}", free_port());
        UpwireBuilder::new("serve", address, component)
            .set("UPWIRE_PUBLIC_URL", format!("http://{listen}"))
            .set("UPWIRE_LISTEN", listen)
            .set_path("UPWIRE_DATABASE", DATABASE)
    }

    /// Prepares an `upwire relay` as a fresh component of this server. The test has to set the variables of AWS, the
    /// tables and the queue by `set_all`.
    pub fn relay_on(server: &XmppServer) -> UpwireBuilder {
        Self::relay_as(server, server.component())
    }

    /// Prepares an `upwire relay` as this component of the server.
    pub fn relay_as(server: &XmppServer, component: Component) -> UpwireBuilder {
        UpwireBuilder::new("relay", &server.component_address(), component)
            .set("UPWIRE_PUBLIC_URL", "https://push.example.com")
            .set("UPWIRE_SECRET", ENDPOINT_SECRET)
            // The machine of the test may have an IAM role of its own.
            .set("AWS_EC2_METADATA_DISABLED", true)
    }

    /// Waits until `/readyz` answers 200 with `ready`: the component is connected.
    pub async fn ready(&mut self) {
        self.takes_over(READY_DEADLINE).await;
    }

    /// Waits until a relay stands by: it is ready to take over, and another relay is active.
    pub async fn stands_by(&mut self) {
        self.readiness(EVENT_DEADLINE, "ready to take over").await;
    }

    /// Waits until a relay that stood by is connected.
    pub async fn takes_over(&mut self, deadline: Duration) {
        self.readiness(deadline, "ready\n").await;
    }

    /// Waits until `/readyz` answers 200 with a text that begins with these words.
    async fn readiness(&mut self, deadline: Duration, words: &str) {
        let url = format!("{}/readyz", self.admin_url);
        let what = format!("{:?} is {}", self.process, words.trim_end());
        let (client, process) = (http::client(), &mut self.process);
        eventually(deadline, &what, async || {
            process.assert_running();
            let response = http::try_send(&client, "GET", &url, &[], "").await;
            response.is_ok_and(|response| response.status == 200 && response.text().starts_with(words))
        })
        .await;
    }

    /// Waits until `/readyz` answers 503.
    pub async fn unready(&self) {
        let (url, what) = (format!("{}/readyz", self.admin_url), format!("{:?} is not ready", self.process));
        eventually(EVENT_DEADLINE, &what, async || http::get(&url).await.status == 503).await;
    }

    /// Waits for a line of the log that contains all these texts, and returns it.
    pub async fn log_line(&mut self, needles: &[&str]) -> String {
        self.log_lines(needles, 1).await.remove(0)
    }

    /// Waits for this number of lines of the log that contain all these texts, and returns all such lines.
    pub async fn log_lines(&mut self, needles: &[&str], count: usize) -> Vec<String> {
        let what = format!("{:?} logs {needles:?} {count} times", self.process);
        let process = &mut self.process;
        eventually_some(EVENT_DEADLINE, &what, async || {
            process.assert_running();
            let log = process.log();
            let lines = log.lines().filter(|line| needles.iter().all(|needle| line.contains(needle)));
            let lines: Vec<_> = lines.map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
        .await
    }

    /// Asserts that none of these texts is in the log. This proves something only after an event that comes later than
    /// the line would.
    pub fn never_logged(&self, needles: &[&str]) {
        let log = self.process.log();
        let told = log.lines().find(|line| needles.iter().any(|needle| line.contains(needle)));
        assert_eq!(told, None, "{:?} must not log any of {needles:?}", self.process);
    }

    /// Panics with the end of the log if the process has ended.
    pub fn assert_running(&mut self) {
        self.process.assert_running();
    }

    /// Returns the whole log of all runs. Panics while the process runs, because the next line may come at any moment;
    /// `log_line` waits for one.
    pub fn log(&mut self) -> String {
        assert!(self.process.exited().is_some(), "{:?} runs still: wait for a line", self.process);
        self.process.log()
    }

    /// Returns the file of the database.
    pub fn database(&self) -> PathBuf {
        self.folder.join(DATABASE)
    }

    /// Returns the process id, to measure the process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends SIGKILL. Returns when the process has ended.
    pub fn kill(&mut self) -> ExitStatus {
        self.process.kill()
    }

    /// Sends SIGTERM; returns at once.
    pub fn terminate(&mut self) {
        self.process.terminate();
    }

    /// Sends SIGINT, as Ctrl-C does; returns at once.
    pub fn interrupt(&mut self) {
        self.process.interrupt();
    }

    /// Sends SIGHUP, upon which `upwire` reads files again; returns at once.
    pub fn hang_up(&mut self) {
        self.process.hang_up();
    }

    /// Stops the process by SIGSTOP: its connections stay up, and it does nothing.
    pub fn pause(&mut self) {
        self.process.pause();
    }

    /// Lets the process continue after `pause`.
    pub fn unpause(&mut self) {
        self.process.unpause();
    }

    /// Waits for the process to end by itself.
    pub async fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        self.process.wait(deadline).await
    }

    /// Starts the process after it ended, on the same ports and the same database.
    pub fn start_again(&mut self) {
        assert!(self.process.exited().is_some(), "{:?} runs still", self.process);
        self.process = Tether::start(&self.command, &self.folder.join("log"));
    }
}

impl fmt::Debug for Upwire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.process.fmt(f)
    }
}

impl UpwireBuilder {
    fn new(subcommand: &str, address: &str, component: Component) -> Self {
        let variables = [
            ("UPWIRE_ADMIN_LISTEN", format!("127.0.0.1:{}", free_port())),
            ("UPWIRE_COMPONENT", component.jid.to_string()),
            ("UPWIRE_COMPONENT_SECRET", component.secret.clone()),
            ("UPWIRE_XMPP_SERVER", address.to_owned()),
            ("UPWIRE_LOG_FORMAT", "json".to_owned()),
            ("UPWIRE_LOG", "debug".to_owned()),
            // Tests push faster than senders may. They keep more pushes than the default bounds allow.
            ("UPWIRE_RATE", "off".to_owned()),
            ("UPWIRE_MAILBOX_MAX", "100000".to_owned()),
            ("UPWIRE_ACCOUNT_MAILBOX_MAX", "1000000".to_owned()),
            ("UPWIRE_ACCOUNT_REGISTRATIONS_MAX", "100000".to_owned()),
        ];
        Self {
            component,
            arguments: vec![subcommand.to_owned()],
            descriptors: None,
            variables: variables.map(|(name, value)| (name.to_owned(), value)).into(),
            binary: profile_folder().join("upwire"),
            folder: folder("upwire"),
        }
    }

    /// Sets a variable, or replaces its value.
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.insert(name.to_owned(), value.to_string());
        self
    }

    /// Sets several variables.
    pub fn set_all<V: ToString>(self, variables: impl IntoIterator<Item = (&'static str, V)>) -> Self {
        variables.into_iter().fold(self, |builder, (name, value)| builder.set(name, value))
    }

    /// Sets a variable to a file in the folder of this `upwire`.
    fn set_path(self, name: &str, file: &str) -> Self {
        let path = self.folder.join(file).display().to_string();
        self.set(name, path)
    }

    /// Leaves a variable out.
    pub fn unset(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self
    }

    /// Adds an argument after the subcommand.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Limits the number of file descriptors.
    pub fn with_descriptors(mut self, descriptors: u32) -> Self {
        self.descriptors = Some(descriptors);
        self
    }

    /// Runs another binary than that of the same build.
    pub fn with_binary(mut self, binary: impl Into<PathBuf>) -> Self {
        self.binary = binary.into();
        self
    }

    /// Starts `upwire`, and waits until it is ready.
    pub async fn start_ready(self) -> Upwire {
        let mut upwire = self.start();
        upwire.ready().await;
        upwire
    }

    /// Starts `upwire` without waiting.
    pub fn start(self) -> Upwire {
        let listening = |name| self.variables.get(name).map(|address| format!("http://{address}"));
        let admin_url = listening("UPWIRE_ADMIN_LISTEN").unwrap_or_default();
        let public_url =
            listening("UPWIRE_LISTEN").or_else(|| self.variables.get("UPWIRE_PUBLIC_URL").cloned());
        let binary = self.binary;
        assert!(binary.exists(), "no {}: `cargo build -p upwire` first", binary.display());
        let mut command = match self.descriptors {
            None => Command::new(binary),
            Some(most) => {
                let mut limited = Command::new("prlimit");
                limited.arg(format!("--nofile={most}:{most}")).arg(binary);
                limited
            }
        };
        command.args(&self.arguments).current_dir(&self.folder);
        // The environment of the test run must not reach it.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if ["UPWIRE_", "AWS_"].iter().any(|prefix| name_text.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.envs(&self.variables);
        Upwire {
            component: self.component,
            public_url: public_url.unwrap_or_default(),
            admin_url,
            process: Tether::start(&command, &self.folder.join("log")),
            command,
            folder: self.folder,
        }
    }
}
