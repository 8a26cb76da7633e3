//! Answers what users ask of the component: registrations, discovery, pings.

use std::{
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures::{StreamExt, stream};
use push::{
    Registration, Secrets, Target,
    ports::{Registered, Registrations, Renewal},
};
use tokio::sync::mpsc;
use tokio_xmpp::{
    jid::{BareJid, FullJid, Jid},
    minidom::Element,
    parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError},
};
use url::Url;

use crate::{
    clock,
    measures::REGISTERED,
    stream::stanza::{self, Query, Request},
};

/// Most requests that are answered at once.
const CONCURRENT_MAX: usize = 64;

/// Who may register: domains, bare JIDs, or everyone (protocol.md §1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessList {
    /// `*`: any user of any server.
    Everyone,
    /// The users of these domains, and these users.
    Only(Vec<BareJid>),
}

/// An entry of an access list is neither a domain nor a bare JID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a domain, nor a bare JID, nor *")]
pub struct BadAccessList(String);

impl FromStr for AccessList {
    type Err = BadAccessList;

    /// Parses a comma-separated list; `*` anywhere in it admits everyone.
    fn from_str(list: &str) -> Result<Self, BadAccessList> {
        let entries = || list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        if entries().any(|entry| entry == "*") {
            return Ok(Self::Everyone);
        }
        let parse = |entry: &str| BareJid::new(entry).map_err(|_| BadAccessList(entry.to_owned()));
        entries().map(parse).collect::<Result<_, _>>().map(Self::Only)
    }
}

impl AccessList {
    /// The default: the component's parent domain (`notify.example.com` → `example.com`).
    #[must_use]
    pub fn parent_domain(component: &BareJid) -> Self {
        let parent =
            component.domain().as_str().split_once('.').and_then(|(_, parent)| BareJid::new(parent).ok());
        Self::Only(parent.into_iter().collect())
    }

    pub(crate) fn admits(&self, user: &Jid) -> bool {
        match self {
            Self::Everyone => true,
            Self::Only(entries) => entries.iter().any(|entry| {
                entry.domain() == user.domain() && (entry.node().is_none() || entry.node() == user.node())
            }),
        }
    }
}

/// Answers requests.
pub(crate) struct Registrar<R> {
    pub(crate) registrations: R,
    pub(crate) access: AccessList,
    pub(crate) secrets: Secrets,
    /// Endpoints are named below it; ends in a slash.
    pub(crate) endpoints: Url,
    pub(crate) lifetime: TimeDelta,
    /// Most registrations of one account.
    pub(crate) account_max: usize,
    /// Who has registered: what waits for them may be delivered.
    pub(crate) registered: mpsc::Sender<FullJid>,
    /// Counts the registrations that were stored.
    pub(crate) count: Arc<AtomicU64>,
}

impl<R: Registrations> Registrar<R> {
    /// Answers until no more requests can come.
    pub(crate) async fn answer_all(
        self,
        requests: mpsc::Receiver<(Request, Renewal)>,
        replies: mpsc::Sender<Element>,
    ) {
        let registrar = Arc::new(self);
        let requests =
            stream::unfold(requests, async |mut requests| Some((requests.recv().await?, requests)));
        requests
            .for_each_concurrent(CONCURRENT_MAX, |(request, renewal)| {
                let (registrar, replies) = (Arc::clone(&registrar), replies.clone());
                async move {
                    let answer = registrar.answer(&request, renewal, clock::now()).await;
                    let registered = answer.is_ok().then(|| request.registers()).flatten();
                    registrar.count.fetch_add(registered.is_some().into(), Ordering::Release);
                    // They are gone only when the relay stops.
                    let _ = replies.send(stanza::answer(&request, answer)).await;
                    if let Some(recipient) = registered {
                        let _ = registrar.registered.send(recipient).await;
                    }
                }
            })
            .await;
    }

    async fn answer(
        &self,
        request: &Request,
        renewal: Renewal,
        now: DateTime<Utc>,
    ) -> Result<Option<Element>, StanzaError> {
        match &request.query {
            Query::Ping => Ok(None),
            Query::DiscoInfo(query) => stanza::disco_info(query).map(Some),
            Query::DiscoItems => Ok(Some(stanza::disco_items())),
            Query::Register(_) if !self.access.admits(&request.from) => {
                let text = "this push server does not serve your account";
                Err(stanza::error(ErrorType::Auth, DefinedCondition::Forbidden, text))
            }
            Query::Register(Ok(target)) => self.register(target.clone(), now, renewal).await.map(Some),
            Query::Register(Err(bad)) => {
                Err(stanza::error(ErrorType::Modify, DefinedCondition::BadRequest, &bad.to_string()))
            }
            Query::Malformed => {
                let text = "an IQ of type get or set has one well-formed payload";
                Err(stanza::error(ErrorType::Modify, DefinedCondition::BadRequest, text))
            }
            Query::Other => {
                let text = "this is a UnifiedPush server: it answers register, disco and ping";
                Err(stanza::error(ErrorType::Cancel, DefinedCondition::ServiceUnavailable, text))
            }
        }
    }

    async fn register(
        &self,
        target: Target,
        now: DateTime<Utc>,
        renewal: Renewal,
    ) -> Result<Element, StanzaError> {
        let id = target.registration_id();
        let registering = self.registrations.register(target, now, self.lifetime, renewal, self.account_max);
        match registering.await {
            Ok(Registered::Stored(registration)) => {
                metrics::counter!(REGISTERED).increment(1);
                tracing::debug!(registration = %id, "registered");
                Ok(self.registered(&registration, now))
            }
            Ok(Registered::AccountFull) => {
                tracing::debug!(registration = %id, "refused: its account has as many registrations as it may");
                let text =
                    format!("your account has {} registrations, and may have no more", self.account_max);
                Err(stanza::error(ErrorType::Wait, DefinedCondition::ResourceConstraint, &text))
            }
            Err(error) => {
                tracing::error!(registration = %id, %error, "a registration was not stored");
                let text = "the push server cannot store registrations at the moment";
                Err(stanza::error(ErrorType::Wait, DefinedCondition::InternalServerError, text))
            }
        }
    }

    fn registered(&self, registration: &Registration, now: DateTime<Utc>) -> Element {
        let token = self.secrets.sign(registration.target.registration_id(), registration.epoch);
        let expiration = registration.advertised_expiry(now).to_rfc3339_opts(SecondsFormat::Secs, true);
        stanza::registered(&format!("{}{}", self.endpoints, token.as_str()), &expiration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(list: &str, user: &str) -> bool {
        list.parse::<AccessList>().unwrap().admits(&user.parse().unwrap())
    }

    #[test]
    fn domains_and_bare_jids_are_admitted_and_nobody_else() {
        assert!(admits("example.com", "juliet@example.com/phone"));
        assert!(!admits("example.com", "juliet@evil-example.com/phone"));
        assert!(!admits("example.com", "juliet@sub.example.com/phone"));
        assert!(admits("other.org, juliet@example.com", "juliet@example.com/phone"));
        assert!(!admits("juliet@example.com", "romeo@example.com/phone"));
        assert!(admits("*", "anyone@anywhere.net/x"));
        assert!(!admits("", "juliet@example.com/phone"));
        assert!("a b".parse::<AccessList>().is_err());
    }

    #[test]
    fn the_default_is_the_parent_domain() {
        let component = BareJid::new("notify.example.com").unwrap();
        assert_eq!(AccessList::parent_domain(&component), "example.com".parse().unwrap());
        let orphan = BareJid::new("notify").unwrap();
        assert_eq!(AccessList::parent_domain(&orphan), AccessList::Only(Vec::new()));
    }
}
