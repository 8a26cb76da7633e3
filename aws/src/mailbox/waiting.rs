//! A waiting push, as an item of the table and as an entry of the index.

use std::{cmp::Reverse, collections::HashSet};

use aws_sdk_dynamodb::types::{AttributeValue, DeleteRequest, WriteRequest};
use chrono::{DateTime, TimeDelta, Utc};
use jid::BareJid;
use push::{
    Epoch, MailboxBounds, MessageId, PushMessage, RegistrationId,
    ports::{Kept, Waiting},
};

use crate::item::{
    Item, binary, epoch, millis, number, read_bytes, read_epoch, read_moment, read_number, read_text,
};

/// Bytes of [`MessageId::age`].
const AGE_BYTES: usize = MessageId::BYTES - 1;
const PLACE_BYTES: usize = RegistrationId::BYTES + AGE_BYTES;

/// Time after its expiry from which DynamoDB may delete a push. Clocks disagree by less.
const PURGE_AFTER: TimeDelta = TimeDelta::hours(1);

/// Returns the key of a push in the table.
pub(super) fn key(account: &BareJid, message: MessageId) -> Item {
    let attributes = [("mailbox", shard(message.part(), account)), ("id", binary(*message.as_bytes()))];
    attributes.map(|(name, value)| (name.to_owned(), value)).into()
}

/// Makes the request of a batch that deletes the push with this key.
pub(super) fn delete_request(key: Item) -> WriteRequest {
    let request = DeleteRequest::builder().set_key(Some(key)).build().expect("it has a key");
    WriteRequest::builder().delete_request(request).build()
}

/// Returns the partition key of one part of an account's mailbox.
pub(super) fn shard(part: u8, account: &BareJid) -> AttributeValue {
    AttributeValue::S(format!("{part} {account}"))
}

/// Returns a key in the index behind all pushes of one part of an account's mailbox. No push has this key.
pub(super) fn behind(account: &BareJid, part: u8) -> Item {
    let last = RegistrationId::from_bytes([0xff; RegistrationId::BYTES]);
    let attributes = [
        ("mailbox", shard(part, account)),
        ("id", binary([0xff; MessageId::BYTES])),
        ("place", place(last, &[0xff; AGE_BYTES])),
    ];
    attributes.map(|(name, value)| (name.to_owned(), value)).into()
}

fn place(registration: RegistrationId, age: &[u8]) -> AttributeValue {
    binary([registration.as_bytes(), age].concat())
}

pub(crate) fn item(account: &BareJid, waiting: &Waiting) -> Item {
    let message = &waiting.message;
    let mut item = key(account, message.id);
    let purge_at = purge_at(message.expires_at);
    let topic = message.topic.as_ref().map(|topic| AttributeValue::S(topic.as_str().to_owned()));
    let attributes = [
        ("place", Some(place(message.registration, message.id.age()))),
        ("epoch", Some(epoch(message.epoch))),
        ("topic", topic),
        ("entry", Some(AttributeValue::S(message.to_entry()))),
        ("asked_at", waiting.asked_at.map(millis)),
        ("purge_at", Some(number(purge_at))),
    ];
    item.extend(attributes.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    item
}

/// Returns the TTL of a push, in Unix seconds. It is never sooner than the expiry.
pub(super) fn purge_at(expires_at: DateTime<Utc>) -> i64 {
    (expires_at + PURGE_AFTER).timestamp() + 1
}

/// Reads a waiting push; `None`: it is malformed. That is logged, and does not hold up others.
pub(crate) fn read_waiting(item: &Item) -> Option<Waiting> {
    let message = PushMessage::from_entry(read_text(item, "entry").unwrap_or_default().as_bytes());
    let asked_at = read_moment(item, "asked_at");
    message.map(|message| Waiting { message, asked_at }).inspect_err(|error| log_unreadable(item, error)).ok()
}

fn log_unreadable(item: &Item, error: &dyn std::fmt::Display) {
    let push = read_bytes(item, "id").map(MessageId::from_bytes).map(tracing::field::display);
    tracing::error!(push, %error, "a push in the mailbox cannot be read, and is passed over");
}

/// A waiting push, as the index has it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) id: MessageId,
    pub(super) epoch: Epoch,
    pub(super) registration: RegistrationId,
    topic: Option<String>,
    purge_at: i64,
}

impl Entry {
    /// Returns whether the push had not expired at this moment, to the second.
    pub(super) fn lives_at(&self, moment: DateTime<Utc>) -> bool {
        self.purge_at > purge_at(moment)
    }

    /// Returns the registration and the id, for the bounds.
    pub(super) fn place(&self) -> (RegistrationId, MessageId) {
        (self.registration, self.id)
    }

    /// Returns the registration and the id, unless the push had expired at this moment.
    pub(super) fn place_at(&self, moment: DateTime<Utc>) -> Option<(RegistrationId, MessageId)> {
        self.lives_at(moment).then(|| self.place())
    }
}

/// Reads an entry of the index; `None`: it is malformed.
pub(super) fn entry(item: &Item) -> Option<Entry> {
    Some(Entry {
        id: MessageId::from_bytes(read_bytes(item, "id")?),
        epoch: read_epoch(item)?,
        registration: registration(item)?,
        topic: read_text(item, "topic").map(str::to_owned),
        purge_at: read_number(item, "purge_at")?,
    })
}

fn registration(item: &Item) -> Option<RegistrationId> {
    let place: [u8; PLACE_BYTES] = read_bytes(item, "place")?;
    let (registration, _) = place.split_first_chunk()?;
    Some(RegistrationId::from_bytes(*registration))
}

/// Reads the part and the account of an item.
pub(super) fn read_shard(item: &Item) -> Option<(u8, BareJid)> {
    let (part, account) = read_text(item, "mailbox")?.split_once(' ')?;
    Some((part.parse().ok()?, BareJid::new(account).ok()?))
}

/// Returns the pushes that have to go, the oldest first, now that a push of this registration, accepted at this moment,
/// is kept. `entries` are those of the account, or of the registration alone.
pub(super) fn superfluous(
    entries: &[Entry],
    registration: RegistrationId,
    moment: DateTime<Utc>,
    bounds: MailboxBounds,
) -> Kept {
    let mut entries: Vec<&Entry> = entries.iter().collect();
    entries.sort_by_key(|entry| Reverse(entry.id.age()));
    let (mut topics, mut staying) = (HashSet::new(), 0);
    let mut kept = Kept::default();
    let mut of_account = Vec::new();
    for entry in entries {
        let lives = entry.lives_at(moment);
        if entry.registration == registration {
            if entry.topic.as_ref().is_some_and(|topic| !topics.insert(topic)) {
                kept.replaced.push(entry.id);
                continue;
            }
            if lives && staying == bounds.of_registration {
                kept.dropped.push(entry.id);
                continue;
            }
            staying += usize::from(lives);
        }
        if lives {
            of_account.push(entry.place());
        }
    }
    kept.replaced.reverse();
    kept.dropped.reverse();
    kept.dropped.extend(bounds.beyond_account(of_account));
    kept
}

#[cfg(test)]
mod tests {
    use push::{
        Body, Topic, Urgency,
        message::Wishes,
        testing::{chance, registration, wishes},
    };

    use super::*;

    fn push(topic: Option<&str>) -> Waiting {
        let now = DateTime::from_timestamp_millis(1_800_000_000_999).unwrap();
        let registration = registration("juliet@example.com/phone", now);
        let topic = topic.and_then(Topic::parse);
        let wishes = Wishes { urgency: Urgency::High, topic, ..wishes(60) };
        let message = PushMessage::new(chance(7), &registration, wishes, Body::from_bytes(b"x"), now);
        Waiting { message, asked_at: None }
    }

    #[test]
    fn an_item_reads_back_and_outlives_its_push() {
        let account = BareJid::new("juliet@example.com").unwrap();
        let asked_at = DateTime::from_timestamp_millis(1_800_000_001_234);
        for waiting in [push(None), Waiting { asked_at, ..push(Some("topic")) }] {
            let item = item(&account, &waiting);
            assert_eq!(read_waiting(&item), Some(waiting.clone()));
            assert_eq!(read_shard(&item), Some((waiting.message.registration.part(), account.clone())));
            let entry = entry(&item).unwrap();
            assert_eq!((entry.id, entry.epoch), (waiting.message.id, waiting.message.epoch));
            assert_eq!(entry.registration, waiting.message.registration);
            assert_eq!(entry.topic.as_deref(), waiting.message.topic.as_ref().map(Topic::as_str));
            let purge_at: i64 = crate::item::read_number(&item, "purge_at").unwrap();
            assert!(
                DateTime::from_timestamp(purge_at, 0).unwrap() >= waiting.message.expires_at + PURGE_AFTER
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_passed_over() {
        let account = BareJid::new("juliet@example.com").unwrap();
        for entry in [r#"{"v":9}"#, "{", ""] {
            let mut item = item(&account, &push(None));
            item.insert("entry".to_owned(), AttributeValue::S(entry.to_owned()));
            assert_eq!(read_waiting(&item), None, "{entry}");
        }
        assert_eq!(read_waiting(&Item::new()), None);
    }

    #[test]
    fn the_newest_of_each_topic_and_the_newest_of_all_stay() {
        let id = |number| RegistrationId::from_bytes([number; RegistrationId::BYTES]);
        let entry = |urgency, second, topic: Option<&str>| Entry {
            id: MessageId::new(urgency, DateTime::from_timestamp(second, 0).unwrap(), [0; 8]),
            epoch: Epoch::from_seconds(1),
            registration: id(1),
            topic: topic.map(str::to_owned),
            purge_at: purge_at(DateTime::from_timestamp(60 + second, 0).unwrap()),
        };
        let entries = || {
            vec![
                entry(Urgency::High, 1, None),
                entry(Urgency::High, 2, Some("a")),
                entry(Urgency::Low, 3, Some("a")),
                entry(Urgency::Normal, 4, Some("b")),
                entry(Urgency::Low, 5, Some("a")),
                Entry { registration: id(2), ..entry(Urgency::Normal, 0, Some("a")) },
            ]
        };
        let ids = |which: &[usize]| which.iter().map(|at| entries()[*at].id).collect::<Vec<_>>();
        for (of_registration, of_account, second, dropped) in [
            (4, 9, 5, &[][..]),
            (3, 4, 5, &[]),
            (2, 4, 5, &[0]),
            (0, 4, 5, &[0, 3, 4]),
            (3, 3, 5, &[0]),
            (2, 2, 5, &[0, 3]),
            (3, 1, 5, &[0, 3, 5]),
            (2, 3, 60, &[0]),
            (2, 3, 61, &[]),
        ] {
            let moment = DateTime::from_timestamp(second, 0).unwrap();
            let kept = superfluous(&entries(), id(1), moment, MailboxBounds { of_registration, of_account });
            let at_most = (of_registration, of_account, second);
            assert_eq!((kept.replaced, kept.dropped), (ids(&[1, 2]), ids(dropped)), "{at_most:?}");
        }
    }
}
