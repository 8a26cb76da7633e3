//! Carries out the commands of users: lists and ends their own registrations, and sends them test pushes.

use std::hash::{DefaultHasher, Hash, Hasher};

use chrono::{DateTime, Utc};
use push::{
    Body, MessageId, PushMessage, Registration, Topic, Ttl, Urgency,
    message::Wishes,
    ports::{Mailbox, QueueReader, RelayRegistrations, Revocation, Unavailable, Waiting},
};
use tokio_xmpp::{
    jid::FullJid,
    minidom::Element,
    parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError},
};

use super::Jobs;
use crate::{
    delivery::core::{Outcome, Registered},
    stream::{
        commands::{self, Command, Node, Shown, Step},
        stanza::{self, Request},
    },
};

const TEST_BODY: &[u8] = b"A test push, which you have asked for";
/// Topic of test pushes. The next one replaces one that waits.
const TEST_TOPIC: &str = "upwire-test";
/// Time for which a test push waits for a phone: 10 min.
const TEST_TTL: Ttl = Ttl::from_seconds(600);

/// The answer to a command, and the full JIDs for which something waits now.
type Answer = (Element, Vec<FullJid>);

impl<R: RelayRegistrations, Q: QueueReader, M: Mailbox> Jobs<R, Q, M> {
    pub(super) async fn command(&self, request: &Request, command: &Command) -> Registered {
        let clock = self.clock.read();
        let done = if clock.is_in_doubt() {
            Err(not_now())
        } else {
            self.do_command(request, command, clock.now).await
        };
        let (answer, waits) = match done {
            Ok((answer, waits)) => (Ok(Some(answer)), waits),
            Err(error) => (Err(error), Vec::new()),
        };
        let outcome = if waits.is_empty() { Outcome::Refused } else { Outcome::Waits(waits) };
        Registered { registration: None, reply: stanza::answer(request, answer), outcome }
    }

    async fn do_command(
        &self,
        request: &Request,
        Command { node, step }: &Command,
        now: DateTime<Utc>,
    ) -> Result<Answer, StanzaError> {
        if *step == Step::Cancel {
            return Ok((commands::cancelled(*node), Vec::new()));
        }
        let account = request.from.to_bare();
        let found = self.registrations.account(&account, now).await.map_err(unavailable)?;
        let mut rows = found.registrations;
        rows.sort_by_key(|row| (row.epoch, row.target.registration_id()));
        let chosen = match step {
            Step::Submit(chosen) => chosen,
            _ => {
                let shown: Vec<Shown> = rows.iter().map(shown).collect();
                let answer = match node {
                    Node::List => commands::listed(&shown),
                    _ if shown.is_empty() => commands::completed(*node, "You have no endpoints"),
                    _ => commands::form(*node, shown),
                };
                return Ok((answer, Vec::new()));
            }
        };
        // Users choose among their own registrations. Others are passed over.
        let theirs = rows.into_iter().filter(|row| chosen.contains(&row.target.registration_id()));
        let (mut done, mut waits) = (0, Vec::new());
        for row in theirs {
            match node {
                Node::List => {}
                Node::End => done += u32::from(self.end_by_command(&row, now).await.map_err(unavailable)?),
                Node::Test => {
                    self.send_test(request, &row, now).await.map_err(unavailable)?;
                    waits.push(row.target.recipient);
                    done += 1;
                }
            }
        }
        let note = match node {
            Node::Test => format!("Test pushes on their way: {done}"),
            _ => format!("Endpoints that have ended: {done}"),
        };
        Ok((commands::completed(*node, &note), waits))
    }

    /// Ends a registration, and removes what waits for it. Returns whether it lived, and was not moved meanwhile.
    async fn end_by_command(&self, row: &Registration, now: DateTime<Utc>) -> Result<bool, Unavailable> {
        let (id, recipient) = (row.target.registration_id(), &row.target.recipient);
        // The process that has renewed it may have a clock that is ahead.
        let asked_at = row.renewed_at.max(now);
        let ended = self.registrations.revoke(id, row.epoch, recipient, asked_at).await?;
        if ended != Revocation::Revoked {
            return Ok(false);
        }
        self.mailbox.clear(&recipient.to_bare(), id, row.epoch).await?;
        tracing::info!(registration = %id, "a registration is ended by its user");
        Ok(true)
    }

    /// Puts a test push into the mailbox. It goes to the phone as any push does that waits.
    async fn send_test(
        &self,
        request: &Request,
        row: &Registration,
        now: DateTime<Utc>,
    ) -> Result<(), Unavailable> {
        let wishes = Wishes { ttl: TEST_TTL, urgency: Urgency::Normal, topic: Topic::parse(TEST_TOPIC) };
        let message = PushMessage::new(chance(request, row), row, wishes, Body::from_bytes(TEST_BODY), now);
        let kept = self.mailbox.keep(Waiting { message, asked_at: None }, self.mailbox_bounds).await;
        kept.map(drop)
    }
}

/// Returns bytes that tell two test pushes of one moment apart.
fn chance(request: &Request, row: &Registration) -> [u8; MessageId::CHANCE_BYTES] {
    let mut hasher = DefaultHasher::new();
    (&request.id, request.from.as_str(), row.target.registration_id()).hash(&mut hasher);
    hasher.finish().to_be_bytes()
}

fn shown(row: &Registration) -> Shown {
    let id = row.target.registration_id();
    let since = i64::try_from(row.epoch.as_seconds()).ok().and_then(|at| DateTime::from_timestamp(at, 0));
    let since = since.map_or_else(String::new, |since| since.format(", since %F").to_string());
    let device = row.target.recipient.resource();
    let text = format!("{}{since}, until {}: {id}", device.as_str(), row.expires_at.format("%F"));
    Shown { id, text }
}

fn unavailable(error: Unavailable) -> StanzaError {
    tracing::error!(%error, "a user's command was not carried out: the store does not do it now");
    not_now()
}

fn not_now() -> StanzaError {
    let text = "the push server cannot do that at the moment";
    stanza::error(ErrorType::Wait, DefinedCondition::InternalServerError, text)
}
