//! Where the relay reads the clock: a stanza comes now, a push goes out now.

use chrono::{DateTime, Utc};

#[expect(clippy::disallowed_methods, reason = "the edge of the relay; what decides takes `now` from here")]
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}
