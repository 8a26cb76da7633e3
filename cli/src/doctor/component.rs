//! The component at the XMPP server, and the process that is connected as that component.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use relay::{ComponentAccount, NoStream, Trial, try_component};
use secrecy::ExposeSecret;
use tokio::sync::watch;

use super::finding::{Finding, Level};
use crate::fetch;
use crate::relay_options::RelaySettings;

const WHY: &str = "no phone registers, and no push is delivered";

/// The gauge that is 1 while the process is connected.
const STREAM_UP: &str = "upwire_xmpp_stream_up";

/// The state of the process on this machine, by its own report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Process {
    Connected,
    /// Another relay is the active one.
    StandsBy,
    /// The process runs, and has no connection.
    Disconnected,
    /// A process answers, but does not tell whether it is connected.
    Unknown,
    Away,
}

/// Asks the running process for its state. A server on SQLite has this file open.
pub(super) async fn process(address: SocketAddr, database: Option<&Path>) -> (Process, Finding) {
    let answer = match fetch::ask_admin(address, "/readyz").await {
        Ok(answer) => answer,
        Err(error) if is_refused(&error) && database.is_some_and(embedded::is_in_use) => {
            let what = format!("a server runs on this database, and its administration is not at {address}");
            let mend = "set UPWIRE_ADMIN_LISTEN as the server has it";
            return (Process::Unknown, Finding::warning("process", what, "its state is not known", mend));
        }
        Err(error) => {
            let state = if is_refused(&error) { Process::Away } else { Process::Unknown };
            let mend = "start it: systemctl start upwire; or name its address in UPWIRE_ADMIN_LISTEN";
            return (state, Finding::warning("process", format!("{error:#}"), WHY, mend));
        }
    };
    let text = answer.text();
    match (answer.status, text.trim()) {
        (200, "ready") => (Process::Connected, Finding::ok("process", "it is ready")),
        (200, text) if text.starts_with("ready ") => {
            (Process::StandsBy, Finding::ok("process", format!("it is {text}")))
        }
        // A full disk also makes a process not ready, though it is connected.
        (503, text) => {
            let mend = "read its log: journalctl -u upwire -n 50; docs/problems.md has its lines";
            let found = Finding::error("process", format!("it is not ready: {text}"), WHY, mend);
            (stream(address).await, found)
        }
        (status, _) => {
            let what = format!("what answers at {address} is no upwire: it answers {status} to /readyz");
            let mend = "set UPWIRE_ADMIN_LISTEN as the server has it";
            (Process::Unknown, Finding::warning("process", what, WHY, mend))
        }
    }
}

/// Returns whether nothing listens at the address.
fn is_refused(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
}

/// Checks whether a process that is not ready is still connected.
async fn stream(address: SocketAddr) -> Process {
    let Ok(metrics) = fetch::ask_admin(address, "/metrics").await else { return Process::Unknown };
    let text = metrics.text();
    let up = text.lines().find_map(|line| line.strip_prefix(STREAM_UP)?.strip_prefix(' '));
    match up.map(str::trim) {
        Some("1") => Process::Connected,
        Some("0") => Process::Disconnected,
        _ => Process::Unknown,
    }
}

/// Connects as the component, unless that disturbs another connection.
pub(super) async fn component(
    settings: &RelaySettings,
    process: Process,
    may_be_connected_elsewhere: bool,
) -> Vec<Finding> {
    let way = format!("{} to {}", settings.component, settings.server);
    if let Some(untried) = untried(process, &way, may_be_connected_elsewhere) {
        return untried;
    }
    let secret = settings.component_secret.expose_secret().to_owned();
    let account = ComponentAccount {
        component: settings.component.clone(),
        secret: watch::channel(secret).1,
        server: settings.server.clone(),
    };
    let tried = try_component(&account).await;
    let judged = judged(&way, tried);
    // The server keeps reconnecting, so the other connection may be its own by now.
    if process == Process::Disconnected && judged.iter().any(|finding| finding.level == Level::Error) {
        let process = stream(settings.admin_listen).await;
        return untried(process, &way, may_be_connected_elsewhere).unwrap_or(judged);
    }
    judged
}

/// Returns the findings if a trial might disturb another connection; `None`: the trial may be made.
fn untried(process: Process, way: &str, may_be_connected_elsewhere: bool) -> Option<Vec<Finding>> {
    let what = match process {
        Process::Connected => {
            let what = "a second connection would disturb the server's: run this again while it is stopped";
            let connected = Finding::ok("component", format!("the server is connected as {way}"));
            return Some(vec![connected, Finding::skipped("routes", what)]);
        }
        Process::StandsBy => "another relay is connected: run this on its machine",
        Process::Unknown => {
            "the server may be connected, and a second connection would disturb it: mend what is said of the process, \
             or stop the server, and run this again"
        }
        Process::Away if may_be_connected_elsewhere => {
            "a relay on another machine may be connected: run this on the relay's machine"
        }
        Process::Disconnected | Process::Away => return None,
    };
    Some(["component", "routes"].map(|check| Finding::skipped(check, what)).into())
}

/// Returns the findings of a trial.
fn judged(way: &str, tried: Result<Trial, NoStream>) -> Vec<Finding> {
    let Trial { sent, came_back, elsewhere } = match tried {
        Ok(trial) => trial,
        Err(error) => {
            let what = format!("no stream as {way}: {}", error.problem);
            return vec![Finding::error("component", what, WHY, error.mend)];
        }
    };
    let taken = Finding::ok("component", format!("a stream as {way} comes about: the secret is right"));
    if sent == came_back && elsewhere.is_none() {
        let what = "no other connection got what is meant for this component; ejabberd's global_routes shows only while \
                    another component of the same listener is connected: run this again then, with this server stopped";
        return vec![taken, Finding::skipped("routes", what)];
    }
    let other = elsewhere.map_or_else(String::new, |other| format!("; stanzas for {other} came as well"));
    let what = format!("of {sent} stanzas of the component to itself, {came_back} came back{other}");
    let why = "another connection gets what is meant for this component, or this one what is meant for another: registrations \
         and answers are lost";
    let mend = "stop the other process that is connected as it; with ejabberd, set `global_routes: false` in the \
                component's listener, or give each component a listener of its own";
    vec![taken, Finding::error("routes", what, why, mend)]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// Starts an administration address that gives this answer to `/readyz`, and has this line among its metrics.
    async fn administration(status: u16, ready: &'static str, metrics: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && client.read_buf(&mut head).await.unwrap() > 0 {}
                let (status, body) =
                    if head.starts_with(b"GET /metrics ") { (200, metrics) } else { (status, ready) };
                let length = body.len();
                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{body}");
                client.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        address
    }

    async fn state(status: u16, ready: &'static str, metrics: &'static str) -> (Process, Level) {
        let (process, finding) = process(administration(status, ready, metrics).await, None).await;
        (process, finding.level)
    }

    #[tokio::test]
    async fn a_process_that_is_not_ready_may_be_connected() {
        let low = "the disk has no room\n";
        let up = "# TYPE upwire_xmpp_stream_up gauge\nupwire_xmpp_stream_up 1\n";
        assert_eq!(state(503, low, up).await, (Process::Connected, Level::Error));
        assert_eq!(state(503, low, "upwire_xmpp_stream_up 0\n").await, (Process::Disconnected, Level::Error));
        assert_eq!(state(503, low, "upwire_xmpp_stream_uptime 1\n").await, (Process::Unknown, Level::Error));
        assert_eq!(state(200, "ready\n", "").await, (Process::Connected, Level::Ok));
        let stands_by = "ready to take over: another relay is active\n";
        assert_eq!(state(200, stands_by, "").await, (Process::StandsBy, Level::Ok));
        assert_eq!(state(200, "<html>", "").await, (Process::Unknown, Level::Warning), "another program");
        assert_eq!(state(404, "", up).await, (Process::Unknown, Level::Warning));
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(process(nobody, None).await.0, Process::Away);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("upwire.db");
        let server = embedded::Database::open(&file).unwrap();
        assert_eq!(process(nobody, Some(&file)).await.0, Process::Unknown, "it listens elsewhere");
        drop(server);
        // The writer thread ends by itself, and releases the lock.
        let ended = async { while process(nobody, Some(&file)).await.0 != Process::Away {} };
        timeout(Duration::from_secs(60), ended).await.unwrap();
    }

    #[test]
    fn nothing_is_tried_beside_a_connection_and_what_is_not_tried_is_skipped() {
        let levels = |process, elsewhere| {
            let findings = untried(process, "a to b", elsewhere)?;
            Some(findings.iter().map(|finding| (finding.check, finding.level)).collect::<Vec<_>>())
        };
        let skipped = Some(vec![("component", Level::Skipped), ("routes", Level::Skipped)]);
        for elsewhere in [false, true] {
            let connected = levels(Process::Connected, elsewhere);
            assert_eq!(connected, Some(vec![("component", Level::Ok), ("routes", Level::Skipped)]));
            assert_eq!(levels(Process::StandsBy, elsewhere), skipped);
            assert_eq!(levels(Process::Unknown, elsewhere), skipped);
            assert_eq!(levels(Process::Disconnected, elsewhere), None);
        }
        assert_eq!(levels(Process::Away, true), skipped);
        assert_eq!(levels(Process::Away, false), None);
    }

    #[test]
    fn routes_are_never_well_only_unseen() {
        let routes = |came_back, elsewhere: Option<&str>| {
            let trial = Trial { sent: 16, came_back, elsewhere: elsewhere.map(str::to_owned) };
            let [component, routes] = judged("a to b", Ok(trial)).try_into().unwrap();
            assert_eq!((component.check, component.level, routes.check), ("component", Level::Ok, "routes"));
            routes
        };
        let unseen = routes(16, None);
        assert_eq!(unseen.level, Level::Skipped);
        assert!(unseen.what.contains("run this again"), "{unseen:?}");
        for (came_back, elsewhere) in [(7, None), (16, Some("other.example")), (0, Some("other.example"))] {
            let wrong = routes(came_back, elsewhere);
            assert_eq!(wrong.level, Level::Error, "{wrong:?}");
            assert!(wrong.mend.contains("global_routes: false"), "{wrong:?}");
        }
    }
}
