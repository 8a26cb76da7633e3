//! Connections that are opened and misused. Ordinary senders notice nothing.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use e2e::{SOON, http, time_passes};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::Scene;

const BEGUN: &str = "POST /push/x HTTP/1.1\r\nHost: push.example.com\r\nX-Slow: ";

/// Longest time for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

fn address(url: &str) -> SocketAddr {
    url.strip_prefix("http://").unwrap().split('/').next().unwrap().parse().unwrap()
}

/// Connects from this address of the loopback network.
async fn connect_from(peer: IpAddr, server: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((peer, 0).into())?;
    socket.connect(server).await
}

/// Waits until the server closes the connection. Returns the text that it sent before.
async fn closed(socket: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset counts as a close.
    let _ = timeout(SOON, socket.read_to_end(&mut answer)).await.expect("it is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A sender with a persistent connection.
struct Kept {
    socket: TcpStream,
    head: String,
}

impl Kept {
    async fn connect(endpoint: &str) -> Self {
        let server = address(endpoint);
        let path = endpoint.strip_prefix(&format!("http://{server}")).unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: {server}\r\nContent-Length: 1\r\n\r\n");
        Self { socket: TcpStream::connect(server).await.unwrap(), head }
    }

    /// Sends a push. Returns whether it is accepted on this connection.
    async fn push(&mut self) -> bool {
        if self.socket.write_all(format!("{}x", self.head).as_bytes()).await.is_err() {
            return false;
        }
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            match timeout(SOON, self.socket.read_buf(&mut answer)).await {
                Ok(Ok(1..)) => {}
                _ => return false,
            }
        }
        answer.starts_with(b"HTTP/1.1 201 ")
    }
}

/// hyperium/hyper#2675: without a timeout for headers, slowloris takes every connection.
///
/// The test opens 5,000 connections from 200 addresses, and sends half a request on each. These are more than may be
/// open.
#[tokio::test]
async fn slowloris_from_many_addresses_takes_nothing_from_those_who_push() {
    const PUSHES: usize = 1000;
    let scene = Scene::set().await;
    let server = address(&scene.endpoint);
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let mut kept = Vec::new();
    for _ in 0..4 {
        kept.push(Kept::connect(&scene.endpoint).await);
    }
    let mut slow = Vec::new();
    let mut accepted = 0;
    for number in 0..5000 {
        let peer = IpAddr::from([127, 0, 1, (number % 200) as u8 + 1]);
        if let Ok(mut socket) = connect_from(peer, server).await {
            let _ = socket.write_all(BEGUN.as_bytes()).await;
            slow.push(socket);
        }
        if number % (5000 / PUSHES) == 0 {
            let sender = number % kept.len();
            accepted += usize::from(kept[sender].push().await);
        }
    }
    assert!(slow.len() > 4500, "{} connections were opened", slow.len());
    assert!(accepted * 10 >= PUSHES * 9, "{accepted} of {PUSHES} pushes on open connections were accepted");
    assert_eq!(http::get(&format!("{}/healthz", scene.upwire.admin_url)).await.status, 200);
    assert_eq!(http::post(&scene.endpoint, "of a new connection").await.status, 201);
    scene.upwire.metric_reaches("upwire_connections_closed_total", 1.0).await;
}

/// chatmail/notifiers#36: "Too many open files", and the server neither accepts nor sends any more.
/// ac2cz/FoxTelem#457: the same fault fills the disk with a line for each try.
#[tokio::test]
async fn with_few_descriptors_the_store_the_stream_and_the_operator_have_theirs() {
    let mut scene = Scene::set_with(|builder| builder.with_descriptors(300)).await;
    let server = address(&scene.endpoint);
    let mut slow = Vec::new();
    for number in 0..600_u32 {
        let peer = IpAddr::from([127, 0, 2, (number % 100) as u8 + 1]);
        let mut socket = connect_from(peer, server).await.unwrap();
        let _ = socket.write_all(BEGUN.as_bytes()).await;
        slow.push(socket);
    }
    assert_eq!(http::get(&format!("{}/healthz", scene.upwire.admin_url)).await.status, 200);
    assert_eq!(http::post(&scene.endpoint, "safe").await.status, 201);
    assert_eq!(scene.phone.next_push(SOON).await.body, b"safe");
    let another = scene.phone.endpoint(&scene.upwire.component.jid, "another").await;
    assert_eq!(http::post(&another, "safe as well").await.status, 201);
    const BOUND: &str = "as many connections as may be are open";
    scene.upwire.log_line(&[BOUND]).await;
    scene.upwire.terminate();
    scene.upwire.wait_exit(SOON).await;
    let log = scene.upwire.log();
    assert_eq!(log.lines().filter(|line| line.contains(BOUND)).count(), 1, "one line, however many come");
    assert!(!log.contains("no connection can be accepted"), "{log}");
}

/// Each peer has a lower bound than all peers together. A proxy on this machine has none.
#[tokio::test]
async fn one_address_has_64_incomplete_requests_and_a_proxy_any_number() {
    let scene = Scene::set_with(|builder| builder.set("UPWIRE_PROXIES", "127.0.3.0/30, 127.0.4.1")).await;
    let server = address(&scene.endpoint);
    let peers =
        [([127, 0, 5, 1], true), ([127, 0, 0, 1], false), ([127, 0, 3, 1], false), ([127, 0, 4, 1], false)];
    let mut expected = 0.0;
    for (mut peer, is_bound) in peers {
        // An incomplete head has 10 s. A machine that was busy for longer proves nothing.
        let mut slow = loop {
            let begun = Instant::now();
            let mut slow = Vec::new();
            for _ in 0..65 {
                let mut socket = connect_from(peer.into(), server).await.unwrap();
                socket.write_all(BEGUN.as_bytes()).await.unwrap();
                slow.push(socket);
            }
            if is_bound {
                closed(&mut slow[0]).await;
                expected += 1.0;
            }
            if begun.elapsed() < HEAD_TIMEOUT / 4 {
                break slow;
            }
            // The connections of this attempt may still count when the next one begins.
            peer[3] += u8::from(is_bound);
        };
        // The other requests are still open, and are completed now.
        for socket in &mut slow[60..] {
            socket.write_all(b"x\r\nContent-Length: 1\r\n\r\nx").await.unwrap();
        }
        for socket in &mut slow[60..] {
            let mut answer = [0; 12];
            timeout(SOON, socket.read_exact(&mut answer)).await.expect("an answer").unwrap();
            assert_eq!(&answer, b"HTTP/1.1 404");
        }
        let of_peer = [("reason", "peer")];
        scene.upwire.metric_is_where("upwire_connections_closed_total", &of_peer, expected).await;
    }
}

/// kite-org/kite#461, and many more: the head of a request needs one timer, and a persistent connection another.
#[tokio::test]
async fn half_a_request_is_closed_and_a_kept_connection_is_not() {
    let scene = Scene::set().await;
    let server = address(&scene.endpoint);
    let mut kept = Kept::connect(&scene.endpoint).await;
    assert!(kept.push().await);
    let mut silent = TcpStream::connect(server).await.unwrap();
    let mut half = TcpStream::connect(server).await.unwrap();
    half.write_all(BEGUN.as_bytes()).await.unwrap();
    let mut trickling = TcpStream::connect(server).await.unwrap();
    for byte in BEGUN.as_bytes() {
        // The time is for the whole head, however slowly it comes.
        if trickling.write_all(&[*byte]).await.is_err() {
            break;
        }
        time_passes(Duration::from_millis(100)).await;
    }
    for socket in [&mut silent, &mut half, &mut trickling] {
        assert_eq!(closed(socket).await, "");
    }
    scene.upwire.metric_is_where("upwire_connections_closed_total", &[("reason", "slow")], 3.0).await;
    assert!(kept.push().await, "it was idle for longer than a head may take");
}

/// rwf2/Rocket#2783, and Python's requests with "Remote end closed connection without response": a server that refuses
/// without reading the body closes the connection under its sender.
#[tokio::test]
async fn a_sender_that_sends_its_body_late_sees_why_it_is_refused() {
    let scene = Scene::set().await;
    let server = address(&scene.endpoint);
    let path = scene.endpoint.strip_prefix(&format!("http://{server}")).unwrap();
    for (path, length, status) in [("/push/nothing", 4096, "404"), (path, 4097, "413"), ("/", 10, "405")] {
        // The body has 1 s. A machine that was busy for longer proves nothing.
        loop {
            let mut socket = TcpStream::connect(server).await.unwrap();
            let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            let begun = Instant::now();
            socket.write_all(head.as_bytes()).await.unwrap();
            time_passes(Duration::from_millis(100)).await;
            let half = socket.write_all(&vec![b'x'; length / 2]).await;
            time_passes(Duration::from_millis(100)).await;
            let rest = socket.write_all(&vec![b'x'; length - length / 2]).await;
            if begun.elapsed() > Duration::from_millis(500) {
                continue;
            }
            assert!(half.is_ok() && rest.is_ok(), "{status}: the connection is open");
            let mut answer = [0; 12];
            timeout(SOON, socket.read_exact(&mut answer)).await.expect("an answer").unwrap();
            assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"));
            break;
        }
    }
}

/// Bytes that are no HTTP/1.1, or that a proxy reads as two requests.
#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused() {
    let scene = Scene::set().await;
    let server = address(&scene.endpoint);
    let path = scene.endpoint.strip_prefix(&format!("http://{server}")).unwrap();
    let chunked = "1\r\nx\r\n0\r\n\r\n";
    let cases = [
        (
            format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"
            ),
            "HTTP/1.1 400 ",
        ),
        (
            format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n{chunked}"
            ),
            "HTTP/1.1 400 ",
        ),
        (
            format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{chunked}"
            ),
            "HTTP/1.1 201 ",
        ),
        (format!("GET {path} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), "HTTP/1.1 400 "),
        (
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(17_000)),
            "HTTP/1.1 431 ",
        ),
        // HTTP/2 comes without a negotiation.
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), ""),
    ];
    for (request, expected) in cases {
        let mut socket = TcpStream::connect(server).await.unwrap();
        let _ = socket.write_all(request.as_bytes()).await;
        let answer = closed(&mut socket).await;
        assert!(answer.starts_with(expected) && !answer.contains("HTTP/2"), "{request}: {answer}");
        assert!(!expected.is_empty() || answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(scene.phone.next_push(SOON).await.body, b"x");
}
