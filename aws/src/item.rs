//! Writes and reads the attributes of DynamoDB items.

use std::{collections::HashMap, str::FromStr};

use aws_sdk_dynamodb::{primitives::Blob, types::AttributeValue};
use chrono::{DateTime, Utc};
use push::Epoch;

pub(crate) type Item = HashMap<String, AttributeValue>;

pub(crate) fn binary(bytes: impl Into<Vec<u8>>) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

pub(crate) fn number(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(crate) fn epoch(epoch: Epoch) -> AttributeValue {
    number(epoch.as_seconds())
}

/// Writes a time as Unix milliseconds.
pub(crate) fn millis(moment: DateTime<Utc>) -> AttributeValue {
    number(moment.timestamp_millis())
}

pub(crate) fn read_text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

/// Reads bytes; `None` also if they have another length.
pub(crate) fn read_bytes<const LENGTH: usize>(item: &Item, name: &str) -> Option<[u8; LENGTH]> {
    item.get(name)?.as_b().ok()?.as_ref().try_into().ok()
}

pub(crate) fn read_number<T: FromStr>(item: &Item, name: &str) -> Option<T> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

pub(crate) fn read_epoch(item: &Item) -> Option<Epoch> {
    read_number(item, "epoch").map(Epoch::from_seconds)
}

pub(crate) fn read_moment(item: &Item, name: &str) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(read_number(item, name)?)
}
