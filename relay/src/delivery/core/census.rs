//! The count of all registrations that live: those that lapse because the access list does not admit their accounts,
//! those of each tenant, and those of each domain that the list does not name.

use super::*;
use crate::delivery::{domains::Trim, phone::Phone};

/// Time between two counts, while registrations lapse or there are tenants.
const INTERVAL: Duration = Duration::from_secs(3600);
/// Least time between two counts, after a registration was refused because its domain has no room left.
const INTERVAL_MIN: Duration = Duration::from_secs(600);

/// The registrations of one domain that lapse because their renewal is forbidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lapsing {
    pub(crate) domain: String,
    pub(crate) registrations: usize,
    /// The time at which the first of them lapses.
    pub(crate) first: DateTime<Utc>,
}

/// The count of all registrations that live.
#[derive(Debug)]
pub(super) struct Census {
    asked: bool,
    /// True if the page that was asked for belongs to a count that is over.
    anew: bool,
    /// The registration behind which the count goes on; the inner `None`: the beginning. The outer `None`: no page is
    /// to be asked for.
    next: Option<Option<ports::Registrant>>,
    /// The times at which the next count begins, and the last one began.
    at: Option<Instant>,
    began: Option<Instant>,
    lapsing: BTreeMap<String, Lapsing>,
}

impl Default for Census {
    /// The first count begins with the process.
    fn default() -> Self {
        Self { asked: false, anew: false, next: Some(None), at: None, began: None, lapsing: BTreeMap::new() }
    }
}

impl Census {
    fn begin_anew(&mut self) {
        *self = Self { asked: self.asked, anew: self.asked, ..Self::default() };
    }

    /// Has the next count begin as soon as it may.
    fn hurry(&mut self, now: Now) {
        if !self.asked && self.next.is_none() {
            let soonest = self.began.map_or(now.monotonic, |began| began + INTERVAL_MIN);
            self.at = Some(self.at.map_or(soonest, |at| at.min(soonest)));
        }
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
    pub(super) fn take_access(&mut self, access: AccessList, now: Now, actions: &mut Vec<Action>) {
        if access != self.access {
            self.census.begin_anew();
            self.domains.clear();
        }
        self.access = access;
        self.give_up_unlisted(now, actions);
        // Users who are on the list again get what waits.
        self.sweep_anew();
    }

    /// Puts pushes in line for full JIDs that are no longer on the list into the mailbox, and ends the readings for
    /// them.
    fn give_up_unlisted(&mut self, now: Now, actions: &mut Vec<Action>) {
        let has_work = |phone: &Phone| !phone.line.is_empty() || phone.is_reading();
        let phones = self.accounts.values().flat_map(|account| &account.phones);
        let unlisted: Vec<FullJid> = phones
            .filter(|(jid, phone)| has_work(phone) && !self.admits(jid))
            .map(|(jid, _)| jid.clone())
            .collect();
        for jid in unlisted {
            self.give_up_reading(&jid, now, actions);
        }
    }

    /// Returns whether the bounds of its domain hold for an account: the access list names neither the account nor its
    /// domain.
    pub(super) fn is_bounded(&self, account: &BareJid) -> bool {
        !self.access.names(&account.clone().into())
    }

    /// Returns the most registrations that the domain of a user may have, if it has as many.
    pub(super) fn domain_full(&self, user: &Jid) -> Option<usize> {
        if let Some((name, tenant)) = self.access.tenant_of(user.domain().as_str()) {
            return tenant.registrations_max.filter(|max| self.rolls.living(name) >= *max);
        }
        if self.is_bounded(&user.to_bare()) { self.domains.full(user.domain().as_str()) } else { None }
    }

    pub(super) fn count_begun(&mut self, registration: &Registration, actions: &mut Vec<Action>) {
        let domain = registration.target.recipient.domain().as_str();
        if let Some((name, _)) = self.access.tenant_of(domain) {
            let living = self.rolls.note_begun(name);
            actions.push(Action::Count(Measure::Living(name.clone(), living)));
        }
        let account = registration.target.recipient.to_bare();
        if self.is_bounded(&account) {
            self.domains.note_begun(account.domain().as_str());
        }
    }

    /// Has the registrations counted again. One was refused because its domain has no room, which may have changed.
    pub(super) fn note_domain_full(&mut self, now: Now) {
        self.census.hurry(now);
    }

    /// Counts a push that waits, and the pushes that it replaced or that were dropped for it.
    pub(super) fn count_kept(&mut self, account: &BareJid, kept: &ports::Kept) {
        if self.is_bounded(account) {
            // Pushes that were delivered meanwhile do not count any more.
            let gone = kept.replaced.iter().chain(&kept.dropped);
            let gone = gone.filter(|id| !self.left_lately.contains(&Name::new(account, **id))).count();
            self.domains.note_more(account, 1);
            self.domains.note_less(account, gone);
        }
    }

    /// Notes that so many pushes of an account wait no longer.
    pub(super) fn count_left(&mut self, account: &BareJid, pushes: usize) {
        if self.is_bounded(account) {
            self.domains.note_less(account, pushes);
        }
    }

    /// Notes that so many pushes wait no longer, because the lives of a registration up to this epoch have ended.
    pub(super) fn count_ended(
        &mut self,
        account: &BareJid,
        registration: RegistrationId,
        epoch: Epoch,
        pushes: usize,
    ) {
        self.count_left(account, pushes);
        let held = self.pushes.values().map(|push| &push.held.message);
        for message in held.filter(|held| held.registration == registration && held.epoch <= epoch) {
            self.gone.note(Name::of(message));
        }
    }

    pub(super) fn take_trimmed(&mut self, trim: &Trim, trimmed: &ports::Trimmed) {
        self.forget_gone(&trim.account, &trimmed.dropped);
        // Those that were delivered meanwhile were counted as gone before.
        let twice =
            trimmed.dropped.iter().filter(|id| self.left_lately.contains(&Name::new(&trim.account, **id)));
        let left = trimmed.left + twice.count();
        self.domains.note_trimmed(&trim.account, trim.max, left);
    }

    /// Decides the trims of the domains for which too much waits.
    pub(super) fn trim_domains(&mut self) {
        for trim in self.domains.trim() {
            self.decide(Fate::Trim(trim));
        }
    }

    /// Begins a count that is due, and asks for the next page.
    pub(super) fn count_on(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.census.at.is_some_and(|at| at <= now.monotonic) {
            self.census.begin_anew();
        }
        if !self.census.asked
            && now.leased
            && let Some(after) = self.census.next.take()
        {
            self.census.asked = true;
            if after.is_none() {
                self.census.began = Some(now.monotonic);
                self.domains.begin_count();
                self.rolls.begin_census();
            }
            actions.push(Action::Start(Job::Count(after)));
        }
    }

    /// Ends the throttling of a registration if this process did not ask for it: another rate may have been in force
    /// then.
    fn end_foreign_throttling(&mut self, row: &Registration, now: Now) {
        let id = row.target.registration_id();
        let is_ours = self.settings.meter.as_ref().is_some_and(|meter| meter.asks(id, now.wall));
        if row.throttled_for(now.wall).is_some() && !is_ours {
            self.decide_if_settling_keeps_up(Fate::Throttle(id, row.epoch, now.wall));
        }
    }

    /// Takes a page of registrations; `None`: the store does not answer.
    pub(super) fn take_counted(
        &mut self,
        page: Option<ports::Page<Registration>>,
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
            self.end_foreign_throttling(row, now);
            let recipient = &row.target.recipient;
            if !self.admits(recipient) {
                self.census.count_lapsing(row);
            }
            // The bound of accounts does not count a predecessor's registrations, either.
            if row.target.legacy.is_none() {
                let domain = recipient.domain().as_str();
                if let Some((name, _)) = self.access.tenant_of(domain) {
                    self.rolls.note_found(name);
                } else if self.is_bounded(&recipient.to_bare()) {
                    self.domains.count_registration(domain);
                }
            }
        }
        self.census.next = next.map(Some);
        if self.census.next.is_none() {
            self.domains.end_count();
            let living = self.rolls.end_census();
            actions.extend(
                living.into_iter().map(|(name, living)| Action::Count(Measure::Living(name, living))),
            );
            let mut lapsing: Vec<Lapsing> = std::mem::take(&mut self.census.lapsing).into_values().collect();
            lapsing.sort_by_key(|lapsing| std::cmp::Reverse(lapsing.registrations));
            // No other registration can come to lapse until the list changes. Registrations of tenants may end.
            let again = !lapsing.is_empty() || self.access.has_tenants();
            self.census.at = again.then(|| now.monotonic + INTERVAL);
            actions.push(Action::Count(Measure::Lapsing(lapsing)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_is_under_way_or_about_to_begin_is_not_hurried() {
        let wall = DateTime::UNIX_EPOCH;
        let now = Now { wall, least: wall, monotonic: Instant::now(), leased: true };
        let at = |mut census: Census| {
            census.hurry(now);
            census.at
        };
        assert_eq!(at(Census::default()), None);
        assert_eq!(at(Census { asked: true, next: None, ..Census::default() }), None);
        assert_eq!(at(Census { next: None, ..Census::default() }), Some(now.monotonic));
    }
}
