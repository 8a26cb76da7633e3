//! Keeps the marker of the registrations' store: which secrets are in use, and until when its rows are complete.

use std::time::Duration;

use backon::Retryable;
use push::{
    Marker,
    marker::{Keys, Misfit},
    ports::{Markers, Unavailable},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    backoff::{backoff, report},
    clock::Clock,
};

/// How often it is noted that the rows are complete. What was registered since and lost with a table is in doubt all
/// the same: an epoch later than the last that is noted.
const NOTE_INTERVAL: Duration = Duration::from_secs(600);

/// What a store that does not answer is given before it is asked again.
const BEGIN_DELAY: Duration = Duration::from_secs(1);

/// Why a relay does not begin to use a store.
#[derive(Debug, thiserror::Error)]
pub enum CannotBegin {
    /// Its secrets or its table are not those that the marker tells of.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// See the module.
#[derive(Debug, Clone)]
pub struct MarkerKeeper<S> {
    /// The registrations' store.
    pub store: S,
    /// Which table it is, where a name is given to it.
    pub table: Option<String>,
    /// The fingerprints of the secrets in use, at any time.
    pub keys: watch::Receiver<Keys>,
    /// The wall clock.
    pub clock: Clock,
}

impl<S: Markers> MarkerKeeper<S> {
    /// Makes sure that this relay has the secret that signs, and the table that the marker is of. Changes nothing.
    ///
    /// # Errors
    /// [`CannotBegin`].
    pub async fn check(&self) -> Result<(), CannotBegin> {
        let found = self.store.marker().await?;
        let keys = self.keys.borrow().clone();
        found.map_or(Ok(()), |found| found.admit(&keys, self.table.as_deref())).map_err(CannotBegin::from)
    }

    /// Begins a time of being the relay. Nothing may be registered before.
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

    /// The same, for as long as it takes.
    pub async fn begin_patiently(&mut self) -> Marker {
        loop {
            match self.begin().await {
                Ok(marker) => return marker,
                Err(error) => report(&error, BEGIN_DELAY),
            }
            sleep(BEGIN_DELAY).await;
        }
    }

    /// Keeps the marker that was begun, for as long as it runs: at each change of the secrets, and every ten minutes.
    pub async fn keep(mut self, mut marker: Marker) {
        let mut next = Instant::now() + NOTE_INTERVAL;
        let mut changes = true;
        loop {
            tokio::select! {
                () = sleep_until(next) => {}
                changed = self.keys.changed(), if changes => changes = changed.is_ok(),
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use chrono::DateTime;
    use push::{Epoch, Fingerprint, marker::Doubt};

    use super::*;

    #[derive(Clone, Default)]
    struct Store(Arc<Mutex<Option<Marker>>>);

    impl Markers for Store {
        async fn marker(&self) -> Result<Option<Marker>, Unavailable> {
            Ok(self.0.lock().unwrap().clone())
        }

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
        MarkerKeeper { store: store.clone(), table: None, keys: keys.subscribe(), clock }
    }

    #[tokio::test(start_paused = true)]
    async fn the_marker_follows_the_secrets_at_once_and_the_time_in_steps() {
        let (store, start) = (Store::default(), Instant::now());
        let sender = watch::Sender::new(keys(&["a"]));
        let mut first = keeper(&store, &sender, start);
        first.check().await.unwrap();
        let marker = first.begin().await.unwrap();
        let keeping = tokio::spawn(first.keep(marker));
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
}
