//! `upwire distributor`: a UnifiedPush distributor in a terminal, for trying out a push server.

use std::future::pending;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use push::VapidKey;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_xmpp::jid::Jid;

use self::answer::{Answer, Responder};
use self::output::Output;
use self::registration::Target;
use self::run::Distributor;
use self::session::{Account, Security, Server, Unproven};
use crate::command_line;
use crate::configuration::{ConfigurationError, check_certificates, environment, secret};

mod answer;
mod failure;
mod login;
mod output;
mod registration;
mod run;
mod session;

/// Longest wait for the XMPP server to end the stream.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Be a UnifiedPush distributor in a terminal: register, print the endpoint, print each push.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Be a UnifiedPush distributor in a terminal, for trying out a push server.\n\n\
        It logs in to an XMPP account, registers with the push server, prints the endpoint (POST to it \
        with curl), then prints and acknowledges each push that arrives. It renews the registration in \
        time and connects again whenever the connection is lost, until SIGTERM or Ctrl-C, or until nobody \
        reads its output any more. The same account and names give the same endpoint again, if the push \
        server keeps endpoints, as Upwire does.",
    after_long_help = after_help()
)]
pub(crate) struct Options {
    /// The account: user@example.com, or user@example.com/resource for a resource that stays the same from
    /// one start to the next
    #[arg(long, value_parser = account)]
    jid: Jid,

    /// A file that holds the account's password (or set UPWIRE_PASSWORD)
    #[arg(long, value_name = "FILE", env = "UPWIRE_PASSWORD_FILE")]
    password_file: Option<PathBuf>,

    /// The XMPP server's host:port [default: from the DNS, by the JID's domain]
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<Server>,

    /// Use TLS from the first byte (XEP-0368) instead of StartTLS
    #[arg(long, conflicts_with = "plaintext")]
    direct_tls: bool,

    /// Use no TLS at all; only for a --server on this machine: localhost, 127.0.0.1 or ::1
    #[arg(long, requires = "server")]
    plaintext: bool,

    /// The push server's JID, for example notify.example.com
    #[arg(long, value_name = "JID", value_parser = push_server)]
    push_server: Jid,

    /// The application to register: any text, sent as a salted hash
    #[arg(long, default_value = "upwire", value_name = "TEXT")]
    application: String,

    /// The application's instance: any text, sent as a salted hash
    #[arg(long, default_value = "default", value_name = "TEXT")]
    instance: String,

    /// The hashes' salt: another one makes another endpoint [default: the account's bare JID]
    #[arg(long, value_name = "TEXT")]
    salt: Option<String>,

    /// The public key of the application server that alone may push (RFC 8292), 87 characters of base64url;
    /// another key, or none, makes another endpoint
    #[arg(long, value_name = "KEY")]
    vapid: Option<VapidKey>,

    /// Answer to each push
    #[arg(long, value_enum, default_value_t = Answer::Result)]
    answer: Answer,

    /// Print each event as one JSON object a line
    #[arg(long)]
    json: bool,
}

fn after_help() -> String {
    format!(
        "Example:\n  \
         UPWIRE_PASSWORD=… upwire distributor --jid alice@example.com --push-server notify.example.com\n  \
         curl --data 'Hello' https://push.example.com/push/…\n\n\
         With --json, the events are:\n  \
         {{\"event\":\"connected\",\"jid\":…,\"resumed\":…}}   {{\"event\":\"disconnected\"}}\n  \
         {{\"event\":\"endpoint\",\"endpoint\":…,\"expiration\":…,\"application\":…,\"instance\":…}}\n  \
         {{\"event\":\"renewed\",\"endpoint\":…,\"expiration\":…}}\n  \
         {{\"event\":\"push\",\"id\":…,\"application\":…,\"instance\":…,\"length\":…,\"body\":BASE64,\n   \
         \"text\":… (where it is UTF-8),\"answer\":…}}\n  \
         {{\"event\":\"error\",\"condition\":…,\"text\":…,\"hint\":…,\"retry\":SECONDS (where it is tried again)}}\n\n\
         It ends with exit code 1 if the XMPP server cannot be reached at the start, if it refuses the \
         login, or if the push server refuses the registration for good.\n\n\
         Environment:\n  \
         UPWIRE_PASSWORD       the account's password (there is no option: others could see it)\n  \
         UPWIRE_PASSWORD_FILE  as --password-file\n\n{}",
        command_line::AFTER_HELP
    )
}

fn account(text: &str) -> Result<Jid, String> {
    let jid = Jid::new(text).map_err(|error| format!("{error}; write it as user@example.com"))?;
    if jid.node().is_some() { Ok(jid) } else { Err("it names no user; write it as user@example.com".into()) }
}

/// Adds a resource to the JID, if it has none. The resource stays the same while this process runs, so that a waiting
/// push finds this distributor after a reconnect.
fn with_resource(jid: &Jid) -> Jid {
    let mut random = [0; 3];
    if jid.resource().is_some() || getrandom::fill(&mut random).is_err() {
        return jid.clone();
    }
    let resource = format!("upwire.{}", URL_SAFE_NO_PAD.encode(random));
    jid.to_bare().with_resource_str(&resource).map_or_else(|_| jid.clone(), Into::into)
}

fn push_server(text: &str) -> Result<Jid, String> {
    Jid::new(text).map_err(|error| format!("{error}; write it as notify.example.com"))
}

impl Options {
    fn account(&self) -> Result<Account, ConfigurationError> {
        let password = secret(
            command_line::DISTRIBUTOR_PASSWORD,
            environment(command_line::DISTRIBUTOR_PASSWORD)?.map(Into::into),
            self.password_file.as_deref(),
        )?;
        let password = password.ok_or_else(|| {
            ConfigurationError::new(
                command_line::DISTRIBUTOR_PASSWORD,
                "is not set",
                "set it, or give --password-file FILE",
            )
        })?;
        let security = match &self.server {
            Some(server) if self.plaintext && !server.is_loopback() => {
                return Err(ConfigurationError::new(
                    "--plaintext",
                    format!("--server {server} is not on this machine, and others could read the password"),
                    "leave --plaintext out, or use localhost, 127.0.0.1 or [::1]",
                ));
            }
            _ if self.plaintext => Security::Plaintext,
            _ if self.direct_tls => Security::DirectTls,
            _ => Security::StartTls,
        };
        if security != Security::Plaintext {
            check_certificates()?;
        }
        Ok(Account { jid: with_resource(&self.jid), password, server: self.server.clone(), security })
    }

    fn responder(&self) -> Responder {
        let salt = self.salt.clone().unwrap_or_else(|| self.jid.to_bare().to_string());
        Responder {
            push_server: self.push_server.clone(),
            target: Target::new(&salt, &self.application, &self.instance),
            answer: self.answer,
        }
    }
}

/// Runs the distributor until `shutdown`, until stdout is closed, or until a permanent failure.
pub(crate) async fn run(options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    let account = options.account()?;
    let responder = options.responder();
    let mut output = Output::new(options.json);
    let unproven = Unproven::default();
    let (stream, attempts) = session::open(account, unproven.clone());
    let mut distributor = Distributor::new(&options, responder, stream, attempts, unproven);
    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        () = unread() => Ok(()),
        Err(error) = distributor.run(&mut output) => Err(error),
    };
    // The XMPP server's own timeout ends a stream that cannot be closed in time.
    let _ = timeout(CLOSE_TIMEOUT, distributor.close()).await;
    match outcome {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        outcome => outcome,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Returns once nobody can read stdout any more. A write would notice only at the next output.
async fn unread() {
    use rustix::event::{PollFd, PollFlags, poll};
    let (gone, closed) = tokio::sync::oneshot::channel();
    // The poll has no deadline, so it has a thread of its own, which ends with the process.
    std::thread::spawn(move || {
        let stdout = io::stdout();
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        while matches!(poll(&mut watched, None), Err(rustix::io::Errno::INTR) | Ok(0)) {}
        if watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            let _ = gone.send(());
        }
    });
    if closed.await.is_err() {
        pending().await
    }
}
