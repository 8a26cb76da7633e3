//! The name under which the relay remembers a push.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use push::{MessageId, PushMessage};
use tokio_xmpp::jid::{BareJid, Jid};

/// The key by which an answer settles a push. It has the account, so that nobody settles a push of another.
///
/// The relay remembers tens of thousands of names, so a name has a hash of the account. An account with the same hash
/// would have to know the id as well, which the push's sender and its phone know alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    account: u64,
    id: MessageId,
}

impl Name {
    pub(crate) fn of(message: &PushMessage) -> Self {
        Self { account: hash(&message.recipient), id: message.id }
    }

    pub(crate) fn new(account: &BareJid, id: MessageId) -> Self {
        Self { account: hash(account), id }
    }
}

fn hash(jid: &Jid) -> u64 {
    let account = (jid.node().map(|node| node.as_str()), jid.domain().as_str());
    BuildHasherDefault::<DefaultHasher>::default().hash_one(account)
}

#[cfg(test)]
mod tests {
    use push::testing;

    use super::*;

    #[test]
    fn a_name_is_that_of_the_account_whatever_the_resource_and_of_no_other() {
        let row = testing::registration("alice@example.com/phone", chrono::DateTime::UNIX_EPOCH);
        let message = testing::push(1, &row, chrono::DateTime::UNIX_EPOCH);
        let name = |account: &str| Name::new(&account.parse().unwrap(), message.id);
        assert_eq!(Name::of(&message), name("alice@example.com"));
        assert_ne!(Name::of(&message), name("bob@example.com"));
        assert_ne!(Name::of(&message), name("alice@example.org"));
    }
}
