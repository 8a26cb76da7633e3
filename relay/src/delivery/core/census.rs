//! The registrations are counted now and then: those that lapse because their accounts are not on the access list.

use super::*;

/// Between two counts, while registrations lapse.
const INTERVAL: Duration = Duration::from_secs(3600);

/// What the registrations of one domain come to that lapse, since their renewal is forbidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lapsing {
    pub(crate) domain: String,
    pub(crate) registrations: usize,
    /// When the first of them does.
    pub(crate) first: DateTime<Utc>,
}

/// The count over all registrations that live.
#[derive(Debug)]
pub(super) struct Census {
    asked: bool,
    /// What was asked for belongs to a count that is over.
    anew: bool,
    /// Where it goes on.
    next: Option<Option<ports::Recipient>>,
    /// When the next one begins.
    at: Option<Instant>,
    lapsing: BTreeMap<String, Lapsing>,
}

impl Default for Census {
    /// One begins with the process.
    fn default() -> Self {
        Self { asked: false, anew: false, next: Some(None), at: None, lapsing: BTreeMap::new() }
    }
}

impl Census {
    pub(super) fn begin_anew(&mut self) {
        *self = Self { asked: self.asked, anew: self.asked, ..Self::default() };
    }

    fn count_lapsing(&mut self, row: &Registration) {
        let domain = row.target.recipient.domain().as_str();
        match self.lapsing.get_mut(domain) {
            Some(lapsing) => {
                lapsing.registrations += 1;
                lapsing.first = lapsing.first.min(row.expires_at);
            }
            None => {
                let (domain, first) = (domain.to_owned(), row.expires_at);
                self.lapsing.insert(domain.clone(), Lapsing { domain, registrations: 1, first });
            }
        }
    }
}

impl Core {
    /// Asks for the next page.
    pub(super) fn count_on(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.census.at.is_some_and(|at| at <= now.monotonic) {
            self.census.begin_anew();
        }
        if !self.census.asked
            && now.leased
            && let Some(after) = self.census.next.take()
        {
            self.census.asked = true;
            actions.push(Action::Start(Job::Count(after)));
        }
    }

    /// Takes a page of registrations; `None`: the store does not answer.
    pub(super) fn take_counted(
        &mut self,
        page: Option<(Vec<Registration>, Option<ports::Recipient>)>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        self.census.asked = false;
        if std::mem::take(&mut self.census.anew) {
            return;
        }
        let Some((rows, next)) = page else {
            self.census.at = Some(now.monotonic + INTERVAL);
            return;
        };
        for row in &rows {
            if !self.admits(&row.target.recipient) {
                self.census.count_lapsing(row);
            }
        }
        self.census.next = next.map(Some);
        if self.census.next.is_none() {
            let mut lapsing: Vec<Lapsing> = std::mem::take(&mut self.census.lapsing).into_values().collect();
            lapsing.sort_by_key(|lapsing| std::cmp::Reverse(lapsing.registrations));
            // Nobody else can come to lapse until the list changes.
            self.census.at = (!lapsing.is_empty()).then(|| now.monotonic + INTERVAL);
            actions.push(Action::Count(Measure::Lapsing(lapsing)));
        }
    }
}
