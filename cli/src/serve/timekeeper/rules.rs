//! The rules for trusting a clock. No I/O; readings are arguments.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use embedded::KnownTime;
use push::Reading;

/// Largest difference between the machine's clock and the expected time at which the clock is trusted.
pub(super) const AGREEMENT: TimeDelta = TimeDelta::hours(1);
/// Time for which a clock that disagrees has to run evenly before it is trusted.
const HOLDS_FOR: Duration = Duration::from_secs(600);
/// Largest gain or loss of a right clock in that time, while it is slewed.
const SLEWED: TimeDelta = TimeDelta::seconds(30);

/// The readings of one moment.
#[derive(Debug, Clone)]
pub(super) struct Look<'a> {
    pub(super) wall: DateTime<Utc>,
    pub(super) uptime: Duration,
    /// The id of the boot since which `uptime` counts.
    pub(super) boot: &'a str,
    /// True if the kernel calls its clock synchronized; `None`: it does not say.
    pub(super) is_synchronized: Option<bool>,
}

/// A change in the trust in a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The machine's clock is trusted again.
    Trusted,
}

/// A moment by the wall clock and the uptime.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    wall: DateTime<Utc>,
    uptime: Duration,
}

impl Anchor {
    fn at(self, uptime: Duration) -> DateTime<Utc> {
        let passed = TimeDelta::from_std(uptime.saturating_sub(self.uptime)).unwrap_or(TimeDelta::MAX);
        self.wall.checked_add_signed(passed).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

/// The state of the rules.
#[derive(Debug)]
pub(super) struct Rules {
    known: Anchor,
    /// Moment since which the machine's clock runs evenly, while it is in doubt.
    held_since: Option<Anchor>,
}

impl Rules {
    /// Begins with the last trusted time. The time for which a machine was off is not known, and counts as zero.
    pub(super) fn begin(known: Option<&KnownTime>, look: &Look<'_>) -> Self {
        let known = match known {
            None => Anchor { wall: look.wall, uptime: look.uptime },
            Some(known) if known.boot == look.boot && !known.boot.is_empty() => {
                Anchor { wall: known.wall, uptime: known.uptime }
            }
            Some(known) => Anchor { wall: known.wall, uptime: look.uptime },
        };
        Self { known, held_since: None }
    }

    /// Returns the reading for these times.
    pub(super) fn read(&self, wall: DateTime<Utc>, uptime: Duration) -> Reading {
        let expected = self.known.at(uptime);
        if (wall - expected).abs() <= AGREEMENT {
            return Reading::certain(wall);
        }
        Reading { now: expected, wall }
    }

    /// Updates the rules with a look at the clocks. `accepted`: an operator says that the machine's clock is right.
    pub(super) fn look(&mut self, look: &Look<'_>, accepted: bool) -> Option<Change> {
        let seen = Anchor { wall: look.wall, uptime: look.uptime };
        let was_in_doubt = self.held_since.is_some();
        if !self.read(look.wall, look.uptime).is_in_doubt() {
            self.believe(seen);
            return was_in_doubt.then_some(Change::Trusted);
        }
        let holds = |since: &Anchor| (look.wall - since.at(look.uptime)).abs() <= SLEWED;
        let since = *self.held_since.take_if(|since| holds(since)).get_or_insert(seen);
        self.held_since = Some(since);
        let has_held = look.uptime.saturating_sub(since.uptime) >= HOLDS_FOR;
        let is_believed = accepted || (has_held && look.is_synchronized == Some(true));
        if !is_believed {
            return None;
        }
        self.believe(seen);
        Some(Change::Trusted)
    }

    fn believe(&mut self, seen: Anchor) {
        self.known = seen;
        self.held_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    const DAY: i64 = 86_400;

    /// A machine whose clock is off by `off` seconds.
    struct Machine {
        rules: Rules,
        off: i64,
        now: i64,
        is_synchronized: Option<bool>,
    }

    impl Machine {
        fn start(known: Option<(i64, u64, &str)>, off: i64) -> Self {
            let known = known.map(|(wall, uptime, boot)| KnownTime {
                wall: at(wall),
                uptime: Duration::from_secs(uptime),
                boot: boot.into(),
            });
            let look = Look { wall: at(off), uptime: Duration::ZERO, boot: "this", is_synchronized: None };
            Self { rules: Rules::begin(known.as_ref(), &look), off, now: 0, is_synchronized: Some(true) }
        }

        fn reading(&self) -> Reading {
            self.rules.read(at(self.now + self.off), Duration::from_secs(self.now.unsigned_abs()))
        }

        /// Looks each second for `seconds`. Returns the time at which the clock was trusted again, if it was.
        fn pass(&mut self, seconds: i64) -> Option<i64> {
            let end = self.now + seconds;
            let mut trusted = None;
            while self.now < end {
                self.now += 1;
                if self.look(false) {
                    trusted.get_or_insert(self.now);
                }
            }
            trusted
        }

        fn look(&mut self, accepted: bool) -> bool {
            let look = Look {
                wall: at(self.now + self.off),
                uptime: Duration::from_secs(self.now.unsigned_abs()),
                boot: "this",
                is_synchronized: self.is_synchronized,
            };
            self.rules.look(&look, accepted).is_some()
        }
    }

    #[test]
    fn a_clock_that_is_right_or_moves_by_less_than_an_hour_is_believed() {
        let mut machine = Machine::start(None, 0);
        for step in [0, 3600, -3600, 1800, 3599] {
            machine.off += step;
            assert!(!machine.reading().is_in_doubt(), "{step}");
            assert_eq!(machine.pass(10), None);
        }
    }

    #[test]
    fn a_jump_is_in_doubt_at_once_and_time_goes_on() {
        for jump in [30 * DAY, 3601, -3601, -30 * DAY, -1_800_000_000] {
            let mut machine = Machine::start(None, 0);
            machine.pass(100);
            machine.off = jump;
            let reading = machine.reading();
            assert_eq!((reading.now, reading.wall), (at(100), at(100 + jump)));
            machine.is_synchronized = Some(false);
            assert_eq!(machine.pass(1000), None);
            assert_eq!(machine.reading().now, at(1100));
            machine.off = 0;
            assert_eq!(machine.pass(10), Some(1101), "the jump is undone");
            assert_eq!(machine.reading(), Reading::certain(at(1110)));
        }
    }

    #[test]
    fn a_clock_that_has_held_and_is_synchronized_is_believed_after_ten_minutes() {
        // The machine was off for a month, which it cannot know.
        let mut machine = Machine::start(Some((-30 * DAY, 5_000_000, "another")), 0);
        assert_eq!(machine.reading().now, at(-30 * DAY));
        machine.is_synchronized = None;
        assert_eq!(machine.pass(300), None);
        machine.off = 7;
        machine.is_synchronized = Some(true);
        assert_eq!(machine.pass(200), None);
        // After a step, the clock has to hold again.
        machine.off = 3 * DAY;
        assert_eq!(machine.pass(600), None);
        assert_eq!(machine.pass(10), Some(1101));
        assert_eq!(machine.reading(), Reading::certain(at(1110 + 3 * DAY)));
    }

    #[test]
    fn a_clock_that_is_not_synchronized_is_believed_where_somebody_says_so() {
        for is_synchronized in [Some(false), None] {
            let mut machine = Machine::start(Some((-30 * DAY, 0, "another")), 0);
            machine.is_synchronized = is_synchronized;
            assert_eq!(machine.pass(DAY), None);
            assert!(machine.look(true));
            assert_eq!(machine.reading(), Reading::certain(at(DAY)));
        }
    }

    #[test]
    fn within_one_start_of_the_machine_what_has_passed_is_known() {
        let look = Look {
            wall: at(0),
            uptime: Duration::from_secs(40 * 86_400),
            boot: "this",
            is_synchronized: None,
        };
        let known =
            KnownTime { wall: at(-30 * DAY), uptime: Duration::from_secs(10 * 86_400), boot: "this".into() };
        let rules = Rules::begin(Some(&known), &look);
        assert_eq!(rules.read(look.wall, look.uptime), Reading::certain(at(0)));
        let nameless = Look { boot: "", ..look.clone() };
        let rules = Rules::begin(Some(&KnownTime { boot: String::new(), ..known }), &nameless);
        assert!(rules.read(look.wall, look.uptime).is_in_doubt());
    }
}
