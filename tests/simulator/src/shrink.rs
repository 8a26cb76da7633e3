//! Finds a smaller plan that still violates the same invariant.

use crate::{Outcome, Plan, run};

/// Most plans that one search tries.
const RUNS_MAX: usize = 300;

/// Returns the lists of one kind in a plan.
type Part = fn(&mut Plan) -> Vec<&mut dyn Listed>;

/// A list whose entries can be left out.
trait Listed {
    fn length(&self) -> usize;
    fn remove_range(&mut self, from: usize, to: usize);
}

impl<T> Listed for Vec<T> {
    fn length(&self) -> usize {
        self.len()
    }

    fn remove_range(&mut self, from: usize, to: usize) {
        self.drain(from..to);
    }
}

const PARTS: [Part; 5] = [
    |plan| vec![&mut plan.faults],
    |plan| vec![&mut plan.senders],
    |plan| vec![&mut plan.phones],
    |plan| plan.senders.iter_mut().map(|sender| &mut sender.posts as &mut dyn Listed).collect(),
    |plan| plan.phones.iter_mut().map(|phone| &mut phone.steps as &mut dyn Listed).collect(),
];

/// Returns the smallest plan that was found, and its outcome.
#[must_use]
pub fn shrink(plan: &Plan, outcome: &Outcome) -> (Plan, Outcome) {
    let mut plan = plan.clone();
    let Some(wanted) = outcome.violation.as_ref().map(|violation| violation.invariant) else {
        return (plan, outcome.clone());
    };
    let mut runs = 0;
    loop {
        let before = runs;
        let mut smaller = false;
        for part in PARTS {
            for list in 0..part(&mut plan).len() {
                let mut size = part(&mut plan)[list].length();
                while size > 0 {
                    let mut from = 0;
                    while from < part(&mut plan)[list].length() && runs < RUNS_MAX {
                        let mut candidate = plan.clone();
                        let to = (from + size).min(part(&mut candidate)[list].length());
                        part(&mut candidate)[list].remove_range(from, to);
                        runs += 1;
                        let tried = run(&candidate);
                        if tried.violation.as_ref().is_some_and(|violation| violation.invariant == wanted) {
                            (plan, smaller) = (candidate, true);
                        } else {
                            from += size;
                        }
                    }
                    size /= 2;
                }
            }
        }
        if !smaller || runs >= RUNS_MAX || runs == before {
            break;
        }
    }
    plan.keep_lines = true;
    let outcome = run(&plan);
    (plan, outcome)
}
