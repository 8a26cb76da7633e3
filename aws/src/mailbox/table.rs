//! The table of mailboxes, and the calls that several of its methods make.

use std::{sync::Arc, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    operation::query::builders::QueryFluentBuilder,
    types::{DeleteRequest, KeysAndAttributes, WriteRequest},
};
use aws_types::SdkConfig;
use backon::{BackoffBuilder, ExponentialBuilder};
use futures::{StreamExt, TryStreamExt, stream};
use jid::BareJid;
use push::{
    MessageId, RegistrationId,
    ports::{Unavailable, Waiting},
};
use tokio::time::sleep;

use super::waiting::{Entry, account_of, entry, key, read_waiting};
use crate::{
    error::{CannotStart, Failure, TableMend, unavailable},
    item::{Item, binary},
};

/// The local secondary index: of each account, registration by registration, oldest first.
pub(super) const BY_REGISTRATION: &str = "by_registration";
/// Most items in one call, by DynamoDB's own rule.
const BATCH_MAX: usize = 25;
/// Most calls at a time for one removal.
pub(super) const CALLS_MAX: usize = 8;
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
    pub(super) client: Client,
    pub(super) name: Arc<str>,
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

    pub(super) fn query(&self, account: &BareJid) -> QueryFluentBuilder {
        let query = self.client.query().table_name(&*self.name).consistent_read(true);
        query.expression_attribute_values(":account", account_of(account))
    }

    pub(super) fn query_registration(
        &self,
        account: &BareJid,
        registration: RegistrationId,
    ) -> QueryFluentBuilder {
        self.query(account)
            .index_name(BY_REGISTRATION)
            .key_condition_expression("account = :account AND begins_with(place, :registration)")
            .expression_attribute_values(":registration", binary(*registration.as_bytes()))
    }

    /// What waits of one registration.
    pub(super) async fn entries(
        &self,
        account: &BareJid,
        registration: RegistrationId,
    ) -> Result<Vec<Entry>, Unavailable> {
        self.read_entries(self.query_registration(account, registration)).await
    }

    /// What waits of an account.
    pub(super) async fn entries_of_account(&self, account: &BareJid) -> Result<Vec<Entry>, Unavailable> {
        let query = self.query(account).index_name(BY_REGISTRATION);
        self.read_entries(query.key_condition_expression("account = :account")).await
    }

    async fn read_entries(&self, query: QueryFluentBuilder) -> Result<Vec<Entry>, Unavailable> {
        let items = query.into_paginator().items().send();
        let items: Vec<Item> =
            items.collect::<Result<_, _>>().await.map_err(unavailable("dynamodb:Query"))?;
        Ok(items.iter().filter_map(entry).collect())
    }

    /// Deletes pushes; each must be named but once.
    pub(super) async fn delete(&self, keys: impl IntoIterator<Item = Item>) -> Result<(), Unavailable> {
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

    /// Pushes by their keys, in order; those that are gone or cannot be read are left out.
    pub(super) async fn read(&self, mut keys: Vec<Item>) -> Result<Vec<Waiting>, Unavailable> {
        let mut found = Vec::new();
        while !keys.is_empty() {
            let failed = |failure| Unavailable::new(format!("dynamodb:BatchGetItem: {failure}"));
            let asked = keys.len();
            let (items, left) = self.read_call(keys).await.map_err(failed)?;
            if left.len() == asked {
                return Err(Unavailable::new("dynamodb:BatchGetItem: the table does not take so many reads"));
            }
            found.extend(items.iter().filter_map(read_waiting));
            keys = left;
        }
        found.sort_unstable_by_key(|waiting| waiting.message.id);
        Ok(found)
    }

    /// Also returns what DynamoDB left undone.
    async fn read_call(&self, keys: Vec<Item>) -> Result<(Vec<Item>, Vec<Item>), Failure> {
        let keys = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true);
        let keys = keys.build().expect("it has keys");
        let answer = self.client.batch_get_item().request_items(&*self.name, keys).send().await?;
        let items = answer.responses.unwrap_or_default().into_values().flatten().collect();
        let left = answer.unprocessed_keys.unwrap_or_default().into_values();
        Ok((items, left.flat_map(|left| left.keys).collect()))
    }
}

fn delete_request(key: Item) -> WriteRequest {
    let request = DeleteRequest::builder().set_key(Some(key)).build().expect("it has a key");
    WriteRequest::builder().delete_request(request).build()
}
