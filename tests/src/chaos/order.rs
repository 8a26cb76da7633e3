//! Judges the order of arrival. For each registration and urgency, the push that was accepted first has to come first,
//! if both waited for the phone and nothing else was in the way.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ledger::{AWAY, Moment, PushRecord, Records};

/// Longest time for which the relay takes a phone that has left for present. A push of that time may go to the session
/// that is over. It stays unanswered, and does not delay the pushes to the next session (docs/delivery.md, "Phones that
/// are away").
const LEAVING: Duration = Duration::from_secs(3);

/// The order as the ledger shows it.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Number of pushes that were overtaken by a push sent after their 201, for any reason.
    pub(super) overtaken: usize,
    /// Number of pushes that waited in the calm, and had another push behind them that waited, too.
    pub(super) waited: usize,
    /// The overtaken pushes among these, each with the push that overtook it.
    pub(super) overtaken_waiting: Vec<(usize, usize)>,
}

/// A push that has a place in the order of its registration and urgency.
struct Placed {
    push: usize,
    begin: Moment,
    accepted: Moment,
    arrived: Moment,
}

impl Records {
    /// Judges all orders. A push waits in the mailbox for certain if it was accepted at least `settling` before its
    /// phone comes back.
    pub(super) fn order(&self, settling: Duration) -> Order {
        let mut lines: BTreeMap<(usize, &str), Vec<Placed>> = BTreeMap::new();
        for (push, record) in self.pushes.iter().enumerate() {
            if let (Some(life), Some(placed)) = (record.life, place(push, record)) {
                lines.entry((life, record.plan.urgency.unwrap_or("normal"))).or_default().push(placed);
            }
        }
        let mut order = Order::default();
        for line in lines.values() {
            self.judge_line(line, settling, &mut order);
        }
        order
    }

    fn judge_line(&self, line: &[Placed], settling: Duration, order: &mut Order) {
        for first in line {
            let behind = line.iter().filter(|other| other.begin > first.accepted);
            order.overtaken += usize::from(behind.clone().any(|other| other.arrived < first.arrived));
            let mut waited =
                behind.filter(|other| self.waited_in_the_calm(first, other, settling)).peekable();
            order.waited += usize::from(waited.peek().is_some());
            let overtaking = waited.find(|other| other.arrived < first.arrived);
            order.overtaken_waiting.extend(overtaking.map(|other| (first.push, other.push)));
        }
    }

    fn waited_in_the_calm(&self, first: &Placed, other: &Placed, settling: Duration) -> bool {
        let phone = self.pushes[first.push].plan.phone;
        let arrived = first.arrived.max(other.arrived);
        let away = self.disturbances.iter().find(|it| {
            let back = |end: Moment| end >= other.accepted + settling;
            let left = it.begin + LEAVING <= first.begin;
            it.what == AWAY && it.phone == Some(phone) && left && it.end.is_some_and(back)
        });
        let Some(away) = away else { return false };
        !self
            .disturbances
            .iter()
            .any(|it| !std::ptr::eq(it, away) && it.concerns(phone) && it.overlaps(first.begin, arrived))
    }
}

/// Returns the place of a push, if it is certain. A push with a topic may be replaced, and a push that was sent again
/// may be two.
fn place(push: usize, record: &PushRecord) -> Option<Placed> {
    let (begin, accepted, _) = record.accepted()?;
    let certain = record.plan.topic.is_none() && record.unsure() == 0;
    let arrived = record.arrivals.first().filter(|_| certain)?.at;
    Some(Placed { push, begin, accepted, arrived })
}
