//! Judges the ledger: the outcome of every push, and the pushes that came twice, late or out of order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::draw::{HIBERNATION, STALL_MAX};
use super::ledger::{Moment, PushRecord, Records, Said};
use super::stage::ACK_TIMEOUT_SECONDS;

/// Time for which a push with `TTL: 0` is delivered (push/src/message.rs).
const IMMEDIATE: Duration = Duration::from_secs(10);
/// Longest delay of a push that was handed to the XMPP server in time. It may wait there and on the network, from where
/// nothing can recall it. A session that is resumed may be cut again before it has read everything.
const HANDED_OVER: Duration = Duration::from_secs(2 * (HIBERNATION.as_secs() + STALL_MAX.as_secs()) + 10);
/// Time for which a disturbance that is over may still delay pushes. The relay first gives up the pushes that it left
/// unanswered. Then their phone is silent, and a silent phone keeps no line.
const AFTERMATH: Duration = Duration::from_secs(ACK_TIMEOUT_SECONDS as u64 + 2);
/// Longest time that a push with `TTL: 0` takes to its phone.
const ON_THE_WAY: Duration = Duration::from_secs(1);
/// Most pushes, in percent of those accepted, that two busy cores may delay until the relay gives them up.
const UNEXPLAINED_PERCENT_MAX: usize = 1;

/// TTL below which a push may miss its phone on a busy machine.
const KEPT_LONG: Duration = Duration::from_secs(30);

/// The outcome of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// The phone handed it to the application.
    Delivered,
    /// A push with `TTL: 0` could not be delivered at once.
    Vanished,
    /// The TTL ran out first.
    Expired,
    /// A later push with the same topic took its place.
    Replaced,
    /// The phone said that the application is gone, which ended the registration's life.
    Revoked,
    /// The sender got a 410, and gave up.
    Refused,
    /// The sender had got a 410 before, and sent nothing.
    Unsent,
    /// The sender got a 201, and none of the above is true.
    Lost,
}

/// The judgement of all pushes.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    pub(super) outcomes: BTreeMap<Outcome, usize>,
    pub(super) lost: Vec<usize>,
    pub(super) late: Vec<usize>,
    /// Pushes that expired or vanished although nothing was in the way.
    pub(super) needless: Vec<usize>,
    /// The pushes among these whose TTL was long enough to find their phones on any machine.
    pub(super) needless_of_long: Vec<usize>,
    /// Number of arrivals of pushes that had been answered, but not by a result. These have to come again.
    pub(super) again: usize,
    /// Number of arrivals of pushes that had been answered by a result before.
    pub(super) twice: usize,
    /// Most such arrivals of one push.
    pub(super) twice_most: usize,
    /// Pushes with more such arrivals than disturbances explain.
    pub(super) unexplained: Vec<usize>,
    /// Number of pushes that came under several ids, because their sender sent them twice.
    pub(super) sent_twice: usize,
    /// Pushes that came under more ids than they were posted.
    pub(super) multiplied: Vec<usize>,
}

impl Records {
    /// Returns the outcome of a push as far as it is known now. A push that is `Lost` may still be on its way.
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

    /// Returns whether a push with the same URL and topic was accepted or has arrived, and may be the later one.
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

    /// Returns the pushes whose outcome is not known yet.
    pub(super) fn waiting(&self, now: Moment) -> Vec<usize> {
        (0..self.pushes.len()).filter(|push| self.outcome(*push, now) == Outcome::Lost).collect()
    }

    pub(super) fn judge(&self, now: Moment) -> Judgement {
        let mut judgement = Judgement::default();
        for (push, record) in self.pushes.iter().enumerate() {
            let outcome = self.outcome(push, now);
            *judgement.outcomes.entry(outcome).or_default() += 1;
            if outcome == Outcome::Lost {
                judgement.lost.push(push);
            }
            if matches!(outcome, Outcome::Expired | Outcome::Vanished) && !self.is_excused(record) {
                judgement.needless.push(push);
                if record.accepted().is_some_and(|(.., ttl)| ttl >= KEPT_LONG) {
                    judgement.needless_of_long.push(push);
                }
            }
            if is_late(record) {
                judgement.late.push(push);
            }
            self.count_arrivals(push, &mut judgement);
        }
        judgement
    }

    /// Returns whether anything was in the way of a push for its TTL, or shortly before.
    fn is_excused(&self, record: &PushRecord) -> bool {
        let Some((begin, accepted, ttl)) = record.accepted() else { return true };
        let (from, to) = (begin.saturating_sub(AFTERMATH), accepted + ttl.max(ON_THE_WAY));
        self.disturbances.iter().any(|it| it.concerns(record.plan.phone) && it.overlaps(from, to))
    }

    fn count_arrivals(&self, push: usize, judgement: &mut Judgement) {
        let record = &self.pushes[push];
        let ids: BTreeSet<&str> = record.arrivals.iter().map(|arrival| arrival.id.as_str()).collect();
        let taken = record.unsure() + usize::from(record.accepted().is_some());
        if ids.len() > 1 {
            judgement.sent_twice += 1;
        }
        if ids.len() > taken {
            judgement.multiplied.push(push);
        }
        let mut twice = 0;
        for id in ids {
            let mut answered = None;
            for arrival in record.arrivals.iter().filter(|arrival| arrival.id == id) {
                match answered {
                    Some(true) => twice += 1,
                    Some(false) => judgement.again += 1,
                    None => {}
                }
                answered = Some(answered == Some(true) || arrival.said.is_result());
            }
        }
        judgement.twice += twice;
        judgement.twice_most = judgement.twice_most.max(twice);
        if twice > self.excuses(push) {
            judgement.unexplained.push(push);
        }
    }

    /// Counts the events that may each have had the push delivered once more: its answer was lost or late, or its fate
    /// was not settled in time.
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

/// Returns whether the push first arrived long after its TTL had run out.
fn is_late(record: &PushRecord) -> bool {
    let (Some(first), Some((_, accepted, ttl))) = (record.arrivals.first(), record.accepted()) else {
        return false;
    };
    let kept = if ttl.is_zero() { IMMEDIATE } else { ttl };
    first.at > accepted + kept + HANDED_OVER
}

impl Judgement {
    /// Returns the broken promises, one on each line.
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
