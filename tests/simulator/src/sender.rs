//! An application server posts pushes, and the ingress takes them.

use std::sync::Arc;

use push::{
    Body, MessageId, PushMessage, Registration, Topic, Ttl,
    message::Wishes,
    ports::{Consistency, QueueWriter, Registrations, Unavailable, Withdrawals},
};
use tokio::time::sleep;

use crate::{
    calls::{INGRESS, Port, Shared},
    chance::Chance,
    pipe::Life,
    plan::{PostPlan, SenderPlan},
    relays::secrets,
};

/// The state of an application server.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) plan: SenderPlan,
    pub(crate) endpoint: Option<String>,
    pub(crate) chance: Chance,
}

/// A 410: the endpoint is gone.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) sender: usize,
    pub(crate) token: String,
}

impl Sender {
    pub(crate) fn new(plan: &SenderPlan, seed: u64) -> Self {
        Self { plan: plan.clone(), endpoint: None, chance: Chance::of(seed, 2000 + plan.key) }
    }

    pub(crate) fn is_of(&self, account: u64, application: u64) -> bool {
        (self.plan.account, self.plan.application) == (account, application)
    }

    pub(crate) fn learn(&mut self, token: &str) {
        self.endpoint = Some(token.to_owned());
    }

    pub(crate) fn forget(&mut self, token: &str) {
        self.endpoint.take_if(|endpoint| endpoint == token);
    }
}

/// Posts a push, and withdraws it later if its plan says so. `Some`: the endpoint is gone.
pub(crate) async fn post(
    shared: Arc<Shared>,
    sender: usize,
    token: String,
    plan: PostPlan,
    chance: [u8; MessageId::CHANCE_BYTES],
) -> Option<Refused> {
    let port = Port { shared: Arc::clone(&shared), life: Life { process: INGRESS, number: 0 } };
    let row = living(&port, &token).await;
    let Ok(Some(row)) = row else {
        // A store that does not answer leads to a 503: the endpoint stays.
        row.ok()?;
        shared.lock().ledger.refused_tokens.insert(token.clone());
        shared.note(format_args!("sender {sender} gets 410"));
        return Some(Refused { sender, token });
    };
    let wishes = Wishes {
        ttl: Ttl::from_seconds(plan.ttl),
        urgency: plan.urgency,
        topic: plan.topic.and_then(|topic| Topic::parse(&format!("topic{topic}"))),
    };
    let message = PushMessage::new(chance, &row, wishes, Body::from_bytes(b"hello"), shared.wall());
    let id = message.id;
    shared.lock().ledger.offer(message.clone(), shared.now());
    if port.send(message).await.is_ok() {
        let at = shared.now();
        {
            let mut state = shared.lock();
            state.trace.note(at, format_args!("sender {sender} gets 201 for {id}"));
            state.ledger.promise(id, at);
        }
        if let Some(regret) = plan.withdrawn_after {
            sleep(regret).await;
            withdraw(&port, sender, &row, id).await;
        }
    }
    None
}

/// Withdraws a push that still waits.
async fn withdraw(port: &Port, sender: usize, row: &Registration, id: MessageId) {
    let account = row.target.recipient.to_bare();
    if let Ok(true) = port.withdraw(&account, id, port.shared.wall()).await {
        port.shared.note(format_args!("sender {sender} has withdrawn {id}"));
    }
}

/// Returns the row of an endpoint, if it lives. A strongly consistent read comes before a refusal.
async fn living(port: &Port, token: &str) -> Result<Option<Registration>, Unavailable> {
    let Ok((id, epoch)) = secrets().verify(token) else { return Ok(None) };
    for consistency in [Consistency::Eventual, Consistency::Strong] {
        let row = Registrations::find(port, id, consistency).await?;
        let row = row.filter(|row| row.epoch == epoch && row.lives(port.shared.wall()));
        if row.is_some() {
            return Ok(row);
        }
    }
    Ok(None)
}
