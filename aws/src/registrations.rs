//! The registrations' store on DynamoDB: an item for each registration, each write conditional.

use std::{collections::BTreeSet, sync::Arc};

use aws_sdk_dynamodb::{
    Client,
    types::{AttributeValue, KeysAndAttributes},
};
use aws_types::SdkConfig;
use chrono::{DateTime, TimeDelta, Utc};
use push::{
    Application, Epoch, Instance, Registration, RegistrationId, Target, VapidKey,
    ports::{Consistency, Registrations, Renewal, Revocation, Unavailable},
};

use crate::{
    config,
    error::{CannotStart, Failure, TableMend, made, unavailable},
    item::{Item, binary, epoch, millis, number, read_bytes, read_epoch, read_moment, read_text},
    lease::RelayLease,
};

/// How often a registration is decided anew because another relay was faster. Only the first of a life
/// can be overtaken; a renewal of a life that goes on never is.
const ATTEMPTS_MAX: usize = 8;

/// Most rows in one read, by DynamoDB's own rule.
const BATCH_MAX: usize = 100;

const MEND: TableMend = TableMend {
    kind: "of registrations",
    mend: "set UPWIRE_REGISTRATIONS_TABLE to the stack's output RegistrationsTable, and AWS_REGION to its region",
};

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
        MEND.verdict("dynamodb:UpdateItem", update.await.map(drop).map_err(Failure::from))
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
    ) -> Result<Registration, Unavailable> {
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
                return Ok(row.clone());
            }
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
        if made("dynamodb:UpdateItem", update.send().await)? {
            return Ok(Revocation::Revoked);
        }
        let row = self.read(id, Consistency::Strong).await?;
        let goes_on = row.is_some_and(|row| row.epoch == life && !row.revoked);
        Ok(if goes_on { Revocation::Renewed } else { Revocation::OverBefore })
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

fn item(registration: &Registration) -> Item {
    let target = &registration.target;
    let attributes = [
        ("id", AttributeValue::S(target.registration_id().to_string())),
        ("recipient", AttributeValue::S(target.recipient.to_string())),
        ("application", binary(*target.application.as_bytes())),
        ("instance", binary(*target.instance.as_bytes())),
        ("epoch", epoch(registration.epoch)),
        ("renewed_at", millis(registration.renewed_at)),
        ("expires_at", millis(registration.expires_at)),
        ("revoked", AttributeValue::Bool(registration.revoked)),
        ("purge_at", number(registration.purge_at().timestamp())),
    ];
    let throttled = registration.throttled_until.map(|until| ("throttled_until", millis(until)));
    let vapid = target.vapid.map(|key| ("vapid", binary(*key.as_bytes())));
    let legacy = target.legacy.map(|expiry| ("legacy", millis(expiry)));
    attributes
        .into_iter()
        .chain(throttled)
        .chain(vapid)
        .chain(legacy)
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// `None`: no row of ours.
fn registration(item: &Item) -> Option<Registration> {
    Some(Registration {
        target: Target {
            recipient: read_text(item, "recipient")?.parse().ok()?,
            application: Application::from_bytes(read_bytes(item, "application")?),
            instance: Instance::from_bytes(read_bytes(item, "instance")?),
            // A key that cannot be read must not open the endpoint to everyone.
            vapid: match item.get("vapid") {
                None => None,
                Some(point) => Some(VapidKey::from_bytes(point.as_b().ok()?.as_ref()).ok()?),
            },
            legacy: read_moment(item, "legacy"),
        },
        epoch: read_epoch(item)?,
        renewed_at: read_moment(item, "renewed_at")?,
        expires_at: read_moment(item, "expires_at")?,
        revoked: *item.get("revoked")?.as_bool().ok()?,
        // Rows of the version before have none.
        throttled_until: read_moment(item, "throttled_until"),
    })
}
