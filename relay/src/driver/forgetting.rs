//! The order of an operator by which a running relay forgets an account.

use tokio::sync::broadcast;
use tokio_xmpp::jid::BareJid;

/// Most accounts that wait to be forgotten.
const WAITING_MAX: usize = 256;

/// See the module. Its clones reach the same relay.
#[derive(Debug, Clone)]
pub struct Forgetting(broadcast::Sender<BareJid>);

impl Default for Forgetting {
    fn default() -> Self {
        Self(broadcast::Sender::new(WAITING_MAX))
    }
}

impl Forgetting {
    /// Has the relay drop the pushes that it holds of an account in memory, as soon as nothing of it is under way. The
    /// stores are unchanged: a push whose registration lives waits in the mailbox. False: no relay runs that hears it.
    #[must_use]
    pub fn forget(&self, account: BareJid) -> bool {
        self.0.send(account).is_ok()
    }

    pub(crate) fn heard(&self) -> broadcast::Receiver<BareJid> {
        self.0.subscribe()
    }
}
