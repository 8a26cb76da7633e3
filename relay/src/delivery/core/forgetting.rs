//! Accounts that the operator has erased: what is held of them is dropped.

use super::*;

/// Most accounts that wait until nothing of them is under way.
const FORGETTING_MAX: usize = 1024;

impl Core {
    /// Drops what is held of an account, as soon as nothing of it is under way.
    pub(super) fn forget(&mut self, account: BareJid, actions: &mut Vec<Action>) {
        if self.forgetting.len() < FORGETTING_MAX {
            self.forgetting.insert(account);
            self.forget_on(actions);
        }
    }

    /// Drops the accounts of which nothing is under way any more.
    pub(super) fn forget_on(&mut self, actions: &mut Vec<Action>) {
        for account in std::mem::take(&mut self.forgetting) {
            self.drop_lines_of_account(&account, actions);
            let phones = self.accounts.get(&account).map(|account| account.phones.keys().cloned().collect());
            let phones: Vec<FullJid> = phones.unwrap_or_default();
            phones.iter().for_each(|jid| self.forget_retry(jid));
            if self.accounts.get(&account).is_some_and(|account| !account.is_idle()) {
                self.forgetting.insert(account);
                continue;
            }
            self.accounts.remove(&account);
            self.unseen.remove(&account);
            self.deferred.remove(&account);
            self.held_up.retain(|jid| jid.to_bare() != account);
            self.catching_up.retain(|jid, _| jid.to_bare() != account);
            self.cued.retain(|jid| jid.to_bare() != account);
            self.looks.retain(|look| *look != account);
        }
    }

    /// Takes the pushes of an account out of line. A push from the queue goes into the mailbox, or is removed if its
    /// registration is over.
    fn drop_lines_of_account(&mut self, account: &BareJid, actions: &mut Vec<Action>) {
        let of_it = self.pushes.iter().filter(|(_, push)| push.held.message.recipient.to_bare() == *account);
        let ids: Vec<MessageId> = of_it.map(|(id, _)| *id).collect();
        for id in ids {
            match self.take_from_lines(id) {
                Some(Held { origin: Origin::Queue, message }) => self.leave_queue(message),
                // The push goes on waiting if its registration lives: a sweep finds it.
                Some(Held { origin: Origin::Mailbox, message }) => self.note_waiting(&self.named(&message)),
                None => {}
            }
        }
        self.settle(actions);
    }
}
