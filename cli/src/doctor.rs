//! `upwire doctor`: finds problems of a deployment, and says how to solve them.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use aws::SdkConfig;
use push::Secrets;
use push::marker::Keys;
use push::ports::Markers;
use secrecy::SecretString;
use tokio::runtime::Runtime;

use self::finding::{Finding, Level};
use self::way::Way;
use crate::aws_configuration;
use crate::configuration::{environment, reveal};
use crate::live::split;
use crate::marker::TABLE_ID;
use crate::relay::options::{MAILBOX_TABLE, QUEUE_URL, REGISTRATIONS_TABLE};
use crate::relay_options::{RelayOptions, RelaySettings};
use crate::serve::KEPT_SECRET;
use crate::store::{self, StoreOptions};

mod backups;
mod cloud;
mod component;
mod finding;
mod journal;
mod machine;
mod public;
mod stack;
mod tls;
mod way;

/// Look for what is wrong with a set-up, and say how to mend it.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Looks for what is wrong with a set-up: name and certificate of the public URL, whether that reaches this server, \
        the clock, the component at the XMPP server, the database or the tables on AWS, files, room, backups. Each finding \
        says what is wrong, why it matters, and the mend. It takes the options and variables of `upwire serve` or `upwire \
        relay`, and changes nothing. Run it as the server's user, on its machine; the server may run.",
    after_long_help = AFTER_HELP
)]
pub(crate) struct Options {
    #[command(flatten)]
    relay: RelayOptions,

    #[command(flatten)]
    store: StoreOptions,

    /// The SQS queue that the function fills
    #[arg(long, value_name = "URL", env = "UPWIRE_QUEUE_URL")]
    queue_url: Option<String>,

    /// Bytes that stay free on the database's disk
    #[arg(long, value_name = "BYTES", env = "UPWIRE_DISK_FLOOR", default_value_t = embedded::DISK_FLOOR)]
    disk_floor: u64,

    /// The stack on AWS, to compare with its template; its alarms are looked at, too. Takes an operator's credentials
    #[arg(long, value_name = "NAME")]
    stack: Option<String>,

    /// The file that the server's log goes to, where that is not the journal
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,

    /// The folder that `upwire backup` writes to
    #[arg(long, value_name = "FOLDER")]
    backups: Option<PathBuf>,

    /// The file with the private key of the ingress, where it speaks TLS by itself
    #[arg(long, value_name = "FILE", env = "UPWIRE_TLS_KEY")]
    tls_key: Option<PathBuf>,

    #[command(flatten)]
    way: Way,

    /// Print a JSON object for each finding
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Example, with the variables of the unit:
  sudo -u upwire sh -c 'set -a; . /etc/upwire/upwire.env; upwire doctor --component-secret-file /etc/upwire/component-secret --database /var/lib/upwire/upwire.db'

Exit codes: 0 no error was found; 1 at least one was; 64 wrong usage or configuration.";

/// Runs all checks.
pub(crate) fn run(options: Options) -> anyhow::Result<()> {
    let json = options.json;
    let findings = Runtime::new()?.block_on(examine(options))?;
    let mut out = io::stdout().lock();
    for finding in &findings {
        if json {
            serde_json::to_writer(&mut out, finding)?;
            writeln!(out)?;
        } else {
            finding.write(&mut out)?;
        }
    }
    out.flush()?;
    match findings.iter().filter(|finding| finding.level == Level::Error).count() {
        0 => Ok(()),
        1 => Err(anyhow!("1 error was found")),
        errors => Err(anyhow!("{errors} errors were found")),
    }
}

async fn examine(options: Options) -> anyhow::Result<Vec<Finding>> {
    let Options { relay, store, queue_url, disk_floor, stack, log_file, backups, tls_key, way, .. } = options;
    let settings = relay.settings()?;
    way.validate()?;
    let file = store.file();
    let (process, told) = component::process(settings.admin_listen, file.as_deref()).await;
    let mut findings = vec![told];
    findings.extend(component::component(&settings, process, file.is_none()).await);

    let mut secrets: Vec<SecretString> = settings.secret.iter().flat_map(split).collect();
    match &file {
        Some(file) => {
            let (database, found) = machine::database(file, disk_floor);
            findings.extend(found);
            if let Some(database) = database {
                secrets.extend(database.setting(KEPT_SECRET)?.map(SecretString::from));
                findings.push(marker(&database, &secrets, None).await);
            }
            findings.extend(backups::check(backups.as_deref(), file, store::now().into()));
        }
        None => {
            let (registrations, mailbox) = store.tables();
            let names = cloud::Names { registrations, mailbox, queue_url };
            let config = aws_configuration::read().await?;
            let (table, found) = cloud::check(&config, &names).await;
            findings.extend(found);
            let id = environment(TABLE_ID)?;
            if let Some(table) = table {
                findings.push(marker(&table, &secrets, id.as_deref()).await);
            }
            match stack {
                Some(stack) => {
                    let settings = tying(&config, &settings, names, id);
                    findings.extend(stack::check(&config, &stack, &settings).await);
                }
                None => findings.push(Finding::skipped("stack", "no stack was named (--stack)")),
            }
        }
    }
    findings.push(journal::check(log_file.as_deref(), &journal::Places::of_system()));
    findings.extend(machine::modes(file.as_deref(), &files(&settings), tls_key.as_deref()));
    findings.push(machine::descriptors());
    let signing = parsed(&secrets);
    findings.extend(public::check(&settings.public_url, signing.as_ref(), store::now()).await);
    findings.push(way.check(&settings.component).await?);
    Ok(findings)
}

/// Returns the settings that tie a relay to a stack.
fn tying(
    config: &SdkConfig,
    settings: &RelaySettings,
    names: cloud::Names,
    table_id: Option<String>,
) -> [(&'static str, Option<String>); 6] {
    [
        ("AWS_REGION", config.region().map(ToString::to_string)),
        (QUEUE_URL, names.queue_url),
        (REGISTRATIONS_TABLE, Some(names.registrations)),
        (MAILBOX_TABLE, names.mailbox),
        (TABLE_ID, table_id),
        ("UPWIRE_PUBLIC_URL", Some(settings.public_url.to_string())),
    ]
}

/// Returns the files that hold secrets.
fn files(settings: &RelaySettings) -> Vec<&Path> {
    let files = &settings.files;
    let files = [&files.component_secret, &files.secret, &files.legacy_secret, &files.legacy_paseto_key];
    files.into_iter().flatten().map(PathBuf::as_path).collect()
}

fn parsed(secrets: &[SecretString]) -> Option<Secrets> {
    let list: Vec<&str> = secrets.iter().map(reveal).collect();
    Secrets::parse(&list.join(",")).ok()
}

/// Checks whether the given secrets include the one that signs endpoints in this store.
async fn marker<S: Markers>(store: &S, secrets: &[SecretString], table: Option<&str>) -> Finding {
    let why = "every endpoint that was made so far is refused";
    let keys = Keys {
        secrets: parsed(secrets).map(|secrets| secrets.fingerprints()).unwrap_or_default(),
        ..Keys::default()
    };
    match store.marker().await {
        Err(error) => {
            let mend = "look at the finding on the store above it";
            Finding::error("secrets", format!("the marker cannot be read: {error}"), why, mend)
        }
        Ok(None) => Finding::skipped("secrets", "no relay has used this store yet"),
        Ok(Some(marker)) => match marker.admit(&keys, table) {
            Ok(()) => Finding::ok("secrets", "the secret that signs endpoints is among those that are given"),
            Err(misfit) => {
                let what = format!("UPWIRE_SECRET {misfit}");
                let mend =
                    "add the former secret behind the others in UPWIRE_SECRET, or name the right table";
                Finding::error("secrets", what, why, mend)
            }
        },
    }
}
