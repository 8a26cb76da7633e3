//! Carries out the faults of a plan.

use std::time::Duration;

use tokio::time::Instant;
use tokio_xmpp::jid::BareJid;

use crate::{
    calls::Failing,
    plan::{Fault, Leave, Return, Step},
    server::{COMPONENT, error},
    world::{Event, World},
};

/// A stranger, who answers pushes that were sent to others.
const STRANGER: &str = "mallory@elsewhere.example/x";
/// Time for which phones are away before the relay dies, and for which rows are then locked.
const AWAY: Duration = Duration::from_secs(40);
/// Time for which the relay is down that then finds these rows locked.
const RELAY_DOWN: Duration = Duration::from_secs(2);
/// Time between two sweeps of a relay, with the time that one takes.
const SWEEP_INTERVAL: Duration = Duration::from_secs(620);

impl World {
    pub(crate) fn fail(&mut self, fault: Fault) {
        self.shared.note(format_args!("fault: {fault:?}"));
        let now = self.shared.now();
        self.shared.lock().ledger.note_trouble(now);
        match fault {
            Fault::Crash(process, down) => {
                let mut state = self.shared.lock();
                let process = &mut state.processes[process];
                process.down = down;
                process.dies.iter().for_each(|dies| dies.cancel());
            }
            Fault::CrashInCall(process, calls, after) => {
                self.shared.lock().processes[process].dies_in = Some((calls, after));
            }
            Fault::Stop(process, down) => {
                let mut state = self.shared.lock();
                state.ledger.note_stop(now + Duration::from_secs(10));
                let process = &mut state.processes[process];
                process.down = down;
                process.stops.iter().for_each(|stops| stops.cancel());
            }
            Fault::Pause(process, length) => {
                if !self.is_paused(process) {
                    let mut state = self.shared.lock();
                    let until = Some(Instant::now() + length);
                    (state.processes[process].paused_until, state.processes[process].wakes_at) =
                        (until, until);
                    state.ledger.note_trouble(now + length);
                    drop(state);
                    if self.server.stall(process, true) {
                        // The relay does not write down full JIDs while it stands still.
                        let heard = self.phones.iter_mut().filter_map(|phone| phone.heard_at.as_mut());
                        heard.for_each(|at| *at += length);
                    }
                    self.after(length, Event::Resume(process));
                }
            }
            Fault::Restart(down) => {
                self.server.cut();
                self.restart(down);
            }
            Fault::Vanish(down) => {
                self.server.vanish();
                self.restart(down);
            }
            Fault::ComeBackFirst(process, account) => self.come_back_first(process, account),
            Fault::Row(process, account, length) => self.lock_rows(process, account, length),
            Fault::Cut => self.server.cut(),
            Fault::Calls(length, percent, lost_percent) => {
                let mut state = self.shared.lock();
                state.failing = Some(Failing { until: Instant::now() + length, percent, lost_percent });
                state.ledger.note_trouble(now + length);
            }
            Fault::Stranger(result) => self.answer_for_others(result),
        }
    }

    /// Restarts the XMPP server: all sessions are gone. Phones come back before its port for components opens, or
    /// after.
    fn restart(&mut self, down: Duration) {
        self.hub.open(false);
        self.server.sessions.clear();
        self.after(down, Event::PortOpens);
        for at in 0..self.phones.len() {
            if std::mem::take(&mut self.phones[at].online) {
                self.phones[at].heard_at = None;
                self.set_ready(at, None);
                let late = self.chance.millis(200, 60_000);
                self.after(late, Event::Step(at, Step::Return(Return::Same)));
            }
        }
    }

    fn come_back_first(&mut self, process: usize, account: u64) {
        self.after(AWAY, Event::Fault(Fault::Row(process, account, AWAY)));
        for at in 0..self.phones.len() {
            self.step(at, Step::Leave(Leave::Close));
            let later = if self.phones[at].plan.account == account { AWAY } else { Duration::ZERO };
            let back = AWAY + RELAY_DOWN / 2 + later;
            self.after(back, Event::Step(at, Step::Return(Return::Same)));
        }
    }

    /// Locks the rows of an account, and has a relay start again and sweep meanwhile.
    fn lock_rows(&mut self, process: usize, account: u64, length: Duration) {
        let account = BareJid::new(&format!("u{account}@sim.example")).expect("a bare JID");
        let until = self.shared.now() + length;
        let mut state = self.shared.lock();
        // A sweep passes over the account, and the next one comes 10 min later.
        state.ledger.locked.insert(account.clone(), until + SWEEP_INTERVAL);
        state.locked = Some((Instant::now() + length, account));
        let process = &mut state.processes[process];
        process.down = RELAY_DOWN;
        process.dies.iter().for_each(|dies| dies.cancel());
    }

    /// Answers up to 20 pushes as a stranger, in place of the full JIDs that were asked.
    fn answer_for_others(&mut self, result: bool) {
        let open: Vec<_> = self.shared.lock().ledger.open.iter().copied().take(20).collect();
        for id in open {
            let id = id.to_string();
            let answer = if result {
                format!("<iq type='result' id='{id}' from='{STRANGER}' to='{COMPONENT}'/>")
            } else {
                error(STRANGER, &id, "item-not-found")
            };
            self.server.tell(&answer);
        }
    }
}
