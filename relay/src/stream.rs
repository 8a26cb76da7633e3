//! The stream to the XMPP server (XEP-0114): bytes to stanzas, and stanzas to bytes.

pub(crate) mod commands;
pub(crate) mod component;
pub(crate) mod connect;
pub(crate) mod discovery;
mod failure;
pub(crate) mod framing;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod inbox;
mod plain;
mod reconnect;
mod scanner;
pub(crate) mod stanza;
pub(crate) mod trial;
