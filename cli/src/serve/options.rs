//! The options of `upwire serve`, and the settings that they become.

use std::net::SocketAddr;
use std::path::PathBuf;

use chrono::TimeDelta;
use functions::settings::KeptFor;
use ipnet::IpNet;

use super::legacy;
use crate::configuration::ConfigurationError;
use crate::http::{CertificateFiles, Proxies, network};
use crate::legacy_options::{LegacyOptions, LegacySettings};
use crate::relay_options::{RelayOptions, RelaySettings};
use crate::{command_line, values};

const MAX_TTL: &str = "UPWIRE_MAX_TTL";
const SECRET_HELP: &str = "The secrets that authenticate endpoints, comma-separated: the first signs, all verify; \
    a phone gets the URL that the first signs when it renews [default: one is made, and kept in the database]";

/// Run the whole push server, ingress and relay, on one SQLite file.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Run the whole push server in one process on one SQLite file.\n\n\
        The ingress takes pushes from application servers at the public URL (give it a certificate, or put a \
        reverse proxy with TLS in front of it). The relay is an external component (XEP-0114) of your XMPP server: it registers \
        the users' distributors and delivers each push to them. A push that was answered with 201 is in the \
        file, and survives any crash.",
    mut_arg("secret", |secret| secret.help(SECRET_HELP)),
    after_long_help = after_help()
)]
pub(crate) struct Options {
    #[command(flatten)]
    relay: RelayOptions,

    /// The SQLite file; made if it is missing
    #[arg(long, value_name = "FILE", env = "UPWIRE_DATABASE", default_value = "upwire.db")]
    database: PathBuf,

    /// Where the ingress listens
    #[arg(long, value_name = "ADDRESS:PORT", env = "UPWIRE_LISTEN", default_value = "127.0.0.1:8080",
        value_parser = values::listen_address)]
    listen: SocketAddr,

    /// A file with the certificate for the public URL's host and those of its authorities, in PEM: the ingress speaks TLS by
    /// itself then; read again when it changes
    #[arg(long, value_name = "FILE", env = "UPWIRE_TLS_CERTIFICATE")]
    tls_certificate: Option<PathBuf>,

    /// The file with its private key, in PEM; it may be the same one
    #[arg(long, value_name = "FILE", env = "UPWIRE_TLS_KEY")]
    tls_key: Option<PathBuf>,

    /// Addresses and networks of reverse proxies, comma-separated: any number of incomplete requests may come from
    /// there, and from 127.0.0.1 and ::1; from any other address, 64 at a time
    #[arg(long, value_name = "ADDRESSES", env = "UPWIRE_PROXIES", value_delimiter = ',', value_parser = network)]
    proxies: Vec<IpNet>,

    /// Time for which a push without a TTL is kept
    #[arg(long, value_name = "TIME", env = "UPWIRE_DEFAULT_TTL", default_value = "1d", value_parser = values::seconds)]
    default_ttl: u32,

    /// The longest that any push is kept
    #[arg(long, value_name = "TIME", env = MAX_TTL, default_value = "7d", value_parser = values::seconds)]
    max_ttl: u32,

    /// Most pushes in the queue; beyond it, senders are told to try again later
    #[arg(long, value_name = "PUSHES", env = "UPWIRE_QUEUE_MAX", default_value_t = embedded::QUEUE_MAX,
        value_parser = clap::value_parser!(u64).range(1..))]
    queue_max: u64,

    /// Bytes that stay free on the database's disk: with fewer, nothing new is taken, and senders are told to try again
    /// later; 0 for no such floor
    #[arg(long, value_name = "BYTES", env = "UPWIRE_DISK_FLOOR", default_value_t = embedded::DISK_FLOOR)]
    disk_floor: u64,

    #[command(flatten)]
    legacy: LegacyOptions,

    /// Longest life of an endpoint of a predecessor, from its first push on; the keys end such a time and a day
    /// after the first start with them
    #[arg(long, value_name = "TIME", env = "UPWIRE_LEGACY_LIFE", default_value = "30d", value_parser = values::seconds)]
    legacy_life: u32,

    /// Most endpoints of a predecessor that live; beyond it, senders to further ones are told to try again later
    #[arg(long, value_name = "ENDPOINTS", env = "UPWIRE_LEGACY_MAX", default_value_t = functions::LEGACY_MAX)]
    legacy_max: usize,
}

fn after_help() -> String {
    format!(
        "Example, with Prosody's `Component \"notify.example.com\"` and its component_secret:\n  \
         UPWIRE_PUBLIC_URL=https://push.example.com UPWIRE_COMPONENT=notify.example.com \\\n  \
         UPWIRE_COMPONENT_SECRET_FILE=/etc/upwire/component-secret upwire serve\n\n{}\n\n{}",
        command_line::AFTER_SERVER_HELP,
        command_line::AFTER_HELP
    )
}

/// The settings of `serve`: complete and checked.
pub(crate) struct Settings {
    pub(crate) relay: RelaySettings,
    pub(crate) database: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) certificate: Option<CertificateFiles>,
    pub(crate) proxies: Proxies,
    pub(crate) kept_for: KeptFor,
    pub(crate) queue_max: u64,
    pub(crate) disk_floor: u64,
    pub(crate) legacy: LegacySettings,
    pub(crate) legacy_bounds: legacy::Bounds,
}

impl Options {
    /// Checks all options. Opens no files but those of secrets.
    pub(crate) fn settings(self) -> Result<Settings, ConfigurationError> {
        let mut relay = self.relay.settings()?;
        let kept_for = KeptFor::new(self.default_ttl, self.max_ttl).map_err(|problem| {
            ConfigurationError::new(MAX_TTL, problem, "raise the one or lower the other")
        })?;
        let legacy = self.legacy.settings(&mut relay.files)?;
        let legacy_bounds = legacy::Bounds {
            life: TimeDelta::seconds(self.legacy_life.into()),
            max: self.legacy_max,
            of_domain_max: relay.domain_bounds.registrations,
        };
        Ok(Settings {
            relay,
            database: self.database,
            listen: self.listen,
            certificate: CertificateFiles::given(self.tls_certificate, self.tls_key)?,
            proxies: Proxies::new(self.proxies),
            kept_for,
            queue_max: self.queue_max,
            disk_floor: self.disk_floor,
            legacy,
            legacy_bounds,
        })
    }
}
