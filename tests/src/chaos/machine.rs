//! A look at the machine: a busy machine delays this process. Pushes with the shortest TTL then expire on their way.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::ledger::Ledger;

const INTERVAL: Duration = Duration::from_millis(100);
/// Delay of this process that disturbs every push.
const LATE: Duration = Duration::from_secs(1);

/// Notes each such delay, until the run is over.
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
