//! The stores' answers to the jobs of the core.

use std::ops::Bound;

use push::ports::Renewal;

use super::{users::registration, *};
use crate::delivery::domains::Trim;

impl World {
    pub(super) fn do_job(&mut self, job: Job) {
        match job {
            Job::Receive(max) => self.receiving = Some(max),
            Job::Look(bare) => {
                let rows = self.rows_of.get(&bare).into_iter().flatten().map(|id| &self.rows[id]);
                let registrations = rows.filter(|row| row.lives(self.wall)).cloned().collect();
                let seen = self.seen.get(&bare).cloned().unwrap_or_default();
                self.take(Input::Looked(bare, Some(ports::Account { registrations, seen })));
            }
            Job::Read(request) if self.reads_late => self.late.push(request),
            Job::Read(request) => self.read(&request),
            Job::Settle(fates) if self.stalls => self.stalled = Some(fates),
            Job::Settle(fates) => self.settle_all(fates),
            Job::Register(requests) => match &mut self.late_requests {
                Some(late) => late.extend(requests),
                None => self.store_all(&requests),
            },
            Job::Count(_) => {
                let living = self.rows.values().filter(|row| row.lives(self.wall)).cloned().collect();
                self.take(Input::Counted(Some((living, None))));
            }
            Job::Sweep(_) => {
                let waits: BTreeSet<_> =
                    self.mailbox.values().map(|(message, _)| message.registration).collect();
                let mut rows: Vec<Registration> = Vec::new();
                for row in waits.iter().map(|id| &self.rows[id]).filter(|row| row.lives(self.wall)) {
                    if rows.iter().all(|one| one.target.recipient != row.target.recipient) {
                        rows.push(row.clone());
                    }
                }
                let waiting = self.waiting_by_account().into_iter().collect();
                let found = Found { rows, waiting, next: None };
                self.take(Input::Found(found));
            }
        }
    }

    /// The page of a count that the store was asked for does not come.
    pub(in super::super) fn fail_the_count(&mut self) {
        self.take(Input::Counted(None));
    }

    /// Another process asks the senders of a registration to wait.
    pub(in super::super) fn throttle_elsewhere(
        &mut self,
        registration: RegistrationId,
        until: DateTime<Utc>,
    ) {
        if let Some(row) = self.rows.get_mut(&registration) {
            row.throttled_until = Some(until);
        }
    }

    /// With tenants from now on.
    pub(in super::super) fn serve(&mut self, roster: &push::Roster) {
        self.take(Input::Access(AccessList::Everyone(Vec::new()).and_tenants(roster)));
    }

    /// The store takes a registration, and its answer is lost.
    pub(in super::super) fn register_unheard(&mut self, jid: &str, application: u8) {
        let (_, request) = registration(jid, application);
        self.store(&Registering { request, renewal: Renewal::Always, domain_full: None });
    }

    pub(super) fn store_all(&mut self, requests: &[Registering]) {
        self.renewals.extend(requests.iter().map(|registering| registering.renewal));
        let registered = requests.iter().map(|registering| self.store(registering)).collect();
        self.take(Input::Registered(registered));
    }

    fn store(&mut self, registering: &Registering) -> Registered {
        let Query::Register(Ok(target)) = &registering.request.query else { panic!("a registration") };
        let id = target.registration_id();
        let reply = crate::stream::discovery::items();
        let begins = self.rows.get(&id).is_none_or(|row| !row.lives(self.wall));
        if begins && registering.domain_full.is_some() {
            self.refused += 1;
            return Registered { registration: Some(id), reply, outcome: Outcome::DomainFull };
        }
        let row =
            Registration::renew(self.rows.get(&id), Target::clone(target), self.wall, TimeDelta::days(7));
        self.rows.insert(id, row.clone());
        self.rows_of.entry(row.target.recipient.to_bare()).or_default().insert(id);
        let outcome = if begins { Outcome::Begun(row) } else { Outcome::Stored(row) };
        Registered { registration: Some(id), reply, outcome }
    }

    pub(super) fn read(&mut self, request: &ReadRequest) {
        let page = self.page(request);
        self.take(Input::Page(page));
    }

    /// The pages that were asked for are read, and are on their way.
    pub(in super::super) fn read_early(&mut self) -> Vec<Page> {
        std::mem::take(&mut self.late).iter().map(|request| self.page(request)).collect()
    }

    /// Pages come that were read before.
    pub(in super::super) fn bring(&mut self, pages: Vec<Page>) {
        pages.into_iter().for_each(|page| self.take(Input::Page(page)));
    }

    fn page(&mut self, request: &ReadRequest) -> Page {
        self.pages += 1;
        let begin = request.after.map_or(Bound::Unbounded, Bound::Excluded);
        let kept = self.kept.get(&request.reader.to_bare()).into_iter();
        let after = kept.flat_map(|ids| ids.range((begin, Bound::Unbounded)));
        let all = after.filter_map(|id| self.mailbox.get(id));
        let all = all.filter(|(message, _)| request.of.contains(&message.registration));
        let read: Vec<_> = all.take(PAGE_MAX).cloned().collect();
        let mut page = Page {
            reader: request.reader.clone(),
            reading: request.reading,
            pushes: Vec::new(),
            upto: read.last().map_or(request.after, |(last, _)| Some(last.id)),
            left_out: false,
            end: read.len() < PAGE_MAX,
        };
        for (mut message, asked_at) in read {
            let row = &self.rows[&message.registration];
            let expired = message.is_expired(self.wall) && !self.queue.contains_key(&message.id);
            if expired || !row.lives(self.wall) || row.epoch != message.epoch {
                self.mailbox.remove(&message.id);
            } else if request.cue == Cue::Guess
                && asked_at.is_some_and(|asked| self.wall - asked < TimeDelta::minutes(15))
            {
                page.left_out = true;
            } else {
                message.recipient = row.target.recipient.clone();
                page.pushes.push(message);
            }
        }
        page
    }

    /// Returns how much waits for each account.
    pub(super) fn waiting_by_account(&self) -> BTreeMap<BareJid, usize> {
        let mut waiting = BTreeMap::new();
        for (message, _) in self.mailbox.values() {
            *waiting.entry(message.recipient.to_bare()).or_default() += 1;
        }
        waiting
    }

    /// A store drops what has expired after a while.
    pub(in super::super) fn purge(&mut self) {
        let wall = self.wall;
        self.mailbox.retain(|_, (message, _)| !message.is_expired(wall));
    }

    /// A list of the pushes that are left, for a failure's message.
    pub(in super::super) fn rest(&self) -> Vec<String> {
        let held = self.core.pushes.iter().map(|(id, push)| format!("held {id} {push:?}"));
        let waiting = self.mailbox.values().map(|(push, asked)| {
            let row = &self.rows[&push.registration];
            let named = row.target.recipient.clone();
            let phone =
                self.core.accounts.get(&named.to_bare()).and_then(|account| account.phones.get(&named));
            format!(
                "waits {} for {named} (asked {asked:?}, {:?}): {phone:?}",
                push.id,
                self.core.known.of(&named)
            )
        });
        let queued = self.queue.keys().map(|id| format!("queued {id}, due: {}", self.due.contains(id)));
        held.chain(waiting).chain(queued).take(6).collect()
    }

    /// Drops the oldest.
    fn trim(&mut self, trim: Trim) -> Note {
        let waiting = self.waiting_by_account();
        let has = waiting.get(&trim.account).copied().unwrap_or(0);
        let of_account = |(message, _): &&(PushMessage, _)| message.recipient.to_bare() == trim.account;
        let mut ids: Vec<MessageId> =
            self.mailbox.values().filter(of_account).map(|(message, _)| message.id).collect();
        ids.truncate(has.saturating_sub(trim.max));
        if !ids.is_empty() {
            let fuller = waiting
                .iter()
                .find(|(account, pushes)| account.domain() == trim.account.domain() && **pushes > has);
            assert_eq!(fuller, None, "the fullest gives, and {} has {has}", trim.account);
        }
        for id in &ids {
            self.mailbox.remove(id);
            self.dropped.insert(*id);
        }
        let left = has - ids.len();
        Note::Trimmed(trim, ports::Trimmed { dropped: ids, left })
    }

    /// A push stays in the queue, and is free to be received from that moment on.
    fn give_back(&mut self, id: MessageId, at: DateTime<Utc>) {
        assert!(self.is_queued(id) && !self.due.contains(&id), "{id} is given back, and was not received");
        self.heard.given_back.insert(id);
        let before = self.postponed.insert(id, at);
        assert_eq!(before, None, "{id} is given back once");
    }

    /// A push is over, or it is a copy that leaves the queue of one that waits.
    fn end(&mut self, push: &Held) {
        let Held { origin, message } = push;
        let id = message.id;
        let waits_still = *origin == Origin::Queue && self.mailbox.contains_key(&id);
        if !waits_still && !message.is_expired(self.wall) {
            let may_go = self.results.contains(&id) || self.replaced.contains(&id) || message.is_immediate();
            assert!(may_go, "{id} is deleted, and nobody has taken it");
            self.delivered.push(id);
        }
        self.remove(push);
    }

    /// The pushes that go because of the topic of a push that was just stored: as `ports::Mailbox::keep` promises.
    fn all_but_the_newest_of_its_topic(&self, message: &PushMessage) -> Vec<MessageId> {
        if message.topic.is_none() {
            return Vec::new();
        }
        let of_it =
            |other: &PushMessage| other.registration == message.registration && other.topic == message.topic;
        let waiting = self.mailbox.values().map(|(other, _)| other);
        let mut ids: Vec<MessageId> = waiting.filter(|other| of_it(other)).map(|other| other.id).collect();
        ids.sort_unstable_by(|one, other| one.age().cmp(other.age()));
        ids.pop();
        ids
    }

    fn remove(&mut self, push: &Held) {
        let id = push.message.id;
        match push.origin {
            Origin::Queue => drop(self.queue.remove(&id)),
            Origin::Mailbox => drop(self.mailbox.remove(&id)),
        }
    }

    fn settle_late(&mut self, account: BareJid, id: MessageId) -> Option<Note> {
        let of_account = |(message, _): &&(PushMessage, _)| message.recipient.to_bare() == account;
        self.mailbox.get(&id).filter(of_account)?;
        let (message, _) = self.mailbox.remove(&id)?;
        assert!(self.results.contains(&id), "{id} leaves the mailbox, and nobody has taken it");
        self.delivered.push(id);
        let (accepted_at, expired) = (message.accepted_at, message.is_expired(self.wall));
        let (delivered, over) = (u64::from(!expired), u64::from(expired));
        self.counted += Counts { delivered, expired: over, ..Counts::default() };
        Some(Note::Late { account, id, accepted_at, expired })
    }

    /// Ends a registration for a push that was refused, unless it goes on.
    /// Returns the note of a push in the mailbox that was refused, and whose registration goes on.
    fn still_waits(&self, fate: &Fate) -> Option<Note> {
        let Fate::Revoke { push: Held { origin: Origin::Mailbox, message }, recipient, asked_at } = fate
        else {
            return None;
        };
        let row = &self.rows[&message.registration];
        let goes_on = row.target.recipient != *recipient || row.renewed_at > *asked_at;
        (row.epoch == message.epoch && goes_on).then(|| Note::Waits {
            message: Arc::clone(message),
            recipient: message.recipient.clone(),
            untried: true,
            kept: None,
        })
    }

    fn revoke(&mut self, push: &Held, recipient: &FullJid, asked_at: DateTime<Utc>) -> Option<Note> {
        let row = self.rows.get_mut(&push.message.registration)?;
        let goes_on = row.target.recipient != *recipient || row.renewed_at > asked_at;
        if row.epoch == push.message.epoch && goes_on {
            self.due.insert(push.message.id);
            let (registration, epoch) = (push.message.registration, row.epoch);
            return Some(Note::Names(registration, epoch, row.target.recipient.clone()));
        }
        row.revoked |= row.epoch == push.message.epoch;
        let (account, registration) = (recipient.to_bare(), push.message.registration);
        // The push is one of those that waited, if it was in the mailbox.
        let (life, before) = (push.message.epoch, self.mailbox.len());
        self.remove(push);
        self.mailbox.retain(|_, (message, _)| message.registration != registration || message.epoch > life);
        let waited = before - self.mailbox.len();
        Some(Note::Ended { account, registration, epoch: life, waited })
    }

    pub(super) fn settle_all(&mut self, fates: Vec<Fate>) {
        let notes = self.settle_each(fates);
        self.take(Input::Settled(notes));
    }

    /// The batch that stands still fails: its pushes stay where they are.
    pub(in super::super) fn fail_settling(&mut self) {
        self.stalls = false;
        assert!(self.stalled.take().is_some(), "a batch stands still");
        self.take(Input::Settled(Vec::new()));
    }

    /// One batch is settled, and a registration is stored before the core is told of that.
    pub(in super::super) fn register_before_settled(&mut self, jid: &str, application: u8) {
        let fates = self.stalled.take().unwrap();
        let notes = self.settle_each(fates);
        self.register(jid, application);
        self.take(Input::Settled(notes));
    }

    fn settle_each(&mut self, fates: Vec<Fate>) -> Vec<Note> {
        let mut notes = Vec::new();
        for fate in fates {
            notes.extend(self.still_waits(&fate));
            notes.extend(self.settle(fate));
        }
        notes
    }

    fn settle(&mut self, fate: Fate) -> Option<Note> {
        match fate {
            Fate::Done(push) => {
                self.end(&push);
                None
            }
            // Nothing is kept without the lease (`jobs::settle`): the push goes back.
            Fate::Keep { message, .. } if !self.leased => {
                self.give_back(message.id, self.wall + TimeDelta::seconds(5));
                None
            }
            Fate::Keep { message, asked_at, untried, .. } => {
                self.queue.remove(&message.id)?;
                let row = &self.rows[&message.registration];
                if !row.lives(self.wall) || row.epoch != message.epoch {
                    return None;
                }
                let recipient = row.target.recipient.clone();
                self.mailbox.insert(message.id, (PushMessage::clone(&message), asked_at));
                self.kept.entry(recipient.to_bare()).or_default().insert(message.id);
                let mut replaced = std::mem::take(&mut self.replaces);
                replaced.extend(self.all_but_the_newest_of_its_topic(&message));
                replaced.iter().for_each(|id| drop(self.mailbox.remove(id)));
                self.replaced.extend(&replaced);
                let kept = Some(Kept { replaced, dropped: Vec::new() });
                Some(Note::Waits { message, recipient, untried, kept })
            }
            Fate::Asked { message, asked_at } => {
                self.mailbox.get_mut(&message.id)?.1 = Some(asked_at);
                None
            }
            Fate::Postpone(id, at) => {
                self.give_back(id, at);
                None
            }
            Fate::Revoke { push, recipient, asked_at } => self.revoke(&push, &recipient, asked_at),
            Fate::Late(account, id) => self.settle_late(account, id),
            Fate::Trim(trim) => Some(self.trim(trim)),
            Fate::LateRevoke(..) => None,
            Fate::Count(.., counts) => {
                self.counted += counts;
                None
            }
            Fate::Throttle(registration, _, until) => {
                if self.throttles_failing > 0 {
                    self.throttles_failing -= 1;
                    return Some(Note::NotThrottled(registration));
                }
                self.throttled.push(until);
                None
            }
            Fate::Follow { registration, epoch, from, to } => {
                let row = self.rows.get_mut(&registration)?;
                if row.epoch == epoch && from.contains(&row.target.recipient) {
                    let moved = Note::Moved(to.to_bare(), registration);
                    row.target.recipient = to;
                    return Some(moved);
                }
                Some(Note::Names(registration, row.epoch, row.target.recipient.clone()))
            }
            Fate::NoteSeen(account, _) if self.seen_failing > 0 => {
                self.seen_failing -= 1;
                Some(Note::NotSeen(account))
            }
            Fate::NoteSeen(account, seen) => {
                self.seen.insert(account, seen);
                None
            }
        }
    }
}
