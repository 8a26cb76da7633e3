//! Plays the faults of the plan, one actor for each part that fails. Phones play their own.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use tokio::time::{sleep, sleep_until};

use super::ledger::Ledger;
use super::plan::{AwsFault, FunctionKill, LinkFault, ServerFault, Timed, UpwireFault};
use super::stage::Cloud;
use crate::fault_proxy::FaultProxy;
use crate::function::Function;
use crate::proxy::Proxy;
use crate::upwire::Upwire;
use crate::xmpp_server::XmppServer;

/// Longest wait for `upwire` to stop. It promises 10 s; two busy cores may need more.
const STOP_DEADLINE: Duration = Duration::from_secs(40);
/// Age before which a process may not handle signals yet.
const YOUNG: Duration = Duration::from_secs(5);
/// Plays the faults of one `upwire`. It runs again at the end, though it may not be ready.
pub(super) async fn of_upwire(upwire: &mut Upwire, plan: &[Timed<UpwireFault>], ledger: &Ledger) {
    let mut started = ledger.now();
    for fault in plan {
        sleep_until(ledger.instant(fault.at)).await;
        upwire.assert_running();
        let begins = |what| ledger.is_disturbed(None, what);
        let (away, disturbance) = match fault.what {
            UpwireFault::Kill(away) => {
                let disturbance = begins("upwire killed");
                upwire.kill();
                (away, disturbance)
            }
            UpwireFault::Stop(away) => {
                let disturbance = begins("upwire stopped");
                upwire.terminate();
                let status = upwire.wait_exit(STOP_DEADLINE).await;
                // A young process that does not handle the signal yet is ended by it.
                let young = ledger.now() - started < YOUNG;
                if !(status.success() || young && status.signal().is_some()) {
                    ledger.violation(format!("upwire was told to stop, and ended with {status}"));
                }
                (away, disturbance)
            }
            UpwireFault::Hang(lasting) => {
                let disturbance = begins("upwire hung");
                upwire.pause();
                sleep(lasting).await;
                upwire.unpause();
                ledger.is_over(disturbance);
                continue;
            }
        };
        sleep(away).await;
        upwire.start_again();
        started = ledger.now();
        ledger.is_over(disturbance);
    }
}

pub(super) async fn of_server(server: &mut XmppServer, plan: &[Timed<ServerFault>], ledger: &Ledger) {
    for fault in plan {
        sleep_until(ledger.instant(fault.at)).await;
        let begins = |what| ledger.is_disturbed(None, what);
        let disturbance = match fault.what {
            ServerFault::Kill(away) => {
                let disturbance = begins("XMPP server killed");
                server.kill();
                sleep(away).await;
                server.start_again().await;
                disturbance
            }
            ServerFault::Stop(away) => {
                let disturbance = begins("XMPP server stopped");
                server.stop().await;
                sleep(away).await;
                server.start_again().await;
                disturbance
            }
            ServerFault::Hang(lasting) => {
                let disturbance = begins("XMPP server hung");
                server.pause();
                sleep(lasting).await;
                server.unpause();
                disturbance
            }
        };
        ledger.is_over(disturbance);
    }
}

pub(super) async fn of_link(link: &FaultProxy, plan: &[Timed<LinkFault>], ledger: &Ledger) {
    for fault in plan {
        sleep_until(ledger.instant(fault.at)).await;
        let begins = |what| ledger.is_disturbed(None, what);
        let disturbance = match fault.what {
            LinkFault::Cut(lasting) => {
                let disturbance = begins("component cut off");
                link.cut();
                sleep(lasting).await;
                disturbance
            }
            LinkFault::Reset => {
                let disturbance = begins("component's connection reset");
                link.reset();
                disturbance
            }
            LinkFault::Stall(lasting) => {
                let disturbance = begins("component's connection stalled");
                link.stall();
                sleep(lasting).await;
                disturbance
            }
        };
        link.mend();
        ledger.is_over(disturbance);
    }
}

pub(super) async fn of_aws(cloud: &Cloud, plan: &[Timed<AwsFault>], ledger: &Ledger) {
    for fault in plan {
        sleep_until(ledger.instant(fault.at)).await;
        let disturbance = ledger.is_disturbed(None, "ways to AWS cut");
        let ways: Vec<&Proxy> = fault.what.ways.iter().map(|way| cloud.way(*way)).collect();
        ways.iter().for_each(|way| way.cut());
        sleep(fault.what.lasting).await;
        ways.iter().for_each(|way| way.mend());
        ledger.is_over(disturbance);
    }
}

pub(super) async fn of_function(function: &mut Function, plan: &[Timed<FunctionKill>], ledger: &Ledger) {
    for fault in plan {
        sleep_until(ledger.instant(fault.at)).await;
        let disturbance = ledger.is_disturbed(None, "function killed");
        function.kill();
        function.start_again().await;
        ledger.is_over(disturbance);
    }
}
