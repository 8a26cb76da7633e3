//! The options that `upwire serve` and `upwire relay` share, and the settings that they become.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::TimeDelta;
use functions::settings::{component, public_url};
use push::usage::Meter;
use push::{MailboxBounds, Secrets};
use relay::{
    AccessList, Backlog, BadRate, Clock, ComponentAccount, DomainBounds, Forgetting, MarkerKeeper, Rate,
    Relay, Security, ServerAddress, Shedding, Trail,
};
use secrecy::SecretString;
use tokio::sync::watch;
use tokio_xmpp::jid::BareJid;
use url::Url;

use crate::configuration::{ConfigurationError, access_from, check_certificates, reveal, secret};
use crate::live::{ACL_FILE, COMPONENT_SECRET_FILE, Files, InForce, SECRET, SECRET_FILE, Values};
use crate::values;

const COMPONENT: &str = "UPWIRE_COMPONENT";
const COMPONENT_SECRET: &str = "UPWIRE_COMPONENT_SECRET";
const PUBLIC_URL: &str = "UPWIRE_PUBLIC_URL";
const ACL: &str = "UPWIRE_ACL";

/// Flattened into the options of a subcommand.
#[derive(Debug, clap::Args)]
pub(crate) struct RelayOptions {
    /// Where application servers reach the ingress, for example `https://push.example.com`
    #[arg(long, value_name = "URL", env = PUBLIC_URL, value_parser = public_url)]
    public_url: Option<Url>,

    /// The component's name at the XMPP server, as in notify.example.com
    #[arg(long, value_name = "DOMAIN", env = COMPONENT, value_parser = component)]
    component: Option<BareJid>,

    /// The component's secret, as in the XMPP server's configuration; better in the environment or a file
    #[arg(long, value_name = "SECRET", env = COMPONENT_SECRET, hide_env_values = true)]
    component_secret: Option<SecretString>,

    /// A file that holds the component's secret
    #[arg(long, value_name = "FILE", env = COMPONENT_SECRET_FILE)]
    component_secret_file: Option<PathBuf>,

    /// Where the XMPP server listens for components; tls://HOST:PORT where it speaks TLS there, with a certificate
    /// for HOST
    #[arg(long, value_name = "HOST:PORT", env = "UPWIRE_XMPP_SERVER", default_value = "localhost:5347")]
    xmpp_server: ServerAddress,

    // Its help is the subcommand's: see `SECRET_HELP` there.
    #[arg(long, value_name = "SECRETS", env = SECRET, hide_env_values = true)]
    secret: Option<SecretString>,

    /// A file that holds the secrets
    #[arg(long, value_name = "FILE", env = SECRET_FILE)]
    secret_file: Option<PathBuf>,

    /// Start even if the list lacks the secret that endpoints are signed with: all of them have ended then
    #[arg(long)]
    drop_secrets: bool,

    /// Domains and bare JIDs that may register, comma-separated, or * for everyone; domains that are named beside *
    /// have no bound of their own [default: the component's parent domain]
    #[arg(long, value_name = "LIST", env = ACL)]
    acl: Option<AccessList>,

    /// A file that says so, a line for each; SIGHUP has it read again, and the files of secrets too
    #[arg(long, value_name = "FILE", env = ACL_FILE)]
    acl_file: Option<PathBuf>,

    /// Where /healthz, /readyz and /metrics are served; keep it private
    #[arg(long, value_name = "ADDRESS:PORT", env = "UPWIRE_ADMIN_LISTEN", default_value = values::ADMIN_LISTEN,
        value_parser = values::listen_address)]
    admin_listen: SocketAddr,

    /// The life of a registration that is not renewed, 10 seconds to a year
    #[arg(long, value_name = "TIME", env = "UPWIRE_REGISTRATION_TTL", default_value = "7d",
        value_parser = values::time(10..=365 * values::DAY))]
    registration_ttl: u32,

    /// Longest wait for a distributor's answer before a push is tried again, 1 second to an hour
    #[arg(long, value_name = "TIME", env = "UPWIRE_ACK_TIMEOUT", default_value = "30s", value_parser = values::time(1..=3600))]
    ack_timeout: u32,

    /// Most pushes that wait of one registration while its phone is away; the oldest are dropped, 1 to 100000
    #[arg(long, value_name = "PUSHES", env = "UPWIRE_MAILBOX_MAX", default_value = "100",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    mailbox_max: u32,

    /// Most pushes that wait of one account; the oldest of its fullest registration are dropped, 1 to 1000000
    #[arg(long, value_name = "PUSHES", env = "UPWIRE_ACCOUNT_MAILBOX_MAX", default_value = "1000",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    account_mailbox_max: u32,

    /// Most registrations of one account; beyond it new ones are refused, 1 to 100000
    #[arg(long, value_name = "REGISTRATIONS", env = "UPWIRE_ACCOUNT_REGISTRATIONS_MAX", default_value = "200",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    account_registrations_max: u32,

    /// Most registrations of one domain that the access list does not name; beyond it new ones are refused, 1 to
    /// 10000000
    #[arg(long, value_name = "REGISTRATIONS", env = "UPWIRE_DOMAIN_REGISTRATIONS_MAX", default_value = "20000",
        value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    domain_registrations_max: u32,

    /// Most pushes that wait of one domain that the access list does not name; the oldest of its fullest account are
    /// dropped, 1 to 10000000
    #[arg(long, value_name = "PUSHES", env = "UPWIRE_DOMAIN_MAILBOX_MAX", default_value = "100000",
        value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    domain_mailbox_max: u32,

    /// Number of pushes that one registration may get before its senders are told to wait: so many at once, a slash,
    /// and so many per second after that; or off
    #[arg(long, value_name = "BURST/PER_SECOND", env = "UPWIRE_RATE", default_value = "60/1", value_parser = rate)]
    rate: Limit,

    /// Addresses by which users reach you, as clients show them: mailto:, xmpp: and https:, comma-separated
    #[arg(long, value_name = "ADDRESSES", env = "UPWIRE_CONTACT", value_delimiter = ',', value_parser = values::contact)]
    contact: Vec<Url>,

    /// Age of what the relay receives at which senders are told to keep pushes of low urgency back, and at four
    /// times that those of normal urgency; 0 for never
    #[arg(long, value_name = "TIME", env = "UPWIRE_SHED_AFTER", default_value = "2m", value_parser = values::seconds)]
    shed_after: u32,
}

/// A rate, or none.
#[derive(Debug, Clone, Copy)]
struct Limit(Option<Rate>);

fn rate(text: &str) -> Result<Limit, BadRate> {
    if text == "off" { Ok(Limit(None)) } else { text.parse().map(|rate| Limit(Some(rate))) }
}

/// The settings of a relay: complete and checked.
#[derive(Clone)]
pub(crate) struct RelaySettings {
    pub(crate) public_url: Url,
    pub(crate) component: BareJid,
    pub(crate) server: ServerAddress,
    pub(crate) component_secret: SecretString,
    /// The secrets of endpoints, as a list that was checked to parse.
    pub(crate) secret: Option<SecretString>,
    pub(crate) drop_secrets: bool,
    pub(crate) access: AccessList,
    pub(crate) files: Files,
    pub(crate) admin_listen: SocketAddr,
    pub(crate) registration_ttl: TimeDelta,
    pub(crate) ack_timeout: Duration,
    pub(crate) mailbox_bounds: MailboxBounds,
    pub(crate) account_registrations_max: usize,
    pub(crate) domain_bounds: DomainBounds,
    pub(crate) rate: Option<Rate>,
    pub(crate) contact: Vec<Url>,
    /// Delay of the relay beyond which load is shed; `None`: never.
    pub(crate) shed_after: Option<Duration>,
}

impl RelayOptions {
    /// Checks all options. Opens no files but those of secrets.
    pub(crate) fn settings(self) -> Result<RelaySettings, ConfigurationError> {
        let missing = |variable, mend| ConfigurationError::new(variable, "is missing", mend);
        let public_url = self.public_url.ok_or_else(|| {
            missing(
                PUBLIC_URL,
                "set it to where application servers reach the ingress, as in https://push.example.com",
            )
        })?;
        let component = self.component.ok_or_else(|| {
            missing(COMPONENT, "set it to the component's name at the XMPP server, as in notify.example.com")
        })?;
        let component_secret = secret(COMPONENT_SECRET, self.component_secret, self.component_secret_file.as_deref())?
            .ok_or_else(|| missing(COMPONENT_SECRET, "set it, or UPWIRE_COMPONENT_SECRET_FILE, to the secret that the XMPP server's configuration gives the component"))?;
        let secret = secret(SECRET, self.secret, self.secret_file.as_deref())?;
        if let Some(Err(error)) = secret.as_ref().map(|list| Secrets::parse(reveal(list))) {
            let variable = if self.secret_file.is_some() { SECRET_FILE } else { SECRET };
            return Err(ConfigurationError::new(
                variable,
                error.to_string(),
                "make one with `upwire keygen`",
            ));
        }
        let access = access(self.acl, self.acl_file.as_deref(), &component)?;
        if self.xmpp_server.security == Security::Tls {
            check_certificates()?;
        }
        let registration_ttl = TimeDelta::seconds(self.registration_ttl.into());
        if registration_ttl <= TimeDelta::days(1) {
            tracing::warn!(
                "UPWIRE_REGISTRATION_TTL is a day or less: Conversations renews each registration hourly, and \
                 applications that ask for their endpoint meanwhile get none; raise it, or leave it unset for a week"
            );
        }
        Ok(RelaySettings {
            public_url,
            component,
            server: self.xmpp_server,
            component_secret,
            secret,
            drop_secrets: self.drop_secrets,
            access,
            files: Files {
                acl: self.acl_file,
                component_secret: self.component_secret_file,
                secret: self.secret_file,
                ..Files::default()
            },
            admin_listen: self.admin_listen,
            registration_ttl,
            ack_timeout: Duration::from_secs(self.ack_timeout.into()),
            mailbox_bounds: MailboxBounds {
                of_registration: self.mailbox_max as usize,
                of_account: self.account_mailbox_max as usize,
            },
            account_registrations_max: self.account_registrations_max as usize,
            domain_bounds: DomainBounds {
                registrations: self.domain_registrations_max as usize,
                mailbox: self.domain_mailbox_max as usize,
            },
            rate: self.rate.0,
            contact: self.contact,
            shed_after: (self.shed_after > 0).then(|| Duration::from_secs(self.shed_after.into())),
        })
    }
}

/// Returns the access list.
fn access(
    list: Option<AccessList>,
    file: Option<&Path>,
    component: &BareJid,
) -> Result<AccessList, ConfigurationError> {
    let problem = match (list, file) {
        (Some(_), Some(_)) => {
            let problem = format!("is given, and {ACL_FILE} too");
            return Err(ConfigurationError::new(ACL, problem, "give one of the two"));
        }
        (None, Some(file)) => return access_from(ACL_FILE, file),
        (Some(AccessList::Only(entries)), None) if entries.is_empty() => "names nobody".to_owned(),
        (Some(list), None) => return Ok(list),
        (None, None) => match AccessList::parent_domain(component) {
            AccessList::Only(parent) if parent.is_empty() => {
                format!("is missing, and {component} has no parent domain")
            }
            list => return Ok(list),
        },
    };
    Err(ConfigurationError::new(ACL, problem, "set it to the domains and JIDs that may register, or *"))
}

impl RelaySettings {
    /// Returns the first values, with these secrets of endpoints.
    pub(crate) fn values(&self, secrets: Vec<SecretString>) -> Values {
        Values {
            access: self.access.clone(),
            component_secret: self.component_secret.clone(),
            secrets,
            legacy_secrets: Vec::new(),
            legacy_paseto_keys: Vec::new(),
            takes_weak_legacy_secrets: false,
        }
    }

    /// Makes the keeper of this store's marker.
    pub(crate) fn marker_keeper<S>(
        &self,
        store: S,
        table: Option<String>,
        in_force: &InForce,
        (backlog, connected): (&Backlog, watch::Receiver<bool>),
        clock: Clock,
    ) -> MarkerKeeper<S> {
        let shedding = |after| Shedding { backlog: backlog.clone(), connected, after };
        let shedding = self.shed_after.map(shedding);
        MarkerKeeper { store, table, keys: in_force.keys.clone(), clock, shedding }
    }

    /// Makes the relay on these stores.
    pub(crate) fn relay<R, Q, M>(
        self,
        registrations: R,
        queue: Q,
        mailbox: M,
        in_force: InForce,
        clock: Clock,
        usage: Meter,
    ) -> Relay<R, Q, M> {
        Relay {
            registrations,
            queue,
            mailbox,
            secrets: in_force.secrets,
            endpoints: self.endpoints(),
            account: ComponentAccount {
                component: self.component,
                secret: in_force.component_secret,
                server: self.server,
            },
            access: in_force.access,
            lifetime: self.registration_ttl,
            ack_timeout: self.ack_timeout,
            mailbox_bounds: self.mailbox_bounds,
            account_registrations_max: self.account_registrations_max,
            domain_bounds: self.domain_bounds,
            rate: self.rate,
            contact: self.contact,
            usage,
            clock,
            trail: Trail::default(),
            forgetting: Forgetting::default(),
        }
    }

    /// Returns the URL to which tokens are appended.
    fn endpoints(&self) -> Url {
        let mut endpoints = self.public_url.clone();
        let path = format!("{}/{}/", endpoints.path().trim_end_matches('/'), functions::PUSH_PATH);
        endpoints.set_path(&path);
        endpoints
    }
}
