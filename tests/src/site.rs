//! The parts of the configuration of an XMPP server.

use std::path::PathBuf;
use std::time::Duration;

use tokio_xmpp::jid::BareJid;

use crate::certificate::Certificate;
use crate::phone::device::Devices;

/// Number of components that the server has secrets for.
pub(crate) const COMPONENTS_MAX: usize = 600;

/// Settings of a server that a test has for itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time for which a session without a connection may be resumed (XEP-0198).
    pub hibernation: Duration,
    /// Prosody only: run `mod_unified_push` as `unified-push.localhost`, on this backend.
    pub unified_push: Option<&'static str>,
    /// Prosody only: a second connection of a component ends the first. By default, the second is refused.
    pub kick_old: bool,
    /// ejabberd only: TLS on the port for components, with this certificate.
    pub component_tls: Option<Certificate>,
    /// ejabberd only: each connected component gets the stanzas for all components, as by default in ejabberd.
    pub global_routes: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hibernation: Duration::from_secs(10),
            unified_push: None,
            kick_old: false,
            component_tls: None,
            global_routes: false,
        }
    }
}

/// An account.
#[derive(Clone, Debug)]
pub struct User {
    /// The bare JID.
    pub jid: BareJid,
    /// The password.
    pub password: String,
    /// The memory of its devices.
    pub(crate) devices: Devices,
}

impl User {
    /// Returns the localpart of the JID.
    pub fn name(&self) -> &str {
        self.jid.node().expect("a user's JID has a name").as_str()
    }
}

/// The ports, folder, secret and settings of one server, from which its configuration is made.
pub(crate) struct Site {
    pub(crate) folder: PathBuf,
    pub(crate) c2s_port: u16,
    pub(crate) component_port: u16,
    pub(crate) http_port: u16,
    pub(crate) secret: String,
    pub(crate) settings: Settings,
}
