//! Bounds of the core that are reached at once.

use tokio_xmpp::jid::{DomainPart, NodePart};

use super::*;

fn full_jid(account: &str, number: usize) -> FullJid {
    FullJid::new(&format!("{account}/{number}")).unwrap()
}

impl World {
    /// Settling stands still, with as many fates as it may have.
    pub(in super::super) fn fall_behind(&mut self) {
        self.stalls = true;
        let nobody = BareJid::new("nobody@example.com").unwrap();
        while self.core.settling_keeps_up() {
            self.core.fates.push_back(Fate::NoteSeen(nobody.clone(), Vec::new()));
        }
    }

    /// As many full JIDs are tried again as may be.
    pub(in super::super) fn fill_retries(&mut self) {
        for number in 0..4096 {
            self.core.retrying.insert(full_jid("user@example.org", number));
        }
    }

    /// As many mailboxes are to be read as may be.
    pub(in super::super) fn fill_cues(&mut self) {
        self.core.cued.resize(65_536, full_jid("user@example.org", 0));
    }

    /// As many full JIDs have time to answer as may be.
    pub(in super::super) fn fill_catching_up(&mut self) {
        let account = BareJid::new("user@example.org").unwrap();
        let crowd = (0..65_536).map(|number| account.with_resource_str(&number.to_string()).unwrap());
        self.core.catching_up.extend(crowd.map(|jid| (jid, self.monotonic)));
    }

    /// As many accounts are in memory as may be, behind all others. Nothing is under way for them.
    pub(in super::super) fn fill_accounts(&mut self) {
        let domain = DomainPart::new("example.com").unwrap();
        let crowd = (self.core.accounts.len()..16_384).map(|number| {
            let node = NodePart::new(&format!("z{number:05}")).unwrap().into_owned();
            (BareJid::from_parts(Some(&node), &domain), Account::default())
        });
        self.core.accounts.append(&mut crowd.collect());
    }

    /// As many accounts wait to be forgotten as may be. Nothing is under way for them.
    pub(in super::super) fn fill_forgetting(&mut self) {
        let unknown = |number| BareJid::new(&format!("unknown{number}@example.org")).unwrap();
        self.core.forgetting.extend((0..1024).map(unknown));
    }

    /// As many accounts are looked up as may be.
    pub(in super::super) fn fill_looks(&mut self) {
        self.core.looking = 64;
    }
}
