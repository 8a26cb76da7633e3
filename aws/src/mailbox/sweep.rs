//! A sweep over all mailboxes. It scans the index, and returns an account when it meets the account's lowest part that
//! has pushes waiting.
//!
//! The reads are eventually consistent, which costs half. The next sweep finds pushes that this one misses.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use jid::BareJid;
use push::{
    RegistrationId,
    ports::{Page, Registrant, Unavailable},
};

use super::{
    table::{BY_REGISTRATION, CALLS_MAX, MailboxTable, read_entries},
    waiting::{behind, read_shard},
};
use crate::error::unavailable;

/// Most entries of the index in one read. A registration may have several.
const SCAN_MAX: i32 = 1024;

/// Registrations with their accounts, each with the number of its waiting pushes.
type Found = Vec<(Registrant, usize)>;

impl MailboxTable {
    pub(super) async fn sweep(
        &self,
        after: Option<Registrant>,
        max: usize,
    ) -> Result<Page<(Registrant, usize)>, Unavailable> {
        let scan = self.client.scan().table_name(&*self.name).index_name(BY_REGISTRATION).limit(SCAN_MAX);
        let scan = scan.projection_expression("mailbox");
        let after = after.map(|(account, registration)| behind(&account, registration.part()));
        let mut pages = scan.set_exclusive_start_key(after).into_paginator().send();
        let (mut found, mut last) = (Found::new(), None);
        while let Some(page) = pages.try_next().await.map_err(unavailable("dynamodb:Scan"))? {
            let mut shards: Vec<(u8, BareJid)> = page.items().iter().filter_map(read_shard).collect();
            shards.dedup();
            // The page before may have ended in the middle of a part.
            shards.retain(|shard| last.as_ref() != Some(shard));
            last = shards.last().cloned().or(last);
            let accounts = stream::iter(shards).map(|(part, account)| self.met(account, part));
            let accounts: Vec<Found> = accounts.buffered(CALLS_MAX).try_collect().await?;
            found.extend(accounts.into_iter().flatten());
            if found.len() >= max && page.last_evaluated_key.is_some() {
                let last = found.last().map(|(recipient, _)| recipient.clone());
                return Ok((found, last));
            }
        }
        Ok((found, None))
    }

    /// Counts the waiting pushes of an account that the scan met in this part; none if a lower part has pushes, too.
    /// Registrations of this part come last, since the next page goes on behind the last one.
    async fn met(&self, account: BareJid, part: u8) -> Result<Found, Unavailable> {
        let below = (0..part).map(|part| {
            let query = self.query_part(&account, part).limit(1).projection_expression("mailbox");
            query.consistent_read(false).send()
        });
        let below = try_join_all(below).await.map_err(unavailable("dynamodb:Query"))?;
        if below.iter().any(|answer| answer.count > 0) {
            return Ok(Found::new());
        }
        let parts = (part..RegistrationId::PARTS).rev();
        let parts = parts.map(|part| read_entries(self.query_part(&account, part).consistent_read(false)));
        let parts = try_join_all(parts).await?;
        if parts.last().is_none_or(Vec::is_empty) {
            return Ok(Found::new());
        }
        let mut found = Found::new();
        for entries in parts {
            let mut pushes = BTreeMap::<RegistrationId, usize>::new();
            for entry in entries {
                *pushes.entry(entry.registration).or_default() += 1;
            }
            found.extend(pushes.into_iter().map(|(id, pushes)| ((account.clone(), id), pushes)));
        }
        Ok(found)
    }
}
