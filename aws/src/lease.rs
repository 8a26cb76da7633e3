//! The lease of the relay: one item beside the registrations. Each write is conditional on the item that was read.

use std::sync::Arc;

use aws_sdk_dynamodb::{Client, types::AttributeValue};
use push::ports::{Holder, Lease, Tenure, Unavailable};

use crate::{
    error::{made, unavailable},
    item::{Item, binary, number, read_bytes, read_number},
};

/// The key of the lease's item. The keys of registrations are hexadecimal.
const KEY: &str = "lease";

/// The lease in a table of registrations ([`crate::RegistrationsTable::lease`]). DynamoDB never deletes its item.
#[derive(Debug, Clone)]
pub struct RelayLease {
    client: Client,
    table: Arc<str>,
}

impl RelayLease {
    pub(crate) fn new(client: Client, table: Arc<str>) -> Self {
        Self { client, table }
    }
}

impl Lease for RelayLease {
    async fn look(&self) -> Result<Option<Tenure>, Unavailable> {
        let get = self.client.get_item().table_name(&*self.table).key("id", AttributeValue::S(KEY.into()));
        let read = get.consistent_read(true).send().await.map_err(unavailable("dynamodb:GetItem"))?;
        let Some(item) = read.item else { return Ok(None) };
        tenure(&item).map(Some).ok_or_else(|| Unavailable::new("the item of the lease is malformed"))
    }

    async fn take(&self, holder: Holder, seen: Option<Tenure>) -> Result<Option<Tenure>, Unavailable> {
        let count = seen.map_or(0, |tenure| tenure.count) + 1;
        let update = self
            .client
            .update_item()
            .table_name(&*self.table)
            .key("id", AttributeValue::S(KEY.into()))
            .update_expression("SET holder = :holder, #count = :count")
            .expression_attribute_names("#count", "count")
            .expression_attribute_values(":holder", binary(holder.0))
            .expression_attribute_values(":count", number(count));
        let update = match seen {
            None => update.condition_expression("attribute_not_exists(id)"),
            Some(Tenure { holder: None, count }) => update
                .condition_expression("attribute_not_exists(holder) AND #count = :seen_count")
                .expression_attribute_values(":seen_count", number(count)),
            Some(Tenure { holder: Some(before), count }) => update
                .condition_expression("holder = :before AND #count = :seen_count")
                .expression_attribute_values(":before", binary(before.0))
                .expression_attribute_values(":seen_count", number(count)),
        };
        let taken = made("dynamodb:UpdateItem", update.send().await)?;
        Ok(taken.then_some(Tenure { holder: Some(holder), count }))
    }

    async fn release(&self, holder: Holder) -> Result<(), Unavailable> {
        let update = self
            .client
            .update_item()
            .table_name(&*self.table)
            .key("id", AttributeValue::S(KEY.into()))
            .update_expression("REMOVE holder")
            .condition_expression("holder = :holder")
            .expression_attribute_values(":holder", binary(holder.0));
        made("dynamodb:UpdateItem", update.send().await).map(drop)
    }
}

/// Reads a lease; `None`: the item is malformed.
fn tenure(item: &Item) -> Option<Tenure> {
    let holder = match item.get("holder") {
        None => None,
        Some(_) => Some(Holder(read_bytes(item, "holder")?)),
    };
    Some(Tenure { holder, count: read_number(item, "count")? })
}
