//! `make chaos`, shorter and with a fixed seed: everything fails, and no push that got a 201 is lost. It runs apart
//! from the other tests, which need the machine themselves.

use e2e::Kind;
use e2e::chaos::{Backend, Chaos, Size};
use tokio::sync::Semaphore;

/// Two at a time: each waits more than it works.
static TURNS: Semaphore = Semaphore::const_new(2);

async fn promises_are_kept(chaos: Chaos) {
    let _turn = TURNS.acquire().await;
    let report = chaos.run().await;
    println!("{report}");
    assert!(report.is_kept(), "a promise was broken: see the report");
}

const fn size(seconds: u64, pushes_per_second: usize) -> Size {
    Size { seconds, phones: 12, pushes_per_second }
}

/// Its name has it begin first: it takes longest.
#[tokio::test]
async fn nothing_is_lost_on_the_way_to_aws_whatever_fails() {
    let (backend, server) = (Backend::Cloud, Kind::Prosody);
    promises_are_kept(Chaos { seed: 5, backend, server, size: size(45, 20) }).await;
}

#[tokio::test]
async fn nothing_is_lost_whatever_fails_around_prosody() {
    let (backend, server) = (Backend::Embedded, Kind::Prosody);
    promises_are_kept(Chaos { seed: 8, backend, server, size: size(20, 40) }).await;
}

#[tokio::test]
async fn nothing_is_lost_whatever_fails_around_ejabberd() {
    let (backend, server) = (Backend::Embedded, Kind::Ejabberd);
    promises_are_kept(Chaos { seed: 3, backend, server, size: size(20, 40) }).await;
}
