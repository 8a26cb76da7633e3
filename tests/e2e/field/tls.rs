//! TLS without a proxy: a certificate of the XMPP server's own tool is renewed while the server runs.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use e2e::{
    Authority, Certificate, Kind, Phone, SOON, Upwire, UpwireBuilder, XmppServer, eventually,
    eventually_some, folder, free_port, time_passes_until,
};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion, crypto::ring::default_provider,
};

const BOTH: &[&SupportedProtocolVersion] = &[&TLS12, &TLS13];

/// The two files as an operator has them.
struct Files(PathBuf);

impl Files {
    fn of(certificate: &Certificate) -> Self {
        let files = Self(folder("tls"));
        files.write(certificate);
        files
    }

    fn certificate(&self) -> PathBuf {
        self.0.join("fullchain.pem")
    }

    fn key(&self) -> PathBuf {
        self.0.join("privkey.pem")
    }

    /// Replaces both files, one after the other, as the tools do.
    fn write(&self, certificate: &Certificate) {
        let both = fs::read(&certificate.file).unwrap();
        for file in [self.certificate(), self.key()] {
            let new = self.0.join("new");
            fs::write(&new, &both).unwrap();
            fs::rename(new, file).unwrap();
        }
    }
}

/// Prepares an `upwire serve` that speaks TLS. Returns it, and its port.
fn over_tls(server: &XmppServer, certificate: &Path, key: &Path) -> (UpwireBuilder, u16) {
    let port = free_port();
    let upwire = Upwire::on(server)
        .set("UPWIRE_LISTEN", format!("127.0.0.1:{port}"))
        .set("UPWIRE_PUBLIC_URL", format!("https://localhost:{port}"))
        .set("UPWIRE_TLS_CERTIFICATE", certificate.display())
        .set("UPWIRE_TLS_KEY", key.display());
    (upwire, port)
}

async fn handshake(
    port: u16,
    trusted: &Path,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(trusted).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("localhost").unwrap();
    timeout(SOON, TlsConnector::from(Arc::new(config)).connect(name, socket)).await.expect("an answer")
}

/// Posts a push on an open connection. Returns the first line of the answer.
async fn push(socket: &mut TlsStream<TcpStream>, endpoint: &str, body: &str) -> String {
    let path = endpoint.split_once("/push/").unwrap().1;
    let head =
        format!("POST /push/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let read = timeout(SOON, socket.read_buf(&mut answer)).await.expect("an answer").unwrap();
        assert!(read > 0, "the connection ended: {}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8_lossy(&answer).lines().next().unwrap().to_owned()
}

fn presented(socket: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    socket.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn first_of(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}

/// varnish/hitch#296: HTTP/2 is negotiated, and the server behind does not speak it.
#[tokio::test]
async fn pushes_come_by_either_version_of_tls_and_by_http_1_alone() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let authority = Authority::new();
    // One file has both, as in ejabberd.
    let file = authority.certificate("localhost").file;
    let (upwire, port) = over_tls(server, &file, &file);
    let upwire = upwire.start_ready().await;
    upwire.never_logged(&["UPWIRE_TLS_CERTIFICATE"]);
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    assert!(endpoint.starts_with(&format!("https://localhost:{port}/push/")), "{endpoint}");
    for version in BOTH {
        for (protocols, chosen) in [(&["h2", "http/1.1"][..], Some(&b"http/1.1"[..])), (&[], None)] {
            let mut socket = handshake(port, &authority.trusted, &[version], protocols).await.unwrap();
            assert_eq!(socket.get_ref().1.alpn_protocol(), chosen);
            for body in ["one", "another on the same connection"] {
                assert_eq!(push(&mut socket, &endpoint, body).await, "HTTP/1.1 201 Created");
                assert_eq!(phone.next_push(SOON).await.body, body.as_bytes());
            }
        }
        let refused = handshake(port, &authority.trusted, &[version], &["h2"]).await.unwrap_err().to_string();
        assert!(refused.contains("NoApplicationProtocol"), "{refused}");
    }
    let mut plain = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(SOON, plain.read_to_end(&mut answer)).await.expect("it is closed");
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1"), "nothing is said in the clear");
}

/// caddyserver/caddy#5139, home-assistant/core#14237: a certificate is renewed, and the old one is served until it
/// expires.
#[tokio::test]
async fn a_certificate_that_is_renewed_is_served_without_a_restart() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let (authority, other) = (Authority::new(), Authority::new());
    let files = Files::of(&authority.certificate("localhost"));
    let (upwire, port) = over_tls(server, &files.certificate(), &files.key());
    let mut upwire = upwire.start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    let mut kept = handshake(port, &authority.trusted, BOTH, &[]).await.unwrap();
    assert_eq!(push(&mut kept, &endpoint, "first").await, "HTTP/1.1 201 Created");
    assert_eq!(phone.next_push(SOON).await.body, b"first");
    let old = presented(&kept);
    assert_eq!(old, first_of(&files.certificate()));

    // The server reads the renewed files by itself.
    files.write(&authority.certificate("localhost"));
    let renewed = first_of(&files.certificate());
    assert_ne!(old, renewed);
    eventually(SOON, "the new certificate is served", async || {
        presented(&handshake(port, &authority.trusted, BOTH, &[]).await.unwrap()) == renewed
    })
    .await;
    upwire.log_line(&["INFO", "the certificate was read again"]).await;

    // SIGHUP makes the server read the files, too. A pair that does not fit changes nothing.
    let stranger = other.certificate("localhost");
    fs::copy(&stranger.file, files.key()).unwrap();
    upwire.hang_up();
    upwire
        .log_line(&[
            "ERROR",
            "UPWIRE_TLS_KEY",
            "is not that of the first certificate",
            "the one before still",
        ])
        .await;
    assert_eq!(presented(&handshake(port, &authority.trusted, BOTH, &[]).await.unwrap()), renewed);
    fs::copy(&stranger.file, files.certificate()).unwrap();
    upwire.hang_up();
    let mut socket = eventually_some(SOON, "the certificate of the other authority is served", async || {
        handshake(port, &other.trusted, BOTH, &[]).await.ok()
    })
    .await;
    for socket in [&mut kept, &mut socket] {
        assert_eq!(push(socket, &endpoint, "hello").await, "HTTP/1.1 201 Created");
        assert_eq!(phone.next_push(SOON).await.body, b"hello");
    }
}

/// dehydrated-io/dehydrated#26, certimate-go/certimate#486: the error is "key values mismatch", and names no file.
#[tokio::test]
async fn a_pair_that_cannot_be_used_is_refused_at_the_start() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let authority = Authority::new();
    let pair = fs::read_to_string(authority.certificate("localhost").file).unwrap();
    let (certificate, key) = pair.split_at(pair.find("-----BEGIN PRIVATE KEY").unwrap());
    let authority = fs::read_to_string(&authority.trusted).unwrap();
    let wrong_order = format!("{authority}{certificate}");
    let torn = &certificate[..certificate.len() / 2];
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let cases = [
        (
            certificate,
            None,
            "UPWIRE_TLS_KEY",
            "is missing, and UPWIRE_TLS_CERTIFICATE is given",
            "name both files",
        ),
        (
            &wrong_order,
            Some(key),
            "UPWIRE_TLS_KEY",
            "is not that of the first",
            "own certificate comes first",
        ),
        (key, Some(key), "UPWIRE_TLS_CERTIFICATE", "has no certificate", "in PEM"),
        (torn, Some(key), "UPWIRE_TLS_CERTIFICATE", "is no PEM", "in PEM"),
        (certificate, Some(certificate), "UPWIRE_TLS_KEY", "has no private key", "in PEM"),
        (certificate, Some(&encrypted), "UPWIRE_TLS_KEY", "encrypted by a passphrase", "openssl pkey"),
        (certificate, Some("/nowhere"), "UPWIRE_TLS_KEY", "cannot be read", "name a file"),
    ];
    for (certificate, key, variable, problem, mend) in cases {
        let files = Files(folder("tls"));
        fs::write(files.certificate(), certificate).unwrap();
        let name = match key {
            Some("/nowhere") => PathBuf::from("/nowhere"),
            Some(text) => {
                fs::write(files.key(), text).unwrap();
                files.key()
            }
            None => PathBuf::new(),
        };
        let (upwire, _) = over_tls(server, &files.certificate(), &name);
        let mut upwire = upwire.start();
        assert_eq!(upwire.wait_exit(SOON).await.code(), Some(64), "{problem}");
        let log = upwire.log();
        let said = log.lines().find(|line| line.starts_with("upwire: ")).expect("one line");
        assert!([variable, problem, mend].iter().all(|part| said.contains(part)), "{problem}: {said}");
    }
}

/// iNPUTmice/Conversations#1735: a push server presents the XMPP server's example certificate, and only its clients
/// learn so.
#[tokio::test]
async fn a_certificate_for_another_name_is_warned_of() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let file = Authority::new().certificate("xmpp.example.com").file;
    let (upwire, _) = over_tls(server, &file, &file);
    let mut upwire = upwire.start_ready().await;
    upwire.log_line(&["WARN", "UPWIRE_TLS_CERTIFICATE", "is not for localhost", "xmpp.example.com"]).await;
}

/// rustls/tokio-rustls#4: a server waits for ever for a handshake that does not end.
#[tokio::test]
async fn handshakes_that_do_not_end_are_incomplete_requests() {
    const OF_PEER_MAX: usize = 64;
    let server = XmppServer::shared(Kind::Prosody).await;
    let authority = Authority::new();
    let file = authority.certificate("localhost").file;
    let (upwire, port) = over_tls(server, &file, &file);
    let upwire = upwire.start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    let began = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..OF_PEER_MAX + 5 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.3:0".parse().unwrap()).unwrap();
        let mut socket = socket.connect(SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
        // These bytes begin a ClientHello.
        socket.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
        slow.push(socket);
    }
    upwire.metric_is_where("upwire_connections_closed_total", &[("reason", "peer")], 5.0).await;
    let mut socket = handshake(port, &authority.trusted, BOTH, &[]).await.unwrap();
    assert_eq!(push(&mut socket, &endpoint, "hello").await, "HTTP/1.1 201 Created");
    for (number, socket) in slow.iter_mut().enumerate() {
        let mut answer = Vec::new();
        let _ = timeout(SOON, socket.read_to_end(&mut answer)).await.expect("it is closed");
        assert!(answer.is_empty(), "{number}");
    }
    let all = OF_PEER_MAX as f64;
    upwire.metric_is_where("upwire_connections_closed_total", &[("reason", "slow")], all).await;
    // The open session stays open.
    time_passes_until(began + Duration::from_secs(11)).await;
    assert_eq!(push(&mut socket, &endpoint, "again").await, "HTTP/1.1 201 Created");
}
