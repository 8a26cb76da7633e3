//! The memory of a device between its sessions: the targets for which its apps take pushes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The database of one device. A distributor looks a push up by application and instance, and refuses what it does not
/// hold, whichever resource the push was sent to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Device(Arc<Mutex<BTreeSet<(String, String)>>>);

impl Device {
    /// Notes a target, before the push server is asked for its endpoint.
    pub(crate) fn hold(&self, application: &str, instance: &str) {
        self.targets().insert((application.to_owned(), instance.to_owned()));
    }

    pub(crate) fn holds(&self, application: &str, instance: &str) -> bool {
        self.targets().contains(&(application.to_owned(), instance.to_owned()))
    }

    fn targets(&self) -> MutexGuard<'_, BTreeSet<(String, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The devices of one account, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Devices(Arc<Mutex<BTreeMap<String, Device>>>);

impl Devices {
    pub(crate) fn of_name(&self, name: &str) -> Device {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default().clone()
    }
}
