//! The senders: libraries, browsers, homeservers, and endpoints of a predecessor.

mod browser;
pub(crate) mod legacy;
pub(crate) mod matrix;
mod matrix_on_aws;
mod recorded;
mod synapse;
mod vapid;
mod web_push;
