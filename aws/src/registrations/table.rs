//! The table of registrations, and its shared calls.

use std::sync::Arc;

use aws_sdk_dynamodb::{
    Client,
    operation::{query::builders::QueryFluentBuilder, scan::builders::ScanFluentBuilder},
    types::{AttributeValue, KeysAndAttributes},
};
use aws_types::SdkConfig;
use jid::BareJid;
use push::{
    Clock, Registration, RegistrationId,
    ports::{Consistency, Unavailable},
    usage::Meter,
};

use super::row::{item, registration};
use crate::{
    config,
    error::{CannotStart, TableMend, made, unavailable},
    item::{epoch, millis},
    lease::RelayLease,
    permission::{Inquiry, Permission, Pointless, all_allowed},
    units::UnitsMeter,
};

/// The global secondary index that finds the registrations of an account. It may lag by a second.
const BY_ACCOUNT: &str = "by_account";

/// Most rows in one read, a limit of DynamoDB.
pub(super) const BATCH_MAX: usize = 100;

const MEND: TableMend = TableMend {
    kind: "of registrations",
    mend: "set UPWIRE_REGISTRATIONS_TABLE to the stack's output RegistrationsTable, and AWS_REGION to its region",
};

/// The table of registrations. Its partition key is `id`, a text. The global secondary index `by_account` has the
/// partition key `account`, a text, and projects all attributes. `purge_at` is the TTL attribute. Beside the
/// registrations, the table has the lease, the marker, the tenants with their usage, and an item for each account.
#[derive(Debug, Clone)]
pub struct RegistrationsTable {
    pub(super) client: Client,
    pub(super) name: Arc<str>,
    pub(super) units: UnitsMeter,
}

impl RegistrationsTable {
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

    /// Returns the lease of the relay, which is an item of this table.
    #[must_use]
    pub fn lease(&self) -> RelayLease {
        RelayLease::new(Client::from_conf(config::for_lease(self.client.config())), Arc::clone(&self.name))
    }

    pub(crate) fn parts(&self) -> (&Client, &str) {
        (&self.client, &self.name)
    }

    /// Checks that the table exists, is one of registrations, and may be read and written. Changes nothing.
    ///
    /// # Errors
    /// The problem, and the remedy.
    pub async fn check(&self) -> Result<(), CannotStart> {
        all_allowed(self.permissions().await)
    }

    /// Returns each action of the relay on this table, and whether it is allowed. Changes nothing: the writes are for a
    /// row that does not exist, on condition that it does. The list ends at a call that fails for another reason.
    pub async fn permissions(&self) -> Vec<Permission> {
        let mut inquiry = Inquiry::of_table(&self.client, &self.name);
        // The last element of the list has the reason.
        let _ = self.inquire(&mut inquiry).await;
        inquiry.permissions()
    }

    async fn inquire(&self, inquiry: &mut Inquiry) -> Result<(), Pointless> {
        const NOBODY: RegistrationId = RegistrationId::from_bytes([0; RegistrationId::BYTES]);
        const EXISTS: &str = "attribute_exists(id)";
        let key = AttributeValue::S(NOBODY.to_string());
        let read = self.client.get_item().table_name(&*self.name).key("id", key.clone()).send();
        inquiry.note_call(&MEND, "dynamodb:GetItem", read.await.map(drop))?;
        let put = self.client.put_item().table_name(&*self.name).item("id", key.clone());
        let put = put.condition_expression(EXISTS).send();
        inquiry.note_call(&MEND, "dynamodb:PutItem", put.await.map(drop))?;
        let update = self.client.update_item().table_name(&*self.name).key("id", key);
        let update = update.update_expression("SET revoked = :t").condition_expression(EXISTS);
        let update = update.expression_attribute_values(":t", AttributeValue::Bool(true)).send();
        inquiry.note_call(&MEND, "dynamodb:UpdateItem", update.await.map(drop))?;
        inquiry.turn_to_index(BY_ACCOUNT);
        let nobody = BareJid::new("nobody.invalid").expect("a domain is a JID");
        let query = self.query_account(&nobody).limit(1).send();
        inquiry.note_call(&MEND, "dynamodb:Query", query.await.map(drop))?;
        let scan = self.scan_accounts().limit(1).send();
        inquiry.note_call(&MEND, "dynamodb:Scan", scan.await.map(drop))
    }

    pub(super) async fn read(
        &self,
        id: RegistrationId,
        consistency: Consistency,
    ) -> Result<Option<Registration>, Unavailable> {
        let item = self
            .client
            .get_item()
            .table_name(&*self.name)
            .key("id", AttributeValue::S(id.to_string()))
            .consistent_read(consistency == Consistency::Strong)
            .send()
            .await
            .map_err(unavailable("dynamodb:GetItem"))?
            .item;
        let Some(item) = item else { return Ok(None) };
        let row = registration(&item);
        row.map(Some).ok_or_else(|| Unavailable::new(format!("the row of registration {id} is malformed")))
    }

    /// Reads up to [`BATCH_MAX`] rows.
    pub(super) async fn read_batch(
        &self,
        ids: &[RegistrationId],
        consistency: Consistency,
    ) -> Result<Vec<Registration>, Unavailable> {
        let keys = ids.iter().map(|id| [("id".to_owned(), AttributeValue::S(id.to_string()))].into());
        let keys = KeysAndAttributes::builder()
            .set_keys(Some(keys.collect()))
            .consistent_read(consistency == Consistency::Strong);
        let keys = keys.build().expect("it has keys");
        let call = self.client.batch_get_item().request_items(&*self.name, keys).send();
        let answer = call.await.map_err(unavailable("dynamodb:BatchGetItem"))?;
        // DynamoDB throttles the table, so the caller is left to retry later.
        if answer.unprocessed_keys.is_some_and(|left| !left.is_empty()) {
            return Err(Unavailable::new("dynamodb:BatchGetItem: the table does not take so many reads"));
        }
        let items = answer.responses.unwrap_or_default().into_values().flatten();
        let rows: Option<_> = items.map(|item| registration(&item)).collect();
        rows.ok_or_else(|| Unavailable::new("the row of a registration is malformed"))
    }

    /// Stores a row, on condition that the table still has the row that it was made from. False: the row has changed.
    pub(super) async fn replace(
        &self,
        current: Option<&Registration>,
        next: &Registration,
    ) -> Result<bool, Unavailable> {
        let put = self.client.put_item().table_name(&*self.name).set_item(Some(item(next)));
        let put = match current {
            None => put.condition_expression("attribute_not_exists(id)"),
            // The life was neither revoked nor renewed meanwhile. Another renewal may be from the phone's present
            // session.
            Some(row) if row.epoch == next.epoch => put
                .condition_expression("epoch = :epoch AND revoked = :false AND renewed_at = :renewed_at")
                .expression_attribute_values(":epoch", epoch(row.epoch))
                .expression_attribute_values(":false", AttributeValue::Bool(false))
                .expression_attribute_values(":renewed_at", millis(row.renewed_at)),
            // A relay whose clock is behind may have renewed the ended row.
            Some(row) => put
                .condition_expression("epoch = :epoch AND revoked = :revoked AND expires_at = :expires_at")
                .expression_attribute_values(":epoch", epoch(row.epoch))
                .expression_attribute_values(":revoked", AttributeValue::Bool(row.revoked))
                .expression_attribute_values(":expires_at", millis(row.expires_at)),
        };
        made("dynamodb:PutItem", put.send().await)
    }

    pub(crate) fn scan_accounts(&self) -> ScanFluentBuilder {
        self.client.scan().table_name(&*self.name).index_name(BY_ACCOUNT)
    }

    pub(super) fn query_account(&self, account: &BareJid) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&*self.name)
            .index_name(BY_ACCOUNT)
            .key_condition_expression("account = :account")
            .expression_attribute_values(":account", AttributeValue::S(account.to_string()))
    }
}
