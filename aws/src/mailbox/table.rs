//! The table of mailboxes, and its shared calls.

use std::sync::Arc;

use aws_sdk_dynamodb::{Client, operation::query::builders::QueryFluentBuilder};
use aws_types::SdkConfig;
use futures::future::try_join_all;
use jid::BareJid;
use push::{Clock, MessageId, RegistrationId, ports::Unavailable, usage::Meter};

use super::waiting::{Entry, delete_request, entry, key, shard};
use crate::{
    error::{CannotStart, TableMend, unavailable},
    item::{Item, binary},
    permission::{Inquiry, Permission, Pointless, all_allowed},
    units::UnitsMeter,
};

/// The local secondary index. It orders each part by registration, and then by age.
pub(super) const BY_REGISTRATION: &str = "by_registration";
/// Most concurrent calls for one removal, one reading or one page of a sweep.
pub(super) const CALLS_MAX: usize = 8;

const MEND: TableMend = TableMend {
    kind: "of mailboxes",
    mend: "set UPWIRE_MAILBOX_TABLE to the stack's output MailboxTable, and AWS_REGION to its region",
};

/// The table of mailboxes. Its partition key is `mailbox`, a text, and its sort key is `id`, bytes. The local secondary
/// index `by_registration` has the sort key `place`, bytes, and projects `epoch`, `topic` and `purge_at`. `purge_at` is
/// the TTL attribute.
#[derive(Debug, Clone)]
pub struct MailboxTable {
    pub(super) client: Client,
    pub(super) name: Arc<str>,
    pub(super) units: UnitsMeter,
}

impl MailboxTable {
    /// Makes a client of the table of this name. Makes no call.
    #[must_use]
    pub fn new(config: &SdkConfig, name: &str) -> Self {
        Self { client: Client::new(config), name: name.into(), units: UnitsMeter::default() }
    }

    /// Counts the units that its calls consume, for the tenants of this meter.
    #[must_use]
    pub fn counting_units(self, meter: Meter, clock: Clock) -> Self {
        let (client, units) = UnitsMeter::new(&self.client, meter, clock);
        Self { client, units, ..self }
    }

    /// Checks that the table and its index exist, and may be read and written. Changes nothing.
    ///
    /// # Errors
    /// The problem, and the remedy.
    pub async fn check(&self) -> Result<(), CannotStart> {
        all_allowed(self.permissions().await)
    }

    /// Returns each action of the relay on this table, and whether it is allowed. Changes nothing: the writes are for a
    /// push that does not exist, of an account that cannot exist. The list ends at a call that fails for another
    /// reason.
    pub async fn permissions(&self) -> Vec<Permission> {
        let mut inquiry = Inquiry::of_table(&self.client, &self.name);
        // The last element of the list has the reason.
        let _ = self.inquire(&mut inquiry).await;
        inquiry.permissions()
    }

    async fn inquire(&self, inquiry: &mut Inquiry) -> Result<(), Pointless> {
        let nobody = BareJid::new("nobody.invalid").expect("a domain is a JID");
        let nothing = MessageId::from_bytes([0; MessageId::BYTES]);
        let key = key(&nobody, nothing);
        let get = self.client.get_item().table_name(&*self.name).set_key(Some(key.clone())).send();
        inquiry.note_call(&MEND, "dynamodb:GetItem", get.await.map(drop))?;
        let put = self.client.put_item().table_name(&*self.name).set_item(Some(key.clone()));
        let put = put.condition_expression("attribute_exists(id)").send();
        inquiry.note_call(&MEND, "dynamodb:PutItem", put.await.map(drop))?;
        let update = self.client.update_item().table_name(&*self.name).set_key(Some(key.clone()));
        let update =
            update.condition_expression("attribute_exists(id)").update_expression("REMOVE asked_at").send();
        inquiry.note_call(&MEND, "dynamodb:UpdateItem", update.await.map(drop))?;
        let delete = self.client.delete_item().table_name(&*self.name).set_key(Some(key.clone())).send();
        inquiry.note_call(&MEND, "dynamodb:DeleteItem", delete.await.map(drop))?;
        let delete = self.delete_call(vec![delete_request(key.clone())]).await;
        inquiry.note_call(&MEND, "dynamodb:BatchWriteItem", delete.map(drop))?;
        let read = self.read_call(vec![key]).await;
        inquiry.note_call(&MEND, "dynamodb:BatchGetItem", read.map(drop))?;
        let part = self.query(&nobody, 0).key_condition_expression("mailbox = :mailbox").limit(1).send();
        inquiry.note_call(&MEND, "dynamodb:Query", part.await.map(drop))?;
        inquiry.turn_to_index(BY_REGISTRATION);
        let query = self.query_registration(&nobody, RegistrationId::from_bytes([0; RegistrationId::BYTES]));
        inquiry.note_call(&MEND, "dynamodb:Query", query.send().await.map(drop))?;
        let scan = self.client.scan().table_name(&*self.name).index_name(BY_REGISTRATION).limit(1).send();
        inquiry.note_call(&MEND, "dynamodb:Scan", scan.await.map(drop))
    }

    /// Queries one part of an account's mailbox.
    pub(super) fn query(&self, account: &BareJid, part: u8) -> QueryFluentBuilder {
        let query = self.client.query().table_name(&*self.name).consistent_read(true);
        query.expression_attribute_values(":mailbox", shard(part, account))
    }

    fn query_registration(&self, account: &BareJid, registration: RegistrationId) -> QueryFluentBuilder {
        self.query(account, registration.part())
            .index_name(BY_REGISTRATION)
            .key_condition_expression("mailbox = :mailbox AND begins_with(place, :registration)")
            .expression_attribute_values(":registration", binary(*registration.as_bytes()))
    }

    /// Queries the index of one part of an account's mailbox.
    pub(super) fn query_part(&self, account: &BareJid, part: u8) -> QueryFluentBuilder {
        let query = self.query(account, part).index_name(BY_REGISTRATION);
        query.key_condition_expression("mailbox = :mailbox")
    }

    /// Reads the index entries of one registration.
    pub(super) async fn entries(
        &self,
        account: &BareJid,
        registration: RegistrationId,
    ) -> Result<Vec<Entry>, Unavailable> {
        read_entries(self.query_registration(account, registration)).await
    }

    /// Reads the index entries of one part of an account's mailbox.
    pub(super) async fn entries_of_part(
        &self,
        account: &BareJid,
        part: u8,
    ) -> Result<Vec<Entry>, Unavailable> {
        read_entries(self.query_part(account, part)).await
    }

    /// Reads the index entries of an account.
    pub(super) async fn entries_of_account(&self, account: &BareJid) -> Result<Vec<Entry>, Unavailable> {
        let parts = (0..RegistrationId::PARTS).map(|part| self.entries_of_part(account, part));
        Ok(try_join_all(parts).await?.concat())
    }
}

pub(super) async fn read_entries(query: QueryFluentBuilder) -> Result<Vec<Entry>, Unavailable> {
    let items = query.into_paginator().items().send();
    let items: Vec<Item> = items.collect::<Result<_, _>>().await.map_err(unavailable("dynamodb:Query"))?;
    Ok(items.iter().filter_map(entry).collect())
}
