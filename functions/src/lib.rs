//! The ingress. It takes pushes from application servers and Matrix homeservers, checks their tokens, and queues them.
//! It also withdraws pushes that still wait.

mod adoption;
mod aesgcm;
mod clock_doubt;
pub mod cloudwatch_format;
mod cors;
mod endpoint;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod header;
mod ingress;
mod jose;
mod legacy;
mod marker;
mod matrix;
mod measures;
mod message_resource;
mod page;
mod parameters;
mod place;
mod push_resource;
mod rejection;
mod router;
mod seldom;
pub mod settings;
mod tenants;
#[cfg(test)]
mod tests;
mod trouble;
mod unread;
mod vapid;

pub use ingress::{
    Allowance, Dropped, Ingress, LEGACY_LIFE, LEGACY_MAX, LEGACY_OF_DOMAIN_MAX, LegacyTally, LegacyTerms,
    MarkerWatch, PublicUrl, TenantWatch,
};
pub use legacy::{BadPasetoKey, LegacyKeys};
pub use measures::describe_metrics;
pub use place::PUSH_PATH;
pub use rejection::{Rejection, VapidFault};
pub use router::router;
pub use seldom::Seldom;
