//! A phone has applications, and reacts to pushes.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use push::{Application, Instance, MessageId, RegistrationId, Target};
use tokio_xmpp::jid::FullJid;

use crate::{
    chance::Chance,
    plan::{PhonePlan, Temper},
    server::{COMPONENT, Meaning, Up, error},
};

const UNIFIED_PUSH: &str = "http://gultsch.de/xmpp/drafts/unified-push";
/// Time before its expiry in which a registration is renewed, as soon as a session begins.
const RENEWED_BEFORE: TimeDelta = TimeDelta::hours(24);

/// An application on a phone.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) number: u64,
    application: Application,
    instance: Instance,
    pub(crate) held: bool,
    pub(crate) endpoint: Option<String>,
    expires_at: DateTime<Utc>,
}

/// The state of a phone.
#[derive(Debug)]
pub(crate) struct Phone {
    pub(crate) plan: PhonePlan,
    pub(crate) apps: Vec<App>,
    pub(crate) chance: Chance,
    pub(crate) temper: Temper,
    /// Number of times that it has changed its resource.
    names: u64,
    /// True if it has a connection.
    pub(crate) online: bool,
    pub(crate) session: u64,
    /// Moment since which the relay has known that it is there, and it has answered all pushes.
    pub(crate) ready_since: Option<Duration>,
    /// Moment at which it last came back, or changed its temper or applications; `None` once an application has gone.
    pub(crate) answers_since: Option<Duration>,
    /// Moment at which the relay heard of its session, plus the time for which a relay has stood still since.
    pub(crate) heard_at: Option<Duration>,
    requests: u64,
}

/// A phone's reaction to a push.
#[derive(Debug)]
pub(crate) struct Reaction {
    pub(crate) shows: bool,
    /// Its answer, and the time before it.
    pub(crate) answer: Option<(Duration, Up)>,
}

fn hash(account: u64, number: u64, kind: u8) -> [u8; 32] {
    let mut hash = [kind; 32];
    hash[..8].copy_from_slice(&account.to_be_bytes());
    hash[8..16].copy_from_slice(&number.to_be_bytes());
    hash
}

impl Phone {
    pub(crate) fn new(plan: PhonePlan, seed: u64) -> Self {
        let app = |number: &u64| App {
            number: *number,
            application: Application::from_bytes(hash(plan.account, *number, 1)),
            instance: Instance::from_bytes(hash(plan.account, *number, 2)),
            held: true,
            endpoint: None,
            expires_at: DateTime::UNIX_EPOCH,
        };
        Self {
            apps: plan.applications.iter().map(app).collect(),
            chance: Chance::of(seed, 1000 + plan.key),
            temper: plan.temper,
            names: 0,
            online: false,
            session: 0,
            ready_since: None,
            answers_since: None,
            heard_at: None,
            requests: 0,
            plan,
        }
    }

    pub(crate) fn jid(&self) -> FullJid {
        let Self { plan: PhonePlan { account, key, .. }, names, .. } = self;
        format!("u{account}@sim.example/d{key}.{names}").parse().expect("a full JID")
    }

    pub(crate) fn rename(&mut self) {
        self.names += 1;
    }

    pub(crate) fn was_renamed(&self) -> bool {
        self.names > 0
    }

    pub(crate) fn registration(&self, app: usize) -> RegistrationId {
        let App { application, instance, .. } = self.apps[app];
        Target { recipient: self.jid(), application, instance, vapid: None, legacy: None }.registration_id()
    }

    pub(crate) fn greeting(&self) -> Option<Up> {
        let holds = self.plan.greets && self.apps.iter().any(|app| app.held && app.endpoint.is_some());
        let xml = format!("<presence from='{}' to='{COMPONENT}'/>", self.jid());
        holds.then_some(Up { xml, meaning: Meaning::Greeting })
    }

    /// Returns the applications that are due to register.
    pub(crate) fn due(&self, now: DateTime<Utc>) -> Vec<usize> {
        let due = |app: &App| app.held && (app.endpoint.is_none() || app.expires_at - now < RENEWED_BEFORE);
        (0..self.apps.len()).filter(|at| due(&self.apps[*at])).collect()
    }

    pub(crate) fn register(&mut self, at: usize) -> Up {
        self.requests += 1;
        let App { application, instance, .. } = &self.apps[at];
        let xml = format!(
            "<iq type='set' id='r{at}-{}' from='{}' to='{COMPONENT}'><register xmlns='{UNIFIED_PUSH}' \
             application='{application}' instance='{instance}'/></iq>",
            self.requests,
            self.jid()
        );
        Up { xml, meaning: Meaning::Register(at) }
    }

    /// Takes a new endpoint. Returns whether it differs from the one before.
    pub(crate) fn take_endpoint(&mut self, at: usize, url: &str, expires_at: DateTime<Utc>) -> bool {
        let Some(app) = self.apps.get_mut(at) else { return false };
        app.expires_at = expires_at;
        let token = url.rsplit('/').next().unwrap_or_default().to_owned();
        let is_new = app.endpoint.as_ref() != Some(&token);
        app.endpoint = Some(token);
        is_new
    }

    /// Returns the application that a push is for, if the phone holds it.
    fn app_of(&self, application: &str, instance: &str) -> Option<&App> {
        self.apps.iter().find(|app| {
            app.held && app.application.to_string() == application && app.instance.to_string() == instance
        })
    }

    pub(crate) fn holds(&self, application: &str, instance: &str) -> bool {
        self.app_of(application, instance).is_some()
    }

    /// Returns its reaction to a push, which the relay gives up after `patience`.
    pub(crate) fn react(&mut self, id: &str, holds: bool, patience: Duration) -> Reaction {
        let from = self.jid();
        let meaning = MessageId::parse(id).map_or(Meaning::Other, Meaning::Result);
        let result =
            Up { xml: format!("<iq type='result' id='{id}' from='{from}' to='{COMPONENT}'/>"), meaning };
        let refusal = |condition| Up { xml: error(from.as_str(), id, condition), meaning: Meaning::Other };
        let soon = self.chance.millis(20, 200);
        if self.temper == Temper::Silent {
            return Reaction { shows: false, answer: None };
        }
        if !holds {
            return Reaction { shows: false, answer: Some((soon, refusal("item-not-found"))) };
        }
        match self.temper {
            Temper::Answers(millis) => {
                Reaction { shows: true, answer: Some((Duration::from_millis(millis), result)) }
            }
            Temper::Slow => {
                let second = Duration::from_secs(1);
                let late =
                    self.chance.choose(&[(3, 3 * second), (2, 12 * second), (1, 40 * second), (2, patience)]);
                Reaction { shows: true, answer: Some((late + soon, result)) }
            }
            _ => match self.chance.number(0, 2) {
                0 => Reaction { shows: true, answer: Some((soon, result)) },
                1 => Reaction { shows: true, answer: None },
                _ => Reaction { shows: false, answer: Some((soon, refusal("resource-constraint"))) },
            },
        }
    }
}
