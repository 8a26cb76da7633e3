//! The marker, as an ingress caches it between requests.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use push::{Marker, marker::Doubt};

/// Time for which a marker that disagrees is not read again. Short, since an operator may be correcting the deployment.
const DISTRUST: TimeDelta = TimeDelta::seconds(5);

/// The marker, as an ingress caches it. Clones share the cache.
#[derive(Debug, Clone, Default)]
pub struct MarkerWatch {
    pub(crate) table: Option<Arc<str>>,
    known: Arc<Mutex<Option<Known>>>,
}

#[derive(Debug, Clone)]
struct Known {
    read_at: DateTime<Utc>,
    /// The marker, if it agrees with this ingress.
    marker: Result<Arc<Marker>, Doubt>,
    /// True if a doubt about an endpoint was logged since the marker was read.
    told: bool,
}

impl MarkerWatch {
    /// Makes the cache of an ingress whose table has this id; `None`: any id.
    #[must_use]
    pub fn of_table(table: Option<String>) -> Self {
        Self { table: table.map(Into::into), known: Arc::default() }
    }

    pub(crate) fn known(&self, now: DateTime<Utc>, trust: TimeDelta) -> Option<Result<Arc<Marker>, Doubt>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.as_ref()?;
        let age = now - known.read_at;
        let holds = if known.marker.is_ok() { trust } else { DISTRUST };
        (TimeDelta::zero() <= age && age < holds).then(|| known.marker.clone())
    }

    pub(crate) fn learn(&self, marker: Result<Arc<Marker>, Doubt>, now: DateTime<Utc>) {
        let known = Known { read_at: now, marker, told: false };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }

    /// Notes a doubt about an endpoint. Returns whether it is the first since the marker was read.
    pub(crate) fn tell(&self) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_mut().is_some_and(|known| !std::mem::replace(&mut known.told, true))
    }
}
