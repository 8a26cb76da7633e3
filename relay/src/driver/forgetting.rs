//! An operator's order that a running relay forgets an account.

use tokio::sync::broadcast;
use tokio_xmpp::jid::BareJid;

/// Most accounts that wait to be forgotten.
const WAITING_MAX: usize = 256;

/// The way of these orders to the relay. All clones reach the same relay.
#[derive(Debug, Clone)]
pub struct Forgetting(broadcast::Sender<BareJid>);

impl Default for Forgetting {
    fn default() -> Self {
        Self(broadcast::Sender::new(WAITING_MAX))
    }
}

impl Forgetting {
    /// Has the relay drop the pushes of an account that it holds in memory, as soon as nothing of the account is under
    /// way. Nothing is erased from the stores: a push whose registration lives waits in the mailbox. Returns `false` if
    /// no relay runs that hears the order.
    #[must_use]
    pub fn forget(&self, account: BareJid) -> bool {
        self.0.send(account).is_ok()
    }

    pub(crate) fn heard(&self) -> broadcast::Receiver<BareJid> {
        self.0.subscribe()
    }
}
