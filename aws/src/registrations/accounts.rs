//! Data of an account: its registrations, by the index, and an item with its full JIDs and the count of its
//! registrations.
//!
//! The count is raised before a registration is written, and not lowered when one ends. When it reaches the bound, it
//! is made anew from the index.

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::try_join;
use jid::BareJid;
use push::{
    Registration,
    bounds::registrations_counted,
    ports::{Account, Accounts, Page, Registrant, SEEN_MAX, Seen, Unavailable},
};

use super::{row::registration, table::RegistrationsTable};
use crate::{
    error::{made, unavailable},
    item::{Item, millis, number, read_moment, read_number, read_text},
};

/// Most attempts to change an account's count while others change it.
const ATTEMPTS_MAX: usize = 8;
/// Shortest time between a change of the count and a new count from the index. The index shows each row that was counted
/// by then: its write takes no longer than a call of the relay.
const COUNT_INTERVAL: TimeDelta = TimeDelta::seconds(60);

impl Accounts for RegistrationsTable {
    async fn account(&self, account: &BareJid, now: DateTime<Utc>) -> Result<Account, Unavailable> {
        let read = try_join(self.rows(account), self.account_item(account));
        let (mut registrations, item) = self.units.of(account, read).await?;
        registrations.retain(|row| row.lives(now));
        let list = item.as_ref().and_then(|item| item.get("seen")?.as_l().ok());
        let seen = list.into_iter().flatten().filter_map(|seen| read_seen(seen.as_m().ok()?));
        Ok(Account { registrations, seen: seen.collect() })
    }

    async fn note_seen(
        &self,
        account: &BareJid,
        seen: Vec<Seen>,
        now: DateTime<Utc>,
    ) -> Result<(), Unavailable> {
        let rows = self.units.of(account, self.rows(account)).await?;
        let living = rows.iter().filter(|row| row.lives(now));
        let Some(purge_at) = living.map(Registration::purge_at).max() else { return Ok(()) };
        let seen = seen.iter().take(SEEN_MAX).map(|seen| AttributeValue::M(item(seen))).collect();
        let update = self
            .client
            .update_item()
            .table_name(&*self.name)
            .key("id", key(account))
            .update_expression("SET seen = :seen, purge_at = :purge_at")
            .expression_attribute_values(":seen", AttributeValue::L(seen))
            .expression_attribute_values(":purge_at", number(purge_at.timestamp()));
        let updated = self.units.of(account, update.send()).await;
        updated.map(drop).map_err(unavailable("dynamodb:UpdateItem"))
    }

    async fn living(
        &self,
        after: Option<Registrant>,
        max: usize,
        now: DateTime<Utc>,
    ) -> Result<Page<Registration>, Unavailable> {
        let scan = self.scan_accounts().set_exclusive_start_key(after.as_ref().map(index_key));
        let mut pages = scan.into_paginator().send();
        let mut found: Vec<Registration> = Vec::new();
        while let Some(page) = pages.try_next().await.map_err(unavailable("dynamodb:Scan"))? {
            found.extend(page.items().iter().filter_map(registration).filter(|row| row.lives(now)));
            if found.len() >= max && page.last_evaluated_key.is_some() {
                let last = found.last().map(|row| &row.target);
                let last = last.map(|target| (target.recipient.to_bare(), target.registration_id()));
                return Ok((found, last));
            }
        }
        Ok((found, None))
    }
}

impl RegistrationsTable {
    /// Reads the registrations of an account, living or not.
    pub(super) async fn rows(&self, account: &BareJid) -> Result<Vec<Registration>, Unavailable> {
        let mut items = self.query_account(account).into_paginator().items().send();
        let mut rows = Vec::new();
        while let Some(item) = items.try_next().await.map_err(unavailable("dynamodb:Query"))? {
            match registration(&item) {
                Some(row) => rows.push(row),
                None => {
                    tracing::error!(id = read_text(&item, "id"), "the row of a registration is malformed")
                }
            }
        }
        Ok(rows)
    }

    /// Reads the item of an account. The read is strongly consistent, so that a relay that has just taken over sees the
    /// notes of the last one.
    async fn account_item(&self, account: &BareJid) -> Result<Option<Item>, Unavailable> {
        let get = self.client.get_item().table_name(&*self.name).key("id", key(account));
        let read = get.consistent_read(true).send().await.map_err(unavailable("dynamodb:GetItem"))?;
        Ok(read.item)
    }

    /// Counts a registration that is about to begin. False: its account has as many as it may.
    pub(super) async fn take_place(
        &self,
        next: &Registration,
        now: DateTime<Utc>,
        max: usize,
    ) -> Result<bool, Unavailable> {
        if max == 0 {
            return Ok(false);
        }
        let account = next.target.recipient.to_bare();
        for _ in 0..ATTEMPTS_MAX {
            if self.raise_count(&account, next, max, now).await? {
                return Ok(true);
            }
            let item = self.account_item(&account).await?.unwrap_or_default();
            let seen = read_number(&item, "registrations");
            // The count has changed meanwhile, and leaves room.
            if seen.is_some_and(|count| count < max) {
                continue;
            }
            let changed_at = read_moment(&item, "changed_at");
            if changed_at.is_some_and(|changed_at| (now - changed_at).abs() < COUNT_INTERVAL) {
                return Ok(false);
            }
            let mut rows = self.rows(&account).await?;
            rows.retain(|row| row.target.legacy.is_none() && row.purge_at() > now);
            let living = rows.iter().filter(|row| row.lives(now)).count();
            let count = registrations_counted(living, rows.len(), max);
            let has_room = count < max;
            let count = count + usize::from(has_room);
            if self.replace_count(&account, next, seen, count, now).await? {
                return Ok(has_room);
            }
        }
        Err(Unavailable::new("others keep changing this account"))
    }

    /// Raises the count by one, on condition that it is known and below the bound.
    async fn raise_count(
        &self,
        account: &BareJid,
        next: &Registration,
        max: usize,
        now: DateTime<Utc>,
    ) -> Result<bool, Unavailable> {
        let update = self
            .client
            .update_item()
            .table_name(&*self.name)
            .key("id", key(account))
            .update_expression(
                "SET registrations = registrations + :one, changed_at = :now, purge_at = :purge_at",
            )
            .expression_attribute_values(":now", millis(now))
            .condition_expression("registrations < :max")
            .expression_attribute_values(":one", number(1))
            .expression_attribute_values(":max", number(max))
            .expression_attribute_values(":purge_at", number(next.purge_at().timestamp()));
        made("dynamodb:UpdateItem", update.send().await)
    }

    /// Stores a count that was made from the index, on condition that the stored count is still `seen`.
    async fn replace_count(
        &self,
        account: &BareJid,
        next: &Registration,
        seen: Option<usize>,
        count: usize,
        now: DateTime<Utc>,
    ) -> Result<bool, Unavailable> {
        let update = self
            .client
            .update_item()
            .table_name(&*self.name)
            .key("id", key(account))
            .update_expression("SET registrations = :count, changed_at = :now, purge_at = :purge_at")
            .expression_attribute_values(":count", number(count))
            .expression_attribute_values(":now", millis(now))
            .expression_attribute_values(":purge_at", number(next.purge_at().timestamp()));
        let update = match seen {
            None => update.condition_expression("attribute_not_exists(registrations)"),
            Some(seen) => update
                .condition_expression("registrations = :seen")
                .expression_attribute_values(":seen", number(seen)),
        };
        made("dynamodb:UpdateItem", update.send().await)
    }
}

/// Returns the key of a registration in the index.
fn index_key((account, id): &Registrant) -> Item {
    let attributes = [("account", account.to_string()), ("id", id.to_string())];
    attributes.map(|(name, value)| (name.to_owned(), AttributeValue::S(value))).into()
}

/// Returns the key of an account's item. No other item has such a key. A DynamoDB key has room for the longest bare JID
/// and one more byte.
pub(super) fn key(account: &BareJid) -> AttributeValue {
    AttributeValue::S(format!("@{account}"))
}

fn item(seen: &Seen) -> Item {
    let attributes = [
        ("jid", AttributeValue::S(seen.jid.to_string())),
        ("seen_at", millis(seen.seen_at)),
        ("ended", AttributeValue::Bool(seen.ended)),
    ];
    attributes.map(|(name, value)| (name.to_owned(), value)).into()
}

fn read_seen(item: &Item) -> Option<Seen> {
    Some(Seen {
        jid: read_text(item, "jid")?.parse().ok()?,
        seen_at: read_moment(item, "seen_at")?,
        ended: *item.get("ended")?.as_bool().ok()?,
    })
}
