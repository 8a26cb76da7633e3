//! The ports on AWS: registrations, the lease and mailboxes in two DynamoDB tables, the queue on SQS.
//!
//! `upwire doctor` asks about the stack (CloudFormation) and about who hears of alarms (SNS), with an operator's credentials.
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
mod permission;
mod post;
mod queue;
mod registrations;
mod requests;
mod stack;
mod tenants;
mod time;
mod units;
#[cfg(test)]
mod upgrade;

pub use aws_types::SdkConfig;
pub use config::{ConfigError, for_ingress, for_relay, relay_http_client};
pub use error::{CannotStart, Cause};
pub use lease::RelayLease;
pub use mailbox::MailboxTable;
pub use permission::Permission;
pub use post::{NoAnswer, post, post_json};
pub use queue::Queue;
pub use registrations::RegistrationsTable;
pub use requests::QueueSender;
pub use stack::{Drifted, Stack, StackState, Subscribers};
pub use tenants::UsageOfTerm;
pub use time::{AGREEMENT, ServiceTime};
