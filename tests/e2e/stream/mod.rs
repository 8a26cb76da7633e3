//! The stream to the XMPP server: refused, over TLS, broken, silent, and with stanzas for others.

mod elsewhere;
mod half_open;
mod lost;
pub(crate) mod refused;
mod tls;
