//! `make chaos`, shorter and with a fixed seed: everything fails, and no push that got a 201 is lost. It runs apart
//! from the other tests, which need the machine themselves.

use e2e::Kind;
use e2e::chaos::{Backend, Chaos, Size};
use tokio::sync::Semaphore;

static TURN: Semaphore = Semaphore::const_new(1);

async fn promises_are_kept(chaos: Chaos) {
    let _turn = TURN.acquire().await;
    let report = chaos.run().await;
    println!("{report}");
    assert!(report.is_kept(), "a promise was broken: see the report");
}

const fn size(seconds: u64, pushes_per_second: usize) -> Size {
    Size { seconds, phones: 12, pushes_per_second }
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

#[tokio::test]
async fn nothing_is_lost_whatever_fails_on_the_way_to_aws() {
    let (backend, server) = (Backend::Cloud, Kind::Prosody);
    promises_are_kept(Chaos { seed: 5, backend, server, size: size(45, 20) }).await;
}
