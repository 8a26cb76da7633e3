//! Registrations: the first ones and the renewals that a push server takes in a second.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::{RawClient, UNIFIED_PUSH, XmppServer, hashed};
use futures::future::try_join_all;
use tokio_xmpp::jid::BareJid;

const PHONES: usize = 4;
/// Most unanswered requests of a phone.
const UNANSWERED_MAX: usize = 16;
const ANSWER_DEADLINE: Duration = Duration::from_secs(120);

/// Phones that register, over and over.
pub(crate) struct Registrars {
    phones: Vec<RawClient>,
    push_server: BareJid,
    /// Number of rounds that were run.
    rounds: usize,
}

/// Registrations per second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) first: f64,
    pub(crate) renewed: f64,
}

impl Registrars {
    /// Logs the phones in.
    pub(crate) async fn connect(server: &XmppServer, push_server: BareJid) -> Self {
        let mut phones = Vec::new();
        for _ in 0..PHONES {
            phones.push(RawClient::connect(server, &server.user().await, "registrar").await);
        }
        Self { phones, push_server, rounds: 0 }
    }

    /// Registers this number of applications, and renews each of them.
    pub(crate) async fn run(&mut self, count: usize) -> anyhow::Result<Rates> {
        self.rounds += 1;
        let first = self.register(count).await?;
        let renewed = self.register(count).await?;
        Ok(Rates { first, renewed })
    }

    async fn register(&mut self, count: usize) -> anyhow::Result<f64> {
        let each = count / PHONES;
        let requests = |phone: usize| {
            let (push_server, instance) = (&self.push_server, hashed("instance"));
            let request = |number: usize| {
                let application = hashed(&format!("round {} phone {phone} {number}", self.rounds));
                format!(
                    "<iq type='set' id='r' to='{push_server}'><register xmlns='{UNIFIED_PUSH}' \
                     application='{application}' instance='{instance}'/></iq>"
                )
            };
            (0..each).map(request).collect()
        };
        let requests: Vec<Vec<String>> = (0..PHONES).map(requests).collect();
        let begin = Instant::now();
        let phones = self.phones.iter_mut().zip(requests);
        try_join_all(phones.map(|(phone, requests)| ask(phone, requests))).await?;
        Ok((PHONES * each) as f64 / begin.elapsed().as_secs_f64())
    }
}

async fn ask(phone: &mut RawClient, requests: Vec<String>) -> anyhow::Result<()> {
    let (mut unanswered, mut requests) = (0, requests.into_iter());
    loop {
        let batch: String =
            requests.by_ref().take(UNANSWERED_MAX - unanswered).inspect(|_| unanswered += 1).collect();
        if unanswered == 0 {
            return Ok(());
        }
        phone.send(batch).await?;
        let answer = phone.read_until("</iq>", ANSWER_DEADLINE).await?;
        ensure!(answer.contains("<registered"), "a registration was refused: {answer}");
        unanswered -= 1;
    }
}
