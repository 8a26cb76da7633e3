//! What stores answer to the jobs of the core.

use super::*;

impl World {
    pub(super) fn do_job(&mut self, job: Job) {
        match job {
            Job::Receive(max) => self.receiving = Some(max),
            Job::Look(bare) => {
                let registrations = self
                    .rows
                    .values()
                    .filter(|row| row.target.recipient.to_bare() == bare && row.lives(self.wall));
                let registrations = registrations.cloned().collect();
                let seen = self.seen.get(&bare).cloned().unwrap_or_default();
                self.take(Input::Looked(bare, Some(ports::Account { registrations, seen })));
            }
            Job::Read(request) => self.read(&request),
            Job::Settle(fates) => {
                let notes = fates.into_iter().filter_map(|fate| self.settle(fate)).collect();
                self.take(Input::Settled(notes));
            }
            Job::Register(requests) => {
                let registered = requests.into_iter().map(|(request, _)| self.store(&request)).collect();
                self.take(Input::Registered(registered));
            }
            Job::Count(_) => {
                let living = self.rows.values().filter(|row| row.lives(self.wall)).cloned().collect();
                self.take(Input::Counted(Some((living, None))));
            }
            Job::Sweep(_) => {
                let waits: BTreeSet<_> =
                    self.mailbox.values().map(|(message, _)| message.registration).collect();
                let found = waits.iter().map(|id| self.rows[id].clone()).filter(|row| row.lives(self.wall));
                let found = found.collect();
                self.take(Input::Found(found, None));
            }
        }
    }

    fn store(&mut self, request: &Request) -> Registered {
        let Query::Register(Ok(target)) = &request.query else { panic!("a registration") };
        let id = target.registration_id();
        let row =
            Registration::renew(self.rows.get(&id), Target::clone(target), self.wall, TimeDelta::days(7));
        self.rows.insert(id, row.clone());
        Registered { reply: crate::stream::stanza::disco_items(), registration: Some(row) }
    }

    fn read(&mut self, request: &ReadRequest) {
        self.pages += 1;
        let account = request.reader.to_bare();
        let all = self.mailbox.values().filter(|(message, _)| {
            message.recipient.to_bare() == account
                && request.of.contains(&message.registration)
                && request.after.is_none_or(|after| message.id > after)
        });
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
            if message.is_expired(self.wall) || !row.lives(self.wall) || row.epoch != message.epoch {
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
        self.take(Input::Page(page));
    }

    fn remove(&mut self, push: &Held) {
        let id = push.message.id;
        match push.origin {
            Origin::Queue => drop(self.queue.remove(&id)),
            Origin::Mailbox => drop(self.mailbox.remove(&id)),
        }
    }

    fn settle(&mut self, fate: Fate) -> Option<Note> {
        match fate {
            Fate::Done(push) => {
                if !push.message.is_expired(self.wall) {
                    self.delivered.push(push.message.id);
                }
                self.remove(&push);
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
                Some(Note::Waits { message, recipient, untried, kept: Kept::default() })
            }
            Fate::Asked { message, asked_at } => {
                self.mailbox.get_mut(&message.id)?.1 = Some(asked_at);
                None
            }
            Fate::Postpone(id, _) => {
                self.received.remove(&id);
                None
            }
            Fate::Revoke { push, recipient, asked_at } => {
                let row = self.rows.get_mut(&push.message.registration)?;
                let goes_on = row.target.recipient != recipient || row.renewed_at > asked_at;
                if row.epoch == push.message.epoch && goes_on {
                    self.received.remove(&push.message.id);
                    let (registration, epoch) = (push.message.registration, row.epoch);
                    return Some(Note::Names(registration, epoch, row.target.recipient.clone()));
                }
                row.revoked |= row.epoch == push.message.epoch;
                let (account, registration) = (recipient.to_bare(), push.message.registration);
                self.remove(&push);
                let life = push.message.epoch;
                self.mailbox
                    .retain(|_, (message, _)| message.registration != registration || message.epoch > life);
                Some(Note::Ended(account, registration))
            }
            Fate::Late(account, id) => {
                if self.mailbox.get(&id).is_some_and(|(message, _)| message.recipient.to_bare() == account) {
                    self.mailbox.remove(&id);
                    self.delivered.push(id);
                }
                None
            }
            Fate::LateRevoke(..) | Fate::Throttle(..) => None,
            Fate::Follow { registration, epoch, from, to } => {
                let row = self.rows.get_mut(&registration)?;
                if row.epoch == epoch && row.target.recipient == from {
                    row.target.recipient = to;
                }
                Some(Note::Names(registration, row.epoch, row.target.recipient.clone()))
            }
            Fate::NoteSeen(account, seen) => {
                self.seen.insert(account, seen);
                None
            }
        }
    }
}
