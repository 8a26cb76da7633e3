//! The contents of a queue of the emulator. SQS counts late and shows only a part, so tests wait for them.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::emulator::Emulator;
use crate::wait::{eventually, settles};

const DEADLINE: Duration = Duration::from_secs(120);

impl Emulator {
    /// Waits until a queue has this number of entries, hidden ones included.
    pub async fn queue_holds(&self, url: &str, count: u64) {
        let what = format!("{url} holds {count} entries");
        settles(DEADLINE, &what, async || self.depth(url).await, |seen| *seen == count).await;
    }

    /// Waits until a queue has shown each of these entries. Fails at once if it shows another.
    pub async fn queue_shows(&self, url: &str, entries: &[&str]) {
        let mut missing: BTreeSet<&str> = entries.iter().copied().collect();
        eventually(DEADLINE, &format!("{url} shows {entries:?}"), async || {
            for entry in self.peek(url).await {
                assert!(entries.contains(&entry.as_str()), "{url} shows {entry:?}");
                missing.remove(entry.as_str());
            }
            missing.is_empty()
        })
        .await;
    }
}
