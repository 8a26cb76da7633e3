//! The registrations' store on DynamoDB: one item for each registration, and conditional writes.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, TimeDelta, Utc};
use jid::{BareJid, FullJid};
use push::{
    Epoch, Registration, RegistrationId, Target,
    ports::{Consistency, Registered, Registrations, RelayRegistrations, Renewal, Revocation, Unavailable},
};

#[cfg(test)]
pub(crate) use self::row::{item, registration};
use self::table::BATCH_MAX;
pub use self::table::RegistrationsTable;
use crate::{
    error::made,
    item::{epoch, millis},
};

mod accounts;
mod erasure;
mod row;
mod table;

/// Most attempts to write a registration while others change it.
const ATTEMPTS_MAX: usize = 8;

impl Registrations for RegistrationsTable {
    async fn find(
        &self,
        id: RegistrationId,
        consistency: Consistency,
    ) -> Result<Option<Registration>, Unavailable> {
        let accounts = |read: &Result<Option<Registration>, _>| accounts(read.iter().flatten());
        self.units.of_those(self.read(id, consistency), accounts).await
    }

    async fn find_all(
        &self,
        ids: BTreeSet<RegistrationId>,
        consistency: Consistency,
    ) -> Result<Vec<Registration>, Unavailable> {
        let read = async {
            let (ids, mut rows) = (Vec::from_iter(ids), Vec::new());
            for batch in ids.chunks(BATCH_MAX) {
                rows.extend(self.read_batch(batch, consistency).await?);
            }
            Ok(rows)
        };
        let accounts = |read: &Result<Vec<Registration>, _>| accounts(read.iter().flatten());
        self.units.of_those(read, accounts).await
    }

    async fn register(
        &self,
        target: Target,
        now: DateTime<Utc>,
        lifetime: TimeDelta,
        renewal: Renewal,
        account_max: usize,
    ) -> Result<Registered, Unavailable> {
        let account = target.recipient.to_bare();
        self.units.of(&account, self.renew(target, now, lifetime, renewal, account_max)).await
    }

    async fn revoke(
        &self,
        id: RegistrationId,
        life: Epoch,
        recipient: &FullJid,
        asked_at: DateTime<Utc>,
    ) -> Result<Revocation, Unavailable> {
        self.units.of(&recipient.to_bare(), self.mark_revoked(id, life, recipient, asked_at)).await
    }
}

fn accounts<'a>(rows: impl Iterator<Item = &'a Registration>) -> Vec<BareJid> {
    rows.map(|row| row.target.recipient.to_bare()).collect()
}

impl RegistrationsTable {
    async fn renew(
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
            // Another renewal was written meanwhile. The later of the two holds.
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
            // If the row is not written after all, the count is one too high until it is made anew.
            if is_new && !self.take_place(&next, now, account_max).await? {
                return Ok(Registered::AccountFull);
            }
            if self.replace(current.as_ref(), &next).await? {
                return Ok(if is_new { Registered::Begun(next) } else { Registered::Stored(next) });
            }
        }
        Err(Unavailable::new("others keep changing this registration"))
    }

    async fn mark_revoked(
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
}

impl RelayRegistrations for RegistrationsTable {
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
        // A renewal that has read the row before is still written, and holds, since its condition names no recipient.
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
        made("dynamodb:UpdateItem", self.units.of(&to.to_bare(), update.send()).await)
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
