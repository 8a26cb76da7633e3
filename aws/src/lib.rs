//! The ports on AWS: registrations in a DynamoDB table, the queue on SQS.
//!
//! Sole user of the AWS SDKs. Which calls each half makes, and no others, is what the policies in
//! `template.yaml` grant: the ingress `GetItem` and `SendMessage`, the relay the rest.

mod config;
mod entries;
mod error;
mod held;
mod queue;
mod registrations;
mod requests;

pub use aws_types::SdkConfig;
pub use config::{ConfigError, for_ingress, for_relay, relay_http_client};
pub use error::{CannotStart, Cause};
pub use queue::Queue;
pub use registrations::RegistrationsTable;
pub use requests::QueueSender;
