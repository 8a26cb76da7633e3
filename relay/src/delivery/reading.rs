//! The reading of a mailbox for one full JID, a page at a time.

use std::{collections::BTreeSet, sync::Arc};

use push::{MessageId, PushMessage, RegistrationId};
use tokio_xmpp::jid::FullJid;

use super::known::Knowledge;

/// Most pushes in one page.
pub(crate) const PAGE_MAX: usize = 16;

/// Why a mailbox is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cue {
    /// Somebody may be there. Pushes that the XMPP server may still deliver by itself are left out.
    Guess,
    /// Somebody is there, by a new session, a registration or an answer. All that waits may go.
    There,
}

/// A request for one page of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadRequest {
    /// The full JID that the pushes are for.
    pub(crate) reader: FullJid,
    /// The number of the reading that the page is a part of.
    pub(crate) reading: u64,
    pub(crate) cue: Cue,
    /// The registrations whose pushes are read.
    pub(crate) of: Arc<BTreeSet<RegistrationId>>,
    /// The last push that was read; `None`: the reading begins.
    pub(crate) after: Option<MessageId>,
}

/// One page that was read.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) reader: FullJid,
    pub(crate) reading: u64,
    /// The pushes. The `recipient` of each is the full JID that its registration names now.
    pub(crate) pushes: Vec<PushMessage>,
    /// The last push that was read.
    pub(crate) upto: Option<MessageId>,
    /// True if pushes were left out because the XMPP server may still deliver them.
    pub(crate) left_out: bool,
    /// True if nothing more waits behind the page.
    pub(crate) end: bool,
}

/// One reading of a mailbox, from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Reading {
    number: u64,
    cue: Cue,
    of: Arc<BTreeSet<RegistrationId>>,
    upto: Option<MessageId>,
    left_out: Knowledge,
    asked: bool,
    again: bool,
}

impl Reading {
    pub(crate) fn new(number: u64, cue: Cue, of: BTreeSet<RegistrationId>) -> Self {
        let of = Arc::new(of);
        Self { number, cue, of, upto: None, left_out: Knowledge::Nothing, asked: false, again: false }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn of(&self) -> Arc<BTreeSet<RegistrationId>> {
        Arc::clone(&self.of)
    }

    /// Returns whether a page is on its way.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked
    }

    /// Makes the request for the next page.
    pub(crate) fn ask(&mut self, reader: &FullJid) -> ReadRequest {
        self.asked = true;
        ReadRequest {
            reader: reader.clone(),
            reading: self.number,
            cue: self.cue,
            of: Arc::clone(&self.of),
            after: self.upto,
        }
    }

    /// Notes that a page has come.
    pub(crate) fn note_page(&mut self, upto: Option<MessageId>, left_out: Knowledge) {
        self.asked = false;
        self.upto = upto.or(self.upto);
        self.note_left_out(left_out);
    }

    /// Notes that pushes go on waiting.
    pub(crate) fn note_left_out(&mut self, left_out: Knowledge) {
        self.left_out = self.left_out.max(left_out);
    }

    /// Notes that a push was kept, or may have been. The reading starts over once it has ended.
    pub(crate) fn repeat(&mut self) {
        self.again = true;
    }

    /// Returns what is known of the mailbox once its end was read; `None`: it has to be read once more.
    pub(crate) fn outcome(&self) -> Option<Knowledge> {
        (!self.again).then_some(self.left_out)
    }

    pub(crate) fn cue(&self) -> Cue {
        self.cue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_on_its_way_from_its_request_until_it_comes() {
        let mut reading = Reading::new(1, Cue::Guess, BTreeSet::new());
        assert!(!reading.is_asked());
        reading.ask(&"juliet@example.com/phone".parse().unwrap());
        assert!(reading.is_asked());
        reading.note_page(None, Knowledge::Nothing);
        assert!(!reading.is_asked());
    }
}
