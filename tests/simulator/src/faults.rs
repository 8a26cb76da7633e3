//! What fails, and how.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    calls::Failing,
    plan::{Fault, Return, Step},
    server::{COMPONENT, error},
    world::{Event, World},
};

/// Who answers what others were asked.
const STRANGER: &str = "mallory@elsewhere.example/x";

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
                state.ledger.note_trouble(now + Duration::from_secs(10));
                let process = &mut state.processes[process];
                process.down = down;
                process.stops.iter().for_each(|stops| stops.cancel());
            }
            Fault::Pause(process, length) => {
                if !self.is_paused(process) {
                    let mut state = self.shared.lock();
                    state.processes[process].paused_until = Some(Instant::now() + length);
                    state.ledger.note_trouble(now + length);
                    drop(state);
                    self.server.stall(process, true);
                    self.after(length, Event::Resume(process));
                }
            }
            Fault::Restart(down) => self.restart(down),
            Fault::Cut => self.server.cut(),
            Fault::Calls(length, percent, lost_percent) => {
                let mut state = self.shared.lock();
                state.failing = Some(Failing { until: Instant::now() + length, percent, lost_percent });
                state.ledger.note_trouble(now + length);
            }
            Fault::Stranger(result) => self.answer_for_others(result),
        }
    }

    /// The XMPP server restarts: all sessions are gone, and phones come back before its port for components opens, or
    /// after.
    fn restart(&mut self, down: Duration) {
        self.hub.open(false);
        self.server.cut();
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

    /// Whoever was not asked answers for whoever was.
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
