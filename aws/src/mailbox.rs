//! The mailboxes on DynamoDB: an item for each push that waits, in the order in which they are handed out.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::ReturnValue;
use chrono::{DateTime, Utc};
use jid::BareJid;
use push::{
    Epoch, MailboxBounds, MessageId, RegistrationId,
    ports::{Kept, Mailbox, Page, Recipient, Trimmed, Unavailable, Waiting},
};

pub use self::table::MailboxTable;
use self::{
    table::BY_REGISTRATION,
    waiting::{Entry, behind, item, key, read_waiting, recipient, superfluous},
};
use crate::{
    error::{Failure, made, unavailable},
    item::{Item, millis},
};

mod reading;
mod table;
mod waiting;

/// Most registrations whose pushes are looked for one by one, rather than among all of the account.
const APART_MAX: usize = 16;
/// What DynamoDB says of a write to an account whose items have reached 10 GB, those of the index included.
const FULL: &str = "ItemCollectionSizeLimitExceededException";
/// Pushes that such an account loses for one that comes.
const ROOM: usize = 25;

impl Mailbox for MailboxTable {
    async fn keep(&self, waiting: Waiting, bounds: MailboxBounds) -> Result<Kept, Unavailable> {
        let message = &waiting.message;
        let account = message.recipient.to_bare();
        let made_room = self.put(&account, &waiting).await?;
        // Only now: a crash in between leaves one too many, and of two that are kept at once, one sees both.
        let entries = self.entries_of_account(&account).await?;
        let mut kept = superfluous(entries, message.registration, message.accepted_at, bounds);
        self.delete(kept.replaced.iter().chain(&kept.dropped).map(|id| key(&account, *id))).await?;
        kept.dropped.splice(..0, made_room);
        Ok(kept)
    }

    async fn waiting(
        &self,
        account: &BareJid,
        of: Option<&BTreeSet<RegistrationId>>,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<Waiting>, Unavailable> {
        match of {
            Some(of) if of.len() <= APART_MAX => self.waiting_of(account, of, after, max).await,
            of => self.all_waiting(account, of, after, max).await,
        }
    }

    async fn find(&self, account: &BareJid, message: MessageId) -> Result<Option<Waiting>, Unavailable> {
        let get = self.client.get_item().table_name(&*self.name).set_key(Some(key(account, message)));
        let read = get.consistent_read(true).send().await.map_err(unavailable("dynamodb:GetItem"))?;
        Ok(read.item.as_ref().and_then(read_waiting))
    }

    async fn remove(&self, messages: Vec<(BareJid, MessageId)>) -> Result<(), Unavailable> {
        // DynamoDB refuses a batch that names one twice.
        let messages: BTreeSet<_> = messages.into_iter().collect();
        self.delete(messages.iter().map(|(account, id)| key(account, *id))).await
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
        made("dynamodb:UpdateItem", update.send().await).map(drop)
    }

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

    async fn clear(
        &self,
        account: &BareJid,
        registration: RegistrationId,
        epoch: Epoch,
    ) -> Result<usize, Unavailable> {
        let entries = self.entries(account, registration).await?;
        let over = entries.iter().filter(|entry| entry.epoch <= epoch);
        let keys: Vec<Item> = over.map(|entry| key(account, entry.id)).collect();
        let count = keys.len();
        self.delete(keys).await?;
        Ok(count)
    }

    async fn trim(&self, account: &BareJid, max: usize, now: DateTime<Utc>) -> Result<Trimmed, Unavailable> {
        let entries = self.entries_of_account(account).await?;
        let waiting: Vec<_> = entries.iter().filter_map(|entry| entry.place_at(now)).collect();
        let count = waiting.len();
        let dropped = MailboxBounds::of_account(max).beyond_account(waiting);
        self.delete(dropped.iter().map(|id| key(account, *id))).await?;
        Ok(Trimmed { left: count - dropped.len(), dropped })
    }

    async fn recipients(
        &self,
        after: Option<Recipient>,
        max: usize,
    ) -> Result<Page<(Recipient, usize)>, Unavailable> {
        let scan = self.client.scan().table_name(&*self.name).index_name(BY_REGISTRATION);
        // It may be a second old: the next sweep finds what this one misses, and each costs half.
        let scan = scan.projection_expression("account, place");
        let scan = scan.set_exclusive_start_key(after.as_ref().map(behind));
        let mut pages = scan.into_paginator().send();
        let mut found: Vec<(Recipient, usize)> = Vec::new();
        while let Some(page) = pages.try_next().await.map_err(unavailable("dynamodb:Scan"))? {
            for (account, registration) in page.items().iter().filter_map(recipient) {
                match found.last_mut() {
                    Some(((last, id), pushes)) if *id == registration && last.as_str() == account => {
                        *pushes += 1;
                    }
                    _ => found.extend(BareJid::new(account).ok().map(|account| ((account, registration), 1))),
                }
            }
            // A page may end amid a registration: the next call begins behind all of it.
            if found.len() >= max
                && page.last_evaluated_key.is_some()
                && let Some(((account, registration), pushes)) = found.last_mut()
            {
                *pushes = self.entries(account, *registration).await?.len();
                let last = (account.clone(), *registration);
                return Ok((found, Some(last)));
            }
        }
        Ok((found, None))
    }
}

impl MailboxTable {
    /// Writes a push. Where DynamoDB takes no more of its account, the oldest pushes go first; returns those.
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
}
