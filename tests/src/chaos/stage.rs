//! The running parts: the XMPP server, `upwire` behind a network that fails, and on AWS the function and the emulator.

use std::time::Duration;

use aws::MailboxTable;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use embedded::Database;
use push::ports::Mailbox;
use serde_json::json;
use tokio_xmpp::jid::BareJid;

use super::backlog::Queue;
use super::draw::{HIBERNATION, RELAYS};
use super::plan::Way;
use super::{Backend, Chaos, readiness, senders};
use crate::emulator::{Emulator, Queues};
use crate::fault_proxy::FaultProxy;
use crate::function::Function;
use crate::proxy::{Proxy, Ways};
use crate::upwire::{ENDPOINT_SECRET, Upwire, UpwireBuilder};
use crate::xmpp_server::{Settings, XmppServer};
use crate::{http, wait::eventually};

/// Time after which the relay gives up an unanswered push (`UPWIRE_ACK_TIMEOUT`).
pub(super) const ACK_TIMEOUT_SECONDS: u32 = 4;
/// Visibility timeout of the queue: entries of a killed relay show again after it.
const VISIBILITY: Duration = Duration::from_secs(5);
/// Most pushes that are read of one account, which never has more.
const MAILBOX_MAX: usize = 10_000;
const RECEIVES_MAX: u32 = 1000;
/// Longest wait for a connected `upwire`: longer than a lease, and than the longest delay between two connections.
const READY_DEADLINE: Duration = Duration::from_secs(300);

pub(super) struct Stage {
    pub(super) server: XmppServer,
    /// One `upwire serve`, or the relays.
    pub(super) upwires: Vec<Upwire>,
    /// The connection from `upwire` to the XMPP server.
    pub(super) link: FaultProxy,
    pub(super) cloud: Option<Cloud>,
    pub(super) function: Option<Function>,
}

pub(super) struct Cloud {
    emulator: &'static Emulator,
    queues: Queues,
    mailbox: String,
    ingress_ways: Ways,
    relay_ways: Vec<Ways>,
}

impl Stage {
    pub(super) async fn build(chaos: &Chaos) -> Self {
        let settings = Settings { hibernation: HIBERNATION, ..Settings::default() };
        let server = XmppServer::start_with(chaos.server, settings).await;
        let link = FaultProxy::to(server.component_port).await;
        let (builders, cloud, function) = match chaos.backend {
            Backend::Embedded => (vec![Upwire::on(&server)], None, None),
            Backend::Cloud => {
                let (builders, cloud, function) = Cloud::build(&server).await;
                (builders, Some(cloud), Some(function))
            }
        };
        let start = |builder: UpwireBuilder| {
            builder
                .set("UPWIRE_XMPP_SERVER", format!("127.0.0.1:{}", link.port))
                .set("UPWIRE_ACK_TIMEOUT", ACK_TIMEOUT_SECONDS)
                .start()
        };
        let upwires = builders.into_iter().map(start).collect();
        let stage = Self { server, upwires, link, cloud, function };
        stage.is_ready().await;
        stage
    }

    pub(super) fn admin_urls(&self) -> Vec<String> {
        self.upwires.iter().map(|upwire| upwire.admin_url.clone()).collect()
    }

    /// Waits until an `upwire` is connected.
    pub(super) async fn is_ready(&self) {
        let (client, urls) = (http::client(), self.admin_urls());
        let ready = async || readiness::is_one_ready(&client, &urls).await;
        eventually(READY_DEADLINE, "an upwire is connected", ready).await;
    }

    pub(super) fn assert_running(&mut self) {
        self.upwires.iter_mut().for_each(Upwire::assert_running);
    }

    pub(super) fn component(&self) -> BareJid {
        self.upwires[0].component.jid.clone()
    }

    /// Ends every `upwire`. Reads the mailboxes of these accounts, and returns the numbers of the pushes in them.
    pub(super) async fn left(&mut self, accounts: &[BareJid]) -> Vec<usize> {
        for upwire in &mut self.upwires {
            upwire.kill();
        }
        match &self.cloud {
            Some(cloud) => left(&MailboxTable::new(&cloud.emulator.config(), &cloud.mailbox), accounts).await,
            None => {
                let database = Database::open(&self.upwires[0].database()).expect("nobody else has it");
                left(&database, accounts).await
            }
        }
    }

    /// Counts the pushes that still wait or are being delivered, and those in the dead-letter queue.
    pub(super) async fn depths(&self) -> Depths {
        match &self.cloud {
            None => Depths {
                queue: self.upwires[0].measure("upwire_queue_depth").await as u64,
                mailbox: self.upwires[0].measure("upwire_mailbox_depth").await as u64,
                dead_letters: 0,
            },
            Some(Cloud { emulator, queues, mailbox, .. }) => {
                let count = json!({"TableName": mailbox, "IndexName": "by_registration", "Select": "COUNT"});
                let counted = emulator.call("DynamoDB_20120810.Scan", count).await;
                Depths {
                    queue: emulator.depth(&queues.url).await,
                    mailbox: counted["Count"].as_u64().expect("a count"),
                    dead_letters: emulator.depth(&queues.dead_letters).await,
                }
            }
        }
    }
}

async fn left(mailbox: &impl Mailbox, accounts: &[BareJid]) -> Vec<usize> {
    let mut left = Vec::new();
    for account in accounts {
        let waiting = mailbox.waiting(account, None, None, MAILBOX_MAX).await.expect("a mailbox can be read");
        let bodies = waiting.iter().map(|waiting| STANDARD.decode(waiting.message.body.as_base64()));
        left.extend(bodies.flatten().filter_map(|body| senders::number(&body)));
    }
    left
}

/// The numbers of pushes in each place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Depths {
    pub(super) queue: u64,
    pub(super) mailbox: u64,
    pub(super) dead_letters: u64,
}

impl Cloud {
    async fn build(server: &XmppServer) -> (Vec<UpwireBuilder>, Self, Function) {
        let emulator = Emulator::shared_stage().await;
        let queues = emulator.queue(VISIBILITY, RECEIVES_MAX).await;
        let (table, mailbox) = (emulator.table().await, emulator.mailbox_table().await);
        let ways = async || Ways::to(&emulator.endpoint, &emulator.endpoint).await;
        let (ingress_ways, mut relay_ways) = (ways().await, Vec::new());
        for _ in 0..RELAYS {
            relay_ways.push(ways().await);
        }
        let places = [
            ("UPWIRE_QUEUE_URL", queues.url.clone()),
            ("UPWIRE_REGISTRATIONS_TABLE", table),
            ("UPWIRE_MAILBOX_TABLE", mailbox.clone()),
        ];
        let mut variables = ingress_ways.variables();
        variables.extend(places.clone());
        variables.insert("UPWIRE_SECRET", ENDPOINT_SECRET.to_owned());
        let function = Function::start(&variables).await;
        let component = server.component();
        let relay = |ways: &Ways| {
            Upwire::relay_as(server, component.clone())
                .set("UPWIRE_PUBLIC_URL", &function.url)
                .set_all(places.clone())
                .set_all(ways.variables())
        };
        let relays = relay_ways.iter().map(relay).collect();
        (relays, Self { emulator, queues, mailbox, ingress_ways, relay_ways }, function)
    }

    pub(super) fn queue(&self) -> Queue {
        Queue { emulator: self.emulator, url: self.queues.url.clone() }
    }

    pub(super) fn way(&self, way: Way) -> &Proxy {
        match way {
            Way::IngressToQueue => &self.ingress_ways.queue,
            Way::IngressToTables => &self.ingress_ways.table,
            Way::RelayToQueue(relay) => &self.relay_ways[relay].queue,
            Way::RelayToTables(relay) => &self.relay_ways[relay].table,
        }
    }
}
