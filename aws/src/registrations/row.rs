//! A registration as an item of the table.

use aws_sdk_dynamodb::types::AttributeValue;
use push::{Application, Instance, Registration, Target, VapidKey};

use crate::item::{Item, binary, epoch, millis, number, read_bytes, read_epoch, read_moment, read_text};

/// Writes a registration as an item.
pub(crate) fn item(registration: &Registration) -> Item {
    let target = &registration.target;
    let attributes = [
        ("id", AttributeValue::S(target.registration_id().to_string())),
        ("account", AttributeValue::S(target.recipient.to_bare().to_string())),
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

/// Reads a registration from an item; `None`: the item is malformed, or no registration.
pub(crate) fn registration(item: &Item) -> Option<Registration> {
    Some(Registration {
        target: Target {
            recipient: read_text(item, "recipient")?.parse().ok()?,
            application: Application::from_bytes(read_bytes(item, "application")?),
            instance: Instance::from_bytes(read_bytes(item, "instance")?),
            // A malformed key must not open the endpoint to everyone.
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
        // Old rows do not have this attribute.
        throttled_until: read_moment(item, "throttled_until"),
    })
}
