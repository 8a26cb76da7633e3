//! `upwire doctor`: each kind of broken set-up that can be played on loopback.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use e2e::{
    Authority, Certificate, Kind, Settings, Upwire, XmppServer, folder, free_port, http, profile_folder,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

pub(crate) type Variables = BTreeMap<&'static str, String>;

/// The findings, and the whole output.
pub(crate) struct Report {
    pub(crate) findings: Vec<Value>,
    pub(crate) output: Output,
}

impl Report {
    /// Returns the finding of a check with this level, as JSON.
    pub(crate) fn finds(&self, check: &str, level: &str) -> String {
        let found = self.findings.iter().find(|found| found["check"] == check && found["level"] == level);
        found
            .unwrap_or_else(|| panic!("no {level} of {check}: {:#?} {:?}", self.findings, self.output))
            .to_string()
    }

    /// Asserts that a check has an error or a warning with these words, a reason and a remedy.
    pub(crate) fn wrong(&self, check: &str, level: &str, words: &str) {
        let found = self.finds(check, level);
        assert!(found.contains(words), "{words}: {found}");
        for part in ["\"why\"", "\"mend\""] {
            assert!(found.contains(part), "{part}: {found}");
        }
        assert_eq!(self.output.status.code(), Some(i32::from(self.has_errors())), "{:?}", self.output);
    }

    fn has_errors(&self) -> bool {
        self.findings.iter().any(|found| found["level"] == "error")
    }
}

pub(crate) async fn examine(variables: &Variables, arguments: &[&str]) -> Report {
    examine_by(Command::new(profile_folder().join("upwire")), variables, arguments).await
}

/// Examines with a command that ends in the program.
async fn examine_by(mut doctor: Command, variables: &Variables, arguments: &[&str]) -> Report {
    doctor.args(["doctor", "--json"]).args(arguments);
    doctor.env_clear().env("AWS_EC2_METADATA_DISABLED", "true").envs(variables);
    let output = tokio::task::spawn_blocking(move || doctor.output().unwrap()).await.unwrap();
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    let findings = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Report { findings, output }
}

/// Returns the variables of a running `upwire serve`.
fn of(upwire: &Upwire, server: &XmppServer) -> Variables {
    [
        ("UPWIRE_PUBLIC_URL", upwire.public_url.clone()),
        ("UPWIRE_COMPONENT", upwire.component.jid.to_string()),
        ("UPWIRE_COMPONENT_SECRET", upwire.component.secret.clone()),
        ("UPWIRE_XMPP_SERVER", server.component_address()),
        ("UPWIRE_DATABASE", upwire.database().display().to_string()),
        ("UPWIRE_ADMIN_LISTEN", upwire.admin_url.replace("http://", "")),
    ]
    .into()
}

pub(crate) fn with(variables: &Variables, name: &'static str, value: impl ToString) -> Variables {
    let mut variables = variables.clone();
    variables.insert(name, value.to_string());
    variables
}

async fn a_set_up_that_works_is_well(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let user = server.user().await;
    let variables = with(&of(&upwire, server), "UPWIRE_PASSWORD", &user.password);
    let (jid, clients) = (user.jid.to_string(), format!("127.0.0.1:{}", server.c2s_port));
    let report = examine(&variables, &["--jid", &jid, "--server", &clients, "--plaintext"]).await;
    assert_eq!(report.output.status.code(), Some(0), "{:?}", report.output);
    for check in [
        "process",
        "component",
        "database",
        "disk",
        "secrets",
        "modes",
        "dns",
        "public_url",
        "slashes",
        "matrix",
        "clock",
        "push",
    ] {
        report.finds(check, "ok");
    }
    let routes = report.finds("routes", "skipped");
    assert!(routes.contains("run this again"), "{routes}");
    a_push_that_does_not_come_says_why(&upwire, server, &jid).await;
    // The doctor tries the component itself while no process is connected as it.
    let mut upwire = upwire;
    upwire.terminate();
    upwire.wait_exit(e2e::SOON).await;
    let report = examine(&variables, &[]).await;
    report.finds("component", "ok");
    report.finds("routes", "skipped");
    report.wrong("process", "warning", "UPWIRE_ADMIN_LISTEN");
    report.wrong("public_url", "error", "nothing answers");
    let wrong = with(&variables, "UPWIRE_COMPONENT_SECRET", "another-secret");
    examine(&wrong, &[]).await.wrong("component", "error", "UPWIRE_COMPONENT_SECRET");
    let nowhere = with(&variables, "UPWIRE_XMPP_SERVER", format!("127.0.0.1:{}", free_port()));
    examine(&nowhere, &[]).await.wrong("component", "error", "nothing listens there");
}

async fn a_push_that_does_not_come_says_why(upwire: &Upwire, server: &XmppServer, jid: &str) {
    let wrong = with(&of(upwire, server), "UPWIRE_PASSWORD", "another-password");
    let clients = format!("127.0.0.1:{}", server.c2s_port);
    let refused = examine(&wrong, &["--jid", jid, "--server", &clients, "--plaintext"]).await;
    refused.wrong("push", "error", "wrong password, or no such account");
    refused.wrong("push", "error", &format!("--server {clients} --plaintext\""));
    let nowhere = format!("127.0.0.1:{}", free_port());
    let unreachable = examine(&wrong, &["--jid", jid, "--server", &nowhere, "--plaintext"]).await;
    unreachable.wrong("push", "error", "cannot be reached");
    // A wrong command is refused before anything is tried.
    for arguments in
        [["--jid", jid, "--password-file", "/nowhere"], ["--jid", "localhost", "--server", &nowhere]]
    {
        let refused = examine(&wrong, &arguments).await;
        assert_eq!(refused.output.status.code(), Some(64), "{:?}", refused.output);
        assert!(refused.findings.is_empty(), "{:?}", refused.findings);
    }
}

async fn a_server_that_is_not_ready_keeps_its_connection(server: &XmppServer) {
    let mut upwire = Upwire::on(server).set("UPWIRE_DISK_FLOOR", 1_u64 << 60).start();
    upwire.log_line(&["connected to the XMPP server"]).await;
    let report = examine(&of(&upwire, server), &[]).await;
    report.wrong("process", "error", "UPWIRE_DISK_FLOOR");
    report.finds("component", "ok");
    report.finds("routes", "skipped");
    upwire.metric_is("upwire_xmpp_stream_up", 1.0).await;
    upwire.terminate();
    upwire.wait_exit(e2e::SOON).await;
    let log = upwire.log();
    assert_eq!(log.matches("connected to the XMPP server").count(), 1, "it was not disturbed");
}

on_each_server!(a_set_up_that_works_is_well, a_server_that_is_not_ready_keeps_its_connection);

#[tokio::test]
async fn a_public_url_that_leads_elsewhere_is_found() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let (upwire, other) = (Upwire::on(server).start_ready().await, Upwire::on(server).start_ready().await);
    let variables = of(&upwire, server);
    let nameless = with(&variables, "UPWIRE_PUBLIC_URL", "https://push.invalid");
    examine(&nameless, &[]).await.wrong("dns", "error", "push.invalid");
    let elsewhere = with(&variables, "UPWIRE_PUBLIC_URL", &other.public_url);
    examine(&elsewhere, &[]).await.wrong("public_url", "error", "another server answers");

    let proxied = with(&variables, "UPWIRE_PUBLIC_URL", bad_proxy(upwire.public_url.clone()).await);
    let report = examine(&proxied, &[]).await;
    report.finds("public_url", "ok");
    report.wrong("slashes", "warning", "301");
    report.wrong("matrix", "warning", "404");
    report.wrong("clock", "error", "timedatectl");
}

/// Starts a proxy that redirects double slashes, keeps `/_matrix` for itself, and sends a `Date` of the past.
async fn bad_proxy(behind: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && client.read_buf(&mut head).await.unwrap_or(0) > 0 {}
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap_or("/");
            let (status, body) = if path.starts_with("//") {
                (301, String::new())
            } else if path.starts_with("/_matrix") {
                (404, String::new())
            } else {
                let answer = http::get(&format!("{behind}{path}")).await;
                (answer.status, answer.text())
            };
            let date = "Mon, 01 Jan 2024 00:00:00 GMT";
            let answer = format!(
                "HTTP/1.1 {status} x\r\ndate: {date}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = client.write_all(answer.as_bytes()).await;
        }
    });
    url
}

#[tokio::test]
async fn a_certificate_that_senders_refuse_is_found() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let authority = Authority::new();
    let (well, expired) = (authority.certificate("localhost"), authority.expired_certificate("localhost"));
    let other = authority.certificate("elsewhere.example");
    let trusts = |variables: &Variables| with(variables, "SSL_CERT_FILE", authority.trusted.display());
    for (certificate, level, words) in
        [(&well, "warning", "days"), (&expired, "error", "xpired"), (&other, "error", "refused")]
    {
        let (upwire, variables) = over_tls(server, certificate).await;
        examine(&trusts(&variables), &[]).await.wrong("tls", level, words);
        if level == "warning" {
            examine(&trusts(&variables), &[]).await.finds("public_url", "ok");
            examine(&variables, &[]).await.wrong("tls", "error", "refused");
        }
        drop(upwire);
    }
    // This certificate is an authority's own, as `openssl req -x509` makes it.
    let own = Certificate::self_signed(&["subjectAltName=DNS:localhost"]);
    let (upwire, variables) = over_tls(server, &own).await;
    let trusted = with(&variables, "SSL_CERT_FILE", own.file.display());
    examine(&trusted, &[]).await.wrong("tls", "error", "an authority's own");
    let plain = with(&variables, "UPWIRE_PUBLIC_URL", upwire.public_url.replace("https://", "http://"));
    examine(&plain, &[]).await.wrong("tls", "error", "speaks TLS");
    drop(upwire);
    let upwire = Upwire::on(server).start_ready().await;
    let secured = upwire.public_url.replace("http://127.0.0.1", "https://localhost");
    examine(&with(&of(&upwire, server), "UPWIRE_PUBLIC_URL", secured), &[]).await.wrong(
        "tls",
        "error",
        "does not speak TLS",
    );
}

async fn over_tls(server: &XmppServer, certificate: &Certificate) -> (Upwire, Variables) {
    let port = free_port();
    let url = format!("https://localhost:{port}");
    let upwire = Upwire::on(server)
        .set("UPWIRE_LISTEN", format!("127.0.0.1:{port}"))
        .set("UPWIRE_PUBLIC_URL", &url)
        .set("UPWIRE_TLS_CERTIFICATE", certificate.file.display())
        .set("UPWIRE_TLS_KEY", certificate.file.display())
        .start_ready()
        .await;
    let variables = with(&of(&upwire, server), "UPWIRE_PUBLIC_URL", url);
    (upwire, variables)
}

/// Returns variables with an administration address at which no process listens.
fn unseen(variables: &Variables) -> Variables {
    with(variables, "UPWIRE_ADMIN_LISTEN", format!("127.0.0.1:{}", free_port()))
}

/// Returns variables with neither the process nor its database, so that the component is tried.
fn elsewhere(variables: &Variables) -> Variables {
    with(&unseen(variables), "UPWIRE_DATABASE", "/nowhere/upwire.db")
}

#[tokio::test]
async fn a_server_whose_administration_is_elsewhere_is_not_disturbed() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).start_ready().await;
    let report = examine(&unseen(&of(&upwire, server)), &[]).await;
    report.wrong("process", "warning", "a server runs on this database");
    report.finds("component", "skipped");
    report.finds("routes", "skipped");
}

#[tokio::test]
async fn another_process_that_is_the_component_is_found() {
    let prosody = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(prosody).start_ready().await;
    examine(&elsewhere(&of(&upwire, prosody)), &[]).await.wrong("component", "error", "conflict");

    // ejabberd accepts the second connection, and spreads stanzas over both. By default, it does so with those of other
    // components, too.
    for global_routes in [false, true] {
        let settings = Settings { global_routes, ..Settings::default() };
        let server = XmppServer::start_with(Kind::Ejabberd, settings).await;
        let upwire = Upwire::on(&server).start_ready().await;
        let mut variables = elsewhere(&of(&upwire, &server));
        if global_routes {
            // The doctor tries another component of the listener, whose connection serves all components.
            let other = server.component();
            variables.insert("UPWIRE_COMPONENT", other.jid.to_string());
        }
        examine(&variables, &[]).await.wrong("routes", "error", "global_routes: false");
    }
}

#[tokio::test]
async fn files_room_and_secrets_that_are_wrong_are_found() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let secret = "a-secret-of-more-than-32-bytes-0123456789";
    let upwire = Upwire::on(server).set("UPWIRE_SECRET", secret).start_ready().await;
    let variables = with(&of(&upwire, server), "UPWIRE_SECRET", secret);
    examine(&variables, &[]).await.finds("secrets", "ok");
    let other = with(&variables, "UPWIRE_SECRET", "b-secret-of-more-than-32-bytes-0123456789");
    let report = examine(&other, &[]).await;
    report.wrong("secrets", "error", "lacks the secret that endpoints are signed with");
    report.wrong("public_url", "error", "other secrets");

    let file = folder("doctor").join("secret");
    std::fs::write(&file, secret).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut readable = with(&variables, "UPWIRE_SECRET_FILE", file.display());
    readable.remove("UPWIRE_SECRET");
    examine(&readable, &[]).await.wrong("modes", "error", "chmod 640");
    let key = with(&variables, "UPWIRE_TLS_KEY", file.display());
    examine(&key, &[]).await.wrong("modes", "error", "who reads the key");
    examine(&with(&variables, "UPWIRE_DISK_FLOOR", u64::MAX), &[]).await.wrong("disk", "error", "df -h");
    let backups = folder("doctor-backups").display().to_string();
    examine(&variables, &["--backups", &backups]).await.wrong("backup", "error", "upwire backup");
    let missing = with(&variables, "UPWIRE_DATABASE", "/nowhere/upwire.db");
    examine(&missing, &[]).await.wrong("database", "warning", "UPWIRE_DATABASE");
    let mut few = Command::new("/usr/bin/prlimit");
    few.arg("--nofile=1024:1024").arg(profile_folder().join("upwire"));
    examine_by(few, &variables, &[]).await.wrong("descriptors", "warning", "LimitNOFILE");
    let mut nothing = variables.clone();
    nothing.remove("UPWIRE_COMPONENT");
    assert_eq!(examine(&nothing, &[]).await.output.status.code(), Some(64));
}
