//! Judges the ledger: what became of every push, and what came twice, late or out of order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::draw::{HIBERNATION, STALL_MAX};
use super::ledger::{Moment, PushRecord, Records, Said};
use super::stage::ACK_TIMEOUT_SECONDS;

/// The time for which `TTL: 0` is "now" (push/src/message.rs).
const IMMEDIATE: Duration = Duration::from_secs(10);
/// A push that was handed to the XMPP server in time may wait there and on the network, from where nothing can recall it.
/// A session that is resumed may be cut again before it has read everything.
const HANDED_OVER: Duration = Duration::from_secs(2 * (HIBERNATION.as_secs() + STALL_MAX.as_secs()) + 10);
/// The time for which a disturbance that is over may still be in the way: until the pushes that it left unanswered are
/// given up, their phone is silent, and a silent phone keeps no line.
const AFTERMATH: Duration = Duration::from_secs(ACK_TIMEOUT_SECONDS as u64 + 2);
/// The time that a push with `TTL: 0` may take to its phone.
const ON_THE_WAY: Duration = Duration::from_secs(1);
/// Pushes that two busy cores delay until the relay takes them for unanswered, in percent.
const UNEXPLAINED_PERCENT_MAX: usize = 1;

/// A push that is kept for less than this may miss its phone where the machine is busy.
const KEPT_LONG: Duration = Duration::from_secs(30);

/// The end of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// The phone handed it to the application.
    Delivered,
    /// With `TTL: 0`, it could not be delivered at once.
    Vanished,
    /// Its time ran out first.
    Expired,
    /// A later one of the same topic took its place.
    Replaced,
    /// The application was gone: the phone said so, and the registration's life ended by it.
    Revoked,
    /// Its sender was told 410, and gave up.
    Refused,
    /// Its sender had been told 410 before, and sent nothing.
    Unsent,
    /// It was answered with 201, and none of the above is true.
    Lost,
}

/// The whole judgement.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) outcomes: BTreeMap<Outcome, usize>,
    pub(super) lost: Vec<usize>,
    pub(super) late: Vec<usize>,
    /// Those that expired or vanished although nothing was in the way.
    pub(super) needless: Vec<usize>,
    /// The pushes of these that were kept for long enough to find their phones on any machine.
    pub(super) needless_of_long: Vec<usize>,
    /// Arrivals of what had been answered otherwise than by a result, and so had to come again.
    pub(super) again: usize,
    /// Arrivals of what had been answered by a result before.
    pub(super) twice: usize,
    /// Most of those of one push.
    pub(super) twice_most: usize,
    /// Those that no disturbance explains.
    pub(super) unexplained: Vec<usize>,
    /// Pushes that came as two, since their sender had to send them twice.
    pub(super) sent_twice: usize,
    /// Pushes of which there were more than POSTs.
    pub(super) multiplied: Vec<usize>,
}

impl Records {
    /// The end of a push, as far as it is known at this moment: `Lost` may be on its way.
    pub(super) fn outcome(&self, push: usize, now: Moment) -> Outcome {
        let record = &self.pushes[push];
        if record.delivered() {
            return Outcome::Delivered;
        }
        let Some((_, accepted, ttl)) = record.accepted() else {
            return if record.is_gone() { Outcome::Refused } else { Outcome::Unsent };
        };
        if ttl.is_zero() && now > accepted + IMMEDIATE {
            Outcome::Vanished
        } else if self.is_replaced(push) {
            Outcome::Replaced
        } else if record.life.is_some_and(|life| self.lives[life].over.is_some()) {
            Outcome::Revoked
        } else if !ttl.is_zero() && now > accepted + ttl {
            Outcome::Expired
        } else {
            Outcome::Lost
        }
    }

    /// Returns whether a push of the same registration and topic was taken that is not certainly the earlier one.
    fn is_replaced(&self, push: usize) -> bool {
        let record = &self.pushes[push];
        let Some((begin, ..)) = record.accepted().filter(|_| record.plan.topic.is_some()) else {
            return false;
        };
        self.pushes.iter().enumerate().any(|(number, other)| {
            let taken_by = other.attempts.last().map_or(Moment::ZERO, |attempt| attempt.end);
            let taken = other.accepted().is_some() || !other.arrivals.is_empty();
            let alike = (other.life, other.plan.topic) == (record.life, record.plan.topic);
            number != push && alike && taken && taken_by > begin
        })
    }

    /// The pushes whose outcome is not known yet.
    pub(super) fn waiting(&self, now: Moment) -> Vec<usize> {
        (0..self.pushes.len()).filter(|push| self.outcome(*push, now) == Outcome::Lost).collect()
    }

    pub(super) fn judge(&self, now: Moment) -> Verdict {
        let mut verdict = Verdict::default();
        for (push, record) in self.pushes.iter().enumerate() {
            let outcome = self.outcome(push, now);
            *verdict.outcomes.entry(outcome).or_default() += 1;
            if outcome == Outcome::Lost {
                verdict.lost.push(push);
            }
            if matches!(outcome, Outcome::Expired | Outcome::Vanished) && !self.is_excused(record) {
                verdict.needless.push(push);
                if record.accepted().is_some_and(|(.., ttl)| ttl >= KEPT_LONG) {
                    verdict.needless_of_long.push(push);
                }
            }
            if is_late(record) {
                verdict.late.push(push);
            }
            self.count_arrivals(push, &mut verdict);
        }
        verdict
    }

    /// Returns whether anything was in the way of a push for as long as it was kept, or shortly before.
    fn is_excused(&self, record: &PushRecord) -> bool {
        let Some((begin, accepted, ttl)) = record.accepted() else { return true };
        let (from, to) = (begin.saturating_sub(AFTERMATH), accepted + ttl.max(ON_THE_WAY));
        self.disturbances.iter().any(|it| it.concerns(record.plan.phone) && it.overlaps(from, to))
    }

    fn count_arrivals(&self, push: usize, verdict: &mut Verdict) {
        let record = &self.pushes[push];
        let ids: BTreeSet<&str> = record.arrivals.iter().map(|arrival| arrival.id.as_str()).collect();
        let taken = record.unsure() + usize::from(record.accepted().is_some());
        if ids.len() > 1 {
            verdict.sent_twice += 1;
        }
        if ids.len() > taken {
            verdict.multiplied.push(push);
        }
        let mut twice = 0;
        for id in ids {
            let mut answered = None;
            for arrival in record.arrivals.iter().filter(|arrival| arrival.id == id) {
                match answered {
                    Some(true) => twice += 1,
                    Some(false) => verdict.again += 1,
                    None => {}
                }
                answered = Some(answered == Some(true) || arrival.said.is_result());
            }
        }
        verdict.twice += twice;
        verdict.twice_most = verdict.twice_most.max(twice);
        if twice > self.excuses(push) {
            verdict.unexplained.push(push);
        }
    }

    /// Counts the events that each may have a push delivered once more: its answer was lost or came
    /// late, or what it settled was not made durable in time.
    fn excuses(&self, push: usize) -> usize {
        let record = &self.pushes[push];
        let (Some(first), Some(last)) = (record.attempts.first(), record.arrivals.last()) else { return 0 };
        let disturbed = self
            .disturbances
            .iter()
            .filter(|it| it.concerns(record.plan.phone) && it.overlaps(first.begin, last.at))
            .count();
        let answered_late =
            record.arrivals.iter().filter(|arrival| arrival.said == Said::ResultLater).count();
        disturbed + answered_late
    }
}

/// Returns whether it came first when its time had long run out.
fn is_late(record: &PushRecord) -> bool {
    let (Some(first), Some((_, accepted, ttl))) = (record.arrivals.first(), record.accepted()) else {
        return false;
    };
    let kept = if ttl.is_zero() { IMMEDIATE } else { ttl };
    first.at > accepted + kept + HANDED_OVER
}

impl Verdict {
    /// Broken promises, a line each.
    pub(super) fn broken(&self, accepted: usize) -> Vec<String> {
        let mut broken = Vec::new();
        let mut check = |pushes: &[usize], what: &str| {
            if !pushes.is_empty() {
                broken.push(format!("{what}: pushes {pushes:?}"));
            }
        };
        check(&self.lost, "lost");
        check(&self.needless_of_long, "expired or vanished although nothing was in their way");
        check(&self.late, "arrived long after their time had run out");
        check(&self.multiplied, "arrived under more ids than they were sent");
        if self.unexplained.len() * 100 > accepted * UNEXPLAINED_PERCENT_MAX {
            check(&self.unexplained, "came more often than anything explains");
        }
        broken
    }
}
