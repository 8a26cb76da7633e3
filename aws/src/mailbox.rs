//! The mailboxes on DynamoDB: an item for each push that waits, in the order in which they are handed out.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    operation::query::builders::QueryFluentBuilder,
    types::{DeleteRequest, ReturnValue, WriteRequest},
};
use aws_types::SdkConfig;
use backon::{BackoffBuilder, ExponentialBuilder};
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use jid::BareJid;
use push::{
    Epoch, MailboxBounds, MessageId, RegistrationId,
    ports::{Kept, Mailbox, Recipient, Unavailable, Waiting},
};
use tokio::time::sleep;

use self::waiting::{Entry, account_of, behind, entry, item, key, read_waiting, recipient, superfluous};
use crate::{
    error::{CannotStart, Failure, TableMend, made, unavailable},
    item::{Item, binary, millis},
};

mod reading;
mod waiting;

/// The local secondary index: of each account, registration by registration, oldest first.
const BY_REGISTRATION: &str = "by_registration";
/// Most items in one call, by DynamoDB's own rule.
const BATCH_MAX: usize = 25;
/// Most calls at a time for one removal.
const CALLS_MAX: usize = 8;
/// Most registrations whose pushes are looked for one by one, rather than among all of the account.
const APART_MAX: usize = 16;
/// How often DynamoDB is asked again for what it left undone of a batch, and how soon.
const BATCH_RETRIES_MAX: usize = 8;
const BATCH_DELAY_MIN: Duration = Duration::from_millis(50);
const BATCH_DELAY_MAX: Duration = Duration::from_secs(2);

const MEND: TableMend = TableMend {
    kind: "of mailboxes",
    mend: "set UPWIRE_MAILBOX_TABLE to the stack's output MailboxTable, and AWS_REGION to its region",
};

/// The table of mailboxes: partition key `account`, a text; sort key `id`, bytes; the local secondary index
/// `by_registration` with sort key `place`, bytes, that projects `epoch`, `topic` and `purge_at`, the TTL attribute.
#[derive(Debug, Clone)]
pub struct MailboxTable {
    client: Client,
    name: Arc<str>,
}

impl MailboxTable {
    /// The table of this name. Makes no call.
    #[must_use]
    pub fn new(config: &SdkConfig, name: &str) -> Self {
        Self { client: Client::new(config), name: name.into() }
    }

    /// Finds out whether the table and its index are there, and may be read and written. Changes nothing: the
    /// writes are of a push that does not exist, to an account that cannot.
    ///
    /// # Errors
    /// Why not, and the mend.
    pub async fn check(&self) -> Result<(), CannotStart> {
        let nobody = BareJid::new("nobody.invalid").expect("a domain is a JID");
        let nothing = MessageId::from_bytes([0; MessageId::BYTES]);
        let key = key(&nobody, nothing);
        let get = self.client.get_item().table_name(&*self.name).set_key(Some(key.clone())).send();
        MEND.verdict("dynamodb:GetItem", get.await.map(drop).map_err(Failure::from))?;
        let put = self.client.put_item().table_name(&*self.name).set_item(Some(key.clone()));
        let put = put.condition_expression("attribute_exists(id)").send();
        MEND.verdict("dynamodb:PutItem", put.await.map(drop).map_err(Failure::from))?;
        let update = self.client.update_item().table_name(&*self.name).set_key(Some(key.clone()));
        let update =
            update.condition_expression("attribute_exists(id)").update_expression("REMOVE asked_at").send();
        MEND.verdict("dynamodb:UpdateItem", update.await.map(drop).map_err(Failure::from))?;
        let delete = self.client.delete_item().table_name(&*self.name).set_key(Some(key.clone())).send();
        MEND.verdict("dynamodb:DeleteItem", delete.await.map(drop).map_err(Failure::from))?;
        let delete = self.delete_call(vec![delete_request(key.clone())]).await;
        MEND.verdict("dynamodb:BatchWriteItem", delete.map(drop))?;
        let read = self.read_call(vec![key]).await;
        MEND.verdict("dynamodb:BatchGetItem", read.map(drop))?;
        let query = self.query_registration(&nobody, RegistrationId::from_bytes([0; RegistrationId::BYTES]));
        MEND.verdict("dynamodb:Query", query.send().await.map(drop).map_err(Failure::from))?;
        let scan = self.client.scan().table_name(&*self.name).index_name(BY_REGISTRATION).limit(1).send();
        MEND.verdict("dynamodb:Scan", scan.await.map(drop).map_err(Failure::from))
    }

    fn query(&self, account: &BareJid) -> QueryFluentBuilder {
        let query = self.client.query().table_name(&*self.name).consistent_read(true);
        query.expression_attribute_values(":account", account_of(account))
    }

    fn query_registration(&self, account: &BareJid, registration: RegistrationId) -> QueryFluentBuilder {
        self.query(account)
            .index_name(BY_REGISTRATION)
            .key_condition_expression("account = :account AND begins_with(place, :registration)")
            .expression_attribute_values(":registration", binary(*registration.as_bytes()))
    }

    /// What waits of one registration.
    async fn entries(
        &self,
        account: &BareJid,
        registration: RegistrationId,
    ) -> Result<Vec<Entry>, Unavailable> {
        self.read_entries(self.query_registration(account, registration)).await
    }

    async fn read_entries(&self, query: QueryFluentBuilder) -> Result<Vec<Entry>, Unavailable> {
        let items = query.into_paginator().items().send();
        let items: Vec<Item> =
            items.collect::<Result<_, _>>().await.map_err(unavailable("dynamodb:Query"))?;
        Ok(items.iter().filter_map(entry).collect())
    }

    /// Deletes pushes; each must be named but once.
    async fn delete(&self, keys: impl IntoIterator<Item = Item>) -> Result<(), Unavailable> {
        let requests: Vec<WriteRequest> = keys.into_iter().map(delete_request).collect();
        let batches: Vec<_> = requests.chunks(BATCH_MAX).map(<[_]>::to_vec).collect();
        let calls = stream::iter(batches).map(|batch| self.delete_batch(batch)).buffer_unordered(CALLS_MAX);
        calls.try_collect().await
    }

    async fn delete_batch(&self, mut batch: Vec<WriteRequest>) -> Result<(), Unavailable> {
        let delays = ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(BATCH_DELAY_MIN)
            .with_max_delay(BATCH_DELAY_MAX)
            .with_max_times(BATCH_RETRIES_MAX);
        let mut delays = delays.build();
        loop {
            let failed = |failure| Unavailable::new(format!("dynamodb:BatchWriteItem: {failure}"));
            batch = self.delete_call(batch).await.map_err(failed)?;
            if batch.is_empty() {
                return Ok(());
            }
            let Some(delay) = delays.next() else {
                return Err(Unavailable::new(
                    "dynamodb:BatchWriteItem: the table does not take so many writes",
                ));
            };
            sleep(delay).await;
        }
    }

    /// Returns what DynamoDB left undone.
    async fn delete_call(&self, batch: Vec<WriteRequest>) -> Result<Vec<WriteRequest>, Failure> {
        let answer = self.client.batch_write_item().request_items(&*self.name, batch).send().await?;
        Ok(answer.unprocessed_items.unwrap_or_default().into_values().flatten().collect())
    }
}

impl Mailbox for MailboxTable {
    async fn keep(&self, waiting: Waiting, bounds: MailboxBounds) -> Result<Kept, Unavailable> {
        let message = &waiting.message;
        let account = message.recipient.to_bare();
        let put = self.client.put_item().table_name(&*self.name).set_item(Some(item(&account, &waiting)));
        put.send().await.map_err(unavailable("dynamodb:PutItem"))?;
        // Only now: a crash in between leaves one too many, and of two that are kept at once, one sees both.
        let query = self.query(&account).index_name(BY_REGISTRATION);
        let entries = self.read_entries(query.key_condition_expression("account = :account")).await?;
        let kept = superfluous(entries, message.registration, message.accepted_at, bounds);
        self.delete(kept.replaced.iter().chain(&kept.dropped).map(|id| key(&account, *id))).await?;
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

    async fn recipients(
        &self,
        after: Option<Recipient>,
        max: usize,
    ) -> Result<(Vec<Recipient>, Option<Recipient>), Unavailable> {
        let scan = self.client.scan().table_name(&*self.name).index_name(BY_REGISTRATION);
        // It may be a second old: the next sweep finds what this one misses, and each costs half.
        let scan = scan.projection_expression("account, place");
        let scan = scan.set_exclusive_start_key(after.as_ref().map(behind));
        let mut pages = scan.into_paginator().send();
        let mut found: Vec<Recipient> = Vec::new();
        while let Some(page) = pages.try_next().await.map_err(unavailable("dynamodb:Scan"))? {
            for (account, registration) in page.items().iter().filter_map(recipient) {
                let known = |(last, id): &Recipient| *id == registration && last.as_str() == account;
                if !found.last().is_some_and(known)
                    && let Ok(account) = BareJid::new(account)
                {
                    found.push((account, registration));
                }
            }
            // A page may end amid a registration: the next call begins behind all of it.
            if found.len() >= max && page.last_evaluated_key.is_some() {
                let last = found.last().cloned();
                return Ok((found, last));
            }
        }
        Ok((found, None))
    }
}

fn delete_request(key: Item) -> WriteRequest {
    let request = DeleteRequest::builder().set_key(Some(key)).build().expect("it has a key");
    WriteRequest::builder().delete_request(request).build()
}
