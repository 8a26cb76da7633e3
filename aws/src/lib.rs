//! The ports on AWS: registrations, the lease and mailboxes in two DynamoDB tables, the queue on SQS.
//!
//! Sole user of the AWS SDKs. Which calls each half makes, and no others, is what the policies in
//! `template.yaml` grant: the ingress `GetItem`, `DeleteItem` and `SendMessage`, the relay the rest.

mod config;
mod entries;
mod error;
mod held;
mod item;
mod lease;
mod mailbox;
mod marker;
mod pace;
mod post;
mod queue;
mod registrations;
mod requests;
mod tenants;
mod time;
#[cfg(test)]
mod upgrade;

pub use aws_types::SdkConfig;
pub use config::{ConfigError, for_ingress, for_relay, relay_http_client};
pub use error::{CannotStart, Cause};
pub use lease::RelayLease;
pub use mailbox::MailboxTable;
pub use post::{NoAnswer, post, post_json};
pub use queue::Queue;
pub use registrations::RegistrationsTable;
pub use requests::QueueSender;
pub use tenants::UsageOfTerm;
pub use time::{AGREEMENT, ServiceTime};
