//! Settling on a store whose answers are lost after it has done what was asked, or which has trouble with one account.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use push::{
    Body, Clock, Epoch, Instance, MailboxBounds, Registration, Secrets, Target,
    ports::{
        Account, Accounts, Delivery, Page, Registered, Registrant, Registrations, RelayRegistrations,
        Renewal, Seen, Trimmed, Withdrawals,
    },
    testing,
};
use tokio::{
    sync::watch,
    time::{Duration, Instant, sleep, timeout},
};

use super::{
    spared::{CHANGED_WITHIN, REST_FACTOR, REST_MIN, SLOW_FOR, WITHIN},
    *,
};
use crate::lease::Fence;

/// A mailbox that loses the answer to each call but every second one, if it loses any.
#[derive(Debug, Clone, Default)]
struct Store(Arc<Mutex<Inside>>);

#[derive(Debug, Default)]
struct Inside {
    waiting: Vec<Waiting>,
    /// Whether the last answer was lost.
    lost: bool,
    loses_none: bool,
    trouble: Option<(BareJid, Trouble)>,
    rows: Vec<Registration>,
    /// Pushes that are being kept, and the most that ever were.
    keeping: (usize, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
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

    fn reliable(waiting: Vec<Waiting>, rows: Vec<Registration>) -> Self {
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
        {
            let (now, most) = &mut self.0.lock().unwrap().keeping;
            *now += 1;
            *most = (*most).max(*now);
        }
        sleep(Duration::from_millis(10)).await;
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
        spared: super::super::Spared::default(),
    }
}

fn registration(user: &str, instance: u8, now: DateTime<Utc>) -> Registration {
    let target = Target {
        instance: Instance::from_bytes([instance; 32]),
        ..testing::target(&format!("{user}@example.com/phone"))
    };
    Registration::renew(None, target, now, testing::WEEK)
}

fn push(now: DateTime<Utc>) -> PushMessage {
    push_for(&registration("alice", 1, now), now)
}

fn push_for(registration: &Registration, now: DateTime<Utc>) -> PushMessage {
    let mut chance = [0; MessageId::CHANCE_BYTES];
    chance.copy_from_slice(&registration.target.registration_id().as_bytes()[..MessageId::CHANCE_BYTES]);
    PushMessage::new(chance, registration, testing::wishes(60), Body::from_bytes(b"x"), now)
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

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn an_account_with_which_the_store_has_trouble_holds_up_no_other() {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    for trouble in [Trouble::Refuses, Trouble::Hangs] {
        let [alice, bob] = ["alice", "bob"]
            .map(|user| [1, 2].map(|instance| Arc::new(push_for(&registration(user, instance, now), now))));
        let pushes = alice.iter().chain(&bob);
        let wait = pushes.map(|push| Waiting { message: PushMessage::clone(push), asked_at: None });
        let store = Store::reliable(wait.collect(), Vec::new());
        store.0.lock().unwrap().trouble = Some((alice[0].recipient.to_bare(), trouble));
        let jobs = jobs(&store, now);
        let fates = |[over, asked]: &[Arc<PushMessage>; 2]| {
            let held = Held { origin: Origin::Mailbox, message: Arc::clone(over) };
            [Fate::Done(held), Fate::Asked { message: Arc::clone(asked), asked_at: now }]
        };
        let left = |of: &[Arc<PushMessage>; 2]| {
            let inside = store.0.lock().unwrap();
            let own = inside.waiting.iter().filter(|one| one.message.recipient == of[0].recipient);
            own.map(|one| (one.message.id, one.asked_at)).collect::<Vec<_>>()
        };
        let settled =
            timeout(SOON, jobs.settle(fates(&alice).into_iter().chain(fates(&bob)).collect())).await;
        assert_eq!(settled.expect("the batch is not held up"), []);
        assert_eq!(left(&bob), [(bob[1].id, Some(now))]);
        assert_eq!(left(&alice).len(), 2);
        assert_eq!(timeout(SOON, jobs.settle(fates(&alice).into())).await.expect("nor the next"), []);

        // The removal holds, whatever was noted of the push since.
        let asked = Fate::Asked { message: Arc::clone(&alice[0]), asked_at: now };
        jobs.settle(vec![asked]).await;
        store.0.lock().unwrap().trouble = None;
        let done = async {
            while left(&alice) != [(alice[1].id, Some(now))] {
                sleep(Duration::from_secs(1)).await;
            }
        };
        timeout(2 * SOON, done).await.expect("what was put off is done");
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_whose_changes_are_slow_costs_the_others_a_twentieth_of_their_time() {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let [slow, other] = ["alice", "bob"].map(|user| Arc::new(push_for(&registration(user, 1, now), now)));
    let store = Store::reliable(Vec::new(), Vec::new());
    store.0.lock().unwrap().trouble = Some((slow.recipient.to_bare(), Trouble::Hangs));
    let jobs = jobs(&store, now);
    let over =
        |push: &Arc<PushMessage>| Fate::Done(Held { origin: Origin::Mailbox, message: Arc::clone(push) });
    let begun = Instant::now();
    let mut held_up = Duration::ZERO;
    while begun.elapsed() < 10 * SLOW_FOR {
        let batch = Instant::now();
        jobs.settle(vec![over(&slow), over(&other)]).await;
        held_up += batch.elapsed();
        sleep(CHANGED_WITHIN).await;
    }
    assert!(held_up > Duration::ZERO && held_up <= SLOW_FOR / 2, "{held_up:?}");
}

#[tokio::test]
async fn without_the_lease_nothing_is_kept() {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let row = registration("alice", 1, now);
    let keep = Fate::Keep {
        message: Arc::new(push_for(&row, now)),
        target: row.target.recipient.clone(),
        asked_at: None,
        untried: false,
    };
    for (fence, kept) in [(Fence::lost_before(), 0), (Fence::open(), 1)] {
        let store = Store::reliable(Vec::new(), vec![row.clone()]);
        let jobs = Jobs { fence, ..jobs(&store, now) };
        assert_eq!(jobs.settle(vec![keep.clone()]).await.len(), kept);
        assert_eq!(store.0.lock().unwrap().waiting.len(), kept);
    }
}

#[tokio::test(start_paused = true)]
async fn of_one_account_few_pushes_are_written_at_a_time_and_after_a_failure_none_for_a_while() {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let rows: Vec<_> = (0..100).map(|instance| registration("alice", instance, now)).collect();
    let fates = || -> Vec<_> {
        let keep = |row: &Registration| Fate::Keep {
            message: Arc::new(push_for(row, now)),
            target: row.target.recipient.clone(),
            asked_at: None,
            untried: false,
        };
        rows.iter().map(keep).collect()
    };
    let store = Store::reliable(Vec::new(), rows.clone());
    let jobs = jobs(&store, now);
    assert_eq!(jobs.settle(fates()).await.len(), rows.len());
    assert_eq!(store.0.lock().unwrap().keeping, (0, 8));

    for (trouble, rest) in [(Trouble::Refuses, REST_MIN), (Trouble::Hangs, REST_FACTOR * WITHIN)] {
        store.0.lock().unwrap().trouble = Some((rows[0].target.recipient.to_bare(), trouble));
        assert_eq!(jobs.settle(fates()).await, []);
        store.0.lock().unwrap().trouble = None;
        sleep(rest - Duration::from_millis(10)).await;
        assert_eq!(jobs.settle(fates()).await, [], "it rests");
        sleep(Duration::from_millis(20)).await;
        assert_eq!(jobs.settle(fates()).await.len(), rows.len());
    }
}
