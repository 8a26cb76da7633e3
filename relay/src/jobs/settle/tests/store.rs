//! The ports of a store that has trouble.

use super::*;

/// A mailbox that loses the answer to each call but every second one, if it loses any.
#[derive(Debug, Clone, Default)]
pub(super) struct Store(pub(super) Arc<Mutex<Inside>>);

#[derive(Debug, Default)]
pub(super) struct Inside {
    pub(super) waiting: Vec<Waiting>,
    /// True if the last answer was lost.
    pub(super) lost: bool,
    pub(super) loses_none: bool,
    pub(super) trouble: Option<(BareJid, Trouble)>,
    pub(super) rows: Vec<Registration>,
    /// No row can be read.
    pub(super) unreadable: bool,
    /// Pushes that are being kept, and the most that ever were.
    pub(super) keeping: (usize, usize),
    pub(super) keeping_takes: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    Refuses,
    Hangs,
}

impl Store {
    fn answer<T>(&self, act: impl FnOnce(&mut Vec<Waiting>) -> T) -> Result<T, Unavailable> {
        let mut inside = self.0.lock().unwrap();
        let answer = act(&mut inside.waiting);
        inside.lost = !inside.lost && !inside.loses_none;
        if inside.lost { Err(Unavailable::new("the answer is lost")) } else { Ok(answer) }
    }

    pub(super) fn reliable(waiting: Vec<Waiting>, rows: Vec<Registration>) -> Self {
        Self(Arc::new(Mutex::new(Inside { waiting, rows, loses_none: true, ..Inside::default() })))
    }

    /// Meets the trouble that is set for these accounts, before a call.
    async fn meet_trouble(&self, accounts: &[BareJid]) -> Result<(), Unavailable> {
        let trouble = self.0.lock().unwrap().trouble.clone();
        match trouble.filter(|(account, _)| accounts.contains(account)) {
            Some((_, Trouble::Refuses)) => Err(Unavailable::new("throttled")),
            Some((_, Trouble::Hangs)) => std::future::pending().await,
            None => Ok(()),
        }
    }
}

fn not_asked<T>() -> Result<T, Unavailable> {
    Err(Unavailable::new("nobody asks for this here"))
}

impl Mailbox for Store {
    async fn find(&self, _: &BareJid, id: MessageId) -> Result<Option<Waiting>, Unavailable> {
        self.answer(|waiting| waiting.iter().find(|one| one.message.id == id).cloned())
    }

    async fn remove(&self, messages: Vec<(BareJid, MessageId)>) -> Result<(), Unavailable> {
        let accounts: Vec<_> = messages.iter().map(|(account, _)| account.clone()).collect();
        self.meet_trouble(&accounts).await?;
        self.answer(|waiting| waiting.retain(|one| messages.iter().all(|(_, id)| *id != one.message.id)))
    }

    async fn keep(&self, waiting: Waiting, _: MailboxBounds) -> Result<Kept, Unavailable> {
        self.meet_trouble(&[waiting.message.recipient.to_bare()]).await?;
        let takes = {
            let Inside { keeping: (now, most), keeping_takes, .. } = &mut *self.0.lock().unwrap();
            *now += 1;
            *most = (*most).max(*now);
            *keeping_takes
        };
        sleep(takes.max(Duration::from_millis(10))).await;
        let mut inside = self.0.lock().unwrap();
        inside.keeping.0 -= 1;
        inside.waiting.push(waiting);
        Ok(Kept::default())
    }

    async fn waiting(
        &self,
        _: &BareJid,
        _: Option<&BTreeSet<RegistrationId>>,
        _: Option<MessageId>,
        _: usize,
    ) -> Result<Vec<Waiting>, Unavailable> {
        not_asked()
    }

    async fn note_asked(
        &self,
        account: &BareJid,
        id: MessageId,
        at: DateTime<Utc>,
    ) -> Result<(), Unavailable> {
        self.meet_trouble(std::slice::from_ref(account)).await?;
        self.answer(|waiting| {
            let asked = waiting.iter_mut().filter(|one| one.message.id == id);
            asked.for_each(|one| one.asked_at = Some(at));
        })
    }

    async fn clear(&self, _: &BareJid, _: RegistrationId, _: Epoch) -> Result<usize, Unavailable> {
        not_asked()
    }

    async fn trim(&self, _: &BareJid, _: usize, _: DateTime<Utc>) -> Result<Trimmed, Unavailable> {
        not_asked()
    }

    async fn recipients(
        &self,
        _: Option<Registrant>,
        _: usize,
    ) -> Result<Page<(Registrant, usize)>, Unavailable> {
        not_asked()
    }
}

impl Withdrawals for Store {
    async fn withdraw(&self, _: &BareJid, id: MessageId, _: DateTime<Utc>) -> Result<bool, Unavailable> {
        self.answer(|waiting| waiting.extract_if(.., |one| one.message.id == id).count() > 0)
    }
}

impl Registrations for Store {
    async fn find(&self, id: RegistrationId, _: Consistency) -> Result<Option<Registration>, Unavailable> {
        let inside = self.0.lock().unwrap();
        if inside.unreadable {
            return Err(Unavailable::new("throttled"));
        }
        Ok(inside.rows.iter().find(|row| row.target.registration_id() == id).cloned())
    }

    async fn find_all(
        &self,
        _: BTreeSet<RegistrationId>,
        _: Consistency,
    ) -> Result<Vec<Registration>, Unavailable> {
        not_asked()
    }

    async fn register(
        &self,
        _: Target,
        _: DateTime<Utc>,
        _: TimeDelta,
        _: Renewal,
        _: usize,
    ) -> Result<Registered, Unavailable> {
        not_asked()
    }

    async fn revoke(
        &self,
        _: RegistrationId,
        _: Epoch,
        _: &FullJid,
        _: DateTime<Utc>,
    ) -> Result<Revocation, Unavailable> {
        not_asked()
    }
}

impl RelayRegistrations for Store {
    async fn follow(
        &self,
        _: RegistrationId,
        _: Epoch,
        _: &FullJid,
        _: &FullJid,
    ) -> Result<bool, Unavailable> {
        not_asked()
    }

    async fn throttle(&self, _: RegistrationId, _: Epoch, _: DateTime<Utc>) -> Result<(), Unavailable> {
        not_asked()
    }
}

impl Accounts for Store {
    async fn account(&self, _: &BareJid, _: DateTime<Utc>) -> Result<Account, Unavailable> {
        not_asked()
    }

    async fn note_seen(&self, _: &BareJid, _: Vec<Seen>, _: DateTime<Utc>) -> Result<(), Unavailable> {
        not_asked()
    }

    async fn living(
        &self,
        _: Option<Registrant>,
        _: usize,
        _: DateTime<Utc>,
    ) -> Result<Page<Registration>, Unavailable> {
        not_asked()
    }
}

impl QueueReader for Store {
    type Receipt = MessageId;

    async fn receive(&self, _: usize) -> Result<Vec<Delivery<MessageId>>, Unavailable> {
        not_asked()
    }

    async fn settle(&self, _: Vec<Settlement<MessageId>>) -> Result<(), Unavailable> {
        Ok(())
    }
}
