//! Keeps the marker of the registrations' store: which secrets are in use, and until when its rows are complete.

use std::time::Duration;

use backon::Retryable;
use push::{
    Clock, Marker, Urgency,
    marker::{Keys, Misfit},
    ports::{MarkerWriter, Unavailable},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    backlog::Backlog,
    backoff::{backoff, report},
};

/// Time between two notes that the rows are complete. A registration that is made after the last note, and lost with
/// its table, is in doubt all the same: its epoch is later than that note.
const NOTE_INTERVAL: Duration = Duration::from_secs(600);

/// Time between two checks of the backlog.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which senders are asked again, as long as load is shed. It ends before the last request does by itself
/// ([`SHED_FOR`]).
///
/// [`SHED_FOR`]: push::marker::SHED_FOR
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// Multiple of `Shedding::after` beyond which pushes of normal urgency are held back, too.
const NORMAL_TOO: u32 = 4;
/// Delay before a store that does not answer is asked again.
const BEGIN_DELAY: Duration = Duration::from_secs(1);

/// Why a relay does not begin to use a store.
#[derive(Debug, thiserror::Error)]
pub enum CannotBegin {
    /// The relay's secrets or table are not those of the marker.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Keeps the marker of the registrations' store.
#[derive(Debug, Clone)]
pub struct MarkerKeeper<S> {
    /// The registrations' store.
    pub store: S,
    /// The name of the table, if it was given one.
    pub table: Option<String>,
    /// The fingerprints of the secrets in use, at any time.
    pub keys: watch::Receiver<Keys>,
    /// The wall clock.
    pub clock: Clock,
    /// The terms on which senders are asked to hold pushes back; `None`: they are not asked.
    pub shedding: Option<Shedding>,
}

/// The terms on which senders are asked to hold pushes back.
#[derive(Debug, Clone)]
pub struct Shedding {
    /// The backlog that the relay works on.
    pub backlog: Backlog,
    /// True while there is a stream. Without one, senders are not asked, and the queue keeps all pushes.
    pub connected: watch::Receiver<bool>,
    /// Age of the backlog beyond which the least urgent pushes are held back.
    pub after: Duration,
}

impl Shedding {
    /// Returns the urgency up to which pushes are to be held back now, if any.
    fn urgency(&self) -> Option<Urgency> {
        if !*self.connected.borrow() {
            self.backlog.rest();
            return None;
        }
        match self.backlog.peak() {
            age if age > self.after * NORMAL_TOO => Some(Urgency::Normal),
            age if age > self.after => Some(Urgency::Low),
            _ => None,
        }
    }
}

impl<S: MarkerWriter> MarkerKeeper<S> {
    /// Checks that this relay has the secret that signs, and that the marker is of its table. Changes nothing.
    ///
    /// # Errors
    /// [`CannotBegin`].
    pub async fn check(&self) -> Result<(), CannotBegin> {
        let found = self.store.marker().await?;
        let keys = self.keys.borrow().clone();
        found.map_or(Ok(()), |found| found.admit(&keys, self.table.as_deref())).map_err(CannotBegin::from)
    }

    /// Begins a term as the relay. Nothing may be registered before.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn begin(&mut self) -> Result<Marker, Unavailable> {
        let keys = self.keys.borrow_and_update().clone();
        let found = self.store.marker().await?;
        let marker = Marker::begin(found.as_ref(), keys, self.table.clone(), self.clock.now());
        self.store.set_marker(&marker).await?;
        Ok(marker)
    }

    /// Begins a term, and repeats failed calls until it has begun.
    pub async fn begin_patiently(&mut self) -> Marker {
        loop {
            match self.begin().await {
                Ok(marker) => return marker,
                Err(error) => report(&error, BEGIN_DELAY),
            }
            sleep(BEGIN_DELAY).await;
        }
    }

    /// Keeps the marker that was begun, for as long as it runs: writes it at each change of the secrets, when load is
    /// to be shed, and every ten minutes.
    pub async fn run(mut self, mut marker: Marker) {
        let mut next = Instant::now() + NOTE_INTERVAL;
        let mut shed = Shed::default();
        let mut changes = true;
        loop {
            let look = self.shedding.is_some().then(|| Instant::now() + LOOK_INTERVAL);
            tokio::select! {
                () = sleep_until(look.map_or(next, |look| look.min(next))) => {}
                changed = self.keys.changed(), if changes => {
                    changes = changed.is_ok();
                    next = Instant::now();
                }
            }
            if let Some(urgency) = shed.ask(self.shedding.as_ref().and_then(Shedding::urgency)) {
                marker.shed(urgency, self.clock.now());
                next = Instant::now();
            }
            if Instant::now() < next {
                continue;
            }
            marker.note(self.keys.borrow_and_update().clone(), self.clock.now());
            let noted = (|| self.store.set_marker(&marker)).retry(backoff()).notify(report).await;
            if let Err(error) = noted {
                report(&error, Duration::ZERO);
            }
            next = Instant::now() + NOTE_INTERVAL;
        }
    }
}

/// The last request to senders.
#[derive(Debug, Default)]
struct Shed(Option<(Urgency, Instant)>);

impl Shed {
    /// Returns the next request to senders, if any. A request is repeated from time to time, and is made at once if it
    /// is for more.
    fn ask(&mut self, urgency: Option<Urgency>) -> Option<Urgency> {
        let Some(urgency) = urgency else {
            // The request ends by itself.
            if self.0.is_some_and(|(_, at)| at.elapsed() > ASK_AGAIN) {
                self.0 = None;
                tracing::info!("the relay has caught up: senders are not asked to keep pushes back any more");
            }
            return None;
        };
        let asked = self.0.filter(|(asked, at)| urgency <= *asked && at.elapsed() < ASK_AGAIN);
        if asked.is_some() {
            return None;
        }
        if self.0.is_none_or(|(asked, _)| urgency > asked) {
            tracing::warn!(
                ?urgency,
                "the relay is behind: senders are asked to keep pushes of that urgency and less back"
            );
        }
        self.0 = Some((urgency, Instant::now()));
        Some(urgency)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use chrono::DateTime;
    use push::{Epoch, Fingerprint, marker::Doubt, ports::Markers};

    use super::*;

    #[derive(Clone, Default)]
    struct Store(Arc<Mutex<Option<Marker>>>);

    impl Markers for Store {
        async fn marker(&self) -> Result<Option<Marker>, Unavailable> {
            Ok(self.0.lock().unwrap().clone())
        }
    }

    impl MarkerWriter for Store {
        async fn set_marker(&self, marker: &Marker) -> Result<(), Unavailable> {
            *self.0.lock().unwrap() = Some(marker.clone());
            Ok(())
        }
    }

    fn keys(secrets: &[&str]) -> Keys {
        let secrets = secrets.iter().map(|secret| Fingerprint::of(secret.as_bytes())).collect();
        Keys { secrets, ..Keys::default() }
    }

    fn keeper(store: &Store, keys: &watch::Sender<Keys>, start: Instant) -> MarkerKeeper<Store> {
        let clock = Clock::new(move || DateTime::UNIX_EPOCH + start.elapsed());
        MarkerKeeper { store: store.clone(), table: None, keys: keys.subscribe(), clock, shedding: None }
    }

    #[tokio::test(start_paused = true)]
    async fn the_marker_follows_the_secrets_at_once_and_the_time_in_steps() {
        let (store, start) = (Store::default(), Instant::now());
        let sender = watch::Sender::new(keys(&["a"]));
        let mut first = keeper(&store, &sender, start);
        first.check().await.unwrap();
        let marker = first.begin().await.unwrap();
        let keeping = tokio::spawn(first.run(marker));
        let now = || store.0.lock().unwrap().clone().unwrap();
        assert_eq!(now().vouch(&keys(&["a"]), None), Ok(()));

        sender.send_replace(keys(&["b", "a"]));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(now().vouch(&keys(&["a"]), None), Err(Doubt::Secrets));

        let wall = DateTime::UNIX_EPOCH + Duration::from_secs(700);
        assert_eq!(now().vouch_over(Epoch::from_seconds(500), None, wall), Err(Doubt::Restored));
        tokio::time::sleep(Duration::from_secs(601)).await;
        assert_eq!(now().vouch_over(Epoch::from_seconds(500), None, wall), Ok(()));

        keeping.abort();
        let lacking = keeper(&store, &watch::Sender::new(keys(&["a", "c"])), start);
        assert!(matches!(lacking.check().await, Err(CannotBegin::Misfit(Misfit::Secrets))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_that_is_behind_asks_again_and_again_until_it_has_caught_up() {
        let (store, start) = (Store::default(), Instant::now());
        let backlog = Backlog::new(Clock::system());
        let (connected, after) = (watch::Sender::new(false), Duration::from_secs(100));
        let shedding = Shedding { backlog: backlog.clone(), connected: connected.subscribe(), after };
        let sender = watch::Sender::new(keys(&["a"]));
        let mut keeper = MarkerKeeper { shedding: Some(shedding), ..keeper(&store, &sender, start) };
        let marker = keeper.begin().await.unwrap();
        let keeping = tokio::spawn(keeper.run(marker));
        let sheds = |urgency| {
            let marker = store.0.lock().unwrap().clone().unwrap();
            marker.shed_for(urgency, DateTime::UNIX_EPOCH + start.elapsed()).is_some()
        };
        let later = async |seconds| tokio::time::sleep(Duration::from_secs(seconds)).await;

        // The relay has no room for more from now on.
        backlog.note(Duration::ZERO, false);
        later(110).await;
        assert!(!sheds(Urgency::VeryLow), "there is no stream");
        connected.send_replace(true);
        later(90).await;
        assert!(!sheds(Urgency::VeryLow), "that time does not count");
        later(20).await;
        assert!(sheds(Urgency::Low) && !sheds(Urgency::Normal));
        later(200).await;
        assert!(sheds(Urgency::Low), "it asks again");
        later(100).await;
        assert!(sheds(Urgency::Normal) && !sheds(Urgency::High));
        backlog.note(Duration::ZERO, true);
        later(100).await;
        assert!(!sheds(Urgency::VeryLow), "it ends by itself");
        keeping.abort();
    }
}
