//! Puts pushes into their mailboxes.

use super::*;

impl<R: RelayRegistrations, Q: QueueReader, M: Mailbox> Jobs<R, Q, M> {
    /// Keeps pushes of one registration. Pushes of one topic are kept one after the other, so that each replaces the
    /// one before. The last push is kept after all others, so that its write counts them: a store need not see what is
    /// kept at the same moment.
    pub(super) async fn keep_all(&self, mut fates: Vec<Fate>, queued: &Queued) -> Rest {
        let last = fates.pop();
        let kept = by_topic(fates).into_iter().map(|fates| self.decide_each(fates, queued));
        let kept = join_all(kept).await;
        let last = self.decide_each(last.into_iter().collect(), queued).await;
        kept.into_iter().fold(Rest::default(), Rest::and).and(last)
    }

    async fn decide_each(&self, fates: Vec<Fate>, queued: &Queued) -> Rest {
        let mut rest = Rest::default();
        for fate in fates {
            rest = rest.and(self.decide(fate, queued).await);
        }
        rest
    }

    /// Puts a push into its mailbox, unless it is over.
    pub(super) async fn keep(
        &self,
        message: Arc<PushMessage>,
        asked_at: Option<DateTime<Utc>>,
        untried: bool,
        queued: &Queued,
    ) -> Rest {
        let id = message.id;
        match self.try_keep(&message, asked_at, untried, queued).await {
            Ok(note) => {
                let counts = kept_counts(&message, note.as_ref(), queued, self.clock.read().least());
                let rest = Rest { delete: vec![id], notes: note.into_iter().collect(), ..Rest::default() };
                rest.and(Rest::count(message.recipient.to_bare(), id, counts))
            }
            Err(_) if mutant(Mutant::DeletedUnkept) => Rest::deletion(id),
            Err(error) => {
                report(&error, ONCE);
                Rest { postpone: vec![(id, self.clock.now() + AGAIN_AFTER)], ..Rest::default() }
            }
        }
    }

    /// Puts a push into its mailbox. Returns `None` if the push is over.
    async fn try_keep(
        &self,
        message: &Arc<PushMessage>,
        asked_at: Option<DateTime<Utc>>,
        untried: bool,
        queued: &Queued,
    ) -> Result<Option<Note>, Unavailable> {
        let moves = self.moves();
        let account = message.recipient.to_bare();
        let row = || self.registrations.find(message.registration, Consistency::Strong);
        let find = || self.spared.call(&account, row());
        // Before the row: one that takes long to come may have been renewed meanwhile.
        let now = self.clock.read().least();
        let Some(row) = find().await?.filter(|row| waits_for(row, message, now)) else {
            count_over(message, now);
            return Ok(None);
        };
        let waiting = Waiting { message: PushMessage::clone(message), asked_at };
        let (drops, mailbox, mut bounds) =
            (self.drops(&account, queued), self.mailbox.clone(), self.mailbox_bounds);
        if mutant(Mutant::AccountBoundIgnored) {
            bounds.of_account = usize::MAX;
        }
        let counted = drops.clone();
        let keep = async move { mailbox.keep_counted(waiting, bounds, &counted).await };
        let kept = self.spared.keep(message, keep, &self.fence).await?;
        self.usage.take_over(&drops.counts);
        self.count_kept(message, &kept);
        let mut recipient = row.target.recipient;
        // The registration may have moved to a full JID whose mailbox was read before the push was there.
        if self.moves() != moves
            && let Ok(Some(row)) = find().await
        {
            recipient = row.target.recipient;
        }
        let untried = untried || recipient != message.recipient;
        let kept = Some(kept);
        Ok(Some(Note::Waits { message: Arc::clone(message), recipient, untried, kept }))
    }

    /// Makes the counts of the pushes that one write drops.
    pub(super) fn drops(&self, account: &BareJid, queued: &Queued) -> Drops {
        let counts = self.tally(account, Counts { dropped: 1, ..Counts::default() });
        Drops { counts, queued: Arc::clone(queued) }
    }

    fn count_kept(&self, message: &PushMessage, kept: &Kept) {
        counter!(KEPT).increment(1);
        counter!(REPLACED).increment(kept.replaced.len() as u64);
        if !kept.dropped.is_empty() {
            counter!(DROPPED).increment(kept.dropped.len() as u64);
            tracing::warn!(
                registration = %message.registration,
                dropped = kept.dropped.len(),
                max = self.mailbox_bounds.of_registration,
                of_account = self.mailbox_bounds.of_account,
                "a mailbox is full: the oldest pushes were dropped"
            );
        }
    }
}

/// Returns the counts of a push that left the queue for the mailbox, or was over. They include pushes of the same batch
/// that were dropped for it, and leave the queue with it.
fn kept_counts(message: &PushMessage, note: Option<&Note>, queued: &Queued, now: DateTime<Utc>) -> Counts {
    let mut counts = Counts::accepted(message);
    match note {
        Some(Note::Waits { kept: Some(kept), .. }) => {
            let dropped = kept.dropped.iter().filter(|id| queued.contains(id)).count() as u64;
            counts += Counts { waited: 1, dropped, ..Counts::default() };
        }
        _ => counts.expired = u64::from(message.is_expired(now)),
    }
    counts
}

/// Separates the pushes that are kept, by registration, from the other fates.
pub(super) fn by_registration(fates: Vec<Fate>) -> (Vec<Vec<Fate>>, Vec<Fate>) {
    let (mut kept, mut others) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
    for fate in fates {
        match &fate {
            Fate::Keep { message, .. } => kept.entry(message.registration).or_default().push(fate),
            _ => others.push(fate),
        }
    }
    (kept.into_values().collect(), others)
}

/// Puts the pushes of each topic together, in their order. A push without a topic has nothing to replace, and stands
/// alone.
fn by_topic(fates: Vec<Fate>) -> Vec<Vec<Fate>> {
    let (mut chains, mut of_topics) = (Vec::new(), BTreeMap::<String, Vec<_>>::new());
    for fate in fates {
        let topic = match &fate {
            Fate::Keep { message, .. } => message.topic.as_ref().map(|topic| topic.as_str().to_owned()),
            _ => None,
        };
        match topic {
            Some(topic) => of_topics.entry(topic).or_default().push(fate),
            None => chains.push(vec![fate]),
        }
    }
    chains.extend(of_topics.into_values());
    chains
}
