//! Phones take the steps of their plans, and react to stanzas.

use std::time::Duration;

use chrono::DateTime;
use push::MessageId;
use tokio_xmpp::jid::FullJid;

use crate::{
    phone::Phone,
    places::Asked,
    plan::{Leave, Return, Step, Temper},
    server::{Meaning, Up},
    world::{Event, World},
    xml::{attribute, name},
};

/// Pause before a phone registers again after an error, or if the component has no stream.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

impl World {
    pub(crate) fn step(&mut self, at: usize, step: Step) {
        self.shared.note(format_args!("phone {} {step:?}", self.phones[at].plan.key));
        match step {
            Step::Leave(leave) => self.leave(at, leave),
            Step::Return(back) => self.come(at, back),
            Step::Temper(temper) => {
                self.phones[at].temper = temper;
                self.phones[at].answers_since = Some(self.shared.now());
                // Pushes that it has not answered may be in flight for a while. It is ready once the relay hears of it
                // again.
                self.phones[at].heard_at = None;
                self.set_ready(at, None);
            }
            Step::Uninstall(app) => {
                self.phones[at].apps[app].held = false;
                self.phones[at].answers_since = None;
                self.set_ready(at, self.phones[at].ready_since);
            }
            Step::Install(app) => {
                self.phones[at].apps[app].held = true;
                self.phones[at].answers_since = Some(self.shared.now());
                self.phones[at].apps[app].endpoint = None;
                self.register(at, app);
            }
        }
        self.note_unrest(at);
    }

    fn leave(&mut self, at: usize, leave: Leave) {
        if !std::mem::take(&mut self.phones[at].online) {
            return;
        }
        let jid = self.phones[at].jid();
        self.phones[at].heard_at = None;
        self.set_ready(at, None);
        match leave {
            Leave::Close => self.server.end(&jid, true),
            Leave::Break => {
                if let Some(lost) = self.server.lose(&jid) {
                    let hibernation = self.shared.plan.hibernation;
                    self.after(hibernation, Event::Forget(jid, lost));
                }
            }
        }
    }

    /// Ends a session that has not been resumed since its connection broke.
    pub(crate) fn forget(&mut self, jid: &FullJid, lost: u64) {
        let gone = self.server.sessions.get(jid).is_some_and(|one| one.lost == Some(lost) && !one.online);
        if gone {
            self.server.end(jid, true);
        }
    }

    fn come(&mut self, at: usize, back: Return) {
        if self.phones[at].online {
            return;
        }
        self.phones[at].online = true;
        self.phones[at].answers_since = Some(self.shared.now());
        let jid = self.phones[at].jid();
        if back == Return::Same
            && let Some(said) = self.server.resume(&jid)
        {
            let number = self.phones[at].session;
            for up in said {
                self.send_up(&jid, number, up);
            }
            return;
        }
        if back == Return::Renamed {
            self.phones[at].rename();
        }
        self.begin(at);
    }

    /// Begins a new session: the phone greets, and registers the applications that are due.
    fn begin(&mut self, at: usize) {
        let jid = self.phones[at].jid();
        let resumes = self.phones[at].plan.resumes;
        let number = self.server.begin(&jid, at, resumes);
        self.phones[at].session = number;
        let soon = self.phones[at].chance.millis(20, 200);
        if let Some(greeting) = self.phones[at].greeting() {
            self.after(soon, Event::Say(at, number, greeting));
        }
        let due = self.phones[at].due(self.shared.wall());
        for app in due {
            self.after(soon, Event::Register(at, app));
        }
    }

    /// Brings a phone back in the calm: it is there, answers, and is known to the relay.
    pub(crate) fn come_back(&mut self, at: usize) {
        self.leave(at, Leave::Close);
        let now = self.shared.now();
        let phone = &mut self.phones[at];
        phone.temper = Temper::Answers(50);
        phone.online = true;
        phone.answers_since = Some(now);
        // The relay may not find a phone that was renamed and sends no presence: it registers anew.
        let anew = !phone.plan.greets && phone.was_renamed();
        for app in &mut phone.apps {
            app.held = true;
            if anew {
                app.endpoint = None;
            }
        }
        self.begin(at);
    }

    pub(crate) fn register(&mut self, at: usize, app: usize) {
        if self.phones[at].online && self.phones[at].apps[app].held {
            let up = self.phones[at].register(app);
            let number = self.phones[at].session;
            self.say(at, number, up);
        }
    }

    /// Sends a stanza of a phone, if the phone still has the session that the stanza is of.
    pub(crate) fn say(&mut self, at: usize, number: u64, up: Up) {
        if self.phones[at].session != number {
            return;
        }
        let jid = self.phones[at].jid();
        let Some(session) = self.server.sessions.get_mut(&jid).filter(|one| one.number == number) else {
            return;
        };
        if session.online {
            self.send_up(&jid, number, up);
        } else {
            session.up.push(up);
        }
    }

    fn send_up(&mut self, jid: &FullJid, number: u64, up: Up) {
        let late = self.chance.millis(5, 60);
        let now = self.shared.now();
        let Some(session) = self.server.sessions.get_mut(jid) else { return };
        session.last_at[1] = session.last_at[1].max(now + late) + Duration::from_micros(1);
        let when = session.last_at[1];
        self.at(when, Event::Hear(jid.clone(), number, up));
    }

    /// Takes a stanza of a phone that has come to the server.
    pub(crate) fn hear(&mut self, jid: &FullJid, number: u64, up: Up) {
        let Some(session) = self.server.sessions.get_mut(jid).filter(|one| one.number == number) else {
            return;
        };
        if !session.online {
            session.up.push(up);
            return;
        }
        let at = session.phone;
        session.greeted |= up.meaning == Meaning::Greeting;
        let told = self.server.tell(&up.xml);
        let now = self.shared.now();
        if let (Meaning::Register(_), Some(id)) = (up.meaning, attribute(&up.xml, 0, "id")) {
            self.shared.lock().ledger.note_request(jid.clone(), id, now);
        }
        match up.meaning {
            Meaning::Greeting if told == Some(true) => self.note_heard(at),
            Meaning::Result(id) if told == Some(true) => self.shared.lock().ledger.tell(id, now),
            Meaning::Register(app) if told.is_none() => self.after(AGAIN_AFTER, Event::Register(at, app)),
            _ => {}
        }
    }

    /// Notes that the relay has heard of a phone.
    fn note_heard(&mut self, at: usize) {
        let now = self.shared.now();
        self.phones[at].heard_at = Some(now);
        if matches!(self.phones[at].temper, Temper::Answers(_)) {
            self.set_ready(at, Some(now));
        }
    }

    /// Has a phone take a stanza that comes to it.
    pub(crate) fn arrive(&mut self, jid: &FullJid, session: u64, number: u64) {
        let Some((at, xml)) = self.server.arrive(jid, session, number) else { return };
        let late = self.chance.millis(100, 1500);
        self.after(late, Event::Acknowledge(jid.clone(), session, number));
        let id = attribute(&xml, 0, "id").unwrap_or_default();
        match (attribute(&xml, 0, "type").as_deref(), name(&xml, 1)) {
            (Some("set"), "push") => self.take_push(at, session, &id, &xml),
            (Some("get"), "ping") if self.phones[at].temper != Temper::Silent => {
                let reaction = self.phones[at].react(&id, false, self.shared.plan.ack_timeout);
                let late = reaction.answer.map_or(Duration::ZERO, |(late, _)| late);
                let xml =
                    format!("<iq type='result' id='{id}' from='{jid}' to='{}'/>", crate::server::COMPONENT);
                self.after(late, Event::Say(at, session, Up { xml, meaning: Meaning::Other }));
            }
            (Some("result"), "registered") => self.take_registered(at, &id, &xml),
            (Some("error"), _) => {
                if let Some(app) = app_of(&id) {
                    if name(&xml, 2) == "resource-constraint" {
                        self.check_answer(at, app, &id, Asked::Full);
                    }
                    self.after(AGAIN_AFTER, Event::Register(at, app));
                }
            }
            _ => {}
        }
    }

    fn take_registered(&mut self, at: usize, id: &str, xml: &str) {
        let (Some(app), Some(url), Some(expires_at)) =
            (app_of(id), attribute(xml, 1, "endpoint"), attribute(xml, 1, "expiration"))
        else {
            return;
        };
        self.check_answer(at, app, id, Asked::Stored);
        let expires_at = expires_at.parse().unwrap_or(DateTime::UNIX_EPOCH);
        let now = self.shared.now();
        if self.phones[at].take_endpoint(app, &url, expires_at) {
            let token = self.phones[at].apps[app].endpoint.clone().unwrap_or_default();
            let mut state = self.shared.lock();
            if state.ledger.refused_tokens.contains(&token) {
                state.ledger.violate("a URL that was refused never comes back", now, token.clone());
            }
            drop(state);
            let (account, number) = (self.phones[at].plan.account, self.phones[at].apps[app].number);
            self.after(Duration::from_millis(20), Event::Learn(account, number, token));
        }
        if self.server.is_linked() {
            self.note_heard(at);
        }
    }

    fn check_answer(&self, at: usize, app: usize, request: &str, asked: Asked) {
        let phone = &self.phones[at];
        let (jid, registration, now) = (phone.jid(), phone.registration(app), self.shared.now());
        self.shared.lock().ledger.check_answer((jid, request), registration, asked, now);
    }

    fn take_push(&mut self, at: usize, session: u64, id: &str, xml: &str) {
        let application = attribute(xml, 1, "application").unwrap_or_default();
        let instance = attribute(xml, 1, "instance").unwrap_or_default();
        let holds = self.phones[at].holds(&application, &instance);
        let reaction = self.phones[at].react(id, holds, self.shared.plan.ack_timeout);
        let now = self.shared.now();
        let Some(message) = MessageId::parse(id) else { return };
        if !matches!(self.phones[at].temper, Temper::Answers(_)) {
            self.note_unrest(at);
        }
        {
            let mut state = self.shared.lock();
            let jid = self.phones[at].jid();
            state.trace.note(now, format_args!("{jid} gets {id}, shows: {}", reaction.shows));
            if reaction.shows {
                state.ledger.show(message, now);
            } else if !holds
                && reaction.answer.is_some()
                && let Some(registration) = state.ledger.registration_of(message)
            {
                state.ledger.refusals.insert((registration, jid), now);
            }
        }
        if let Some((late, up)) = reaction.answer {
            self.after(late, Event::Say(at, session, up));
        }
    }

    /// Notes that second copies of pushes that were shown up to now have a cause.
    pub(crate) fn note_unrest(&mut self, at: usize) {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        for app in 0..self.phones[at].apps.len() {
            let registration = self.phones[at].registration(app);
            state.ledger.unrest.insert(registration, now);
        }
    }

    /// Sets the moment since which a phone is there and answers. Pushes of a registration are to be delivered promptly
    /// once this holds for all phones that have its application.
    pub(crate) fn set_ready(&mut self, at: usize, since: Option<Duration>) {
        self.phones[at].ready_since = since;
        let account = self.phones[at].plan.account;
        for app in 0..self.phones[at].apps.len() {
            let registration = self.phones[at].registration(app);
            let number = self.phones[at].apps[app].number;
            let holders = self
                .phones
                .iter()
                .filter(|phone| phone.plan.account == account && phone.plan.applications.contains(&number));
            let holds = |phone: &Phone| phone.apps.iter().any(|app| app.number == number && app.held);
            let ready: Option<Vec<Duration>> =
                holders.map(|phone| phone.ready_since.filter(|_| holds(phone))).collect();
            let ready = ready.and_then(|ready| ready.into_iter().max());
            let mut state = self.shared.lock();
            match ready {
                Some(ready) => state.ledger.ready.insert(registration, ready),
                None => state.ledger.ready.remove(&registration),
            };
        }
        if since.is_none() {
            self.note_unrest(at);
        }
    }
}

/// Returns the application that the id of a request to register names.
fn app_of(id: &str) -> Option<usize> {
    id.strip_prefix('r')?.split('-').next()?.parse().ok()
}
