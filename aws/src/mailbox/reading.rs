//! Reading what waits: of a whole account in the order of the table, or of some registrations by the index.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};
use jid::BareJid;
use push::{
    MessageId, RegistrationId,
    ports::{Unavailable, Waiting},
};

use super::{
    table::{CALLS_MAX, MailboxTable},
    waiting::{key, read_waiting},
};
use crate::{error::unavailable, item::binary};

/// Most items in one read: of the largest pushes, they are less than DynamoDB returns at once.
const BATCH_MAX: usize = 50;

impl MailboxTable {
    pub(super) async fn all_waiting(
        &self,
        account: &BareJid,
        of: Option<&BTreeSet<RegistrationId>>,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<Waiting>, Unavailable> {
        let query = self.query(account).limit(i32::try_from(max).unwrap_or(i32::MAX));
        let query = match after {
            None => query.key_condition_expression("account = :account"),
            Some(after) => query
                .key_condition_expression("account = :account AND id > :after")
                .expression_attribute_values(":after", binary(*after.as_bytes())),
        };
        let asked_for = |waiting: &Waiting| of.is_none_or(|of| of.contains(&waiting.message.registration));
        let mut items = query.into_paginator().items().send();
        let mut found = Vec::new();
        while found.len() < max
            && let Some(item) = items.try_next().await.map_err(unavailable("dynamodb:Query"))?
        {
            found.extend(read_waiting(&item).filter(asked_for));
        }
        Ok(found)
    }

    /// Finds the ids in the index, which holds no bodies, and reads those pushes alone that it returns.
    pub(super) async fn waiting_of(
        &self,
        account: &BareJid,
        of: &BTreeSet<RegistrationId>,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<Waiting>, Unavailable> {
        let entries = stream::iter(of.clone()).map(|registration| self.entries(account, registration));
        let entries: Vec<_> = entries.buffer_unordered(CALLS_MAX).try_collect().await?;
        let ids = entries.into_iter().flatten().map(|entry| entry.id);
        let mut ids: BTreeSet<_> = ids.filter(|id| after.is_none_or(|after| *id > after)).collect();
        let mut found = Vec::new();
        while found.len() < max && !ids.is_empty() {
            let count = (max - found.len()).min(BATCH_MAX);
            let next = (0..count).map_while(|_| ids.pop_first()).map(|id| key(account, id)).collect();
            found.extend(self.read(next).await?);
        }
        Ok(found)
    }
}
