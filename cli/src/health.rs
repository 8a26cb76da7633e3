//! `upwire health`: asks a server at its administration address whether it runs or is ready.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, anyhow};

use crate::values;

/// Longest wait for the connection, and then for the answer. A container's health check takes at most 5 s by default.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Ask whether the server on this machine runs, or is ready; for the health checks of containers
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Asks the `upwire serve` or `upwire relay` on this machine at its administration address: /healthz, or \
        /readyz with --ready. It needs no shell and no other program, and so suits the health check of a container.",
    after_long_help = "Exit codes: 0 it is; 1 it is not, or does not answer; 64 wrong usage."
)]
pub(crate) struct Options {
    /// The server's administration address
    #[arg(long, value_name = "ADDRESS:PORT", env = "UPWIRE_ADMIN_LISTEN", default_value = values::ADMIN_LISTEN,
        value_parser = values::listen_address)]
    admin_listen: SocketAddr,

    /// Ask, too, whether it is connected to the XMPP server and has room, or stands by
    #[arg(long)]
    ready: bool,
}

/// Asks the server, and fails if the answer is no.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let address = reachable(options.admin_listen);
    let path = if options.ready { "/readyz" } else { "/healthz" };
    let answer = get(address, path).with_context(|| {
        format!("no server answers at {address}: start it, or set UPWIRE_ADMIN_LISTEN as it has it")
    })?;
    let text = verdict(&answer).ok_or_else(|| {
        anyhow!("what answers at {address} is no Upwire: set UPWIRE_ADMIN_LISTEN as the server has it")
    })?;
    let said = text.map_err(|trouble| anyhow!("{trouble}"))?;
    // Not `println!`: a closed stdout must not turn success into a panic.
    let _ = writeln!(std::io::stdout(), "{said}");
    Ok(())
}

/// Returns the address at which to reach a listener. A listener on all addresses is reached at the loopback address.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        // Without IPv6, the server listens on all IPv4 addresses; with it, on all of both.
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) | IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    };
    (ip, address.port()).into()
}

/// Sends a GET, and returns the whole answer.
fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Returns the body of a positive or a negative answer; `None`: the answer is not from an Upwire server.
fn verdict(answer: &str) -> Option<Result<&str, &str>> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    match (head.strip_prefix("HTTP/1.1 ")?.get(..3)?, body.trim()) {
        ("200", body @ ("healthy" | "ready")) => Some(Ok(body)),
        ("200", body) if body.starts_with("ready ") => Some(Ok(body)),
        ("503", body) if !body.is_empty() => Some(Err(body)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_upwire_says_is_an_answer() {
        let said = |status: &str, body: &str| {
            verdict(&format!("HTTP/1.1 {status}\r\ncontent-type: text/plain\r\n\r\n{body}"))
                .map(|verdict| verdict.map(str::to_owned).map_err(str::to_owned))
        };
        assert_eq!(said("200 OK", "healthy\n"), Some(Ok("healthy".into())));
        assert_eq!(said("200 OK", "ready\n"), Some(Ok("ready".into())));
        let stands_by = "ready to take over: another relay is active";
        assert_eq!(said("200 OK", stands_by), Some(Ok(stands_by.into())));
        assert_eq!(said("503 Service Unavailable", "no room\n"), Some(Err("no room".into())));
        for (status, body) in [("200 OK", "<html>"), ("404 Not Found", "x"), ("503 x", ""), ("2", "")] {
            assert_eq!(said(status, body), None, "{status}");
        }
        for other in ["", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 é\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nhealthy"]
        {
            assert_eq!(verdict(other), None, "{other}");
        }
    }

    #[test]
    fn who_listens_everywhere_is_reached_on_this_machine() {
        for (listens, reached) in [
            ("0.0.0.0:9480", "127.0.0.1:9480"),
            ("[::]:9480", "127.0.0.1:9480"),
            ("[::1]:1", "[::1]:1"),
            ("192.0.2.1:9480", "192.0.2.1:9480"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()), reached.parse().unwrap(), "{listens}");
        }
    }
}
