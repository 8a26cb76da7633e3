//! Drives `slixmpp_client.py`: a distributor on a library that this project did not write.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio_xmpp::jid::{BareJid, Jid};

use crate::phone::Push;
use crate::run::{folder, profile_folder};
use crate::tether::Tether;
use crate::wait::eventually_some;
use crate::xmpp_server::{User, XmppServer};

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/slixmpp_client.py");

/// A running client, killed when dropped.
pub struct Slixmpp {
    process: Tether,
    /// Number of pushes that `next_push` has returned.
    read: AtomicUsize,
}

impl Slixmpp {
    /// Starts the client, which logs in, greets the component and registers.
    pub fn start(
        server: &XmppServer,
        user: &User,
        component: &BareJid,
        application: &str,
        instance: &str,
    ) -> Self {
        let mut command = Command::new(python());
        command
            .arg(CLIENT)
            .args(["--jid", &format!("{}/slixmpp", user.jid)])
            .args(["--port", &server.c2s_port.to_string()])
            .args(["--component", component.as_str()])
            .args(["--application", application])
            .args(["--instance", instance])
            .env("PASSWORD", &user.password);
        let process = Tether::start(&command, &folder("slixmpp").join("log"));
        Self { process, read: AtomicUsize::new(0) }
    }

    /// Waits for the endpoint that the client was given, and returns it.
    pub async fn endpoint(&mut self, deadline: Duration) -> String {
        let endpoint = self.event(deadline, "endpoint", 0).await;
        text(&endpoint, "endpoint")
    }

    /// Waits for the next push that this function has not returned yet.
    pub async fn next_push(&mut self, deadline: Duration) -> Push {
        let read = self.read.fetch_add(1, Ordering::Relaxed);
        let push = self.event(deadline, "push", read).await;
        Push {
            id: text(&push, "id"),
            from: Jid::new(&text(&push, "from")).expect("the sender of a push is a JID"),
            application: text(&push, "application"),
            instance: text(&push, "instance"),
            body: STANDARD.decode(text(&push, "body")).expect("the body of a push is base64"),
        }
    }

    /// Waits for the `index`th event of this name in the output.
    async fn event(&mut self, deadline: Duration, name: &str, index: usize) -> Value {
        let what = format!("event {name:?} number {} of {:?}", index + 1, self.process);
        eventually_some(deadline, &what, async || {
            self.process.assert_running();
            let log = self.process.log();
            // The last line may be incomplete.
            let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            events.filter(|event| event["event"] == name).nth(index)
        })
        .await
    }
}

fn text(event: &Value, field: &str) -> String {
    event[field].as_str().unwrap_or_else(|| panic!("no {field} in {event}")).to_owned()
}

/// Returns the Python that has slixmpp, pywebpush and schemathesis.
pub fn python() -> PathBuf {
    let python = match std::env::var_os("UPWIRE_TEST_PYTHON") {
        Some(python) => PathBuf::from(python),
        None => profile_folder().join("../venv/bin/python"),
    };
    assert!(
        python.exists(),
        "no {}: `make test-needs` installs it; or name a Python that has the same packages in UPWIRE_TEST_PYTHON",
        python.display()
    );
    python
}
