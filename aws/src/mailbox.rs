//! The mailboxes on DynamoDB: one item for each push that waits, in the order in which pushes are handed out.
//!
//! An account's mailbox has four parts, so that a busy account can use the write capacity of four partitions. The id of
//! a push tells its part, and so does its registration. One item for each account counts its waiting pushes.
//!
//! The index by registration is a local one. A global index has no strongly consistent reads, and could miss a push
//! that was written just before its phone comes back. With a local index, the items of one partition key have at most
//! 10 GB and 1,000 write units a second. Both limits hold for each part, so an account has four times as much.
//!
//! Capacity units: a push takes `w` write units, one for each KiB. Entries of the index take one read unit for each 30,
//! and at least one for each part that is read.
//!
//! | what | writes | reads |
//! | --- | --- | --- |
//! | kept, with room | `w + 1`, and 1 to count it | 0; with a topic, the registration's entries |
//! | … the first of an account for a while | `w + 3` | 1 and the account's entries |
//! | … where its registration is full | `2w + 3` | 1 and the registration's entries |
//! | … where its account is full | `2w + 3` | 1 and the account's entries |
//! | replaced, dropped, removed, each | `w + 1` | 0 |
//! | found by its id; noted as asked | 0; `w` | 1 for each 4 KiB; 0 |
//! | a page, of up to 16 registrations | 0 | their entries, and 1 for each 4 KiB of each push |
//! | a page, of more | 0 | 1 for each 4 KiB of all, at least 4 |
//! | met by a sweep, each account | 0 | half of its entries', at least 2 |
//!
//! A counting item of more than some 30 registrations takes more than one write unit.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::ReturnValue;
use chrono::{DateTime, Utc};
use jid::BareJid;
use push::{
    Epoch, MailboxBounds, MessageId, PushMessage, RegistrationId,
    ports::{Kept, Mailbox, Page, Registrant, Trimmed, Unavailable, Waiting, Withdrawals},
};

pub use self::table::MailboxTable;
use self::waiting::{Entry, key, superfluous};
pub(crate) use self::waiting::{item, read_waiting};
use crate::{
    error::{Failure, made, unavailable},
    item::{Item, millis},
};

mod batches;
mod counts;
mod reading;
mod sweep;
mod table;
mod waiting;

/// Most registrations whose pushes are found by the index, rather than by reading all pushes of the account.
const APART_MAX: usize = 16;
/// DynamoDB's code for a write to a part that has reached 10 GB, including its index.
const FULL: &str = "ItemCollectionSizeLimitExceededException";
/// Number of pushes that an account with a full part loses for a new one.
const ROOM: usize = 25;

impl Mailbox for MailboxTable {
    async fn keep(&self, waiting: Waiting, bounds: MailboxBounds) -> Result<Kept, Unavailable> {
        let account = waiting.message.recipient.to_bare();
        self.units.of(&account, self.put_within(&account, &waiting, bounds)).await
    }

    async fn waiting(
        &self,
        account: &BareJid,
        of: Option<&BTreeSet<RegistrationId>>,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<Waiting>, Unavailable> {
        let read = async {
            match of {
                Some(of) if of.len() <= APART_MAX => self.waiting_of(account, of, after, max).await,
                of => self.all_waiting(account, of, after, max).await,
            }
        };
        self.units.of(account, read).await
    }

    async fn find(&self, account: &BareJid, message: MessageId) -> Result<Option<Waiting>, Unavailable> {
        let get = self.client.get_item().table_name(&*self.name).set_key(Some(key(account, message)));
        let read = self.units.of(account, get.consistent_read(true).send()).await;
        Ok(read.map_err(unavailable("dynamodb:GetItem"))?.item.as_ref().and_then(read_waiting))
    }

    async fn remove(&self, messages: Vec<(BareJid, MessageId)>) -> Result<(), Unavailable> {
        // DynamoDB refuses a batch that names an item twice.
        let messages: BTreeSet<_> = messages.into_iter().collect();
        let delete = self.delete(messages.iter().map(|(account, id)| key(account, *id)));
        self.units.of_those(delete, |_| messages.iter().map(|(account, _)| account.clone()).collect()).await
    }

    async fn note_asked(
        &self,
        account: &BareJid,
        message: MessageId,
        asked_at: DateTime<Utc>,
    ) -> Result<(), Unavailable> {
        let update = self.client.update_item().table_name(&*self.name).set_key(Some(key(account, message)));
        let update = update
            .condition_expression("attribute_exists(id)")
            .update_expression("SET asked_at = :asked_at")
            .expression_attribute_values(":asked_at", millis(asked_at));
        made("dynamodb:UpdateItem", self.units.of(account, update.send()).await).map(drop)
    }

    async fn clear(
        &self,
        account: &BareJid,
        registration: RegistrationId,
        epoch: Epoch,
    ) -> Result<usize, Unavailable> {
        let clear = async {
            let entries = self.entries(account, registration).await?;
            let over = entries.iter().filter(|entry| entry.epoch <= epoch);
            let keys: Vec<Item> = over.map(|entry| key(account, entry.id)).collect();
            let count = keys.len();
            self.delete(keys).await?;
            Ok(count)
        };
        self.units.of(account, clear).await
    }

    async fn trim(&self, account: &BareJid, max: usize, now: DateTime<Utc>) -> Result<Trimmed, Unavailable> {
        let trim = async {
            let entries = self.entries_of_account(account).await?;
            let waiting: Vec<_> = entries.iter().filter_map(|entry| entry.place_at(now)).collect();
            let count = waiting.len();
            let dropped = MailboxBounds::of_account(max).beyond_account(waiting);
            self.delete(dropped.iter().map(|id| key(account, *id))).await?;
            Ok(Trimmed { left: count - dropped.len(), dropped })
        };
        self.units.of(account, trim).await
    }

    async fn recipients(
        &self,
        after: Option<Registrant>,
        max: usize,
    ) -> Result<Page<(Registrant, usize)>, Unavailable> {
        self.sweep(after, max).await
    }
}

impl Withdrawals for MailboxTable {
    async fn withdraw(
        &self,
        account: &BareJid,
        message: MessageId,
        now: DateTime<Utc>,
    ) -> Result<bool, Unavailable> {
        let delete = self.client.delete_item().table_name(&*self.name).set_key(Some(key(account, message)));
        let delete = delete.return_values(ReturnValue::AllOld).send();
        let deleted = delete.await.map_err(unavailable("dynamodb:DeleteItem"))?;
        let waiting = deleted.attributes.as_ref().and_then(read_waiting);
        Ok(waiting.is_some_and(|waiting| !waiting.message.is_expired(now)))
    }
}

impl MailboxTable {
    async fn put_within(
        &self,
        account: &BareJid,
        waiting: &Waiting,
        bounds: MailboxBounds,
    ) -> Result<Kept, Unavailable> {
        let message = &waiting.message;
        let made_room = self.put(account, waiting).await?;
        // The push is counted after it is written. A crash in between leaves one push too many, and of two concurrent
        // writers, at least one sees both pushes.
        let mut kept = if !self.count(account, message, bounds).await? {
            self.make_room(account, message, bounds).await?
        } else if message.topic.is_some() {
            self.replace(account, message).await?
        } else {
            Kept::default()
        };
        kept.dropped.splice(..0, made_room);
        Ok(kept)
    }

    /// Writes a push. If its part is full, drops the oldest pushes of the account first, and returns them.
    async fn put(&self, account: &BareJid, waiting: &Waiting) -> Result<Vec<MessageId>, Unavailable> {
        let put = || self.client.put_item().table_name(&*self.name).set_item(Some(item(account, waiting)));
        let failed = |failure| Unavailable::new(format!("dynamodb:PutItem: {failure}"));
        match put().send().await.map_err(Failure::from) {
            Ok(_) => return Ok(Vec::new()),
            Err(failure) if failure.is(FULL) => {}
            Err(failure) => return Err(failed(failure)),
        }
        let mut others = self.entries_of_account(account).await?;
        others.retain(|entry| entry.id != waiting.message.id);
        let bounds = MailboxBounds::of_account(others.len().saturating_sub(ROOM));
        let dropped = bounds.beyond_account(others.iter().map(Entry::place));
        self.delete(dropped.iter().map(|id| key(account, *id))).await?;
        put().send().await.map_err(|error| failed(error.into()))?;
        Ok(dropped)
    }

    /// Removes the pushes that a push replaces by its topic.
    async fn replace(&self, account: &BareJid, message: &PushMessage) -> Result<Kept, Unavailable> {
        let entries = self.entries(account, message.registration).await?;
        let bounds = MailboxBounds { of_registration: usize::MAX, of_account: usize::MAX };
        let kept = superfluous(&entries, message.registration, message.accepted_at, bounds);
        self.delete(kept.replaced.iter().map(|id| key(account, *id))).await?;
        Ok(kept)
    }

    /// Counts the waiting pushes anew. Removes the pushes that a push replaces, and those beyond the bounds.
    async fn make_room(
        &self,
        account: &BareJid,
        message: &PushMessage,
        bounds: MailboxBounds,
    ) -> Result<Kept, Unavailable> {
        let seen = self.counts(account, message.registration).await?;
        // `Some`: the account has room, so its registration alone is full.
        let of_account = seen.as_ref().filter(|seen| seen.of_account < bounds.of_account);
        let (entries, bounds) = match of_account {
            Some(_) => {
                let entries = self.entries(account, message.registration).await?;
                (entries, MailboxBounds { of_account: usize::MAX, ..bounds })
            }
            None => (self.entries_of_account(account).await?, bounds),
        };
        let kept = superfluous(&entries, message.registration, message.accepted_at, bounds);
        let gone: BTreeSet<MessageId> = kept.replaced.iter().chain(&kept.dropped).copied().collect();
        self.delete(gone.iter().map(|id| key(account, *id))).await?;
        let stays = |entry: &&Entry| entry.lives_at(message.accepted_at) && !gone.contains(&entry.id);
        let left: Vec<&Entry> = entries.iter().filter(stays).collect();
        match of_account {
            // With both at the bound, the next push counts anew anyway.
            Some(seen) if left.len().min(seen.of_registration) >= bounds.of_registration => {}
            Some(seen) => self.recount_registration(account, message, seen, left.len()).await?,
            None if seen.is_some() && left.len() >= bounds.of_account => {}
            None => self.recount_account(account, message, seen.as_ref(), &left).await?,
        }
        Ok(kept)
    }
}
