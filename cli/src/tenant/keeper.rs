//! The tenants while a server runs. The keeper reads the roster regularly, and puts it in force.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use push::ports::operator::change;
use push::ports::{TenantsWriter, Unavailable};
use push::tenant::Month;
use push::usage::{Meter, hour_of};
use push::{Clock, Roster, TenantName};
use relay::AccessList;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::quota;

/// Time between two reads of a table.
pub(crate) const OF_A_TABLE: Duration = Duration::from_secs(50);
/// Time between two reads of a database.
pub(crate) const OF_A_DATABASE: Duration = Duration::from_secs(2);
/// Delay before the next attempt to read the roster at the start.
const BEGIN_DELAY: Duration = Duration::from_secs(1);
/// Time after which the rows of suspended tenants are preserved again.
const KEEP_ROWS_AGAIN: TimeDelta = TimeDelta::days(1);

/// The keeper of the roster.
pub(crate) struct TenantKeeper<S> {
    store: S,
    interval: Duration,
    clock: Clock,
    /// The access list from files and variables.
    list: watch::Receiver<AccessList>,
    access: watch::Sender<AccessList>,
    roster: watch::Sender<Arc<Roster>>,
    meter: Meter,
    rows: Rows,
    /// True if the meter has the pushes that were accepted in this month before this process became the relay.
    knows_month: bool,
}

/// The tenants whose rows were preserved last.
#[derive(Default)]
struct Rows {
    suspended: Vec<TenantName>,
    kept_at: Option<DateTime<Utc>>,
    /// True if the rows have to be preserved once more, since a renewal under way may have been written afterwards.
    again: bool,
}

impl<S: TenantsWriter> TenantKeeper<S> {
    /// Reads the roster, with retries until it succeeds, and puts it in force.
    pub(crate) async fn begin(
        store: S,
        interval: Duration,
        list: watch::Receiver<AccessList>,
        clock: Clock,
        meter: Meter,
    ) -> Self {
        let roster = loop {
            match store.roster().await {
                Ok(roster) => break Arc::new(roster),
                Err(error) => tracing::error!(%error, "the tenants cannot be read; trying again"),
            }
            sleep(BEGIN_DELAY).await;
        };
        let access = list.borrow().clone().and_tenants(&roster);
        meter.set_tenants(roster.standings());
        let (access, roster) = (watch::Sender::new(access), watch::Sender::new(roster));
        Self {
            store,
            interval,
            clock,
            list,
            access,
            roster,
            meter,
            rows: Rows::default(),
            knows_month: false,
        }
    }

    /// Returns the access list, with the tenants.
    pub(crate) fn access(&self) -> watch::Receiver<AccessList> {
        self.access.subscribe()
    }

    /// Returns the roster.
    pub(crate) fn roster(&self) -> watch::Receiver<Arc<Roster>> {
        self.roster.subscribe()
    }

    /// Keeps the roster in force. While `is_active`, this process is the relay, and also does the work that only one
    /// process may do.
    pub(crate) async fn run(mut self, is_active: watch::Receiver<bool>) {
        let mut next = Instant::now() + self.interval;
        let mut changes = true;
        loop {
            tokio::select! {
                () = sleep_until(next) => {}
                changed = self.list.changed(), if changes => {
                    changes = changed.is_ok();
                    self.put_in_force();
                    continue;
                }
            }
            next = Instant::now() + self.interval;
            let is_active = *is_active.borrow();
            if let Err(error) = self.look(is_active).await {
                tracing::error!(%error, "the tenants could not be read or changed; what was known of them holds");
            }
        }
    }

    async fn look(&mut self, is_active: bool) -> Result<(), Unavailable> {
        self.take(self.store.roster().await?);
        if !is_active {
            self.knows_month = false;
            return Ok(());
        }
        self.judge().await?;
        self.preserve_rows().await
    }

    /// Marks tenants that have used up their month, so that their senders have to wait, and reports quotas that are
    /// used up, or nearly.
    async fn judge(&mut self) -> Result<(), Unavailable> {
        let now = self.clock.now();
        let month = Month::of(now);
        self.meter.note_peaks(now);
        if !self.knows_month && self.roster.borrow().tenants.iter().len() > 0 {
            let stored = self.store.usage(hour_of(month.start()), hour_of(month.end())).await?;
            self.meter.begin_month(month, &stored);
            self.knows_month = true;
        }
        let mut roster = Roster::clone(&self.roster.borrow());
        quota::judge(&mut roster, &self.meter, now);
        if roster != **self.roster.borrow() {
            let events = change(&self.store, |roster| quota::judge(roster, &self.meter, now)).await?;
            events.into_iter().for_each(quota::tell);
            self.take(self.store.roster().await?);
        }
        Ok(())
    }

    fn take(&self, roster: Roster) {
        if roster == **self.roster.borrow() {
            return;
        }
        tracing::debug!(version = roster.version, "the tenants have changed");
        self.roster.send_replace(Arc::new(roster));
        self.put_in_force();
    }

    fn put_in_force(&self) {
        let roster = Arc::clone(&self.roster.borrow());
        self.meter.set_tenants(roster.standings());
        let access = self.list.borrow().clone().and_tenants(&roster);
        self.access.send_if_modified(|known| {
            let differ = *known != access;
            *known = access;
            differ
        });
    }

    /// Makes the store keep the rows of suspended tenants, and of no others.
    async fn preserve_rows(&mut self) -> Result<(), Unavailable> {
        let (roster, now) = (Arc::clone(&self.roster.borrow()), self.clock.now());
        let suspended: Vec<TenantName> = roster.suspended().cloned().collect();
        if suspended.is_empty() && !roster.keeps_rows {
            self.rows = Rows::default();
            return Ok(());
        }
        let differ = suspended != self.rows.suspended;
        let stale = self.rows.kept_at.is_none_or(|at| now - at >= KEEP_ROWS_AGAIN);
        if !differ && !stale && !self.rows.again {
            return Ok(());
        }
        if !roster.keeps_rows {
            // The flag is set first, so that after a crash the rows are still released some day.
            change(&self.store, |roster| roster.keeps_rows = true).await?;
        }
        self.store.preserve_rows(&roster, now).await?;
        tracing::info!(
            tenants = suspended.len(),
            "the registrations of suspended tenants are kept, and no others"
        );
        if suspended.is_empty() {
            let release = |roster: &mut Roster| {
                let is_over = roster.suspended().next().is_none();
                roster.keeps_rows = !is_over;
            };
            change(&self.store, release).await?;
        }
        self.rows = Rows { again: differ || stale, suspended, kept_at: Some(now) };
        Ok(())
    }
}
