//! The cloud function as it runs on AWS: its binary behind AWS' own Runtime Interface Emulator, and in front
//! of that what turns HTTP into the events of a Function URL.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use crate::tether::Tether;
use crate::{eventually, folder, free_port, http, profile_folder};

const START_DEADLINE: Duration = Duration::from_secs(60);
/// As on AWS, an environment serves one request at a time.
const ENVIRONMENTS: &str = "4";

/// A running function, killed when dropped.
pub struct Function {
    /// Where senders reach it: `http://127.0.0.1:…`.
    pub url: String,
    process: Tether,
}

impl Function {
    /// Starts it with these variables and no others of Upwire's or AWS'.
    pub async fn start(variables: &BTreeMap<&'static str, String>) -> Self {
        let binary = profile_folder().join("ingress");
        assert!(binary.exists(), "no {}: `cargo build -p functions` first", binary.display());
        let port = free_port();
        let mut command = Command::new("python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/local/function-url.py"));
        command.arg("--binary").arg(binary);
        command.args(["--port", &port.to_string(), "--environments", ENVIRONMENTS]);
        command.envs(variables);
        let mut process = Tether::start(&command, &folder("function").join("log"));
        let url = format!("http://127.0.0.1:{port}");
        let (what, client) = (format!("{process:?} answers"), http::client());
        eventually(START_DEADLINE, &what, async || {
            process.assert_running();
            let response = http::try_send(&client, "GET", &url, &[], "").await;
            response.is_ok_and(|response| response.status == 404)
        })
        .await;
        Self { url, process }
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }
}
