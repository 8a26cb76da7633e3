//! What belongs to an account: its registrations by the index, and an item of its own with its full JIDs.

use aws_sdk_dynamodb::{operation::query::builders::QueryFluentBuilder, types::AttributeValue};
use chrono::{DateTime, Utc};
use futures::future::try_join;
use jid::BareJid;
use push::{
    Registration,
    ports::{Account, Accounts, SEEN_MAX, Seen, Unavailable},
};

use super::{BY_ACCOUNT, RegistrationsTable, row::registration};
use crate::{
    error::unavailable,
    item::{Item, millis, number, read_moment, read_text},
};

impl Accounts for RegistrationsTable {
    async fn account(&self, account: &BareJid, now: DateTime<Utc>) -> Result<Account, Unavailable> {
        let (registrations, seen) = try_join(self.living(account, now), self.seen(account)).await?;
        Ok(Account { registrations, seen })
    }

    async fn note_seen(
        &self,
        account: &BareJid,
        seen: Vec<Seen>,
        now: DateTime<Utc>,
    ) -> Result<(), Unavailable> {
        let living = self.living(account, now).await?;
        let Some(purge_at) = living.iter().map(Registration::purge_at).max() else { return Ok(()) };
        let seen = seen.iter().take(SEEN_MAX).map(|seen| AttributeValue::M(item(seen))).collect();
        let update = self
            .client
            .update_item()
            .table_name(&*self.name)
            .key("id", key(account))
            .update_expression("SET seen = :seen, purge_at = :purge_at")
            .expression_attribute_values(":seen", AttributeValue::L(seen))
            .expression_attribute_values(":purge_at", number(purge_at.timestamp()));
        update.send().await.map(drop).map_err(unavailable("dynamodb:UpdateItem"))
    }
}

impl RegistrationsTable {
    pub(super) fn query_account(&self, account: &BareJid) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&*self.name)
            .index_name(BY_ACCOUNT)
            .key_condition_expression("account = :account")
            .expression_attribute_values(":account", AttributeValue::S(account.to_string()))
    }

    /// The registrations of an account that live.
    async fn living(&self, account: &BareJid, now: DateTime<Utc>) -> Result<Vec<Registration>, Unavailable> {
        // What is over is read, but not sent.
        let query = self
            .query_account(account)
            .filter_expression("revoked = :false AND expires_at > :now")
            .expression_attribute_values(":false", AttributeValue::Bool(false))
            .expression_attribute_values(":now", millis(now));
        let mut items = query.into_paginator().items().send();
        let mut living = Vec::new();
        while let Some(item) = items.try_next().await.map_err(unavailable("dynamodb:Query"))? {
            match registration(&item) {
                Some(row) => living.push(row),
                None => {
                    tracing::error!(id = read_text(&item, "id"), "the row of a registration is malformed")
                }
            }
        }
        Ok(living)
    }

    async fn seen(&self, account: &BareJid) -> Result<Vec<Seen>, Unavailable> {
        let get = self.client.get_item().table_name(&*self.name).key("id", key(account));
        // A relay that has just taken over finds what the last one noted.
        let read = get.consistent_read(true).send().await.map_err(unavailable("dynamodb:GetItem"))?;
        let list = read.item.as_ref().and_then(|item| item.get("seen")?.as_l().ok());
        Ok(list.into_iter().flatten().filter_map(|seen| read_seen(seen.as_m().ok()?)).collect())
    }
}

/// The key of an account's item. No registration has it, nor the lease; and a bare JID of the greatest length leaves
/// room for one more byte.
fn key(account: &BareJid) -> AttributeValue {
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
