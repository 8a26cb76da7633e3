//! Phones that register, get pushes and never answer, and their effect on a healthy phone.

use std::fmt;
use std::time::Duration;

use e2e::bench::{Journal, Request};
use futures::{StreamExt, TryStreamExt, stream};
use std::rc::Rc;
use tokio::time::sleep;

use crate::stage::{Latency, Stage, Steady};
use crate::stand_in::Temper;

const REGISTERING_AT_ONCE: usize = 64;
/// Number of pushes to each silent full JID.
const PUSHES_EACH: u32 = 6;
/// Wait after the pushes to the crowd: longer than a push may be unanswered before it is given up
/// (`UPWIRE_ACK_TIMEOUT`).
const AFTERMATH: Duration = Duration::from_secs(40);

/// The owner of the silent full JIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crowd {
    OneAccount,
    FiftyAccounts,
    ForeignDomain,
}

impl Crowd {
    pub(crate) const ALL: [Self; 3] = [Self::OneAccount, Self::FiftyAccounts, Self::ForeignDomain];

    fn jid(self, number: usize) -> String {
        match self {
            Self::OneAccount => format!("silent@localhost/{number}"),
            Self::FiftyAccounts => format!("silent{}@localhost/{number}", number % 50),
            Self::ForeignDomain => format!("silent{number}@foreign.example/phone"),
        }
    }
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneAccount => "of one account",
            Self::FiftyAccounts => "of 50 accounts",
            Self::ForeignDomain => "of one foreign domain, an account each",
        })
    }
}

/// The healthy phone's latency without the crowd, and with it.
pub(crate) struct Silent {
    pub(crate) crowd: Crowd,
    pub(crate) alone: Latency,
    pub(crate) beside: Latency,
}

pub(crate) async fn measure(crowd: Crowd, jids: usize, alone: Duration) -> anyhow::Result<Silent> {
    let stage = Stage::start("silent").await?;
    let registering = stream::iter(0..jids).map(async |number| {
        let jid = crowd.jid(number);
        stage.stand_in.come(&jid, Temper::Silent);
        Request::new(&stage.stand_in.register(&jid, number).await?)
    });
    let requests: Vec<Request> = registering.buffered(REGISTERING_AT_ONCE).try_collect().await?;
    let alone = stage.latency_alone(alone).await?;

    let steady = stage.push_steadily();
    let pushing = AFTERMATH / 2;
    let interval = pushing / (jids as u32 * PUSHES_EACH);
    let of_crowd = Steady::begin(&requests, interval, &Rc::<Journal>::default());
    sleep(pushing).await;
    of_crowd.end().await?;
    sleep(AFTERMATH).await;
    let beside = stage.end(steady).await?;
    Ok(Silent { crowd, alone, beside })
}
