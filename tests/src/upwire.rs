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

/// Longer than the longest delay between two connections, of which a server that starts slowly may cost several.
const READY_DEADLINE: Duration = Duration::from_secs(300);
/// Generous: two cores run servers, clients and other tests at once, and delays of retries add up.
const EVENT_DEADLINE: Duration = Duration::from_secs(120);
const DATABASE: &str = "upwire.db";
/// The secret of the endpoints of an `upwire relay`, and of the function beside it.
pub const ENDPOINT_SECRET: &str = "a-secret-of-relay-and-function-0123456789";

/// An `upwire` before it runs.
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
    /// The component that it is.
    pub component: Component,
    /// Where senders reach it: `http://127.0.0.1:…`; a relay's is where they reach the function.
    pub public_url: String,
    /// Where `/healthz`, `/readyz` and `/metrics` are.
    pub admin_url: String,
    command: Command,
    folder: PathBuf,
    process: Tether,
}

impl Upwire {
    /// An `upwire serve` as a fresh component of this server, with a fresh database.
    pub fn on(server: &XmppServer) -> UpwireBuilder {
        Self::as_component(server, server.component())
    }

    /// The same, as a given component.
    pub fn as_component(server: &XmppServer, component: Component) -> UpwireBuilder {
        Self::beside(&server.component_address(), component)
    }

    /// The same, beside whatever listens there for components.
    pub fn beside(address: &str, component: Component) -> UpwireBuilder {
        let listen = format!("127.0.0.1:{}", free_port());
        UpwireBuilder::new("serve", address, component)
            .set("UPWIRE_PUBLIC_URL", format!("http://{listen}"))
            .set("UPWIRE_LISTEN", listen)
            .set_path("UPWIRE_DATABASE", DATABASE)
    }

    /// An `upwire relay` as a fresh component of this server. It lacks what leads to AWS, and the table and queue
    /// there: see `set_all`.
    pub fn relay_on(server: &XmppServer) -> UpwireBuilder {
        Self::relay_as(server, server.component())
    }

    /// The same, as a given component.
    pub fn relay_as(server: &XmppServer, component: Component) -> UpwireBuilder {
        UpwireBuilder::new("relay", &server.component_address(), component)
            .set("UPWIRE_PUBLIC_URL", "https://push.example.com")
            .set("UPWIRE_SECRET", ENDPOINT_SECRET)
            // The machine of the test may have a role of its own.
            .set("AWS_EC2_METADATA_DISABLED", true)
    }

    /// Waits until `/readyz` says 200: the component is connected.
    pub async fn ready(&mut self) {
        self.takes_over(READY_DEADLINE).await;
    }

    /// Waits until a relay stands by: it is ready, and another one is active.
    pub async fn stands_by(&mut self) {
        self.readiness(EVENT_DEADLINE, "ready to take over").await;
    }

    /// Waits until a relay that stood by is connected.
    pub async fn takes_over(&mut self, deadline: Duration) {
        self.readiness(deadline, "ready\n").await;
    }

    /// Waits until `/readyz` says 200 in words that begin so.
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

    /// Waits until `/readyz` says 503.
    pub async fn unready(&self) {
        let (url, what) = (format!("{}/readyz", self.admin_url), format!("{:?} is not ready", self.process));
        eventually(EVENT_DEADLINE, &what, async || http::get(&url).await.status == 503).await;
    }

    /// Waits for a line of the log that contains all these, and returns it.
    pub async fn log_line(&mut self, needles: &[&str]) -> String {
        self.log_lines(needles, 1).await.remove(0)
    }

    /// Waits for so many lines of the log that contain all these, and returns all of them.
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

    /// None of these is in the log. To be asked after an event that comes later than what must not have been logged.
    pub fn never_logged(&self, needles: &[&str]) {
        let log = self.process.log();
        let told = log.lines().find(|line| needles.iter().any(|needle| line.contains(needle)));
        assert_eq!(told, None, "{:?} must not log any of {needles:?}", self.process);
    }

    /// Panics with the end of its log if it has ended.
    pub fn assert_running(&mut self) {
        self.process.assert_running();
    }

    /// The whole log, of all runs; panics while it runs, when the next line may come at any moment. See `log_line`.
    pub fn log(&mut self) -> String {
        assert!(self.process.exited().is_some(), "{:?} runs still: wait for a line", self.process);
        self.process.log()
    }

    /// The file of the database.
    pub fn database(&self) -> PathBuf {
        self.folder.join(DATABASE)
    }

    /// The process id, to measure it by.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(&mut self) -> ExitStatus {
        self.process.kill()
    }

    /// SIGTERM; returns at once.
    pub fn terminate(&mut self) {
        self.process.terminate();
    }

    /// SIGINT, as Ctrl-C sends it; returns at once.
    pub fn interrupt(&mut self) {
        self.process.interrupt();
    }

    /// SIGHUP, which has files read again; returns at once.
    pub fn hang_up(&mut self) {
        self.process.hang_up();
    }

    /// Stops its clock: its connections stay up, and it does nothing.
    pub fn pause(&mut self) {
        self.process.pause();
    }

    /// Lets it go on after `pause`.
    pub fn unpause(&mut self) {
        self.process.unpause();
    }

    /// Waits for it to end by itself.
    pub async fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        self.process.wait(deadline).await
    }

    /// Starts it after it ended, on the same ports and the same database.
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
            // Tests push faster than senders may, and more than phones that are away are kept.
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

    /// Sets a variable, or another value for one.
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

    /// Lets it have so many descriptors and no more.
    pub fn with_descriptors(mut self, descriptors: u32) -> Self {
        self.descriptors = Some(descriptors);
        self
    }

    /// Runs another binary than the one that was built with this.
    pub fn with_binary(mut self, binary: impl Into<PathBuf>) -> Self {
        self.binary = binary.into();
        self
    }

    /// Starts it and waits until it is ready.
    pub async fn start_ready(self) -> Upwire {
        let mut upwire = self.start();
        upwire.ready().await;
        upwire
    }

    /// Starts it, and does not wait.
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
        // Nothing of the environment of the test run must reach it.
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
