//! `make bench-cloud`: the cost of a push on AWS, counted on the wire, and the resources of the function and the relay.
//!
//! The counts hold on AWS, too. The times are those of this machine. The report says where they include an emulator.

mod ingress;
mod mailbox;
mod polls;
mod prices;
mod relay;
mod report;
mod runtime_api;
mod troubles;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use e2e::{ENDPOINT_SECRET, Emulator, EmulatorKind, Ways, XmppServer};
use tokio::task::LocalSet;

/// Number of calls of each operation of AWS.
type Calls = BTreeMap<String, usize>;

/// Queue and tables on the fastest emulators, and the proxies that count calls.
struct Cloud {
    sqs: Emulator,
    dynamodb: Emulator,
    ways: Ways,
    queue_url: String,
    table: String,
    mailbox: String,
}

impl Cloud {
    async fn start() -> Self {
        let (sqs, dynamodb) =
            tokio::join!(Emulator::start(EmulatorKind::Fauxqs), Emulator::start(EmulatorKind::Dynalite));
        let ways = Ways::to(&sqs.endpoint, &dynamodb.endpoint).await;
        let queue_url = sqs.queue(std::time::Duration::from_secs(60), 1000).await.url;
        let (table, mailbox) = (dynamodb.table().await, dynamodb.mailbox_table().await);
        Self { sqs, dynamodb, ways, queue_url, table, mailbox }
    }

    /// Returns the variables with which both halves use these parts through the proxies.
    fn variables(&self) -> BTreeMap<&'static str, String> {
        let mut variables = self.ways.variables();
        variables.insert("UPWIRE_SECRET", ENDPOINT_SECRET.to_owned());
        variables.insert("UPWIRE_QUEUE_URL", self.queue_url.clone());
        variables.insert("UPWIRE_REGISTRATIONS_TABLE", self.table.clone());
        variables.insert("UPWIRE_MAILBOX_TABLE", self.mailbox.clone());
        variables
    }

    /// Returns the calls to DynamoDB since then, without `UpdateItem`. The bill has the updates of the lease by the
    /// month, and those that count pushes with each push.
    fn calls_to_table_since(&self, before: &Calls) -> Calls {
        let mut calls = self.ways.calls_since(before);
        calls.retain(|call, _| !prices::is_sqs(call) && call != "UpdateItem");
        calls
    }
}

/// The arguments; `cargo bench` adds `--bench`.
#[derive(Default)]
struct Options {
    /// The binary of another commit's relay.
    base: Option<PathBuf>,
    part: Part,
    is_quick: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    #[default]
    All,
    /// The size of the function, and its cold start.
    Cold,
    /// The polls at several rates.
    Polls,
    /// The rate of other accounts while one account has trouble.
    Troubles,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        const USAGE: &str = "cargo bench -p e2e --bench bench-cloud -- [--base BINARY] [--cold | --polls | --troubles] [--quick]";
        let (mut options, mut arguments) = (Self::default(), arguments);
        while let Some(argument) = arguments.next() {
            match &*argument {
                "--bench" => {}
                "--base" => options.base = Some(arguments.next().context(USAGE)?.into()),
                "--cold" => options.part = Part::Cold,
                "--polls" => options.part = Part::Polls,
                "--troubles" => options.part = Part::Troubles,
                "--quick" => options.is_quick = true,
                _ => anyhow::bail!(USAGE),
            }
        }
        Ok(options)
    }
}

async fn cold_alone() -> anyhow::Result<()> {
    let cold = ingress::cold_starts(&ingress::binary()?, &ingress::empty_binary()?).await?;
    println!("{}", report::Starts(&cold));
    Ok(())
}

async fn polls_alone() -> anyhow::Result<()> {
    let (cloud, server) = (Cloud::start().await, XmppServer::start(e2e::Kind::Prosody).await);
    let polls = polls::measured(&server, &cloud).await?;
    println!("{}", report::Rates(&polls));
    Ok(())
}

async fn troubles_alone(is_quick: bool) -> anyhow::Result<()> {
    let (cloud, server) = (Cloud::start().await, XmppServer::start(e2e::Kind::Prosody).await);
    let troubles = troubles::measured(&server, &cloud, is_quick).await?;
    println!("{}", report::Troubles(&troubles));
    Ok(())
}

fn main() -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        eprintln!("This is a debug build: its times say nothing. `make bench-cloud` takes a release build.");
    }
    let options = Options::parse(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let phones = LocalSet::new();
    match options.part {
        Part::All => {}
        Part::Cold => return runtime.block_on(cold_alone()),
        Part::Polls => return phones.block_on(&runtime, polls_alone()),
        Part::Troubles => return phones.block_on(&runtime, troubles_alone(options.is_quick)),
    }
    let report = phones.block_on(&runtime, async {
        let (function, empty) = (ingress::binary()?, ingress::empty_binary()?);
        eprintln!("cold starts …");
        let cold = ingress::cold_starts(&function, &empty).await?;
        eprintln!("starting the emulators and Prosody …");
        let cloud = Cloud::start().await;
        let server = XmppServer::start(e2e::Kind::Prosody).await;
        eprintln!("the function, warm …");
        let warm = ingress::warm(&function, &cloud).await?;
        eprintln!("the relay under load …");
        let relays = relay::in_turn(&server, &cloud, options.base.as_deref()).await?;
        eprintln!("the mailbox …");
        let stored = mailbox::stored(&server, &cloud).await?;
        eprintln!("the polls …");
        let polls = polls::measured(&server, &cloud).await?;
        eprintln!("the others while one account has trouble …");
        let troubles = troubles::measured(&server, &cloud, options.is_quick).await?;
        anyhow::Ok(report::Report { function: function.clone(), cold, warm, relays, stored, polls, troubles })
    })?;
    println!("{report}");
    report.check()
}
