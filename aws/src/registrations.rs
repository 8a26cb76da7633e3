//! The registrations' store on DynamoDB: an item for each registration, each write conditional.

use std::{collections::BTreeSet, sync::Arc};

use aws_sdk_dynamodb::{
    Client,
    types::{AttributeValue, KeysAndAttributes},
};
use aws_types::SdkConfig;
use chrono::{DateTime, TimeDelta, Utc};
use jid::{BareJid, FullJid};
use push::{
    Epoch, Registration, RegistrationId, Target,
    ports::{Consistency, Registered, Registrations, Renewal, Revocation, Unavailable},
};

use self::row::{item, registration};
use crate::{
    config,
    error::{CannotStart, Failure, TableMend, made, unavailable},
    item::{epoch, millis},
    lease::RelayLease,
};

mod accounts;
mod row;

/// The global secondary index: the registrations of an account. It may be a second old.
const BY_ACCOUNT: &str = "by_account";

/// How often a registration is decided anew because another relay was faster. Only the first of a life
/// can be overtaken; a renewal of a life that goes on never is.
const ATTEMPTS_MAX: usize = 8;

/// Most rows in one read, by DynamoDB's own rule.
const BATCH_MAX: usize = 100;

const MEND: TableMend = TableMend {
    kind: "of registrations",
    mend: "set UPWIRE_REGISTRATIONS_TABLE to the stack's output RegistrationsTable, and AWS_REGION to its region",
};

/// The table of registrations: partition key `id`, a text; the global secondary index `by_account` with partition key
/// `account`, a text, that projects all. `purge_at` is its TTL attribute. An item beside them is the lease, and one for
/// each account what belongs to that.
#[derive(Debug, Clone)]
pub struct RegistrationsTable {
    client: Client,
    name: Arc<str>,
}

impl RegistrationsTable {
    /// The table of this name. Makes no call.
    #[must_use]
    pub fn new(config: &SdkConfig, name: &str) -> Self {
        Self { client: Client::new(config), name: name.into() }
    }

    /// The lease of the relay, which is an item beside the registrations.
    #[must_use]
    pub fn lease(&self) -> RelayLease {
        RelayLease::new(Client::from_conf(config::for_lease(self.client.config())), Arc::clone(&self.name))
    }

    /// Finds out whether the table is there, is one of registrations, and may be read and written. Changes
    /// nothing: the writes are of a row that does not exist, on condition that it does.
    ///
    /// # Errors
    /// Why not, and the mend.
    pub async fn check(&self) -> Result<(), CannotStart> {
        const NOBODY: RegistrationId = RegistrationId::from_bytes([0; RegistrationId::BYTES]);
        const EXISTS: &str = "attribute_exists(id)";
        let key = AttributeValue::S(NOBODY.to_string());
        let read = self.client.get_item().table_name(&*self.name).key("id", key.clone()).send();
        MEND.verdict("dynamodb:GetItem", read.await.map(drop).map_err(Failure::from))?;
        let put = self.client.put_item().table_name(&*self.name).item("id", key.clone());
        let put = put.condition_expression(EXISTS).send();
        MEND.verdict("dynamodb:PutItem", put.await.map(drop).map_err(Failure::from))?;
        let update = self.client.update_item().table_name(&*self.name).key("id", key);
        let update = update.update_expression("SET revoked = :t").condition_expression(EXISTS);
        let update = update.expression_attribute_values(":t", AttributeValue::Bool(true)).send();
        MEND.verdict("dynamodb:UpdateItem", update.await.map(drop).map_err(Failure::from))?;
        let nobody = BareJid::new("nobody.invalid").expect("a domain is a JID");
        let query = self.query_account(&nobody).limit(1).send();
        MEND.verdict("dynamodb:Query", query.await.map(drop).map_err(Failure::from))
    }

    async fn read(
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
    async fn read_batch(
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
        // Tried again by whoever asked: DynamoDB wants to be left alone for a while.
        if answer.unprocessed_keys.is_some_and(|left| !left.is_empty()) {
            return Err(Unavailable::new("dynamodb:BatchGetItem: the table does not take so many reads"));
        }
        let items = answer.responses.unwrap_or_default().into_values().flatten();
        let rows: Option<_> = items.map(|item| registration(&item)).collect();
        rows.ok_or_else(|| Unavailable::new("the row of a registration is malformed"))
    }

    /// Stores a row, on condition that the table still holds what it was made of; false: it does not.
    async fn replace(
        &self,
        current: Option<&Registration>,
        next: &Registration,
    ) -> Result<bool, Unavailable> {
        let put = self.client.put_item().table_name(&*self.name).set_item(Some(item(next)));
        let put = match current {
            None => put.condition_expression("attribute_not_exists(id)"),
            // Neither its end nor another renewal came in between: that may be from where its phone is now.
            Some(row) if row.epoch == next.epoch => put
                .condition_expression("epoch = :epoch AND revoked = :false AND renewed_at = :renewed_at")
                .expression_attribute_values(":epoch", epoch(row.epoch))
                .expression_attribute_values(":false", AttributeValue::Bool(false))
                .expression_attribute_values(":renewed_at", millis(row.renewed_at)),
            // What is over may have been renewed by a relay whose clock is behind.
            Some(row) => put
                .condition_expression("epoch = :epoch AND revoked = :revoked AND expires_at = :expires_at")
                .expression_attribute_values(":epoch", epoch(row.epoch))
                .expression_attribute_values(":revoked", AttributeValue::Bool(row.revoked))
                .expression_attribute_values(":expires_at", millis(row.expires_at)),
        };
        made("dynamodb:PutItem", put.send().await)
    }
}

impl Registrations for RegistrationsTable {
    async fn find(
        &self,
        id: RegistrationId,
        consistency: Consistency,
    ) -> Result<Option<Registration>, Unavailable> {
        self.read(id, consistency).await
    }

    async fn find_all(
        &self,
        ids: BTreeSet<RegistrationId>,
        consistency: Consistency,
    ) -> Result<Vec<Registration>, Unavailable> {
        let (ids, mut rows) = (Vec::from_iter(ids), Vec::new());
        for batch in ids.chunks(BATCH_MAX) {
            rows.extend(self.read_batch(batch, consistency).await?);
        }
        Ok(rows)
    }

    async fn register(
        &self,
        target: Target,
        now: DateTime<Utc>,
        lifetime: TimeDelta,
        renewal: Renewal,
        account_max: usize,
    ) -> Result<Registered, Unavailable> {
        let id = target.registration_id();
        for attempt in 0..ATTEMPTS_MAX {
            let current = self.read(id, Consistency::Strong).await?;
            // Another renewal came in between: the later of the two holds.
            if let Some(row) = &current
                && attempt > 0
                && row.lives(now)
                && row.target.vapid == target.vapid
                && (row.renewed_at > now || row.renewed_at == now && row.target == target)
            {
                return Ok(Registered::Stored(row.clone()));
            }
            if let Some(row) = &current
                && renewal == Renewal::WhereNeeded
                && !row.needs_renewal(&target, now, lifetime)
            {
                return Ok(Registered::Stored(row.clone()));
            }
            let next = Registration::renew(current.as_ref(), target.clone(), now, lifetime);
            let is_new = target.legacy.is_none() && !current.as_ref().is_some_and(|row| row.lives(now));
            // Should the row not be written after all, the count is too high by one until it is made anew.
            if is_new && !self.take_place(&next, now, account_max).await? {
                return Ok(Registered::AccountFull);
            }
            if self.replace(current.as_ref(), &next).await? {
                return Ok(Registered::Stored(next));
            }
        }
        Err(Unavailable::new("others keep changing this registration"))
    }

    async fn revoke(
        &self,
        id: RegistrationId,
        life: Epoch,
        recipient: &FullJid,
        asked_at: DateTime<Utc>,
    ) -> Result<Revocation, Unavailable> {
        let update = self
            .client
            .update_item()
            .table_name(&*self.name)
            .key("id", AttributeValue::S(id.to_string()))
            .update_expression("SET revoked = :true")
            .condition_expression(
                "epoch = :epoch AND renewed_at <= :asked_at AND recipient = :recipient AND revoked = :false",
            )
            .expression_attribute_values(":epoch", epoch(life))
            .expression_attribute_values(":recipient", AttributeValue::S(recipient.to_string()))
            .expression_attribute_values(":asked_at", millis(asked_at))
            .expression_attribute_values(":true", AttributeValue::Bool(true))
            .expression_attribute_values(":false", AttributeValue::Bool(false));
        if made("dynamodb:UpdateItem", update.send().await)? {
            return Ok(Revocation::Revoked);
        }
        let row = self.read(id, Consistency::Strong).await?;
        let goes_on = row.is_some_and(|row| row.epoch == life && !row.revoked);
        Ok(if goes_on { Revocation::GoesOn } else { Revocation::OverBefore })
    }

    async fn follow(
        &self,
        id: RegistrationId,
        life: Epoch,
        from: &FullJid,
        to: &FullJid,
    ) -> Result<bool, Unavailable> {
        if from.to_bare() != to.to_bare() {
            return Ok(false);
        }
        // A renewal that read the row before is written all the same, and holds: its condition names no recipient.
        let update = self
            .client
            .update_item()
            .table_name(&*self.name)
            .key("id", AttributeValue::S(id.to_string()))
            .update_expression("SET recipient = :to")
            .condition_expression("epoch = :epoch AND recipient = :from AND revoked = :false")
            .expression_attribute_values(":epoch", epoch(life))
            .expression_attribute_values(":from", AttributeValue::S(from.to_string()))
            .expression_attribute_values(":to", AttributeValue::S(to.to_string()))
            .expression_attribute_values(":false", AttributeValue::Bool(false));
        made("dynamodb:UpdateItem", update.send().await)
    }

    async fn throttle(
        &self,
        id: RegistrationId,
        life: Epoch,
        until: DateTime<Utc>,
    ) -> Result<(), Unavailable> {
        let update = self
            .client
            .update_item()
            .table_name(&*self.name)
            .key("id", AttributeValue::S(id.to_string()))
            .update_expression("SET throttled_until = :until")
            .condition_expression("epoch = :epoch")
            .expression_attribute_values(":until", millis(until))
            .expression_attribute_values(":epoch", epoch(life));
        made("dynamodb:UpdateItem", update.send().await).map(drop)
    }
}
