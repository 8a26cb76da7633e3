//! `upwire explain`: tells the state of an endpoint or a push.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use embedded::Database;
use push::ports::{Consistency, Mailbox, OperatorStore};
use push::{Epoch, MessageId, Registration, RegistrationId};
use secrecy::SecretString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_xmpp::jid::BareJid;

use self::facts::{Facts, Life, Paying, Phone, Process, Push, Row, Token, Waiting};
use self::subject::{Subject, accepted_at};
use self::verdict::verdict;
use crate::configuration::secret;
use crate::live::{SECRET, SECRET_FILE, split};
use crate::serve::KEPT_SECRET;
use crate::store::{self, StoreOptions, Work};
use crate::trail::{Told, WAITS};
use crate::{fetch, trail, values};

mod facts;
mod subject;
mod text;
mod verdict;

/// Most pushes that are in memory at a time.
const PAGE: usize = 100;

/// Explain what has become of an endpoint or a push.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Explains what has become of an endpoint or a push: which secret signed the URL, whether the registration \
        lives, whether its tenant is suspended, when its phone was seen, what waits, and what the running process remembers of the last 10,000 pushes. It \
        ends with one sentence. The process is asked at its administration address; where that cannot be reached, the \
        rest is said.",
    after_long_help = store::AFTER_HELP
)]
pub(crate) struct Options {
    /// An endpoint, the Location of a push, or the id of a registration or of a push
    #[arg(value_name = "URL|ID", value_parser = Subject::parse)]
    subject: Subject,

    /// The secrets that authenticate endpoints, comma-separated [default: the database's]
    #[arg(long, value_name = "SECRETS", env = SECRET, hide_env_values = true)]
    secret: Option<SecretString>,

    /// A file that holds the secrets
    #[arg(long, value_name = "FILE", env = SECRET_FILE)]
    secret_file: Option<PathBuf>,

    /// The administration address of the running process
    #[arg(long, value_name = "ADDRESS:PORT", env = "UPWIRE_ADMIN_LISTEN", default_value = values::ADMIN_LISTEN,
        value_parser = values::listen_address)]
    admin_listen: SocketAddr,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    store: StoreOptions,
}

/// Runs the command.
pub(crate) fn run(options: Options) -> anyhow::Result<()> {
    let Options { subject, secret: value, secret_file, admin_listen, json, store } = options;
    let given = secret(SECRET, value, secret_file.as_deref())?;
    let secrets = given.iter().flat_map(split).collect();
    let question = Question { subject, secrets, admin_listen, json, file: store.file() };
    store::run(store, question)
}

struct Question {
    subject: Subject,
    secrets: Vec<SecretString>,
    admin_listen: SocketAddr,
    json: bool,
    /// The database; `None`: the store is on AWS.
    file: Option<PathBuf>,
}

/// The output of `--json`.
#[derive(Serialize)]
struct Explanation<'a> {
    #[serde(flatten)]
    facts: &'a Facts,
    verdict: &'a str,
}

impl Work for Question {
    async fn on<S: OperatorStore, M: Mailbox>(mut self, store: S, mailbox: M) -> anyhow::Result<()> {
        let now = store::now();
        let beside = self.file.as_deref().map(Database::beside).transpose()?;
        if let Some(kept) = beside.as_ref().and_then(|beside| beside.setting(KEPT_SECRET).transpose()) {
            self.secrets.push(kept?.into());
        }
        let facts = self.facts(&store, &mailbox, beside.as_ref(), now).await?;
        let verdict = verdict(&facts, now);
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, &Explanation { facts: &facts, verdict: &verdict })?;
            writeln!(out)?;
        } else {
            text::write(&mut out, &facts, &verdict, now)?;
        }
        Ok(out.flush()?)
    }
}

impl Question {
    async fn facts<S: OperatorStore, M: Mailbox>(
        &self,
        store: &S,
        mailbox: &M,
        beside: Option<&Database>,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Facts> {
        let process = self.process().await;
        let told = process.pushes.first().map(|told| told.registration);
        let mut facts = Facts { token: self.token(), process, ..Facts::default() };
        if facts.token == Token::Foreign {
            return Ok(facts);
        }
        let message = self.subject.push();
        let push = |id| Push {
            id,
            accepted_at: accepted_at(id),
            waits_until: None,
            unanswered_at: None,
            in_the_queue: false,
        };
        facts.push = message.map(push);
        let Some(id) = self.subject.registration().or(told) else { return Ok(facts) };
        facts.id = Some(id.to_string());
        let row = store.find(id, Consistency::Strong).await?;
        facts.life = life(row.as_ref(), self.subject.epoch(), now);
        if let Some(beside) = beside {
            let queued = beside.queued(id).await?;
            facts.waiting.in_the_queue = Some(queued.len());
            if let Some(push) = &mut facts.push {
                push.in_the_queue = queued.contains(&push.id);
            }
        }
        let Some(row) = row else {
            facts.process.wait_no_more = remembered_as_waiting(&facts.process.pushes).collect();
            return Ok(facts);
        };
        let account = row.target.recipient.to_bare();
        let roster = store.roster().await?;
        let tenant = roster.tenants.of(account.domain().as_str());
        facts.tenant = tenant.map(|(name, tenant)| Paying::of(name, tenant, now));
        facts.phones = store.account(&account, now).await?.seen.iter().map(Phone::from).collect();
        let in_the_queue = facts.waiting.in_the_queue;
        facts.waiting = Waiting { in_the_queue, ..waiting(mailbox, &account, id).await? };
        if let Some(push) = &mut facts.push
            && let Some(found) = mailbox.find(&account, push.id).await?
        {
            push.waits_until = Some(found.message.expires_at);
            push.unanswered_at = found.asked_at;
        }
        for id in remembered_as_waiting(&facts.process.pushes) {
            let waits = mailbox.find(&account, id).await?.is_some_and(|found| found.message.expires_at > now);
            if !waits {
                facts.process.wait_no_more.push(id);
            }
        }
        facts.registration = Some(Row::of(&row, now));
        Ok(facts)
    }

    fn token(&self) -> Token {
        if !self.subject.is_signed() {
            return Token::Absent;
        }
        match self.subject.signed_by(&self.secrets) {
            _ if self.secrets.is_empty() => Token::Unchecked,
            Some(secret) => Token::SignedBy { secret, of: self.secrets.len() },
            None => Token::Foreign,
        }
    }

    /// Asks the running process, which may be on another machine, or not run.
    async fn process(&self) -> Process {
        let asked = match (self.subject.push(), self.subject.registration()) {
            (Some(id), _) => self.told(&trail::path_of_push(id)).await.map(|told| told.into_iter().collect()),
            (None, Some(id)) => {
                self.told(&trail::path_of_registration(id)).await.map(Option::unwrap_or_default)
            }
            (None, None) => Ok(Vec::new()),
        };
        match asked {
            Ok(pushes) => Process { pushes, ..Process::default() },
            Err(error) => Process { unreachable: Some(format!("{error:#}")), ..Process::default() },
        }
    }

    async fn told<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Option<T>> {
        let answer = fetch::ask_admin(self.admin_listen, path).await?;
        match answer.status {
            200 => Ok(Some(serde_json::from_slice(&answer.body)?)),
            404 => Ok(None),
            status => anyhow::bail!("{} answers {status}", self.admin_listen),
        }
    }
}

fn remembered_as_waiting(pushes: &[Told]) -> impl Iterator<Item = MessageId> {
    pushes.iter().filter(|told| told.outcome == WAITS).map(|told| told.id)
}

fn life(row: Option<&Registration>, epoch: Option<Epoch>, now: DateTime<Utc>) -> Life {
    match row {
        None => Life::Missing,
        Some(row) if epoch.is_some_and(|epoch| epoch < row.epoch) => Life::Replaced,
        // The row is older than the endpoint, so the store was restored to an earlier state.
        Some(row) if epoch.is_some_and(|epoch| epoch > row.epoch) => Life::Missing,
        Some(row) if row.lives(now) => Life::Lives,
        Some(row) if row.revoked => Life::Revoked,
        Some(_) => Life::Expired,
    }
}

/// Reads the waiting pushes of a registration.
async fn waiting<M: Mailbox>(
    mailbox: &M,
    account: &BareJid,
    registration: RegistrationId,
) -> anyhow::Result<Waiting> {
    let of = [registration].into();
    let mut found = Waiting::default();
    let mut after: Option<MessageId> = None;
    loop {
        let page = mailbox.waiting(account, Some(&of), after, PAGE).await?;
        found.pushes += page.len();
        let oldest = page.iter().map(|waiting| waiting.message.accepted_at).min();
        found.oldest_accepted_at = [found.oldest_accepted_at, oldest].into_iter().flatten().min();
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.message.id),
            _ => return Ok(found),
        }
    }
}
