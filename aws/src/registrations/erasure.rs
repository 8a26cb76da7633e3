//! Erases an account on DynamoDB. This needs `DeleteItem` on the registrations, which an operator's credentials allow,
//! and the relay's do not.

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};
use jid::BareJid;
use push::{
    Registration, RegistrationId,
    ports::{
        Consistency, Unavailable,
        operator::{Erasure, NOBODY, nameless},
    },
};

use super::{accounts::key, table::RegistrationsTable};
use crate::{
    error::{made, unavailable},
    item::{binary, epoch, millis, number},
};

/// Most attempts to erase an account while others change its registrations.
const ATTEMPTS_MAX: usize = 8;

impl Erasure for RegistrationsTable {
    async fn forget(&self, account: &BareJid, now: DateTime<Utc>) -> Result<usize, Unavailable> {
        let mut forgotten = 0;
        for _ in 0..ATTEMPTS_MAX {
            let mut changed = false;
            for row in self.rows(account).await? {
                let done = self.make_nameless(&row, now).await?;
                forgotten += usize::from(done);
                // The index may still show a row that is nameless already.
                changed |= !done && self.has_a_name(row.target.registration_id()).await?;
            }
            if !changed {
                let delete = self.client.delete_item().table_name(&*self.name).key("id", key(account));
                delete.send().await.map_err(unavailable("dynamodb:DeleteItem"))?;
                return Ok(forgotten);
            }
        }
        Err(Unavailable::new("others keep changing this account"))
    }
}

impl RegistrationsTable {
    async fn has_a_name(&self, id: RegistrationId) -> Result<bool, Unavailable> {
        let row = self.read(id, Consistency::Strong).await?;
        Ok(row.is_some_and(|row| row.target.recipient.as_str() != NOBODY))
    }

    /// Makes a row nameless, and removes it from the index by removing `account`. False: another life has begun, or the
    /// row is nameless already.
    async fn make_nameless(&self, row: &Registration, now: DateTime<Utc>) -> Result<bool, Unavailable> {
        let id = row.target.registration_id();
        let row = nameless(row, now);
        let update = self
            .client
            .update_item()
            .table_name(&*self.name)
            .key("id", AttributeValue::S(id.to_string()))
            .update_expression(
                "SET recipient = :recipient, application = :application, #instance = :instance, \
                 renewed_at = :renewed_at, expires_at = :expires_at, revoked = :true, purge_at = :purge_at \
                 REMOVE account, vapid, throttled_until",
            )
            .condition_expression("epoch = :epoch AND attribute_exists(account)")
            .expression_attribute_names("#instance", "instance")
            .expression_attribute_values(":recipient", AttributeValue::S(row.target.recipient.to_string()))
            .expression_attribute_values(":application", binary(*row.target.application.as_bytes()))
            .expression_attribute_values(":instance", binary(*row.target.instance.as_bytes()))
            .expression_attribute_values(":renewed_at", millis(row.renewed_at))
            .expression_attribute_values(":expires_at", millis(row.expires_at))
            .expression_attribute_values(":purge_at", number(row.purge_at().timestamp()))
            .expression_attribute_values(":epoch", epoch(row.epoch))
            .expression_attribute_values(":true", AttributeValue::Bool(true));
        made("dynamodb:UpdateItem", update.send().await)
    }
}
