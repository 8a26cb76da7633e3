//! The component at the XMPP server, and the process that is connected as it.

use std::net::SocketAddr;

use relay::{ComponentAccount, Trial, try_component};
use secrecy::ExposeSecret;
use tokio::sync::watch;

use super::finding::Finding;
use crate::fetch;
use crate::relay_options::RelaySettings;

const WHY: &str = "no phone registers, and no push is delivered";

/// The state of the process that runs here, as it reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Process {
    Ready,
    /// It runs, and has no connection.
    NotReady,
    Away,
}

/// Asks the running process.
pub(super) async fn process(address: SocketAddr) -> (Process, Finding) {
    match fetch::ask_admin(address, "/readyz").await {
        Ok(answer) if answer.status == 200 => {
            (Process::Ready, Finding::ok("process", format!("it is {}", answer.text().trim())))
        }
        Ok(answer) => {
            let what = format!("it is not ready: {}", answer.text().trim());
            let mend = "read its log: journalctl -u upwire -n 50; docs/problems.md has its lines";
            (Process::NotReady, Finding::error("process", what, WHY, mend))
        }
        Err(error) => {
            let mend = "start it: systemctl start upwire; or name its address in UPWIRE_ADMIN_LISTEN";
            (Process::Away, Finding::warning("process", format!("{error:#}"), WHY, mend))
        }
    }
}

/// Connects as the component, where that disturbs nobody.
pub(super) async fn component(
    settings: &RelaySettings,
    process: Process,
    may_be_connected_elsewhere: bool,
) -> Finding {
    let (name, server) = (&settings.component, &settings.server);
    if process == Process::Ready {
        return Finding::ok("component", format!("{name} is connected to {server}, or another relay is"));
    }
    if process == Process::Away && may_be_connected_elsewhere {
        let what = "a relay on another machine may be connected: run this on the relay's machine";
        return Finding::skipped("component", what);
    }
    let secret = settings.component_secret.expose_secret().to_owned();
    let account = ComponentAccount {
        component: name.clone(),
        secret: watch::channel(secret).1,
        server: server.clone(),
    };
    match try_component(&account).await {
        Err(error) => {
            let what = format!("no stream to {server} as {name}: {}", error.problem);
            Finding::error("component", what, WHY, error.mend)
        }
        Ok(Trial { sent, came_back, .. }) if sent == came_back => {
            Finding::ok("component", format!("{server} takes {name} and its secret"))
        }
        Ok(Trial { sent, came_back, elsewhere }) => {
            let other =
                elsewhere.map_or_else(String::new, |other| format!("; stanzas for {other} came instead"));
            let what = format!("of {sent} stanzas of {name} to itself, {came_back} came back{other}");
            let why = "another connection gets what is meant for this component: registrations and answers are lost";
            let mend = "stop the other process that is connected as it; with ejabberd, set `global_routes: false` in the \
                        component's listener, or give each component a listener of its own";
            Finding::error("routes", what, why, mend)
        }
    }
}
