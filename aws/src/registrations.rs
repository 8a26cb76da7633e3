//! The registrations' store on DynamoDB: an item for each registration, each write conditional.

use std::{collections::HashMap, sync::Arc};

use aws_sdk_dynamodb::{
    Client, error::SdkError, operation::put_item::PutItemError, primitives::Blob, types::AttributeValue,
};
use aws_types::SdkConfig;
use chrono::{DateTime, TimeDelta, Utc};
use push::{
    Application, Epoch, Instance, Registration, RegistrationId, Target,
    ports::{Consistency, Registrations, Renewal, Revocation, Unavailable},
};

use crate::error::{CannotStart, Failure, unavailable};

/// How often a registration is decided anew because another relay was faster. Only the first of a life
/// can be overtaken; a renewal of a life that goes on never is.
const ATTEMPTS_MAX: usize = 8;

type Item = HashMap<String, AttributeValue>;

/// The table of registrations: partition key `id`, a text; `purge_at` is its TTL attribute.
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
        verdict("dynamodb:GetItem", read.await.map(drop).map_err(Failure::from))?;
        let put = self.client.put_item().table_name(&*self.name).item("id", key.clone());
        let put = put.condition_expression(EXISTS).send();
        verdict("dynamodb:PutItem", put.await.map(drop).map_err(Failure::from))?;
        let update = self.client.update_item().table_name(&*self.name).key("id", key);
        let update = update.update_expression("SET revoked = :t").condition_expression(EXISTS);
        let update = update.expression_attribute_values(":t", AttributeValue::Bool(true)).send();
        verdict("dynamodb:UpdateItem", update.await.map(drop).map_err(Failure::from))
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

    /// Stores a row, on condition that the table still holds what it was made of; false: it does not.
    async fn replace(
        &self,
        current: Option<&Registration>,
        next: &Registration,
    ) -> Result<bool, Unavailable> {
        let put = self.client.put_item().table_name(&*self.name).set_item(Some(item(next)));
        let put = match current {
            None => put.condition_expression("attribute_not_exists(id)"),
            // Renewals of one life agree with each other: only its end must not come in between.
            Some(row) if row.epoch == next.epoch => put
                .condition_expression("epoch = :epoch AND revoked = :false AND expires_at > :now")
                .expression_attribute_values(":epoch", epoch(row.epoch))
                .expression_attribute_values(":false", AttributeValue::Bool(false))
                .expression_attribute_values(":now", millis(next.renewed_at)),
            // What is over may have been renewed by a relay whose clock is behind.
            Some(row) => put
                .condition_expression("epoch = :epoch AND revoked = :revoked AND expires_at = :expires_at")
                .expression_attribute_values(":epoch", epoch(row.epoch))
                .expression_attribute_values(":revoked", AttributeValue::Bool(row.revoked))
                .expression_attribute_values(":expires_at", millis(row.expires_at)),
        };
        match put.send().await {
            Ok(_) => Ok(true),
            Err(SdkError::ServiceError(error))
                if matches!(error.err(), PutItemError::ConditionalCheckFailedException(_)) =>
            {
                Ok(false)
            }
            Err(error) => Err(unavailable("dynamodb:PutItem")(error)),
        }
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

    async fn register(
        &self,
        target: Target,
        now: DateTime<Utc>,
        lifetime: TimeDelta,
        renewal: Renewal,
    ) -> Result<Registration, Unavailable> {
        let id = target.registration_id();
        for _ in 0..ATTEMPTS_MAX {
            let current = self.read(id, Consistency::Strong).await?;
            if let Some(row) = &current
                && renewal == Renewal::WhereNeeded
                && !row.needs_renewal(&target, now, lifetime)
            {
                return Ok(row.clone());
            }
            let next = Registration::renew(current.as_ref(), target.clone(), now, lifetime);
            if self.replace(current.as_ref(), &next).await? {
                return Ok(next);
            }
        }
        Err(Unavailable::new("others keep changing this registration"))
    }

    async fn revoke(
        &self,
        id: RegistrationId,
        life: Epoch,
        asked_at: DateTime<Utc>,
    ) -> Result<Revocation, Unavailable> {
        let update = self
            .client
            .update_item()
            .table_name(&*self.name)
            .key("id", AttributeValue::S(id.to_string()))
            .update_expression("SET revoked = :true")
            .condition_expression("epoch = :epoch AND renewed_at <= :asked_at AND revoked = :false")
            .expression_attribute_values(":epoch", epoch(life))
            .expression_attribute_values(":asked_at", millis(asked_at))
            .expression_attribute_values(":true", AttributeValue::Bool(true))
            .expression_attribute_values(":false", AttributeValue::Bool(false));
        match update.send().await {
            Ok(_) => return Ok(Revocation::Revoked),
            Err(error)
                if error.as_service_error().is_some_and(|e| e.is_conditional_check_failed_exception()) => {}
            Err(error) => return Err(unavailable("dynamodb:UpdateItem")(error)),
        }
        let row = self.read(id, Consistency::Strong).await?;
        let goes_on = row.is_some_and(|row| row.epoch == life && !row.revoked);
        Ok(if goes_on { Revocation::Renewed } else { Revocation::OverBefore })
    }
}

/// A write that its condition stopped was allowed.
fn verdict(call: &'static str, outcome: Result<(), Failure>) -> Result<(), CannotStart> {
    const TABLE_MEND: &str = "set UPWIRE_REGISTRATIONS_TABLE to the stack's output RegistrationsTable, and AWS_REGION to its region";
    match outcome {
        Ok(()) => Ok(()),
        Err(failure) if failure.is("ConditionalCheckFailedException") => Ok(()),
        Err(failure) if failure.is("ValidationException") => {
            Err(CannotStart::new(format!("the table is none of registrations ({failure})"), TABLE_MEND))
        }
        Err(failure) => Err(CannotStart::by(call, &failure, TABLE_MEND)),
    }
}

fn item(registration: &Registration) -> Item {
    let target = &registration.target;
    let attributes = [
        ("id", AttributeValue::S(target.registration_id().to_string())),
        ("recipient", AttributeValue::S(target.recipient.to_string())),
        ("application", AttributeValue::B(Blob::new(*target.application.as_bytes()))),
        ("instance", AttributeValue::B(Blob::new(*target.instance.as_bytes()))),
        ("epoch", epoch(registration.epoch)),
        ("renewed_at", millis(registration.renewed_at)),
        ("expires_at", millis(registration.expires_at)),
        ("revoked", AttributeValue::Bool(registration.revoked)),
        ("purge_at", AttributeValue::N(registration.purge_at().timestamp().to_string())),
    ];
    attributes.map(|(name, value)| (name.to_owned(), value)).into()
}

/// `None`: no row of ours.
fn registration(item: &Item) -> Option<Registration> {
    let number = |name| item.get(name)?.as_n().ok()?.parse::<i64>().ok();
    let moment = |name| DateTime::from_timestamp_millis(number(name)?);
    let hash = |name| <[u8; 32]>::try_from(item.get(name)?.as_b().ok()?.as_ref()).ok();
    Some(Registration {
        target: Target {
            recipient: item.get("recipient")?.as_s().ok()?.parse().ok()?,
            application: Application::from_bytes(hash("application")?),
            instance: Instance::from_bytes(hash("instance")?),
        },
        epoch: Epoch::from_seconds(number("epoch")?.try_into().ok()?),
        renewed_at: moment("renewed_at")?,
        expires_at: moment("expires_at")?,
        revoked: *item.get("revoked")?.as_bool().ok()?,
    })
}

fn epoch(epoch: Epoch) -> AttributeValue {
    AttributeValue::N(epoch.as_seconds().to_string())
}

/// Unix milliseconds.
fn millis(moment: DateTime<Utc>) -> AttributeValue {
    AttributeValue::N(moment.timestamp_millis().to_string())
}
