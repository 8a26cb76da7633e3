//! The ports in memory, for the tests of jobs and of the driver. Calls may be made to fail a number of times. Answers
//! may be lost after the call was carried out. One account may have trouble.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    slice::from_ref,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use push::{
    Clock, Epoch, MailboxBounds, MessageId, PushMessage, Registration, RegistrationId, Secrets, Target,
    ports::{
        Account, Accounts, Consistency, Delivery, Kept, Mailbox, Page, QueueReader, Registered, Registrant,
        Registrations, RelayRegistrations, Renewal, Revocation, Seen, Settlement, Trimmed, Unavailable,
        Waiting, Withdrawals,
    },
};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tokio_xmpp::jid::{BareJid, FullJid};

use super::{Jobs, Receipts, Revocations, Spared};
use crate::lease::Fence;

/// All ports at once. Its clones share what they hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<(Mutex<Inside>, Notify)>);

#[derive(Debug, Default)]
pub(crate) struct Inside {
    pub(crate) rows: BTreeMap<RegistrationId, Registration>,
    pub(crate) waiting: BTreeMap<MessageId, Waiting>,
    /// Entries of the queue, each with whether the reader holds it.
    pub(crate) queue: BTreeMap<MessageId, (PushMessage, bool)>,
    pub(crate) closed: bool,
    /// Number of calls that fail before one succeeds.
    pub(crate) failing: usize,
    /// True if no row can be read by its key.
    pub(crate) rows_are_broken: bool,
    /// True if every second answer is lost, the first one first.
    pub(crate) loses_answers: bool,
    /// True if the last answer was lost.
    lost: bool,
    /// An account, and the trouble that changes of its mailbox meet.
    pub(crate) trouble: Option<(BareJid, Trouble)>,
    /// Number of pushes that are being kept, and the most that ever were.
    pub(crate) keeping: (usize, usize),
    pub(crate) keeping_takes: Duration,
    /// Time until the answer comes that tells of rows.
    pub(crate) rows_take: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Refuses,
    Hangs,
}

impl Memory {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.0.lock().unwrap()
    }

    /// Puts a push into the queue.
    pub(crate) fn post(&self, message: PushMessage) {
        self.lock().queue.insert(message.id, (message, false));
        self.0.1.notify_one();
    }

    /// Puts a push into its account's mailbox.
    pub(crate) fn keep_waiting(&self, message: PushMessage) {
        self.lock().waiting.insert(message.id, Waiting { message, asked_at: None });
    }

    fn call<T>(&self, act: impl FnOnce(&mut Inside) -> T) -> Result<T, Unavailable> {
        let mut inside = self.lock();
        if inside.failing > 0 {
            inside.failing -= 1;
            return Err(Unavailable::new("the store is away"));
        }
        let answer = act(&mut inside);
        inside.lost = inside.loses_answers && !inside.lost;
        if inside.lost { Err(Unavailable::new("the answer is lost")) } else { Ok(answer) }
    }

    /// Meets the trouble that is set for one of these accounts, before a call.
    async fn meet_trouble(&self, accounts: &[BareJid]) -> Result<(), Unavailable> {
        let trouble = self.lock().trouble.clone();
        match trouble.filter(|(account, _)| accounts.contains(account)) {
            Some((_, Trouble::Refuses)) => Err(Unavailable::new("throttled")),
            Some((_, Trouble::Hangs)) => pending().await,
            None => Ok(()),
        }
    }

    /// Reads rows. The answer takes `rows_take`.
    async fn read<T>(&self, read: impl FnOnce(&mut Inside) -> T) -> Result<T, Unavailable> {
        let (answer, takes) = (self.call(read), self.lock().rows_take);
        if !takes.is_zero() {
            sleep(takes).await;
        }
        answer
    }

    /// Returns jobs on these ports, at a moment that stands still.
    pub(crate) fn jobs(&self, now: DateTime<Utc>, fence: Fence) -> Jobs<Self, Self, Self> {
        let secrets = Secrets::parse("0123456789abcdef0123456789abcdef").unwrap();
        Jobs {
            registrations: self.clone(),
            queue: self.clone(),
            mailbox: self.clone(),
            usage: push::usage::Meter::default(),
            secrets: watch::channel(secrets).1,
            endpoints: "https://push.example.com/push/".parse().unwrap(),
            lifetime: TimeDelta::days(7),
            mailbox_bounds: MailboxBounds { of_registration: 10, of_account: 10 },
            account_registrations_max: 2,
            clock: Clock::new(move || now),
            fence,
            receipts: Receipts::default(),
            moves: 0.into(),
            spared: Spared::default(),
            revocations: Revocations::default(),
        }
    }
}

impl Mailbox for Memory {
    async fn keep(&self, waiting: Waiting, _: MailboxBounds) -> Result<Kept, Unavailable> {
        self.meet_trouble(&[waiting.message.recipient.to_bare()]).await?;
        let takes = {
            let Inside { keeping: (now, most), keeping_takes, .. } = &mut *self.lock();
            *now += 1;
            *most = (*most).max(*now);
            *keeping_takes
        };
        if !takes.is_zero() {
            sleep(takes).await;
        }
        self.lock().keeping.0 -= 1;
        self.call(|inside| {
            inside.waiting.insert(waiting.message.id, waiting);
            Kept::default()
        })
    }

    async fn waiting(
        &self,
        account: &BareJid,
        of: Option<&BTreeSet<RegistrationId>>,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<Waiting>, Unavailable> {
        self.call(|inside| {
            let all = inside.waiting.values().filter(|one| {
                one.message.recipient.to_bare() == *account
                    && of.is_none_or(|of| of.contains(&one.message.registration))
                    && after.is_none_or(|after| one.message.id > after)
            });
            all.take(max).cloned().collect()
        })
    }

    async fn find(&self, _: &BareJid, message: MessageId) -> Result<Option<Waiting>, Unavailable> {
        self.call(|inside| inside.waiting.get(&message).cloned())
    }

    async fn remove(&self, messages: Vec<(BareJid, MessageId)>) -> Result<(), Unavailable> {
        let accounts: Vec<_> = messages.iter().map(|(account, _)| account.clone()).collect();
        self.meet_trouble(&accounts).await?;
        self.call(|inside| messages.iter().for_each(|(_, id)| drop(inside.waiting.remove(id))))
    }

    async fn note_asked(
        &self,
        account: &BareJid,
        id: MessageId,
        at: DateTime<Utc>,
    ) -> Result<(), Unavailable> {
        self.meet_trouble(from_ref(account)).await?;
        self.call(|inside| {
            if let Some(one) = inside.waiting.get_mut(&id) {
                one.asked_at = Some(at);
            }
        })
    }

    async fn clear(&self, account: &BareJid, of: RegistrationId, epoch: Epoch) -> Result<usize, Unavailable> {
        self.meet_trouble(from_ref(account)).await?;
        self.call(|inside| {
            let over = |one: &Waiting| one.message.registration == of && one.message.epoch <= epoch;
            let before = inside.waiting.len();
            inside.waiting.retain(|_, one| !over(one));
            before - inside.waiting.len()
        })
    }

    async fn trim(&self, _: &BareJid, _: usize, _: DateTime<Utc>) -> Result<Trimmed, Unavailable> {
        self.call(|_| Trimmed::default())
    }

    async fn recipients(
        &self,
        after: Option<Registrant>,
        max: usize,
    ) -> Result<Page<(Registrant, usize)>, Unavailable> {
        self.call(|inside| {
            let mut counts = BTreeMap::<Registrant, usize>::new();
            for Waiting { message, .. } in inside.waiting.values() {
                *counts.entry((message.recipient.to_bare(), message.registration)).or_default() += 1;
            }
            let behind = |one: &(Registrant, usize)| after.as_ref().is_none_or(|after| one.0 > *after);
            let page: Vec<_> = counts.into_iter().filter(behind).take(max).collect();
            let next = page.last().filter(|_| page.len() == max).map(|(last, _)| last.clone());
            (page, next)
        })
    }
}

impl Withdrawals for Memory {
    async fn withdraw(&self, _: &BareJid, id: MessageId, _: DateTime<Utc>) -> Result<bool, Unavailable> {
        self.call(|inside| inside.waiting.remove(&id).is_some())
    }
}

impl Registrations for Memory {
    async fn find(&self, id: RegistrationId, _: Consistency) -> Result<Option<Registration>, Unavailable> {
        if self.lock().rows_are_broken {
            return Err(Unavailable::new("the row cannot be read"));
        }
        self.read(|inside| inside.rows.get(&id).cloned()).await
    }

    async fn find_all(
        &self,
        ids: BTreeSet<RegistrationId>,
        _: Consistency,
    ) -> Result<Vec<Registration>, Unavailable> {
        self.read(|inside| ids.iter().filter_map(|id| inside.rows.get(id).cloned()).collect()).await
    }

    async fn register(
        &self,
        target: Target,
        now: DateTime<Utc>,
        lifetime: TimeDelta,
        _: Renewal,
        max: usize,
    ) -> Result<Registered, Unavailable> {
        self.call(|inside| {
            let (id, account) = (target.registration_id(), target.recipient.to_bare());
            let lives = inside.rows.get(&id).is_some_and(|row| row.lives(now));
            let of_account =
                |row: &&Registration| row.target.recipient.to_bare() == account && row.lives(now);
            if !lives && inside.rows.values().filter(of_account).count() >= max {
                return Registered::AccountFull;
            }
            let row = Registration::renew(inside.rows.get(&id), target, now, lifetime);
            inside.rows.insert(id, row.clone());
            if lives { Registered::Stored(row) } else { Registered::Begun(row) }
        })
    }

    async fn revoke(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        recipient: &FullJid,
        asked_at: DateTime<Utc>,
    ) -> Result<Revocation, Unavailable> {
        self.meet_trouble(&[recipient.to_bare()]).await?;
        self.call(|inside| match inside.rows.get_mut(&id) {
            Some(row) if row.epoch == epoch && !row.revoked => {
                if row.target.recipient != *recipient || row.renewed_at > asked_at {
                    return Revocation::GoesOn;
                }
                row.revoked = true;
                Revocation::Revoked
            }
            _ => Revocation::OverBefore,
        })
    }
}

impl RelayRegistrations for Memory {
    async fn follow(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        from: &FullJid,
        to: &FullJid,
    ) -> Result<bool, Unavailable> {
        self.call(|inside| {
            let row =
                inside.rows.get_mut(&id).filter(|row| row.epoch == epoch && row.target.recipient == *from);
            row.map(|row| row.target.recipient = to.clone()).is_some()
        })
    }

    async fn throttle(&self, _: RegistrationId, _: Epoch, _: DateTime<Utc>) -> Result<(), Unavailable> {
        self.call(|_| ())
    }
}

impl Accounts for Memory {
    async fn account(&self, account: &BareJid, now: DateTime<Utc>) -> Result<Account, Unavailable> {
        self.call(|inside| {
            let own = |row: &&Registration| row.target.recipient.to_bare() == *account && row.lives(now);
            Account { registrations: inside.rows.values().filter(own).cloned().collect(), seen: Vec::new() }
        })
    }

    async fn note_seen(&self, account: &BareJid, _: Vec<Seen>, _: DateTime<Utc>) -> Result<(), Unavailable> {
        self.meet_trouble(from_ref(account)).await?;
        self.call(|_| ())
    }

    async fn living(
        &self,
        _: Option<Registrant>,
        _: usize,
        now: DateTime<Utc>,
    ) -> Result<Page<Registration>, Unavailable> {
        self.call(|inside| (inside.rows.values().filter(|row| row.lives(now)).cloned().collect(), None))
    }
}

impl QueueReader for Memory {
    type Receipt = MessageId;

    async fn receive(&self, max: usize) -> Result<Vec<Delivery<MessageId>>, Unavailable> {
        loop {
            let due = self.call(|inside| {
                let due = inside.queue.values_mut().filter(|(_, held)| !held).take(max);
                due.map(|(message, held)| {
                    *held = true;
                    Delivery { receipt: message.id, is_first: true, message: Arc::new(message.clone()) }
                })
                .collect::<Vec<_>>()
            })?;
            if !due.is_empty() {
                return Ok(due);
            }
            if self.lock().closed {
                return pending().await;
            }
            self.0.1.notified().await;
        }
    }

    async fn settle(&self, settlements: Vec<Settlement<MessageId>>) -> Result<(), Unavailable> {
        self.call(|inside| {
            for settlement in settlements {
                match settlement {
                    Settlement::Delete(id) => drop(inside.queue.remove(&id)),
                    Settlement::Postpone(id, _) => {
                        if let Some((_, held)) = inside.queue.get_mut(&id) {
                            *held = false;
                        }
                    }
                }
            }
        })
    }

    async fn close(&self) {
        self.lock().closed = true;
    }
}
