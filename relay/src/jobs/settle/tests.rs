//! Settling on a store whose answers are lost after it has done what was asked.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use push::{
    Clock, Epoch, MailboxBounds, Marker, Registration, Secrets, Target,
    ports::{Account, Delivery, Markers, Page, Recipient, Registered, Renewal, Seen, Tenants, Trimmed},
    testing,
};
use tokio::sync::watch;

use super::*;
use crate::lease::Fence;

/// A mailbox that loses the answer to each call but every second one.
#[derive(Debug, Clone, Default)]
struct Store(Arc<Mutex<Inside>>);

#[derive(Debug, Default)]
struct Inside {
    waiting: Vec<Waiting>,
    lost: bool,
}

impl Store {
    fn answer<T>(&self, act: impl FnOnce(&mut Vec<Waiting>) -> T) -> Result<T, Unavailable> {
        let mut inside = self.0.lock().unwrap();
        let answer = act(&mut inside.waiting);
        inside.lost = !inside.lost;
        if inside.lost { Err(Unavailable::new("the answer is lost")) } else { Ok(answer) }
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
        self.answer(|waiting| waiting.retain(|one| messages.iter().all(|(_, id)| *id != one.message.id)))
    }

    async fn withdraw(&self, _: &BareJid, id: MessageId, _: DateTime<Utc>) -> Result<bool, Unavailable> {
        self.answer(|waiting| waiting.extract_if(.., |one| one.message.id == id).count() > 0)
    }

    async fn keep(&self, _: Waiting, _: MailboxBounds) -> Result<Kept, Unavailable> {
        not_asked()
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

    async fn note_asked(&self, _: &BareJid, _: MessageId, _: DateTime<Utc>) -> Result<(), Unavailable> {
        not_asked()
    }

    async fn clear(&self, _: &BareJid, _: RegistrationId, _: Epoch) -> Result<usize, Unavailable> {
        not_asked()
    }

    async fn trim(&self, _: &BareJid, _: usize, _: DateTime<Utc>) -> Result<Trimmed, Unavailable> {
        not_asked()
    }

    async fn recipients(
        &self,
        _: Option<Recipient>,
        _: usize,
    ) -> Result<Page<(Recipient, usize)>, Unavailable> {
        not_asked()
    }
}

impl Markers for Store {
    async fn marker(&self) -> Result<Option<Marker>, Unavailable> {
        not_asked()
    }

    async fn set_marker(&self, _: &Marker) -> Result<(), Unavailable> {
        not_asked()
    }
}

impl Tenants for Store {}

impl Registrations for Store {
    async fn find(&self, _: RegistrationId, _: Consistency) -> Result<Option<Registration>, Unavailable> {
        not_asked()
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
        _: Option<Recipient>,
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
        not_asked()
    }
}

fn jobs(store: &Store, now: DateTime<Utc>) -> Jobs<Store, Store, Store> {
    let secrets = Secrets::parse("0123456789abcdef0123456789abcdef").unwrap();
    Jobs {
        registrations: store.clone(),
        queue: store.clone(),
        mailbox: store.clone(),
        usage: push::usage::Meter::default(),
        secrets: watch::channel(secrets).1,
        endpoints: "https://push.example.com/push/".parse().unwrap(),
        lifetime: TimeDelta::days(7),
        mailbox_bounds: MailboxBounds { of_registration: 10, of_account: 10 },
        account_registrations_max: 10,
        clock: Clock::new(move || now),
        fence: Fence::open(),
        receipts: super::super::Receipts::default(),
        moves: 0.into(),
    }
}

fn push(now: DateTime<Utc>) -> PushMessage {
    testing::push(1, &testing::registration("alice@example.com/phone", now), now)
}

#[tokio::test]
async fn a_late_result_counts_though_the_answers_of_the_store_are_lost() {
    let accepted_at = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    for (seconds, expired) in [(30, false), (61, true)] {
        let (store, message) = (Store::default(), push(accepted_at));
        let (account, id) = (message.recipient.to_bare(), message.id);
        store.0.lock().unwrap().waiting.push(Waiting { message, asked_at: None });
        let jobs = jobs(&store, accepted_at + TimeDelta::seconds(seconds));
        let notes = jobs.settle(vec![Fate::Late(account.clone(), id)]).await;
        assert_eq!(notes, [Note::Late { account: account.clone(), id, accepted_at, expired }]);
        assert_eq!(store.0.lock().unwrap().waiting, []);
        assert_eq!(jobs.settle(vec![Fate::Late(account, id)]).await, [], "it waits no longer");
    }
}
