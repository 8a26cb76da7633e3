//! Stores registrations, and answers their requests.

use chrono::{DateTime, SecondsFormat, Utc};
use futures::future::join_all;
use metrics::counter;
use push::{
    Registration, Target,
    ports::{self, Mailbox, QueueReader, RelayRegistrations, Renewal},
};
use tokio_xmpp::{
    minidom::Element,
    parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError},
};

use super::Jobs;
use crate::{
    delivery::core::{Outcome, Registered, Registering},
    measures::REGISTERED,
    mutants::{Mutant, mutant},
    stream::stanza::{self, Query},
};

impl<R: RelayRegistrations, Q: QueueReader, M: Mailbox> Jobs<R, Q, M> {
    pub(super) async fn register_all(&self, requests: Vec<Registering>) -> Vec<Registered> {
        join_all(requests.into_iter().map(|registering| self.answer(registering))).await
    }

    async fn answer(&self, registering: Registering) -> Registered {
        let Registering { request, renewal, domain_full } = registering;
        if let Query::Command(command) = &request.query {
            return self.command(&request, command).await;
        }
        let refused = |registration, error| {
            let reply = stanza::answer(&request, Err(error));
            Registered { registration, reply, outcome: Outcome::Refused }
        };
        let Query::Register(Ok(target)) = &request.query else {
            let text = "this request needs no store";
            let error = stanza::error(ErrorType::Cancel, DefinedCondition::UndefinedCondition, text);
            return refused(None, error);
        };
        let registration = Some(target.registration_id());
        let clock = self.clock.read();
        let in_doubt = match (clock.is_in_doubt(), self.fence.holds()) {
            (true, _) => Some("the clock of the push server is wrong at the moment"),
            // The instance that has the lease would not learn of the registration.
            (false, false) => Some("another instance of the push server takes over"),
            (false, true) => None,
        };
        if let Some(text) = in_doubt {
            let error = stanza::error(ErrorType::Wait, DefinedCondition::InternalServerError, text);
            return refused(registration, error);
        }
        let now = clock.now;
        let (answer, outcome) = match self.register(Target::clone(target), now, renewal, domain_full).await {
            Ok(ports::Registered::Stored(row)) => (Ok(self.registered(&row, now)), Outcome::Stored(row)),
            Ok(ports::Registered::Begun(row)) => (Ok(self.registered(&row, now)), Outcome::Begun(row)),
            Ok(ports::Registered::AccountFull) => match domain_full {
                Some(max) => (Err(full("your domain", max)), Outcome::DomainFull),
                None => (Err(full("your account", self.account_registrations_max)), Outcome::Refused),
            },
            Err(error) => (Err(error), Outcome::Refused),
        };
        Registered { registration, reply: stanza::answer(&request, answer.map(Some)), outcome }
    }

    async fn register(
        &self,
        target: Target,
        now: DateTime<Utc>,
        renewal: Renewal,
        domain_full: Option<usize>,
    ) -> Result<ports::Registered, StanzaError> {
        let id = target.registration_id();
        let renewal = if self.revocations.is_revoking(id) { Renewal::Always } else { renewal };
        // A registration that lives is renewed, however many the account has.
        let max = match domain_full {
            Some(_) => 0,
            None if mutant(Mutant::RegistrationsUnbounded) => usize::MAX,
            None => self.account_registrations_max,
        };
        match self.registrations.register(target, now, self.lifetime, renewal, max).await {
            Ok(ports::Registered::AccountFull) => {
                let domain_full = domain_full.is_some();
                tracing::debug!(registration = %id, domain_full, "refused: there are as many registrations as may be");
                Ok(ports::Registered::AccountFull)
            }
            Ok(registered) => {
                self.count_move();
                counter!(REGISTERED).increment(1);
                tracing::debug!(registration = %id, "registered");
                Ok(registered)
            }
            Err(error) => {
                tracing::error!(registration = %id, %error, "a registration was not stored");
                let text = "the push server cannot store registrations at the moment";
                Err(stanza::error(ErrorType::Wait, DefinedCondition::InternalServerError, text))
            }
        }
    }

    fn registered(&self, registration: &Registration, now: DateTime<Utc>) -> Element {
        let token = self.secrets.borrow().sign(registration.target.registration_id(), registration.epoch);
        let expiration = registration.advertised_expiry(now).to_rfc3339_opts(SecondsFormat::Secs, true);
        stanza::registered(&format!("{}{}", self.endpoints, token.as_str()), &expiration)
    }
}

fn full(whose: &str, max: usize) -> StanzaError {
    let text = format!("{whose} may have no more than {max} registrations, and has no room for another");
    stanza::error(ErrorType::Wait, DefinedCondition::ResourceConstraint, &text)
}
