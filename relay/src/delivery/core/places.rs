//! The places in flight: who has the next one, and who gives one back.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{pushes::Attempt, *};
use crate::delivery::phone::{Phone, SILENT_AFTER, Trust};

impl Core {
    /// Takes the full JID whose turn it is; `None`: no full JID with a push ready may have a place.
    pub(super) fn next_turn(&mut self) -> Option<FullJid> {
        let room = self.settings.room;
        if self.in_flight >= room.in_flight {
            return None;
        }
        let crowded = self.in_flight >= room.crowded();
        let (accounts, loads) = (&self.accounts, &self.loads);
        let any = |_: &str| true;
        let within = |domain: &str| loads.in_flight(domain) < room.per_domain();
        let has_room = |account: &BareJid| {
            accounts.get(account).is_none_or(|account| account.in_flight < room.per_account())
        };
        let unproven_first = !self.unproven_last;
        for round in 0..4 {
            let (trust, jid) = match (round, unproven_first) {
                (0, true) | (1, false) if !crowded => (Trust::Unproven, self.unproven.next(within, has_room)),
                (0, false) | (1, true) => (Trust::Proven, self.proven.next(any, has_room)),
                // A share yields if nobody else wants the places.
                (2, _) if !crowded => (Trust::Proven, self.proven.next(any, |_| true)),
                (3, _) if !crowded => (Trust::Unproven, self.unproven.next(within, |_| true)),
                _ => continue,
            };
            let Some(jid) = jid else { continue };
            self.unproven_last = trust == Trust::Unproven;
            let phone =
                self.accounts.get_mut(&jid.to_bare()).and_then(|account| account.phones.get_mut(&jid));
            if let Some(phone) = phone.filter(|phone| phone.ready == Some(trust)) {
                phone.ready = None;
            }
            return Some(jid);
        }
        None
    }

    /// Frees the place of a push in flight. Returns the time at which the push was sent.
    pub(super) fn land(&mut self, id: MessageId, jid: &FullJid) -> Option<Instant> {
        let account = self.accounts.get_mut(&jid.to_bare())?;
        let sent = account.phones.get_mut(jid)?.line.land(id)?;
        account.in_flight -= 1;
        self.in_flight -= 1;
        self.loads.land(jid.domain().as_str(), 1);
        self.make_ready(jid);
        Some(sent)
    }

    /// Gives up the lines of silent full JIDs.
    pub(super) fn give_up_silent(&mut self, now: Now, actions: &mut Vec<Action>) {
        let mut silent = BTreeSet::new();
        for (sent, id) in &self.sent {
            if now.monotonic.duration_since(*sent) < SILENT_AFTER {
                break;
            }
            let asks = self.pushes.get(id).into_iter().flat_map(|push| &push.asks);
            let asks = asks.filter(|ask| ask.sent == *sent && self.has_blocked_line(&ask.jid));
            silent.extend(asks.map(|ask| ask.jid.clone()));
        }
        for jid in silent {
            if self.has_blocked_line(&jid) {
                self.give_up_reading(&jid, now, actions);
            }
        }
    }

    /// Returns whether pushes wait in the line of a full JID until it answers those in flight.
    fn has_blocked_line(&self, jid: &FullJid) -> bool {
        self.phone(jid).is_some_and(|phone| !phone.line.is_empty() && phone.line.awaits_answer())
    }

    /// Gives up pushes that were not answered in time.
    pub(super) fn give_up_overdue(&mut self, now: Now, actions: &mut Vec<Action>) {
        let mut landed = BTreeSet::new();
        while let Some((sent, id)) = self.sent.front().copied() {
            let ask = self.pushes.get(&id).and_then(|push| push.asks.iter().find(|ask| ask.sent == sent));
            if ask.is_some_and(|ask| !self.is_overdue(ask, now)) {
                break;
            }
            self.sent.pop_front();
            let Some(ask) = ask.cloned() else { continue };
            self.give_up_ask(id, &ask, Attempt::Unanswered(ask.asked_at), now, actions);
            landed.insert(ask.jid);
            if mutant(Mutant::OneOverdueEachTick) {
                break;
            }
        }
        for jid in landed {
            self.conclude(&jid, now, actions);
        }
    }

    /// Returns whether a push has been unanswered for so long that it is given up.
    pub(super) fn is_overdue(&self, ask: &Ask, now: Now) -> bool {
        now.monotonic.duration_since(ask.sent) >= self.settings.ack_timeout
    }

    fn give_up_ask(
        &mut self,
        id: MessageId,
        ask: &Ask,
        attempt: Attempt,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        if let Some(push) = self.pushes.get_mut(&id) {
            push.asks.retain(|other| other.jid != ask.jid);
        }
        self.land(id, &ask.jid);
        if let Some(phone) = self.phone_mut(&ask.jid).filter(|phone| phone.line.is_of_session(ask.sent)) {
            phone.mark_silent();
        }
        self.fail(id, ask, attempt, now, actions);
    }

    /// Takes silent pushes back in one step when places run short. They wait in the mailbox. The fullest accounts come
    /// first, and in each the pushes that have been silent for longest.
    pub(super) fn take_back(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.in_flight < self.settings.room.high_water()
            || (self.proven.is_empty() && self.unproven.is_empty())
        {
            return;
        }
        let mut silent: BTreeMap<BareJid, VecDeque<(MessageId, Ask)>> = BTreeMap::new();
        for (sent, id) in &self.sent {
            if now.monotonic.duration_since(*sent) < SILENT_AFTER {
                break;
            }
            let asks = self.pushes.get(id).into_iter().flat_map(|push| &push.asks);
            for ask in asks.filter(|ask| ask.sent == *sent) {
                silent.entry(ask.jid.to_bare()).or_default().push_back((*id, ask.clone()));
            }
        }
        let full = |core: &Self, account: &BareJid| core.accounts.get(account).map_or(0, |one| one.in_flight);
        let mut fullest: BinaryHeap<(usize, Reverse<BareJid>)> =
            silent.keys().map(|account| (full(self, account), Reverse(account.clone()))).collect();
        let mut landed = BTreeSet::new();
        while self.in_flight > self.settings.room.low_water()
            && let Some((_, Reverse(account))) = fullest.pop()
        {
            let Some((id, ask)) = silent.get_mut(&account).and_then(VecDeque::pop_front) else { continue };
            self.give_up_ask(id, &ask, Attempt::TakenBack(ask.asked_at), now, actions);
            landed.insert(ask.jid);
            fullest.push((full(self, &account), Reverse(account)));
        }
        for jid in landed {
            self.conclude(&jid, now, actions);
        }
    }

    /// Takes the pushes in flight to a full JID out of the lines of others: it answers, so it is not silent.
    pub(super) fn ask_no_others(&mut self, jid: &FullJid) {
        let Some(account) = self.accounts.get(&jid.to_bare()).filter(|account| account.phones.len() > 1)
        else {
            return;
        };
        let sent: Vec<MessageId> =
            account.phones.get(jid).map(|phone| phone.line.ids_in_flight().collect()).unwrap_or_default();
        for id in sent {
            self.take_from_lines(id);
        }
    }

    /// Asks another full JID of the account for a push if all that were asked are silent: the one that the registration
    /// names, or its stand-in. The first result settles the push. Stand-ins are also cued for pushes that wait for the
    /// silent ones.
    pub(super) fn ask_others(&mut self, now: Now) {
        let (mut silent, mut fallen_silent) = (BTreeMap::new(), BTreeSet::new());
        let is_silent = |ask: &Ask| {
            let answers = |phone: &Phone| phone.line.has_answered_within(SILENT_AFTER, now.monotonic);
            now.monotonic.duration_since(ask.sent) >= SILENT_AFTER
                && !self.phone(&ask.jid).is_some_and(answers)
        };
        let begin =
            self.others_sought_upto.map_or(0, |upto| self.sent.partition_point(|(sent, _)| *sent <= upto));
        let (mut sought, mut last, mut upto) = (0, None, None);
        for (sent, id) in self.sent.range(begin..) {
            if now.monotonic.duration_since(*sent) < SILENT_AFTER {
                break;
            }
            // Pushes that were sent at the same moment stay together.
            if sought >= self.settings.room.sought_per_tick() && last != Some(*sent) {
                upto = last;
                break;
            }
            let Some(push) = self.pushes.get(id) else { continue };
            let Push { held, asks, lines, .. } = push;
            (sought, last) = (sought + 1, Some(*sent));
            fallen_silent.extend(asks.iter().filter(|ask| is_silent(ask)).map(|ask| ask.jid.clone()));
            if !self.is_over(push) && lines.is_empty() && !asks.is_empty() && asks.iter().all(is_silent) {
                silent
                    .insert(*id, (held.clone(), asks.iter().map(|ask| ask.jid.clone()).collect::<Vec<_>>()));
            }
        }
        self.others_sought_upto = upto;
        fallen_silent.retain(|jid| self.phone_mut(jid).is_some_and(Phone::relieve));
        for account in fallen_silent.iter().map(|jid| jid.to_bare()).collect::<BTreeSet<_>>() {
            self.cue_stand_ins(&account, now);
        }
        let mut of_accounts: BTreeMap<BareJid, Vec<(Held, Vec<FullJid>, FullJid)>> = BTreeMap::new();
        for (held, asked) in silent.into_values() {
            let named = self.named(&held.message);
            self.want_look(&named);
            of_accounts.entry(named.to_bare()).or_default().push((held, asked, named));
        }
        for (account, silent) in of_accounts {
            let Some(account) = self.accounts.get(&account) else { continue };
            let routes = account.routes(now);
            let found = silent.into_iter().filter_map(|(held, asked, named)| {
                let other = routes.other_than(&asked, held.message.registration, &named)?.clone();
                Some((held, other))
            });
            for (held, other) in found.collect::<Vec<_>>() {
                self.ask_beside(&held.message, &other);
            }
        }
    }

    /// Puts a push into the line of another full JID, beside those that were asked.
    fn ask_beside(&mut self, message: &PushMessage, jid: &FullJid) {
        if let Some(phone) = self.phone_mut(jid) {
            phone.line.insert(message);
        }
        if let Some(push) = self.pushes.get_mut(&message.id) {
            push.lines.push(jid.clone());
        }
        self.make_ready(jid);
    }
}
