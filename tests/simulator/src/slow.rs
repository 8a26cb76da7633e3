//! Slow calls of the store have their effect even if the caller has given up.

use std::time::Duration;

use push::ports::Unavailable;
use tokio::{sync::oneshot, time::sleep};
use tokio_util::sync::CancellationToken;
use tokio_xmpp::jid::BareJid;

use crate::{
    calls::{INGRESS, Port, Shared, State},
    plan::STORM,
};

/// Least and greatest length of a slow call, in milliseconds.
const SLOW_MILLIS: [u64; 2] = [1500, 20_000];
/// Calls that are made so often that few of them are slow.
const OFTEN: [&str; 7] = ["find", "find_all", "waiting", "keep", "count", "make_room", "remove"];
/// Factor by which the other calls are slow more often.
const RARE_FACTOR: u64 = 5;
/// Longest time for which one slow call may hold up the relay's work for other accounts.
const HELD_UP: Duration = Duration::from_secs(3);

impl Port {
    /// Makes a call of the store, which may be slow. It concerns these accounts; all, if the list is empty.
    pub(crate) async fn call_store<T: Send + 'static>(
        &self,
        name: &'static str,
        accounts: impl FnOnce(&State) -> Vec<BareJid> + Send,
        effect: impl FnOnce(&mut State, &Shared) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let Some([before, after]) = self.draw_slowness(name) else { return self.call(name, effect).await };
        self.excuse(name, accounts, before + after);
        let (port, (told, value)) = (self.clone(), oneshot::channel());
        tokio::spawn(async move {
            sleep(before).await;
            if !port.shared.is_cloud() {
                // The store is part of the process, and stands still or dies with it.
                port.resume().await;
            }
            let at = port.shared.now();
            let value = {
                let mut state = port.shared.lock();
                state.trace.note(at, format_args!("{} {name}, slowly", port.name()));
                effect(&mut state, &port.shared)
            };
            sleep(after).await;
            let _ = told.send(value);
        });
        let value = value.await.map_err(Unavailable::new);
        self.resume().await;
        value
    }

    /// Returns the times of a slow call before its effect and after it; `None`: the call is not slow.
    fn draw_slowness(&self, name: &str) -> Option<[Duration; 2]> {
        let permille = self.shared.plan.slow_permille;
        if permille == 0 || self.life.process == INGRESS || self.shared.now() >= STORM {
            return None;
        }
        let permille = if OFTEN.contains(&name) { permille } else { RARE_FACTOR * permille };
        let slowness = &mut self.shared.lock().slowness;
        if slowness.number(0, 999) >= permille {
            return None;
        }
        let length = slowness.number(SLOW_MILLIS[0], SLOW_MILLIS[1]);
        let before = match slowness.number(0, 2) {
            0 => 0,
            1 => slowness.number(0, length),
            _ => length,
        };
        Some([before, length - before].map(Duration::from_millis))
    }

    /// Notes that the accounts of a slow call may have to wait for its end, and all others for a moment. The end of a
    /// relay that stops waits for its calls, so all have to wait then.
    fn excuse(&self, name: &str, accounts: impl FnOnce(&State) -> Vec<BareJid>, length: Duration) {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        state.trace.note(now, format_args!("{} {name} takes {length:?}", self.name()));
        let accounts = accounts(&state);
        let stops = &state.processes[self.life.process].stops;
        let is_stopping = stops.as_ref().is_some_and(CancellationToken::is_cancelled);
        if accounts.is_empty() || is_stopping {
            state.ledger.note_trouble(now + length);
        }
        state.ledger.note_held_up(now + length.min(HELD_UP));
        for account in accounts {
            state.ledger.note_slow(account, now + length);
        }
    }
}
