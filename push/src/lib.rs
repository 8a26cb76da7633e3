//! The domain of pushes: registrations, endpoint tokens, push messages, and the ports that store them.
//!
//! This crate only decides: it has no I/O, no chance and no clock of its own. Callers pass the time as `now`, and
//! random bytes as arrays.

pub mod access;
pub mod bounds;
pub mod clock;
mod domain_names;
mod lately;
pub mod marker;
pub mod message;
pub mod ports;
pub mod rate;
pub mod registration;
pub mod tenant;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod token;
pub mod usage;
pub mod vapid;

pub use access::{AccessList, BadAccessList};
pub use bounds::MailboxBounds;
pub use clock::{Clock, Reading};
pub use lately::Lately;
pub use marker::{Fingerprint, Marker};
pub use message::{Body, MessageId, PushMessage, Topic, Ttl, Urgency};
pub use rate::{BadRate, Rate};
pub use registration::{Application, Epoch, Instance, Registration, RegistrationId, Target};
pub use tenant::{Roster, Tenant, TenantName};
pub use token::{EndpointToken, MessageToken, Secrets};
pub use vapid::VapidKey;
