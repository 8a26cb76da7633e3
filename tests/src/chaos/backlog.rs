//! A look at the queue on AWS: a push behind many others is delayed, which is no fault.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::ledger::Ledger;
use crate::emulator::Emulator;

const INTERVAL: Duration = Duration::from_millis(500);
/// Number of entries that the emulator hands out in 1 s on a busy machine.
const MANY: u64 = 100;

/// A queue on AWS.
pub(super) struct Queue {
    pub(super) emulator: &'static Emulator,
    pub(super) url: String,
}

/// Notes each time when many entries wait to be received, until the run is over.
pub(super) async fn watch_backlog(queue: &Queue, ledger: &Ledger, mut over: watch::Receiver<bool>) {
    let mut disturbance = None;
    while !*over.borrow_and_update() {
        let many = queue.emulator.unreceived(&queue.url).await >= MANY;
        match disturbance {
            None if many => disturbance = Some(ledger.is_disturbed(None, "many pushes waited in the queue")),
            Some(begun) if !many => {
                ledger.is_over(begun);
                disturbance = None;
            }
            _ => {}
        }
        tokio::select! {
            () = sleep(INTERVAL) => {}
            _ = over.changed() => {}
        }
    }
}
