//! `upwire distributor` logs in to servers as Debian configures them, over StartTLS and direct TLS.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{
    Authority, Certificate, Kind, SOON, Tether, eventually, eventually_some, folder, free_port, http,
    profile_folder,
};
use serde_json::{Value, json};

const PASSWORD: &str = "pencil, and more";
const TRUSTED_SELF_SIGNED: &[&str] = &["subjectAltName=DNS:localhost", "basicConstraints=critical,CA:FALSE"];

/// A server with its package's own configuration. Only its addresses, its files and, in ejabberd, the API that
/// registers an account are changed.
struct Debian {
    start_tls: u16,
    direct_tls: u16,
    /// The port for HTTP, at which ejabberd registers an account.
    http: u16,
    folder: PathBuf,
    process: Tether,
}

impl Debian {
    async fn start(kind: Kind, certificate: &Certificate) -> Self {
        let folder = folder("debian");
        let [start_tls, direct_tls, http] = [free_port(), free_port(), free_port()];
        let command = match kind {
            Kind::Prosody => prosody(&folder, certificate, [start_tls, direct_tls]),
            Kind::Ejabberd => ejabberd(&folder, certificate, [start_tls, direct_tls, http]),
        };
        let process = Tether::start(&command, &folder.join("output"));
        let mut server = Self { start_tls, direct_tls, http, folder, process };
        eventually(SOON, "it listens", async || {
            server.process.assert_running();
            [start_tls, direct_tls].iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok())
        })
        .await;
        server.add_user(kind).await;
        server
    }

    async fn add_user(&self, kind: Kind) {
        match kind {
            Kind::Prosody => {
                let accounts = self.folder.join("localhost/accounts");
                fs::create_dir_all(&accounts).unwrap();
                fs::write(
                    accounts.join("juliet.dat"),
                    format!("return {{ [\"password\"] = \"{PASSWORD}\" }};\n"),
                )
                .unwrap();
            }
            Kind::Ejabberd => {
                let url = format!("http://127.0.0.1:{}/api/register", self.http);
                let account =
                    json!({"user": "juliet", "host": "localhost", "password": PASSWORD}).to_string();
                eventually(SOON, "ejabberd registers juliet", async || {
                    let answer = http::try_send(&http::client(), "POST", &url, &[], account.clone()).await;
                    answer.is_ok_and(|answer| matches!(answer.status, 200 | 409))
                })
                .await;
            }
        }
    }

    fn distributor(&self, trusted: &Path, password: &str, direct: bool) -> Tether {
        let mut command = Command::new(profile_folder().join("upwire"));
        command.args([
            "distributor",
            "--json",
            "--jid",
            "juliet@localhost",
            "--push-server",
            "notify.localhost",
        ]);
        let port = if direct { self.direct_tls } else { self.start_tls };
        command.args(["--server", &format!("localhost:{port}")]).args(direct.then_some("--direct-tls"));
        command.env("UPWIRE_PASSWORD", password).env("SSL_CERT_FILE", trusted);
        Tether::start(&command, &folder("distributor").join("log"))
    }
}

fn prosody(folder: &Path, certificate: &Certificate, [start_tls, direct_tls]: [u16; 2]) -> Command {
    let certificates = folder.join("certs");
    fs::create_dir_all(&certificates).unwrap();
    for name in ["localhost.crt", "localhost.key"] {
        fs::copy(&certificate.file, certificates.join(name)).unwrap();
    }
    let debian = fs::read_to_string("/etc/prosody/prosody.cfg.lua").expect("Debian's prosody");
    // The files below conf.d are for the machine's own server.
    fs::write(folder.join("debian.cfg.lua"), debian.replace("Include \"conf.d", "-- Include \"conf.d"))
        .unwrap();
    let file = folder.join("prosody.cfg.lua");
    let (folder, certificates) = (folder.display(), certificates.display());
    // The settings have a file of their own. A second value in the same file causes a warning, which Prosody fails to
    // format if the file's path has 60 bytes or more.
    let ours = format!(
        "Include \"debian.cfg.lua\"\nHost \"*\"\nrun_as_root = true\npidfile = \"{folder}/prosody.pid\"\ndata_path = \"{folder}\"\n\
         log = {{ {{ levels = {{ min = \"info\" }}, to = \"console\" }} }}\ncertificates = \"{certificates}\"\n\
         interfaces = {{ \"127.0.0.1\" }}\nc2s_ports = {{ {start_tls} }}\nc2s_direct_tls_ports = {{ {direct_tls} }}\n\
         s2s_ports = {{ }}\ncomponent_ports = {{ }}\nadmin_socket = \"{folder}/prosody.sock\"\n"
    );
    fs::write(&file, ours).unwrap();
    let mut command = Command::new("prosody");
    command.arg("--config").arg(file).arg("-F");
    command
}

fn ejabberd(folder: &Path, certificate: &Certificate, [start_tls, direct_tls, http]: [u16; 3]) -> Command {
    let mut text = fs::read_to_string("/etc/ejabberd/ejabberd.yml").expect("Debian's ejabberd");
    let ports = [("5222", start_tls), ("5223", direct_tls)];
    let others = ["5269", "5443", "5280", "3478", "1883"].map(|port| (port, free_port()));
    for (port, ours) in ports.into_iter().chain(others) {
        text = text.replace(&format!("port: {port}\n"), &format!("port: {ours}\n"));
    }
    let file = certificate.file.display().to_string();
    text = text.replace("/etc/ejabberd/ejabberd.pem", &file).replace("ip: \"::\"", "ip: \"127.0.0.1\"");
    // The test registers an account by HTTP, without TLS.
    let api = format!(
        "listen:\n  -\n    port: {http}\n    ip: \"127.0.0.1\"\n    module: ejabberd_http\n    \
         request_handlers:\n      /api: mod_http_api\n"
    );
    text = text.replacen("listen:\n", &api, 1).replacen(
        "      - status\n",
        "      - status\n      - register\n",
        1,
    );
    let configuration = folder.join("ejabberd.yml");
    fs::write(&configuration, text).unwrap();
    let mut command = Command::new("erl");
    command.args(["-noinput", "-mnesia", "dir"]).arg(format!("\"{}\"", folder.join("mnesia").display()));
    command.args(["-s", "ejabberd"]).env("ERL_LIBS", e2e::ejabberd_libraries());
    command.env("EJABBERD_CONFIG_PATH", &configuration).env("EJABBERD_LOG_PATH", folder.join("ejabberd.log"));
    command.env("ERL_CRASH_DUMP_BYTES", "0").current_dir(folder);
    command
}

fn events(distributor: &Tether, name: &str) -> Vec<Value> {
    let log = distributor.log();
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["event"] == name).collect()
}

/// Starts a distributor, and waits until `look` finds something in what it says. A distributor gives up if a busy
/// machine lets it in too slowly, and is started again then.
async fn says<T>(what: &str, start: impl Fn() -> Tether, look: impl Fn(&Tether) -> Option<T>) -> (Tether, T) {
    let mut distributor = start();
    let said = eventually_some(SOON, what, async || {
        let said = look(&distributor);
        if said.is_none() && distributor.exited().is_some() && distributor.log().contains("unreachable") {
            distributor = start();
        }
        said
    })
    .await;
    (distributor, said)
}

/// Starts a distributor, and waits for an error with these words.
async fn is_told(words: &str, start: impl Fn() -> Tether) -> Tether {
    let has_words = |error: &Value| error.to_string().contains(words);
    let look = |distributor: &Tether| events(distributor, "error").into_iter().find(has_words);
    says(&format!("the distributor says {words}"), start, look).await.0
}

/// Checks the logins to a server. ejabberd 23.01 announces SCRAM-SHA-1-PLUS and no channel binding, and answers
/// "Invalid channel binding" to the one that tokio-xmpp would use (xmppo/go-xmpp#184: another client has the same
/// problem).
async fn logs_in_to(kind: Kind) {
    let authority = Authority::new();
    let self_signed = Certificate::self_signed(TRUSTED_SELF_SIGNED);
    let certified = authority.certificate("localhost");
    for (certificate, trusted) in [(&certified, &authority.trusted), (&self_signed, &self_signed.file)] {
        let server = Debian::start(kind, certificate).await;
        for direct in [false, true] {
            let start = || server.distributor(trusted, PASSWORD, direct);
            let is_connected = |distributor: &Tether| events(distributor, "connected").pop();
            let (mut distributor, connected) =
                says("the distributor is connected", start, is_connected).await;
            assert!(connected["jid"].as_str().unwrap().starts_with("juliet@localhost/"), "{connected}");
            distributor.kill();

            // The stranger trusts another authority.
            let other = Authority::new();
            let stranger = || server.distributor(&other.trusted, PASSWORD, direct);
            is_told("SSL_CERT_FILE", stranger).await.kill();
        }
        let wrong = || server.distributor(trusted, "not the password", false);
        let mut wrong = is_told("\"condition\":\"not-authorized\"", wrong).await;
        assert_eq!(wrong.wait(SOON).await.code(), Some(1));
    }
    // openssl makes this certificate by default.
    let authority_of_itself = Certificate::self_signed(&["subjectAltName=DNS:localhost"]);
    let server = Debian::start(kind, &authority_of_itself).await;
    is_told("CA:FALSE", || server.distributor(&authority_of_itself.file, PASSWORD, false)).await;
}

#[tokio::test]
async fn the_distributor_logs_in_to_debians_prosody() {
    logs_in_to(Kind::Prosody).await;
}

#[tokio::test]
async fn the_distributor_logs_in_to_debians_ejabberd() {
    logs_in_to(Kind::Ejabberd).await;
}
