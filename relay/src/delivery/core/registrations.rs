//! Requests of users to the component.

use push::ports::Renewal;

use super::*;
use crate::delivery::reading::Cue;
use crate::stream::stanza::{self, Query};
use crate::stream::{commands, discovery};
use tokio_xmpp::parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};

/// Most requests in one job, and most jobs at a time.
const REGISTER_BATCH_MAX: usize = 16;
const REGISTERING_MAX: usize = 8;

/// A user's request that needs the store: a registration or a command.
#[derive(Debug)]
pub(crate) struct Registering {
    pub(crate) request: Request,
    pub(crate) renewal: Renewal,
    /// The most registrations that the user's domain may have, if it has as many: a new one is refused.
    pub(crate) domain_full: Option<usize>,
}

/// The answer to a user's request.
#[derive(Debug)]
pub(crate) struct Registered {
    /// The registration that was asked for.
    pub(crate) registration: Option<RegistrationId>,
    pub(crate) reply: Element,
    pub(crate) outcome: Outcome,
}

/// The outcome of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    Stored(Registration),
    /// A registration was stored that did not live before.
    Begun(Registration),
    /// A command was done, and something waits for these full JIDs now.
    Waits(Vec<FullJid>),
    /// The request was refused or not stored, or it leaves nothing to do.
    Refused,
    /// The registration was refused because its domain has no room.
    DomainFull,
}

/// Returns the registration that is asked for.
fn registration(request: &Request) -> Option<RegistrationId> {
    match &request.query {
        Query::Register(Ok(target)) => Some(target.registration_id()),
        _ => None,
    }
}

impl Core {
    /// Answers a request at once if it needs no store, and lines it up otherwise.
    pub(super) fn take_request(&mut self, request: Request, now: Now, actions: &mut Vec<Action>) {
        if matches!(request.query, Query::Register(_)) && !self.access.admits(&request.from) {
            actions.push(Action::Count(Measure::NotAdmitted));
        }
        match self.answer_at_once(&request) {
            Some(answer) => actions.push(Action::Reply(stanza::answer(&request, answer))),
            None => {
                if let Query::Register(Ok(target)) = &request.query {
                    self.note_registering(&target.recipient, now);
                }
                if let Some(request) = self.requests.offer(request) {
                    let text = "too many registrations wait for this push server; try again later";
                    let error = stanza::error(ErrorType::Wait, DefinedCondition::ResourceConstraint, text);
                    actions.push(Action::Reply(stanza::answer(&request, Err(error))));
                    actions.push(Action::Count(Measure::RequestRefused));
                }
            }
        }
    }

    fn answer_at_once(&self, request: &Request) -> Option<Result<Option<Element>, StanzaError>> {
        let refuse = |kind, condition, text: &str| Some(Err(stanza::error(kind, condition, text)));
        match &request.query {
            Query::Ping => Some(Ok(None)),
            Query::DiscoInfo => Some(Ok(Some(discovery::info(&self.settings.contact)))),
            Query::DiscoNode => Some(Err(discovery::no_such_node())),
            Query::Version => Some(Ok(Some(discovery::version()))),
            Query::DiscoItems => Some(Ok(Some(discovery::items()))),
            Query::Commands => Some(Ok(Some(commands::items(&self.settings.component)))),
            Query::CommandInfo(node) => Some(Ok(Some(commands::info(*node)))),
            Query::BadCommand(bad) => Some(Err((*bad).into())),
            Query::Register(_) | Query::Command(_) if !self.access.admits(&request.from) => {
                let text = "this push server does not serve your account";
                refuse(ErrorType::Auth, DefinedCondition::Forbidden, text)
            }
            Query::Register(Ok(_)) | Query::Command(_) => None,
            Query::Register(Err(bad)) => {
                refuse(ErrorType::Modify, DefinedCondition::BadRequest, &bad.to_string())
            }
            Query::Malformed => {
                let text = "an IQ of type get or set has one well-formed payload";
                refuse(ErrorType::Modify, DefinedCondition::BadRequest, text)
            }
            Query::Other => {
                let text =
                    "this is a UnifiedPush server: it answers register, commands, disco, version and ping";
                refuse(ErrorType::Cancel, DefinedCondition::ServiceUnavailable, text)
            }
        }
    }

    /// Starts the requests that wait. One for a registration that is being stored or moved waits for the end of that: the
    /// later one holds.
    pub(super) fn register_waiting(&mut self, actions: &mut Vec<Action>) {
        while self.registering < REGISTERING_MAX && !self.requests.is_empty() && !self.is_done() {
            let mut batch = Vec::new();
            while batch.len() < REGISTER_BATCH_MAX
                && let Some(request) = self.requests.next(|request| {
                    registration(request)
                        .is_none_or(|id| !self.asked_for.contains(&id) && !self.following.contains_key(&id))
                })
            {
                self.asked_for.extend(registration(&request));
                let (renewal, domain_full) = (self.renewal(&request), self.domain_full(&request.from));
                batch.push(Registering { request, renewal, domain_full });
            }
            if batch.is_empty() {
                return;
            }
            self.registering += 1;
            actions.push(Action::Start(Job::Register(batch)));
        }
    }

    /// Answers the requests that wait when the relay ends (RFC 6120 §8.2.3).
    pub(super) fn refuse_waiting(&mut self, actions: &mut Vec<Action>) {
        while let Some(request) = self.requests.next(|_| true) {
            let text = "this push server stops; try again later";
            let error = stanza::error(ErrorType::Wait, DefinedCondition::ServiceUnavailable, text);
            actions.push(Action::Reply(stanza::answer(&request, Err(error))));
        }
    }

    /// Returns whether a renewal has to be written. Only a written one outlives a revocation that may be under way.
    fn renewal(&self, request: &Request) -> Renewal {
        let Some(id) = registration(request) else { return Renewal::WhereNeeded };
        let asks =
            || self.pushes.values().any(|push| push.held.message.registration == id && !push.asks.is_empty());
        if self.is_being_revoked(id) || self.late_revocations > 0 || asks() {
            Renewal::Always
        } else {
            Renewal::WhereNeeded
        }
    }

    pub(super) fn take_registered(
        &mut self,
        registered: Vec<Registered>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        self.registering -= 1;
        for Registered { registration, reply, outcome } in registered {
            if let Some(id) = registration {
                self.asked_for.remove(&id);
            }
            actions.push(Action::Reply(reply));
            if self.ending.is_some() {
                continue;
            }
            match outcome {
                Outcome::Stored(registration) => self.note_registered(&registration, now, actions),
                Outcome::Begun(registration) => {
                    self.count_begun(&registration, actions);
                    self.note_registered(&registration, now, actions);
                }
                Outcome::DomainFull => self.note_domain_full(now),
                Outcome::Waits(recipients) => {
                    for recipient in recipients {
                        self.note_waiting(&recipient);
                        self.cue_within_bounds(&recipient, Cue::Guess, now);
                    }
                }
                Outcome::Refused => {}
            }
        }
    }
}
