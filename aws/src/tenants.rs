//! The tenants and their usage on DynamoDB: items beside the registrations.
//!
//! The roster is one item. Usage has an item for each hour and each term of a relay. Its counts are absolute, so that
//! writing it again changes nothing. An item for each day lists the items of its hours.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use jid::BareJid;
use push::{
    Roster, TenantName,
    ports::{Tenants, TenantsWriter, Unavailable},
    registration::PURGE_AFTER,
    usage::{self, Counts, Hour, Slot, Units, Usage, hour_of},
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{made, unavailable},
    item::{Item, number, read_number, read_text},
    registrations::RegistrationsTable,
};

/// The key of the roster's item. The keys of registrations are hexadecimal.
const KEY: &str = "tenants";
/// The attribute that has the roster, as JSON.
const ROSTER: &str = "roster";
/// The attribute that has the usage of an hour, as JSON.
const USAGE: &str = "usage";
const ITEMS: &str = "items";
/// Hours of a day.
const DAY: Hour = 24;
/// Most slots in one item. An item may have 400 KB.
const SLOTS_MAX: usize = 1000;
/// Time for which usage is kept.
const KEPT_FOR: TimeDelta = TimeDelta::days(800);
/// The `purge_at` of a row that is kept while its tenant is suspended, in Unix seconds: the year 2100.
const NEVER: i64 = 4_102_444_800;
/// Most concurrent calls.
const CALLS_MAX: usize = 16;
/// Read units that the ingress consumes for an accepted push: one eventually consistent read of the registration, a row
/// of up to 4 KB.
const ACCEPTING: f64 = 0.5;

impl Tenants for RegistrationsTable {
    async fn roster(&self) -> Result<Roster, Unavailable> {
        let Some(item) = self.item(KEY).await? else { return Ok(Roster::default()) };
        let text = read_text(&item, ROSTER)
            .ok_or_else(|| Unavailable::new("the item of the tenants is malformed"))?;
        Roster::parse(text).map_err(Unavailable::new)
    }
}

impl TenantsWriter for RegistrationsTable {
    async fn set_roster(&self, roster: &Roster) -> Result<bool, Unavailable> {
        let (client, table) = self.parts();
        let put = client
            .put_item()
            .table_name(table)
            .item("id", AttributeValue::S(KEY.into()))
            .item(ROSTER, AttributeValue::S(roster.to_json()))
            .item("version", number(roster.version))
            .expression_attribute_names("#version", "version");
        let put = match roster.version {
            1 => put.condition_expression("attribute_not_exists(#version)"),
            version => put
                .condition_expression("#version = :before")
                .expression_attribute_values(":before", number(version - 1)),
        };
        made("dynamodb:PutItem", put.send().await)
    }

    async fn preserve_rows(&self, roster: &Roster, _: DateTime<Utc>) -> Result<(), Unavailable> {
        let mut items = self.scan_accounts().into_paginator().items().send();
        while let Some(item) = items.try_next().await.map_err(unavailable("dynamodb:Scan"))? {
            if let Some((id, expires_at, purge_at)) = change_of_purge(&item, roster) {
                self.set_purge(&id, expires_at, purge_at).await?;
            }
        }
        Ok(())
    }

    async fn usage(&self, from: Hour, to: Hour) -> Result<Usage, Unavailable> {
        let days = from.div_euclid(DAY)..=(to - 1).div_euclid(DAY);
        let names = stream::iter(days).map(|day| self.names_of(day)).buffer_unordered(CALLS_MAX);
        let names: Vec<BTreeSet<String>> = names.try_collect().await?;
        let within = |name: &String| hour_in(name).is_some_and(|hour| (from..to).contains(&hour));
        let names: Vec<String> = names.into_iter().flatten().filter(within).collect();
        let read = stream::iter(names).map(|name| self.usage_in(name)).buffer_unordered(CALLS_MAX);
        read.try_fold(Usage::new(), async |mut sum, one| {
            usage::add(&mut sum, one);
            Ok(sum)
        })
        .await
    }
}

impl RegistrationsTable {
    async fn item(&self, key: &str) -> Result<Option<Item>, Unavailable> {
        let (client, table) = self.parts();
        let get = client.get_item().table_name(table).key("id", AttributeValue::S(key.into()));
        let read = get.consistent_read(true).send().await.map_err(unavailable("dynamodb:GetItem"))?;
        Ok(read.item)
    }

    /// Sets the `purge_at` of a row, on condition that the row was not renewed since it was read.
    async fn set_purge(&self, id: &str, expires_at: i64, purge_at: i64) -> Result<(), Unavailable> {
        let (client, table) = self.parts();
        let update = client
            .update_item()
            .table_name(table)
            .key("id", AttributeValue::S(id.into()))
            .update_expression("SET purge_at = :purge_at")
            .condition_expression("expires_at = :expires_at")
            .expression_attribute_values(":purge_at", number(purge_at))
            .expression_attribute_values(":expires_at", number(expires_at));
        made("dynamodb:UpdateItem", update.send().await).map(drop)
    }

    /// Reads the keys of the items that have usage of a day.
    async fn names_of(&self, day: i64) -> Result<BTreeSet<String>, Unavailable> {
        let item = self.item(&day_key(day)).await?.unwrap_or_default();
        let names = item.get(ITEMS).and_then(|names| names.as_ss().ok());
        Ok(names.into_iter().flatten().cloned().collect())
    }

    async fn usage_in(&self, name: String) -> Result<Usage, Unavailable> {
        let malformed = || Unavailable::new("an item of usage is malformed");
        // The item is missing after a crash between listing and writing it.
        let Some(item) = self.item(&name).await? else { return Ok(Usage::new()) };
        let text = read_text(&item, USAGE).ok_or_else(malformed)?;
        let hour = hour_in(&name).ok_or_else(malformed)?;
        let entries: Vec<Entry> = serde_json::from_str(text).map_err(|_| malformed())?;
        let slot = |Entry { tenant, domain, counts }| (Slot { hour, tenant, domain }, counts);
        Ok(entries.into_iter().map(slot).collect())
    }
}

/// Returns the `purge_at` that a row needs, with its key and its expiry; `None`: the row has it already, or the item is
/// no row.
fn change_of_purge(item: &Item, roster: &Roster) -> Option<(String, i64, i64)> {
    let expires_at: i64 = read_number(item, "expires_at")?;
    let purge_at: i64 = read_number(item, "purge_at")?;
    let account: BareJid = read_text(item, "account")?.parse().ok()?;
    let revoked = *item.get("revoked")?.as_bool().ok()?;
    let is_kept = !revoked && roster.suspends(account.domain().as_str());
    let wanted = match (is_kept, purge_at == NEVER) {
        (true, false) => NEVER,
        (false, true) => (DateTime::from_timestamp_millis(expires_at)? + PURGE_AFTER).timestamp(),
        _ => return None,
    };
    Some((read_text(item, "id")?.to_owned(), expires_at, wanted))
}

/// A slot without its hour, with its counts, as an item has it.
#[derive(Serialize, Deserialize)]
struct Entry {
    tenant: TenantName,
    domain: String,
    #[serde(flatten)]
    counts: Counts,
}

fn day_key(day: i64) -> String {
    format!("usage/{day}")
}

/// Reads the hour from the key of an item of usage.
fn hour_in(name: &str) -> Option<Hour> {
    name.strip_prefix("usage/")?.split('/').nth(1)?.parse().ok()
}

/// The usage that a relay counts in one term.
#[derive(Debug)]
pub struct UsageOfTerm {
    table: RegistrationsTable,
    /// The unique name of the term.
    term: String,
    counted: Usage,
    /// The part of its hour in which each slot is stored. A slot stays in its part, so that a crash between writing two
    /// parts loses none.
    parts: BTreeMap<Slot, usize>,
    /// Hours that have changed since they were written.
    changed: BTreeSet<Hour>,
    /// Items that are listed by their days.
    named: BTreeSet<String>,
}

impl UsageOfTerm {
    /// Begins the usage of a term. No other term may have this name.
    #[must_use]
    pub fn new(table: RegistrationsTable, term: String) -> Self {
        let (parts, changed, named) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { table, term, counted: Usage::new(), parts, changed, named }
    }

    /// Adds counts. The function does not count its own reads, so its reads for accepted pushes are added here.
    pub fn add(&mut self, mut usage: Usage) {
        self.changed.extend(usage.keys().map(|slot| slot.hour));
        for counts in usage.values_mut() {
            counts.read_units += Units::from(ACCEPTING * counts.accepted as f64);
        }
        usage::add(&mut self.counted, usage);
    }

    /// Writes the hours that have changed. After an error, the next call writes them.
    ///
    /// # Errors
    /// A write to the table fails.
    pub async fn write(&mut self, now: DateTime<Utc>) -> Result<(), Unavailable> {
        while let Some(hour) = self.changed.first().copied() {
            self.write_hour(hour, now).await?;
            self.changed.remove(&hour);
        }
        // No counts come for earlier hours any more.
        let past = hour_of(now) - 2;
        self.counted.retain(|slot, _| slot.hour >= past);
        self.parts.retain(|slot, _| slot.hour >= past);
        Ok(())
    }

    async fn write_hour(&mut self, hour: Hour, now: DateTime<Utc>) -> Result<(), Unavailable> {
        let mut in_parts = self.parts.keys().filter(|slot| slot.hour == hour).count();
        let mut entries = BTreeMap::<usize, Vec<Entry>>::new();
        for (slot, counts) in self.counted.iter().filter(|(slot, _)| slot.hour == hour) {
            let part = *self.parts.entry(slot.clone()).or_insert_with(|| {
                in_parts += 1;
                (in_parts - 1) / SLOTS_MAX
            });
            let (tenant, domain) = (slot.tenant.clone(), slot.domain.clone());
            entries.entry(part).or_default().push(Entry { tenant, domain, counts: *counts });
        }
        let day = day_key(hour.div_euclid(DAY));
        let purge_at = number((now + KEPT_FOR).timestamp());
        let text = |(part, entries): (usize, Vec<Entry>)| {
            let text = serde_json::to_string(&entries).expect("usage is plain data");
            (format!("{day}/{hour}/{}/{part}", self.term), text)
        };
        let parts: BTreeMap<String, String> = entries.into_iter().map(text).collect();
        let (client, table) = self.table.parts();
        let unnamed: Vec<String> = parts.keys().filter(|name| !self.named.contains(*name)).cloned().collect();
        if !unnamed.is_empty() {
            let add = client
                .update_item()
                .table_name(table)
                .key("id", AttributeValue::S(day))
                .update_expression("ADD #items :items SET purge_at = :purge_at")
                .expression_attribute_names("#items", ITEMS)
                .expression_attribute_values(":items", AttributeValue::Ss(unnamed.clone()))
                .expression_attribute_values(":purge_at", purge_at.clone());
            add.send().await.map_err(unavailable("dynamodb:UpdateItem"))?;
            self.named.extend(unnamed);
        }
        for (name, text) in parts {
            let put = client
                .put_item()
                .table_name(table)
                .item("id", AttributeValue::S(name))
                .item(USAGE, AttributeValue::S(text))
                .item("purge_at", purge_at.clone());
            put.send().await.map_err(unavailable("dynamodb:PutItem"))?;
        }
        Ok(())
    }
}
