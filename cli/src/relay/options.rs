//! The options of `upwire relay`, and the settings that they become.

use secrecy::SecretString;
use url::Url;

use crate::command_line;
use crate::configuration::{ConfigurationError, check_certificates};
use crate::legacy_options::{LegacyOptions, LegacySettings};
use crate::live::{self, SECRET};
use crate::marker::TABLE_ID;
use crate::relay_options::{RelayOptions, RelaySettings};

pub(crate) const QUEUE_URL: &str = "UPWIRE_QUEUE_URL";
pub(crate) const REGISTRATIONS_TABLE: &str = "UPWIRE_REGISTRATIONS_TABLE";
pub(crate) const MAILBOX_TABLE: &str = "UPWIRE_MAILBOX_TABLE";
const SECRET_HELP: &str = "The secrets that authenticate endpoints, the same as the function's, comma-separated: the \
    first signs, all verify; a phone gets the URL that the first signs when it renews";

/// Run the relay alone, beside an ingress that is a function on AWS.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Run the always-on half of a push server whose ingress is a function on AWS.\n\n\
        The relay is an external component (XEP-0114) of your XMPP server: it registers the users' distributors \
        in a DynamoDB table, takes the pushes that the function put into an SQS queue, and delivers each to \
        its distributor. What cannot be delivered now waits in a second table, the mailbox. A push goes only when the \
        distributor has acknowledged it, its application is gone, or its time has run out. Neither half speaks to the \
        other: the secret, the tables and the queue are all that they share. It needs no address that others reach, \
        and keeps nothing on disk.",
    mut_arg("secret", |secret| secret.help(SECRET_HELP)),
    after_long_help = after_help()
)]
pub(crate) struct Options {
    #[command(flatten)]
    relay: RelayOptions,

    /// The SQS queue that the function fills: the stack's output QueueUrl
    #[arg(long, value_name = "URL", env = QUEUE_URL, value_parser = queue_url)]
    queue_url: Option<String>,

    /// The DynamoDB table of registrations: the stack's output RegistrationsTable
    #[arg(long, value_name = "NAME", env = REGISTRATIONS_TABLE, value_parser = table_name)]
    registrations_table: Option<String>,

    /// The DynamoDB table of pushes that wait for phones: the stack's output MailboxTable
    #[arg(long, value_name = "NAME", env = MAILBOX_TABLE, value_parser = table_name)]
    mailbox_table: Option<String>,

    /// Which table of registrations that has to be, whatever its name: the stack's output TableId
    #[arg(long, value_name = "ID", env = TABLE_ID)]
    table_id: Option<String>,

    /// Write metrics to stdout for CloudWatch, a line a minute in its embedded format, as those of this stack
    #[arg(long, value_name = "STACK", env = "UPWIRE_METRICS_STACK")]
    metrics_stack: Option<String>,

    #[command(flatten)]
    legacy: LegacyOptions,
}

const AWS_HELP: &str = "\
Where it is on AWS, and who it is there, it finds as every program does that uses AWS:
  AWS_REGION               the region of the queue and the tables
  AWS_PROFILE              a profile of ~/.aws/config: keys, a role, SSO, or a program
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
                           keys; without keys and profile, the role of this machine or container
  AWS_ENDPOINT_URL         an emulator; for one service, AWS_ENDPOINT_URL_SQS and …_DYNAMODB

It starts when the tables and the queue are there and may be used. If not, it says why in one line and ends: \
with exit code 64 where the configuration names none that is fit, with 1 where AWS refuses the credentials or \
what they allow, or was out of reach for 30 seconds. Once started, it waits for AWS for as long as it takes.";

fn after_help() -> String {
    format!(
        "Example, on a machine whose role may use the queue and the tables:\n  \
         AWS_REGION=eu-central-1 \\\n  \
         UPWIRE_QUEUE_URL=https://sqs.eu-central-1.amazonaws.com/123456789012/upwire-queue \\\n  \
         UPWIRE_REGISTRATIONS_TABLE=upwire-registrations UPWIRE_MAILBOX_TABLE=upwire-mailbox \\\n  \
         UPWIRE_SECRET_FILE=/etc/upwire/secret UPWIRE_PUBLIC_URL=https://push.example.com \\\n  \
         UPWIRE_COMPONENT=notify.example.com \\\n  \
         UPWIRE_COMPONENT_SECRET_FILE=/etc/upwire/component-secret upwire relay\n\n{AWS_HELP}\n\n{}\n\n{}",
        command_line::AFTER_SERVER_HELP,
        command_line::AFTER_HELP
    )
}

/// The settings of `relay`: complete and checked.
pub(crate) struct Settings {
    pub(crate) relay: RelaySettings,
    pub(crate) secrets: Vec<SecretString>,
    pub(crate) legacy: LegacySettings,
    pub(crate) table_id: Option<String>,
    pub(crate) metrics_stack: Option<String>,
    pub(crate) queue_url: String,
    pub(crate) registrations_table: String,
    pub(crate) mailbox_table: String,
}

impl Options {
    /// Checks all options. Opens no files but those of secrets.
    pub(crate) fn settings(self) -> Result<Settings, ConfigurationError> {
        let missing = |variable, mend| ConfigurationError::new(variable, "is missing", mend);
        let mut relay = self.relay.settings()?;
        let legacy = self.legacy.settings(&mut relay.files)?;
        let secrets = relay.secret.as_ref().map(live::split).ok_or_else(|| {
            missing(SECRET, "set it, or UPWIRE_SECRET_FILE, to the same secrets as the function's")
        })?;
        let queue_url = self.queue_url.ok_or_else(|| {
            missing(QUEUE_URL, "set it to the queue that the function fills: the stack's output QueueUrl")
        })?;
        let registrations_table = self
            .registrations_table
            .ok_or_else(|| missing(REGISTRATIONS_TABLE, "set it to the stack's output RegistrationsTable"))?;
        let mailbox_table = self
            .mailbox_table
            .ok_or_else(|| missing(MAILBOX_TABLE, "set it to the stack's output MailboxTable"))?;
        check_certificates()?;
        let table_id = self.table_id.filter(|id| !id.is_empty());
        let metrics_stack = self.metrics_stack.filter(|stack| !stack.is_empty());
        Ok(Settings {
            relay,
            secrets,
            legacy,
            table_id,
            metrics_stack,
            queue_url,
            registrations_table,
            mailbox_table,
        })
    }
}

fn queue_url(text: &str) -> Result<String, String> {
    let example = "write it as https://sqs.eu-central-1.amazonaws.com/123456789012/upwire-queue";
    let url = Url::parse(text).map_err(|error| format!("{error}; {example}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() || url.path() == "/" {
        return Err(format!("it is no URL of a queue; {example}"));
    }
    Ok(text.to_owned())
}

/// Checks a table's name by DynamoDB's rules.
fn table_name(text: &str) -> Result<String, String> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if (3..=255).contains(&text.len()) && text.chars().all(known) {
        return Ok(text.to_owned());
    }
    Err("it is no name of a table: 3 to 255 letters, digits, and -._".into())
}
