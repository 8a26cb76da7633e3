//! The ports on AWS: registrations, the lease and mailboxes in two DynamoDB tables, the queue on SQS.
//!
//! `upwire doctor` reads the stack (CloudFormation) and the subscribers of its alarms (SNS), with an operator's
//! credentials.
//!
//! Only this crate uses the AWS SDKs. The policies in `template.yaml` grant exactly the calls that each half makes:
//! `IngressRole` and the relay's policy list them.

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
