//! Protects other accounts from one whose part of the mailbox's store is throttled or slow.

use std::{
    collections::BTreeMap,
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures::{StreamExt, future::join_all, stream};
use push::{
    MessageId, PushMessage,
    ports::{Kept, Mailbox, Unavailable},
    usage::Tally,
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_xmpp::jid::BareJid;

use crate::{
    backoff::report,
    lease::Fence,
    mutants::{Mutant, mutant},
};

/// Most writes of one account at a time.
const WRITES_MAX: usize = 8;
/// Longest wait of a batch for one call, its retries included, and of a sweep for a row. A store that is merely busy takes far less.
pub(in super::super) const WITHIN: Duration = Duration::from_secs(2);
/// Longest time for a write. It goes on after its batch.
pub(super) const WRITTEN_WITHIN: Duration = Duration::from_secs(15);
/// Longest wait of a batch for changes of pushes that wait. The changes may be made later, but others may not wait for
/// them.
pub(super) const CHANGED_WITHIN: Duration = Duration::from_secs(1);
/// Time for which changes of a slow account are put off, so that it costs the others a twentieth of their time.
pub(super) const SLOW_FOR: Duration = Duration::from_secs(40);
/// Rest of an account after a push of it could not be kept, as a multiple of the time that its batch waited. Each
/// further failure doubles the multiple, up to the maximum, so that the account costs the others a twentieth of their
/// time.
pub(super) const REST_FACTOR_MIN: u32 = 2;
pub(super) const REST_FACTOR_MAX: u32 = 19;
/// Shortest rest. A write that fails at once is so not tried for each push of a batch.
pub(super) const REST_MIN: Duration = Duration::from_secs(1);
/// Most accounts that are noted as resting, and most that are noted as slow.
const RESTING_MAX: usize = 1024;
/// Most writes that ended after their batches and are told of. A sweep finds the others.
const LATE_MAX: usize = 1024;
/// First and longest delay before a change that was put off is tried again.
const AGAIN_MIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// Most changes that are put off, in all and of one account. At the bound in all, a batch waits until there is room.
const PUT_OFF_MAX: usize = 4096;
const PUT_OFF_OF_ACCOUNT_MAX: usize = 512;

/// A change of a push that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Change {
    /// The push is over.
    Remove,
    /// The push went out at this moment.
    Asked(DateTime<Utc>),
}

/// A push whose write ended after its batch, and what that write replaced or dropped.
pub(in super::super) type KeptLate = (Arc<PushMessage>, Kept);

/// The changes of one account.
pub(in super::super) type Changes = BTreeMap<MessageId, Change>;

/// Adds a change to those of a batch.
pub(super) fn add(changes: &mut BTreeMap<BareJid, Changes>, account: BareJid, id: MessageId, change: Change) {
    note(changes.entry(account).or_default(), id, change);
}

/// The rest of an account: the time for which nothing is written for it.
#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Instant,
    /// The rest lasts this many times as long as a batch waited.
    factor: u32,
    failed_at: Instant,
}

/// Accounts whose writes fail or are slow.
#[derive(Debug, Default)]
pub(crate) struct Spared {
    resting: Arc<Mutex<BTreeMap<BareJid, Rest>>>,
    /// Accounts whose changes are put off, and until when.
    slow: Mutex<BTreeMap<BareJid, Instant>>,
    /// One semaphore for each account, which bounds its writes in the batch under way.
    lanes: Mutex<BTreeMap<BareJid, Arc<Semaphore>>>,
    put_off: Arc<Mutex<BTreeMap<BareJid, Changes>>>,
    /// Pushes whose writes ended after their batches.
    late: Arc<Mutex<Vec<KeptLate>>>,
    /// One task for each account in `put_off`, and for each write that goes on after its batch.
    tasks: Mutex<JoinSet<()>>,
}

/// Bounds the time that a call may take.
pub(in super::super) async fn within<T>(
    time: Duration,
    call: impl Future<Output = Result<T, Unavailable>>,
) -> Result<T, Unavailable> {
    timeout(time, call).await.unwrap_or_else(|_| Err(Unavailable::new("it takes too long")))
}

impl Spared {
    /// Keeps a push when it is the account's turn.
    ///
    /// A write that takes longer than a batch waits goes on after it. Its push goes back to the queue, and may be kept
    /// once more, or delivered; `take_late` tells that it waits after all. The account rests until the write is over,
    /// and for a while after a failure. Nothing is kept without the lease: another relay may have delivered the push.
    pub(super) async fn keep(
        &self,
        message: &Arc<PushMessage>,
        keep: impl Future<Output = Result<Kept, Unavailable>> + Send + 'static,
        fence: &Fence,
    ) -> Result<Kept, Unavailable> {
        let account = &message.recipient.to_bare();
        let lane = {
            let mut lanes = lock(&self.lanes);
            let lane = lanes.entry(account.clone()).or_insert_with(|| Semaphore::new(WRITES_MAX).into());
            Arc::clone(lane)
        };
        let _turn = lane.acquire().await.map_err(Unavailable::new)?;
        if !fence.holds() {
            return Err(Unavailable::new("the lease is lost"));
        }
        if self.rests(account) {
            return Err(Unavailable::new("a write for this account has failed a moment ago"));
        }
        let begun = Instant::now();
        let mut write = Box::pin(within(WRITTEN_WITHIN, keep));
        let patience = if mutant(Mutant::SlowWriteHoldsBatch) { WRITTEN_WITHIN } else { WITHIN };
        if let Ok(kept) = timeout(patience, &mut write).await {
            note_outcome(&self.resting, account, begun, &kept);
            return kept;
        }
        note_rest(&mut lock(&self.resting), account, begun, |_| WRITTEN_WITHIN);
        let (resting, account, fence) = (Arc::clone(&self.resting), account.clone(), fence.clone());
        let (late, message) = (Arc::clone(&self.late), Arc::clone(message));
        go_on(&self.tasks, async move {
            let kept = tokio::select! {
                kept = write => kept,
                () = fence.lost() => return,
            };
            note_outcome(&resting, &account, begun, &kept);
            let mut late = lock(&late);
            if let Ok(kept) = kept
                && late.len() < LATE_MAX
                && !mutant(Mutant::LateWriteUntold)
            {
                late.push((message, kept));
            }
        });
        Err(Unavailable::new("it takes too long"))
    }

    /// Makes a call for one account, within the time that a batch has. After a failure, the account rests for a while.
    pub(super) async fn call<T>(
        &self,
        account: &BareJid,
        call: impl Future<Output = Result<T, Unavailable>>,
    ) -> Result<T, Unavailable> {
        if self.rests(account) {
            return Err(Unavailable::new("a call for this account has failed a moment ago"));
        }
        let begun = Instant::now();
        let outcome = within(WITHIN, call).await;
        if outcome.is_err() {
            note_outcome(&self.resting, account, begun, &outcome);
        }
        outcome
    }

    /// Takes the pushes whose writes ended after their batches.
    pub(super) fn take_late(&self) -> Vec<KeptLate> {
        std::mem::take(&mut *lock(&self.late))
    }

    /// Notes that a batch is settled.
    pub(super) fn end_batch(&self) {
        lock(&self.lanes).clear();
    }

    /// Returns whether the account rests.
    fn rests(&self, account: &BareJid) -> bool {
        lock(&self.resting).get(account).is_some_and(|rest| Instant::now() < rest.until)
    }

    /// Makes changes of pushes that wait, those of each account beside the others'. Changes that fail or take long are
    /// put off, and made by a task of their own. A process that ends before that delivers these pushes once more.
    /// `counts` become durable with the removals.
    pub(super) async fn change<M: Mailbox>(
        &self,
        mailbox: &M,
        mut changes: BTreeMap<BareJid, Changes>,
        counts: &BTreeMap<MessageId, Tally>,
        fence: &Fence,
    ) {
        // All removals go in few calls, as long as nobody's fails.
        let own = changes.iter().filter(|(account, _)| !self.puts_off(account));
        let together: Vec<_> = own.flat_map(|(account, changes)| named(account, changes)).collect();
        let removal = mailbox.remove_counted(together.clone(), counts);
        if !together.is_empty() && within(CHANGED_WITHIN, removal).await.is_ok() {
            for (account, id) in together {
                if let Some(own) = changes.get_mut(&account) {
                    own.remove(&id);
                }
            }
        }
        changes.retain(|_, own| !own.is_empty());
        let each = changes.into_iter().map(async |(account, changes)| {
            if self.puts_off(&account) {
                return Some((account, changes));
            }
            let begun = Instant::now();
            let left = make(mailbox, &account, changes, CHANGED_WITHIN).await.err()?;
            if begun.elapsed() >= CHANGED_WITHIN {
                note_until(&mut lock(&self.slow), &account, SLOW_FOR);
            }
            Some((account, left))
        });
        let left = join_all(each).await;
        for (account, changes) in left.into_iter().flatten() {
            self.put_off(mailbox, account, changes, fence).await;
        }
    }

    /// Returns whether changes of this account are put off.
    fn puts_off(&self, account: &BareJid) -> bool {
        lock(&self.put_off).contains_key(account)
            || lock(&self.slow).get(account).is_some_and(|until| Instant::now() < *until)
    }

    /// Returns the changes of an account that are not made yet.
    pub(in super::super) fn put_off_of(&self, account: &BareJid) -> Changes {
        lock(&self.put_off).get(account).cloned().unwrap_or_default()
    }

    async fn put_off<M: Mailbox>(&self, mailbox: &M, account: BareJid, changes: Changes, fence: &Fence) {
        while !fence.is_lost() && count(&lock(&self.put_off)) >= PUT_OFF_MAX {
            sleep(AGAIN_MIN).await;
        }
        let is_new = {
            let mut put_off = lock(&self.put_off);
            let is_new = !put_off.contains_key(&account);
            let own = put_off.entry(account.clone()).or_default();
            for (id, change) in changes {
                note(own, id, change);
            }
            // The changes that are left out are found again when the mailbox is read.
            while own.len() > PUT_OFF_OF_ACCOUNT_MAX {
                own.pop_last();
            }
            is_new
        };
        if is_new {
            go_on(
                &self.tasks,
                make_later(mailbox.clone(), account, Arc::clone(&self.put_off), fence.clone()),
            );
        }
    }
}

/// Lets an account rest for a while, if what began at `begun` has failed.
fn note_outcome<T>(
    resting: &Mutex<BTreeMap<BareJid, Rest>>,
    account: &BareJid,
    begun: Instant,
    outcome: &Result<T, Unavailable>,
) {
    let mut resting = lock(resting);
    if outcome.is_ok() {
        resting.remove(account);
    } else {
        let took = begun.elapsed().min(WITHIN);
        note_rest(&mut resting, account, begun, |factor| REST_MIN.max(factor * took));
    }
}

/// Notes the rest of an account, unless too many are noted. Failures of calls that began together count once.
fn note_rest(
    resting: &mut BTreeMap<BareJid, Rest>,
    account: &BareJid,
    begun: Instant,
    time: impl FnOnce(u32) -> Duration,
) {
    let now = Instant::now();
    let (factor, failed_at) = match resting.get(account) {
        None => (REST_FACTOR_MIN, now),
        Some(rest) if begun <= rest.failed_at => (rest.factor, rest.failed_at),
        Some(rest) => ((2 * rest.factor).min(REST_FACTOR_MAX), now),
    };
    if resting.len() >= RESTING_MAX {
        resting.retain(|_, rest| now < rest.until);
    }
    if resting.len() < RESTING_MAX {
        resting.insert(account.clone(), Rest { until: now + time(factor), factor, failed_at });
    }
}

/// Notes an account for this time, unless too many are noted.
fn note_until(noted: &mut BTreeMap<BareJid, Instant>, account: &BareJid, time: Duration) {
    let now = Instant::now();
    if noted.len() >= RESTING_MAX {
        noted.retain(|_, until| now < *until);
    }
    if noted.len() < RESTING_MAX {
        noted.insert(account.clone(), now + time);
    }
}

/// Notes a change. A removal that is noted already stays.
fn note(changes: &mut Changes, id: MessageId, change: Change) {
    let noted = changes.entry(id).or_insert(change);
    *noted = (*noted).min(change);
}

fn count(put_off: &BTreeMap<BareJid, Changes>) -> usize {
    put_off.values().map(BTreeMap::len).sum()
}

fn named(account: &BareJid, changes: &Changes) -> Vec<(BareJid, MessageId)> {
    let removed = changes.iter().filter(|(_, change)| **change == Change::Remove);
    removed.map(|(id, _)| (account.clone(), *id)).collect()
}

/// Makes the changes of one account. Returns those that failed.
async fn make<M: Mailbox>(
    mailbox: &M,
    account: &BareJid,
    changes: Changes,
    time: Duration,
) -> Result<(), Changes> {
    let removed = named(account, &changes);
    if !removed.is_empty()
        && let Err(error) = within(time, mailbox.remove(removed)).await
    {
        report(&error, AGAIN_MIN);
        return Err(changes);
    }
    let asked = changes.into_iter().filter_map(|(id, change)| match change {
        Change::Asked(at) => Some((id, at)),
        Change::Remove => None,
    });
    let left = stream::iter(asked).map(async |(id, at)| {
        let noted = within(time, mailbox.note_asked(account, id, at)).await;
        noted.inspect_err(|error| report(error, AGAIN_MIN)).err().map(|_| (id, Change::Asked(at)))
    });
    let left: Changes = left.buffer_unordered(WRITES_MAX).filter_map(ready).collect().await;
    if left.is_empty() { Ok(()) } else { Err(left) }
}

/// Makes the changes of one account that were put off, until none is left.
async fn make_later<M: Mailbox>(
    mailbox: M,
    account: BareJid,
    put_off: Arc<Mutex<BTreeMap<BareJid, Changes>>>,
    fence: Fence,
) {
    let mut delay = AGAIN_MIN;
    loop {
        sleep(delay).await;
        let changes = lock(&put_off).get(&account).cloned().unwrap_or_default();
        if changes.is_empty() || fence.is_lost() {
            lock(&put_off).remove(&account);
            return;
        }
        let left = make(&mailbox, &account, changes.clone(), WRITTEN_WITHIN).await.err().unwrap_or_default();
        delay = if left.is_empty() { AGAIN_MIN } else { (2 * delay).min(AGAIN_MAX) };
        let mut put_off = lock(&put_off);
        let own = put_off.entry(account.clone()).or_default();
        // Changes that came meanwhile stay.
        own.retain(|id, change| left.contains_key(id) || changes.get(id) != Some(change));
        if own.is_empty() {
            put_off.remove(&account);
            return;
        }
    }
}

/// Locks a mutex. A poisoned one means that a panic was reported elsewhere; what it holds is whole after every step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a task that may outlive its batch. It ends with the set.
pub(super) fn go_on(tasks: &Mutex<JoinSet<()>>, task: impl Future<Output = ()> + Send + 'static) {
    let mut tasks = lock(tasks);
    while tasks.try_join_next().is_some() {}
    tasks.spawn(task);
}
