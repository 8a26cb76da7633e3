//! Batch calls that delete or read many pushes, with retries for items that DynamoDB leaves unprocessed.

use std::time::Duration;

use aws_sdk_dynamodb::types::{KeysAndAttributes, WriteRequest};
use backon::{BackoffBuilder, ExponentialBuilder};
use futures::{StreamExt, TryStreamExt, stream};
use push::ports::{Unavailable, Waiting};
use tokio::time::sleep;

use super::{
    table::{CALLS_MAX, MailboxTable},
    waiting::{delete_request, read_waiting},
};
use crate::{error::Failure, item::Item};

/// Most items in one call, a limit of DynamoDB.
const BATCH_MAX: usize = 25;
/// Most retries for the unprocessed items of a batch.
const BATCH_RETRIES_MAX: usize = 8;
const BATCH_DELAY_MIN: Duration = Duration::from_millis(50);
const BATCH_DELAY_MAX: Duration = Duration::from_secs(2);

impl MailboxTable {
    /// Deletes pushes. Each must be named only once.
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

    /// Makes one call. Returns the unprocessed requests.
    pub(super) async fn delete_call(&self, batch: Vec<WriteRequest>) -> Result<Vec<WriteRequest>, Failure> {
        let answer = self.client.batch_write_item().request_items(&*self.name, batch).send().await?;
        Ok(answer.unprocessed_items.unwrap_or_default().into_values().flatten().collect())
    }

    /// Reads pushes by their keys, and returns them in order. Missing and unreadable pushes are left out.
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

    /// Makes one call. Returns the items, and the unprocessed keys.
    pub(super) async fn read_call(&self, keys: Vec<Item>) -> Result<(Vec<Item>, Vec<Item>), Failure> {
        let keys = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true);
        let keys = keys.build().expect("it has keys");
        let answer = self.client.batch_get_item().request_items(&*self.name, keys).send().await?;
        let items = answer.responses.unwrap_or_default().into_values().flatten().collect();
        let left = answer.unprocessed_keys.unwrap_or_default().into_values();
        Ok((items, left.flat_map(|left| left.keys).collect()))
    }
}
