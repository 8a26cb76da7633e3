//! A look at the machine: it gives this process its turns, or it is busy. Pushes of the shortest time need them.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::ledger::Ledger;

const INTERVAL: Duration = Duration::from_millis(100);
/// A turn that comes this much late disturbs every push.
const LATE: Duration = Duration::from_secs(1);

/// Notes each turn that comes late, until all is over.
pub(super) async fn watch_machine(ledger: &Ledger, mut over: watch::Receiver<bool>) {
    while !*over.borrow_and_update() {
        let begin = ledger.now();
        tokio::select! {
            () = sleep(INTERVAL) => {}
            _ = over.changed() => {}
        }
        if ledger.now() - begin > INTERVAL + LATE {
            ledger.was_disturbed("the machine was busy", begin);
        }
    }
}
