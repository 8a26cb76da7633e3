//! A real TLS tunnel in front of a port, with which Prosody offers TLS to its components.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tokio::net::TcpStream;

use crate::certificate::Certificate;
use crate::tether::Tether;
use crate::{
    run::folder,
    tcp_ports::free_port,
    wait::{SOON, eventually},
};

/// A running stunnel, killed when dropped.
pub struct Stunnel {
    /// The port that speaks TLS.
    pub port: u16,
    folder: PathBuf,
    process: Tether,
}

impl Stunnel {
    /// Starts a tunnel that speaks TLS with this certificate, and passes on to a port on loopback.
    pub async fn start(certificate: &Certificate, to_port: u16) -> Self {
        let (folder, port) = (folder("stunnel"), free_port());
        let service = format!(
            "foreground = yes\npid =\n[component]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{to_port}\ncert = {}\n",
            certificate.file.display()
        );
        fs::write(folder.join("stunnel.conf"), service).expect("write stunnel.conf");
        let mut stunnel = Self { port, process: run(&folder), folder };
        stunnel.listens().await;
        stunnel
    }

    /// Kills the tunnel, and the connections through it.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the tunnel after `kill`, on the same port.
    pub async fn start_again(&mut self) {
        self.process = run(&self.folder);
        self.listens().await;
    }

    async fn listens(&mut self) {
        let (port, process) = (self.port, &mut self.process);
        eventually(SOON, "stunnel listens", async || {
            process.assert_running();
            TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
    }
}

fn run(folder: &std::path::Path) -> Tether {
    let mut command = Command::new("stunnel");
    command.arg(folder.join("stunnel.conf"));
    Tether::start(&command, &folder.join("log"))
}
