//! The memory of a device between its sessions: the targets for which its apps take pushes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Push;
use crate::http;

/// The database of one device. A distributor looks a push up by application and instance, and refuses a target that it
/// does not hold, whichever resource the push was sent to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Device(Arc<Mutex<BTreeMap<Target, App>>>);

/// Application and instance.
type Target = (String, String);

/// A device's knowledge of one target.
#[derive(Debug, Default)]
struct App {
    endpoint: Option<String>,
    /// The id under which each body first came.
    first: BTreeMap<Vec<u8>, String>,
}

impl Device {
    /// Notes a target before the phone asks the push server for its endpoint.
    pub(crate) fn hold(&self, application: &str, instance: &str) {
        self.targets().entry((application.to_owned(), instance.to_owned())).or_default();
    }

    pub(crate) fn holds(&self, application: &str, instance: &str) -> bool {
        self.targets().contains_key(&(application.to_owned(), instance.to_owned()))
    }

    /// Notes the endpoint that the push server gave for a target.
    pub(crate) fn note_endpoint(&self, application: &str, instance: &str, endpoint: &str) {
        if let Some(app) = self.targets().get_mut(&(application.to_owned(), instance.to_owned())) {
            app.endpoint = Some(endpoint.to_owned());
        }
    }

    /// Returns whether a push repeats an earlier one, because its sender posted it again after a 503. A push that
    /// Upwire delivers twice comes under one id, and does not count.
    pub(crate) fn has_got_another(&self, push: &Push) -> bool {
        let mut targets = self.targets();
        let Some(app) = targets.get_mut(&(push.application.clone(), push.instance.clone())) else {
            return false;
        };
        let first = app.first.entry(push.body.clone()).or_insert_with(|| push.id.clone());
        let again =
            app.endpoint.as_deref().is_some_and(|endpoint| http::was_posted_again(endpoint, &push.body));
        again && *first != push.id
    }

    fn targets(&self) -> MutexGuard<'_, BTreeMap<Target, App>> {
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
