//! Candidates on a store in memory, in paused time.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    rules::{LEASE, MARGIN},
    *,
};

const ROMEO: Holder = Holder([1; 16]);
const JULIET: Holder = Holder([2; 16]);
/// Time after which a candidate that is not elected waits for another.
const SOON: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Answers,
    /// Refuses each call, and does nothing.
    Fails,
    /// Never answers.
    Hangs,
    /// Takes the lease, and loses the answer.
    LosesAnswers,
}

#[derive(Debug, Clone, Default)]
struct Store(Arc<Mutex<(Option<Tenure>, Mood)>>);

impl Store {
    fn set(&self, mood: Mood) {
        self.0.lock().unwrap().1 = mood;
    }

    fn count(&self) -> u64 {
        self.0.lock().unwrap().0.map_or(0, |tenure| tenure.count)
    }

    fn holder(&self) -> Option<Holder> {
        self.0.lock().unwrap().0.and_then(|tenure| tenure.holder)
    }

    /// Gives the lease to another, as its own candidate would.
    fn give(&self, holder: Holder) {
        let mut inside = self.0.lock().unwrap();
        let count = inside.0.map_or(0, |tenure| tenure.count) + 1;
        inside.0 = Some(Tenure { holder: Some(holder), count });
    }

    async fn answer<T>(&self, act: impl FnOnce(&mut Option<Tenure>) -> T) -> Result<T, Unavailable> {
        let mood = self.0.lock().unwrap().1;
        match mood {
            Mood::Answers => Ok(act(&mut self.0.lock().unwrap().0)),
            Mood::Fails => Err(Unavailable::new("the store is away")),
            Mood::Hangs => std::future::pending().await,
            Mood::LosesAnswers => {
                act(&mut self.0.lock().unwrap().0);
                Err(Unavailable::new("the answer is lost"))
            }
        }
    }
}

impl Lease for Store {
    async fn look(&self) -> Result<Option<Tenure>, Unavailable> {
        self.answer(|tenure| *tenure).await
    }

    async fn take(&self, holder: Holder, seen: Option<Tenure>) -> Result<Option<Tenure>, Unavailable> {
        self.answer(|tenure| {
            if *tenure != seen {
                return None;
            }
            *tenure = Some(Tenure { holder: Some(holder), count: seen.map_or(0, |seen| seen.count) + 1 });
            *tenure
        })
        .await
    }

    async fn release(&self, holder: Holder) -> Result<(), Unavailable> {
        self.answer(|tenure| {
            if let Some(tenure) = tenure.as_mut().filter(|tenure| tenure.holder == Some(holder)) {
                *tenure = Tenure { holder: None, count: tenure.count + 1 };
            }
        })
        .await
    }
}

/// Tokio's clock, and the time for which the machine was suspended.
#[derive(Debug, Clone)]
struct Machine {
    start: Instant,
    suspended_secs: Arc<AtomicU64>,
}

impl Machine {
    fn new() -> Self {
        Self { start: Instant::now(), suspended_secs: Arc::default() }
    }

    fn suspend(&self, secs: u64) {
        self.suspended_secs.fetch_add(secs, Ordering::Relaxed);
    }

    fn uptime(&self) -> Uptime {
        let machine = self.clone();
        Uptime::new(move || {
            machine.start.elapsed() + Duration::from_secs(machine.suspended_secs.load(Ordering::Relaxed))
        })
    }
}

fn candidate(store: &Store, holder: Holder, machine: &Machine) -> Candidate<Store> {
    Candidate::new(store.clone(), holder, machine.uptime())
}

/// Starts an active relay. Returns its fence, and the task of its renewals.
async fn active(store: &Store, machine: &Machine) -> (Fence, JoinHandle<()>) {
    let candidate = candidate(store, ROMEO, machine);
    let held = timeout(SOON, candidate.elected(|| {})).await.expect("the lease is free");
    let fence = held.fence();
    (fence, tokio::spawn(async move { candidate.hold(held).await }))
}

#[tokio::test(start_paused = true)]
async fn a_free_lease_is_taken_without_waiting() {
    let (store, machine) = (Store::default(), Machine::new());
    let mut waited = false;
    let held = candidate(&store, ROMEO, &machine).elected(|| waited = true).await;
    assert!(held.fence().holds() && !waited);
    assert_eq!((store.holder(), machine.start.elapsed()), (Some(ROMEO), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_holder_keeps_its_lease_and_another_is_told_once_that_it_waits() {
    let (store, machine) = (Store::default(), Machine::new());
    let (fence, renewing) = active(&store, &machine).await;
    let mut told = 0;
    let other = candidate(&store, JULIET, &machine);
    timeout(10 * LEASE, other.elected(|| told += 1)).await.expect_err("the holder lives");
    assert_eq!((told, store.holder()), (1, Some(ROMEO)));
    assert!(fence.holds() && !renewing.is_finished() && store.count() > 10);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_stands_still_for_its_time_is_taken_over() {
    let (store, machine) = (Store::default(), Machine::new());
    let (fence, renewing) = active(&store, &machine).await;
    renewing.abort();
    let other = candidate(&store, JULIET, &machine);
    let held = timeout(2 * LEASE, other.elected(|| {})).await.expect("the holder is dead");
    assert!(machine.start.elapsed() >= LEASE);
    assert!(held.fence().holds() && !fence.holds());
}

#[tokio::test(start_paused = true)]
async fn a_holder_without_its_store_stops_before_another_may_take_over() {
    for mood in [Mood::Fails, Mood::Hangs] {
        let (store, machine) = (Store::default(), Machine::new());
        let (fence, renewing) = active(&store, &machine).await;
        store.set(mood);
        timeout(2 * LEASE, renewing).await.expect("it gives up").unwrap();
        assert_eq!(machine.start.elapsed(), LEASE - MARGIN, "{mood:?}");
        assert!(fence.is_lost() && !fence.holds());
        fence.lost().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_goes_on_when_its_store_answers_again_in_time() {
    for mood in [Mood::Fails, Mood::LosesAnswers] {
        let (store, machine) = (Store::default(), Machine::new());
        let (fence, renewing) = active(&store, &machine).await;
        sleep(Duration::from_secs(3)).await;
        store.set(mood);
        sleep(Duration::from_secs(5)).await;
        store.set(Mood::Answers);
        sleep(2 * LEASE).await;
        assert!(fence.holds() && !renewing.is_finished(), "{mood:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_lease_another_took_stops_at_its_next_renewal() {
    let (store, machine) = (Store::default(), Machine::new());
    let (fence, renewing) = active(&store, &machine).await;
    sleep(Duration::from_secs(1)).await;
    store.give(JULIET);
    timeout(SOON, renewing).await.expect("it gives up").unwrap();
    assert!(fence.is_lost());
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_wakes_from_a_suspension_sends_nothing_before_it_has_the_lease_again() {
    let (store, machine) = (Store::default(), Machine::new());
    let (fence, renewing) = active(&store, &machine).await;
    sleep(Duration::from_secs(1)).await;
    machine.suspend(60);
    assert!(!fence.holds(), "at once, before any timer has run");
    timeout(SOON, renewing).await.expect("it gives up").unwrap();
    assert!(fence.is_lost());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_given_back_is_free_at_once() {
    let (store, machine) = (Store::default(), Machine::new());
    let romeo = candidate(&store, ROMEO, &machine);
    romeo.elected(|| {}).await;
    store.set(Mood::Fails);
    romeo.resign().await;
    assert_eq!(store.holder(), Some(ROMEO));
    store.set(Mood::Answers);
    romeo.resign().await;
    assert_eq!(store.holder(), None);
    timeout(SOON, candidate(&store, JULIET, &machine).elected(|| {})).await.expect("the lease is free");
    romeo.resign().await;
    assert_eq!(store.holder(), Some(JULIET), "who has it no more gives back nothing");
}

#[tokio::test(start_paused = true)]
async fn a_candidate_waits_for_a_store_that_does_not_answer() {
    let (store, machine) = (Store::default(), Machine::new());
    store.set(Mood::Fails);
    let romeo = candidate(&store, ROMEO, &machine);
    let mut told = false;
    timeout(LEASE, romeo.elected(|| told = true)).await.expect_err("no store");
    assert!(!told, "nobody is known to have it");
    store.set(Mood::Answers);
    timeout(SOON, romeo.elected(|| {})).await.expect("the lease is free");
}

#[tokio::test(start_paused = true)]
async fn a_fence_of_a_relay_that_has_its_store_for_itself_always_holds() {
    let fence = Fence::open();
    assert!(fence.holds() && !fence.is_lost());
    timeout(10 * LEASE, fence.lost()).await.expect_err("it is never lost");
}
