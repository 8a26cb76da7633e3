//! The clock of `serve`: the machine's, unless it has jumped.
//!
//! A clock that is wrong for an hour must end nothing for good. The database keeps the last trusted time, and a
//! monotonic clock measures the time since. While the machine's clock differs from their sum by more than
//! [`rules::AGREEMENT`], the clock is in doubt, and a [`Reading`] has both times.

mod rules;
mod sources;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use embedded::{Database, KnownTime};
use parking_lot::Mutex;
use push::{Clock, Reading};
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use self::rules::{Change, Rules};
pub(crate) use self::sources::Sources;
use crate::clock::{self, acceptance};

/// Time between two checks of the clock.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two writes of the time to the database. A crash loses far less than the difference that clocks may
/// have.
const NOTE_INTERVAL: Duration = Duration::from_secs(600);
/// Time after which the log repeats that the clock is in doubt.
const SAY_INTERVAL: Duration = Duration::from_secs(600);

/// The keeper of the clock.
pub(crate) struct Timekeeper {
    database: Database,
    sources: Sources,
    rules: Arc<Mutex<Rules>>,
    /// The file that `upwire clock accept` writes.
    acceptance: PathBuf,
    said: Option<Instant>,
}

impl Timekeeper {
    /// Begins with the time that the database has.
    pub(crate) async fn begin(database: Database, sources: Sources) -> anyhow::Result<Self> {
        let known = database.known_time()?;
        let rules = Arc::new(Mutex::new(Rules::begin(known.as_ref(), &sources.look())));
        let acceptance = acceptance(database.path());
        let mut timekeeper = Self { database, sources, rules, acceptance, said: None };
        timekeeper.look().await;
        let reading = timekeeper.clock().read();
        if !reading.is_in_doubt() {
            timekeeper.hasten(reading.now).await;
            timekeeper.note().await;
        }
        Ok(timekeeper)
    }

    /// Returns the clock for all parts of the server.
    pub(crate) fn clock(&self) -> Clock {
        let (sources, rules) = (self.sources.clone(), self.rules.clone());
        Clock::guarded(move || rules.lock().read(sources.wall(), sources.uptime()))
    }

    /// Watches the clock until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut looks = interval(LOOK_INTERVAL);
        let mut noted = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = looks.tick() => {}
            }
            if self.look().await || noted.elapsed() >= NOTE_INTERVAL {
                noted = Instant::now();
                self.note().await;
            }
        }
        self.note().await;
        Ok(())
    }

    /// Checks the clock. Returns whether its trust has changed.
    async fn look(&mut self) -> bool {
        let look = self.sources.look();
        let accepted = self.take_acceptance(look.wall);
        let change = self.rules.lock().look(&look, accepted);
        let reading = self.rules.lock().read(look.wall, look.uptime);
        clock::show(reading.is_in_doubt());
        match change {
            Some(Change::Trusted) => {
                self.said = None;
                tracing::info!(now = %look.wall, "the machine's clock is trusted again");
                self.hasten(look.wall).await;
            }
            None if reading.is_in_doubt() => self.say(reading, look.is_synchronized),
            None if accepted => {
                tracing::info!(now = %look.wall, "the machine's clock was trusted before `upwire clock accept`");
            }
            None => {}
        }
        change.is_some()
    }

    fn say(&mut self, Reading { now, wall }: Reading, is_synchronized: Option<bool>) {
        if self.said.is_some_and(|said| said.elapsed() < SAY_INTERVAL) {
            return;
        }
        self.said = Some(Instant::now());
        let synchronized = match is_synchronized {
            Some(true) => "it is synchronized, and is believed once it has held for ten minutes",
            Some(false) => "it is not synchronized: set it right (timedatectl), and it is believed",
            None => {
                "whether it is synchronized is not to be known here (ProtectClock= in a unit, or no Linux)"
            }
        };
        tracing::error!(
            clock = %wall,
            expected = %now,
            "this machine's clock is more than an hour from the last known time and what has passed since: until it is \
             right, no endpoint ends, no push expires, and registrations are asked to wait; {synchronized}; if it is right \
             now, `upwire clock accept` says so"
        );
    }

    async fn note(&self) {
        let (wall, uptime) = (self.sources.wall(), self.sources.uptime());
        let now = self.rules.lock().read(wall, uptime).now;
        let known = KnownTime { wall: now, uptime, boot: self.sources.boot().to_owned() };
        if let Err(error) = self.database.note_time(&known).await {
            tracing::warn!(%error, "the time could not be noted");
        }
    }

    async fn hasten(&self, now: DateTime<Utc>) {
        match self.database.hasten(now).await {
            Ok(0) => {}
            Ok(pushes) => tracing::info!(pushes, "pushes that a wrong clock had put off are due"),
            Err(error) => tracing::warn!(%error, "pushes that a wrong clock has put off stay so"),
        }
    }

    /// Returns whether an operator has accepted the machine's clock, and removes the file that says so.
    fn take_acceptance(&self, wall: DateTime<Utc>) -> bool {
        let Ok(text) = std::fs::read_to_string(&self.acceptance) else { return false };
        let _ = std::fs::remove_file(&self.acceptance);
        let said_at = text.trim().parse().ok().and_then(DateTime::from_timestamp_millis);
        // An old file, left while no server ran, says nothing about the clock now.
        said_at.is_some_and(|said_at| (wall - said_at).abs() < rules::AGREEMENT)
    }
}

#[cfg(test)]
mod tests;
