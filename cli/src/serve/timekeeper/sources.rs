//! The machine's sources of time.

use std::time::Duration;

use chrono::{DateTime, Utc};
use push::Clock;
use relay::Uptime;

use super::rules::Look;

/// The file with the id of this boot of this machine.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The clocks of the machine, or of a test.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(super) wall: Clock,
    pub(super) uptime: Uptime,
    pub(super) boot: String,
    pub(super) is_synchronized: fn() -> Option<bool>,
}

impl Sources {
    /// Returns the sources of this machine.
    pub(crate) fn system() -> Self {
        let boot = std::fs::read_to_string(BOOT).unwrap_or_default();
        Self {
            wall: Clock::system(),
            uptime: Uptime::system(),
            boot: boot.trim().to_owned(),
            is_synchronized: kernel_says,
        }
    }

    pub(super) fn wall(&self) -> DateTime<Utc> {
        self.wall.now()
    }

    pub(super) fn uptime(&self) -> Duration {
        self.uptime.now()
    }

    pub(super) fn boot(&self) -> &str {
        &self.boot
    }

    pub(super) fn look(&self) -> Look<'_> {
        let (wall, uptime) = (self.wall(), self.uptime());
        Look { wall, uptime, boot: &self.boot, is_synchronized: (self.is_synchronized)() }
    }
}

/// Returns whether the kernel's clock is synchronized (adjtimex(2)); `None`: not known.
#[cfg(target_os = "linux")]
fn kernel_says() -> Option<bool> {
    /// `TIME_ERROR`: "The clock is not synchronized to a reliable server".
    const NOT_SYNCHRONIZED: i32 = 5;
    let state = rtime_clock::adjtime::adjtimex(&mut rtime_clock::adjtime::Timex::new()).ok()?;
    Some(state != NOT_SYNCHRONIZED)
}

#[cfg(not(target_os = "linux"))]
fn kernel_says() -> Option<bool> {
    None
}
