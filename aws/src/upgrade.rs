//! Versions read each other's rows and entries. Function and relay are replaced at different moments, and after a
//! rollback the version before reads the data of this one.
//!
//! `aws/fixtures/VERSION` has the data that each version writes for the same input. This version reads all of them, and
//! writes every attribute and field of earlier versions with the same value. So a version may add attributes and
//! fields, which earlier versions ignore, but may not remove or change one.

use std::{env, fs, path::PathBuf};

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, TimeDelta, Utc};
use push::{
    Application, Body, Fingerprint, Instance, Marker, MessageId, PushMessage, Registration, Target, Topic,
    Ttl, Urgency, VapidKey, marker::Keys, message::Wishes, ports::Waiting,
};
use serde_json::{Map, Value, json};

use crate::{
    item::Item,
    mailbox::{item as push_item, read_waiting},
    registrations::{item as registration_item, registration as read_registration},
};

/// Returns what this version writes, each with its name in the fixtures.
fn written() -> Vec<(&'static str, Value)> {
    vec![
        ("registration", plain(&registration_item(&registration()))),
        ("registration-of-a-predecessor", plain(&registration_item(&predecessors()))),
        ("push", plain(&push_item(&account(), &waiting()))),
        ("entry", serde_json::from_str(&message().to_entry()).unwrap()),
        ("marker", serde_json::from_str(&marker().to_json()).unwrap()),
    ]
}

fn account() -> jid::BareJid {
    "juliet@example.com".parse().unwrap()
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_800_000_000_123).unwrap()
}

fn target() -> Target {
    let mut point = [9; VapidKey::BYTES];
    point[0] = 4;
    Target {
        recipient: "juliet@example.com/phone".parse().unwrap(),
        application: Application::from_bytes([1; 32]),
        instance: Instance::from_bytes([2; 32]),
        vapid: VapidKey::from_bytes(&point).ok(),
        legacy: None,
    }
}

fn registration() -> Registration {
    let row = Registration::renew(None, target(), now(), TimeDelta::days(7));
    Registration { throttled_until: Some(now() + TimeDelta::seconds(60)), ..row }
}

fn predecessors() -> Registration {
    let target = Target { vapid: None, legacy: Some(now() + TimeDelta::days(3)), ..target() };
    Registration::renew(None, target, now(), TimeDelta::days(7))
}

fn message() -> PushMessage {
    let wishes = Wishes { ttl: Ttl::from_seconds(60), urgency: Urgency::Low, topic: Topic::parse("upd") };
    let body = Body::from_bytes(b"hello");
    PushMessage::new([7; MessageId::CHANCE_BYTES], &registration(), wishes, body, now())
}

fn waiting() -> Waiting {
    Waiting { message: message(), asked_at: Some(now() + TimeDelta::milliseconds(5)) }
}

fn marker() -> Marker {
    let keys = Keys {
        secrets: vec![Fingerprint::of(b"one"), Fingerprint::of(b"two")],
        legacy: [Fingerprint::of(b"key")].into(),
    };
    let mut marker = Marker::begin(None, keys, Some("table".into()), now());
    marker.shed(Urgency::Low, now());
    marker
}

/// Returns an item in the form of the API, with bytes in hexadecimal.
fn plain(item: &Item) -> Value {
    let plain = |value: &AttributeValue| match value {
        AttributeValue::S(text) => json!({"S": text}),
        AttributeValue::N(number) => json!({"N": number}),
        AttributeValue::Bool(value) => json!({"BOOL": value}),
        AttributeValue::B(bytes) => {
            let digits: String = bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            json!({"B": digits})
        }
        other => panic!("{other:?}"),
    };
    item.iter().map(|(name, value)| (name.clone(), plain(value))).collect::<Map<_, _>>().into()
}

fn item(plain: &Value) -> Item {
    let item = plain.as_object().unwrap().iter().map(|(name, value)| {
        let (kind, value) = value.as_object().unwrap().iter().next().unwrap();
        let text = || value.as_str().unwrap().to_owned();
        let value = match kind.as_str() {
            "S" => AttributeValue::S(text()),
            "N" => AttributeValue::N(text()),
            "BOOL" => AttributeValue::Bool(value.as_bool().unwrap()),
            "B" => {
                let byte = |at: usize| u8::from_str_radix(&text()[at..at + 2], 16).unwrap();
                crate::item::binary((0..text().len()).step_by(2).map(byte).collect::<Vec<_>>())
            }
            other => panic!("{other}"),
        };
        (name.clone(), value)
    });
    item.collect()
}

fn folder(version: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(version)
}

/// Reads the fixtures of a version.
fn fixtures(version: &str) -> Vec<(String, Value)> {
    let files = fs::read_dir(folder(version)).unwrap().map(|file| file.unwrap().path());
    let fixture = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
    };
    files.map(fixture).collect()
}

fn versions() -> Vec<String> {
    let versions = fs::read_dir(folder("")).unwrap();
    versions.map(|version| version.unwrap().file_name().into_string().unwrap()).collect()
}

/// Returns whether `all` has all of `known`, with the same values.
fn holds(all: &Value, known: &Value) -> bool {
    match (all, known) {
        (Value::Object(all), Value::Object(known)) => {
            known.iter().all(|(name, known)| all.get(name).is_some_and(|all| holds(all, known)))
        }
        (Value::Array(all), Value::Array(known)) => {
            all.len() == known.len() && all.iter().zip(known).all(|(all, known)| holds(all, known))
        }
        // An entry is JSON inside an item.
        (Value::String(all), Value::String(known)) if known.starts_with('{') => {
            holds(&serde_json::from_str(all).unwrap(), &serde_json::from_str(known).unwrap())
        }
        _ => all == known,
    }
}

#[test]
fn this_version_has_its_fixtures() {
    let version = env!("CARGO_PKG_VERSION");
    if env::var_os("UPDATE").is_some() {
        fs::create_dir_all(folder(version)).unwrap();
        for (name, value) in written() {
            let text = serde_json::to_string_pretty(&value).unwrap() + "\n";
            fs::write(folder(version).join(name).with_extension("json"), text).unwrap();
        }
    }
    assert!(versions().contains(&version.to_owned()), "UPDATE=1 cargo test -p aws upgrade");
    for (name, value) in written() {
        let fixture = fixtures(version).into_iter().find(|(fixture, _)| *fixture == name);
        assert_eq!(fixture, Some((name.to_owned(), value)), "UPDATE=1 cargo test -p aws upgrade");
    }
}

#[test]
fn the_versions_before_find_all_that_they_know_in_what_this_one_writes() {
    for version in versions() {
        for (name, known) in fixtures(&version) {
            let written = written().into_iter().find(|(written, _)| *written == name);
            let (_, written) = written.unwrap_or_else(|| panic!("{name} of {version} is not written"));
            assert!(holds(&written, &known), "{name} of {version}: {written}");
        }
    }
}

#[test]
fn what_the_versions_before_wrote_is_read() {
    for version in versions() {
        for (name, fixture) in fixtures(&version) {
            let read = match name.as_str() {
                "registration" => read_registration(&item(&fixture)) == Some(registration()),
                "registration-of-a-predecessor" => read_registration(&item(&fixture)) == Some(predecessors()),
                "push" => read_waiting(&item(&fixture)) == Some(waiting()),
                "entry" => PushMessage::from_entry(fixture.to_string().as_bytes()) == Ok(message()),
                "marker" => Marker::parse(&fixture.to_string()) == Ok(marker()),
                other => panic!("{other}"),
            };
            assert!(read, "{name} of {version}");
        }
    }
}

/// A later version may add attributes and fields.
#[test]
fn attributes_and_fields_that_are_not_known_are_skipped() {
    for (name, mut later) in written() {
        let fields = later.as_object_mut().unwrap();
        fields.insert(
            "later".to_owned(),
            if name == "entry" || name == "marker" { json!(1) } else { json!({"N": "1"}) },
        );
        let read = match name {
            "registration" | "registration-of-a-predecessor" => read_registration(&item(&later)).is_some(),
            "push" => read_waiting(&item(&later)) == Some(waiting()),
            "entry" => PushMessage::from_entry(later.to_string().as_bytes()) == Ok(message()),
            _ => Marker::parse(&later.to_string()) == Ok(marker()),
        };
        assert!(read, "{name}");
    }
}
