//! Stores registrations, and makes their answers.

use chrono::{DateTime, SecondsFormat, Utc};
use futures::future::join_all;
use metrics::counter;
use push::{
    Registration, Target,
    ports::{self, Accounts, Mailbox, QueueReader, Registrations, Renewal},
};
use tokio_xmpp::{
    minidom::Element,
    parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError},
};

use super::Jobs;
use crate::{
    delivery::core::Registered,
    measures::REGISTERED,
    stream::stanza::{self, Query, Request},
};

impl<R: Registrations + Accounts, Q: QueueReader, M: Mailbox> Jobs<R, Q, M> {
    pub(super) async fn register_all(&self, requests: Vec<(Request, Renewal)>) -> Vec<Registered> {
        join_all(requests.into_iter().map(|(request, renewal)| self.answer(request, renewal))).await
    }

    async fn answer(&self, request: Request, renewal: Renewal) -> Registered {
        let Query::Register(Ok(target)) = &request.query else {
            let text = "this request needs no store";
            let error = stanza::error(ErrorType::Cancel, DefinedCondition::UndefinedCondition, text);
            return Registered { reply: stanza::answer(&request, Err(error)), registration: None };
        };
        let now = self.clock.now();
        match self.register(Target::clone(target), now, renewal).await {
            Ok(registration) => Registered {
                reply: stanza::answer(&request, Ok(Some(self.registered(&registration, now)))),
                registration: Some(registration),
            },
            Err(error) => Registered { reply: stanza::answer(&request, Err(error)), registration: None },
        }
    }

    async fn register(
        &self,
        target: Target,
        now: DateTime<Utc>,
        renewal: Renewal,
    ) -> Result<Registration, StanzaError> {
        let id = target.registration_id();
        let max = self.account_registrations_max;
        match self.registrations.register(target, now, self.lifetime, renewal, max).await {
            Ok(ports::Registered::AccountFull) => {
                tracing::debug!(registration = %id, "refused: its account has as many registrations as it may");
                let text = format!("your account has {max} registrations, and may have no more");
                Err(stanza::error(ErrorType::Wait, DefinedCondition::ResourceConstraint, &text))
            }
            Ok(ports::Registered::Stored(registration)) => {
                self.count_move();
                counter!(REGISTERED).increment(1);
                tracing::debug!(registration = %id, "registered");
                Ok(registration)
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
