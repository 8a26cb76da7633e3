//! The item that counts the waiting pushes of an account: in all, and for each registration.
//!
//! A count is never too low, but for pushes that are being kept. The relay writes a push, and then raises the counts.
//! Nothing lowers them when a push leaves. When a count reaches its bound, it is made anew from the index. So a push
//! for an account with room takes one more write unit and no read, and a removal takes none.

use std::collections::HashMap;

use aws_sdk_dynamodb::{operation::update_item::builders::UpdateItemFluentBuilder, types::AttributeValue};
use jid::BareJid;
use push::{MailboxBounds, PushMessage, RegistrationId, ports::Unavailable};
use sha2::{Digest, Sha256};

use super::{
    table::MailboxTable,
    waiting::{Entry, purge_at},
};
use crate::{
    error::{made, unavailable},
    item::{Item, binary, number, read_number},
};

/// The counts in the item.
#[derive(Debug)]
pub(super) struct Counts {
    /// Number of pushes of the account.
    pub(super) of_account: usize,
    /// Pushes of the registration.
    pub(super) of_registration: usize,
}

impl MailboxTable {
    /// Counts a push that was written. False: too many may wait now, and the push is not counted.
    pub(super) async fn count(
        &self,
        account: &BareJid,
        message: &PushMessage,
        bounds: MailboxBounds,
    ) -> Result<bool, Unavailable> {
        let update = self
            .count_one_more(account, message)
            .condition_expression(
                "pushes < :account_max AND (attribute_not_exists(counts.#id) OR counts.#id < :max)",
            )
            .expression_attribute_values(":account_max", number(bounds.of_account))
            .expression_attribute_values(":max", number(bounds.of_registration));
        made("dynamodb:UpdateItem", update.send().await)
    }

    /// Reads the counts; `None`: there are none.
    pub(super) async fn counts(
        &self,
        account: &BareJid,
        registration: RegistrationId,
    ) -> Result<Option<Counts>, Unavailable> {
        let get = self.client.get_item().table_name(&*self.name).set_key(Some(key(account)));
        let read = get.consistent_read(true).send().await.map_err(unavailable("dynamodb:GetItem"))?;
        Ok(read.item.and_then(|item| {
            let counts = item.get("counts")?.as_m().ok()?;
            Some(Counts {
                of_account: read_number(&item, "pushes")?,
                of_registration: read_number(counts, &registration.to_string()).unwrap_or_default(),
            })
        }))
    }

    /// Makes the count of one registration anew. `left` of its pushes wait, including the one that was written.
    pub(super) async fn recount_registration(
        &self,
        account: &BareJid,
        message: &PushMessage,
        seen: &Counts,
        left: usize,
    ) -> Result<(), Unavailable> {
        let update = self
            .update_counts(account, message)
            .update_expression("SET pushes = pushes + :change, counts.#id = :left, purge_at = :purge_at")
            .condition_expression("counts.#id = :seen")
            .expression_attribute_names("#id", message.registration.to_string())
            .expression_attribute_values(":seen", number(seen.of_registration))
            .expression_attribute_values(":left", number(left))
            .expression_attribute_values(":change", number(left as i128 - seen.of_registration as i128));
        let recounted = made("dynamodb:UpdateItem", update.send().await)?;
        self.count_unless(recounted, account, message).await
    }

    /// Makes all counts anew. The pushes in `left` wait, including the one that was written.
    pub(super) async fn recount_account(
        &self,
        account: &BareJid,
        message: &PushMessage,
        seen: Option<&Counts>,
        left: &[&Entry],
    ) -> Result<(), Unavailable> {
        let mut counts = HashMap::<String, usize>::new();
        for entry in left {
            *counts.entry(entry.registration.to_string()).or_default() += 1;
        }
        let counts = counts.into_iter().map(|(registration, count)| (registration, number(count)));
        let update = self
            .update_counts(account, message)
            .update_expression("SET pushes = :left, counts = :counts, purge_at = :purge_at")
            .expression_attribute_values(":left", number(left.len()))
            .expression_attribute_values(":counts", AttributeValue::M(counts.collect()));
        let update = match seen {
            None => update.condition_expression("attribute_not_exists(pushes)"),
            Some(seen) => update
                .condition_expression("pushes = :seen")
                .expression_attribute_values(":seen", number(seen.of_account)),
        };
        let recounted = made("dynamodb:UpdateItem", update.send().await)?;
        self.count_unless(recounted, account, message).await
    }

    /// Counts a push if its recount failed. Other pushes were counted meanwhile, so those counts stand, and rise by
    /// one.
    async fn count_unless(
        &self,
        recounted: bool,
        account: &BareJid,
        message: &PushMessage,
    ) -> Result<(), Unavailable> {
        if recounted {
            return Ok(());
        }
        let update = self.count_one_more(account, message).condition_expression("attribute_exists(pushes)");
        // A missing item is made anew by the next push.
        made("dynamodb:UpdateItem", update.send().await).map(drop)
    }

    fn count_one_more(&self, account: &BareJid, message: &PushMessage) -> UpdateItemFluentBuilder {
        self.update_counts(account, message)
            .update_expression(
                "SET pushes = pushes + :one, counts.#id = if_not_exists(counts.#id, :zero) + :one, \
                 purge_at = :purge_at",
            )
            .expression_attribute_names("#id", message.registration.to_string())
            .expression_attribute_values(":one", number(1))
            .expression_attribute_values(":zero", number(0))
    }

    fn update_counts(&self, account: &BareJid, message: &PushMessage) -> UpdateItemFluentBuilder {
        let update = self.client.update_item().table_name(&*self.name).set_key(Some(key(account)));
        // An item that is purged before its pushes is made anew.
        update.expression_attribute_values(":purge_at", number(purge_at(message.expires_at)))
    }
}

/// Returns the key of an account's counts. No push has this key, and the item is not in the index. It names nobody, so
/// erasing an account need not delete it.
fn key(account: &BareJid) -> Item {
    let digest = Sha256::new().chain_update(b"upwire counts\0").chain_update(account.as_str()).finalize();
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let attributes = [("mailbox", AttributeValue::S(format!("counts {digest}"))), ("id", binary([0]))];
    attributes.map(|(name, value)| (name.to_owned(), value)).into()
}
