//! A homeserver's notification: its devices, and the part of it that the phones get.

use std::{borrow::Cow, fmt};

use push::{Body, Topic, Urgency, message::BODY_BYTES_MAX};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::{error::Category, value::RawValue};

use super::{DEVICES_MAX, Refusal};

/// The member that an application needs least, and the only one that can be long. The specification lets a homeserver
/// leave it out "for any other reason".
const CONTENT: &str = "content";
/// The fields that a pusher with the format `event_id_only` is sent beside the devices (Matrix Client-Server API, "Push
/// Notifications"; `prio` is Synapse's). An application reads the rest from its homeserver.
const EVENT_ID_ONLY: [&str; 4] = ["event_id", "room_id", "counts", "prio"];

/// A parsed notification. The members for the phones are passed on verbatim.
pub(crate) struct Notification<'a> {
    /// The devices' pushkeys, at least one.
    pub(crate) pushkeys: Vec<Cow<'a, str>>,
    pub(crate) urgency: Urgency,
    /// The topic: one for each event, and one for all counts without an event. Only the newest push of a topic waits,
    /// since homeservers that got no answer send an event again (Push Gateway API: "It is therefore necessary to
    /// perform duplicate suppression").
    pub(crate) topic: Topic,
    outgoing: Outgoing<'a>,
}

/// The request without the devices.
struct Outgoing<'a> {
    notification: Members<'a>,
    others: Members<'a>,
}

/// The members of an object in their order, with each value verbatim.
struct Members<'a>(Vec<(String, &'a RawValue)>);

#[derive(Deserialize)]
struct Device<'a> {
    #[serde(borrow)]
    pushkey: Cow<'a, str>,
}

impl<'a> Notification<'a> {
    /// Parses a request's body.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Refusal> {
        let mut others: Members = serde_json::from_slice(body).map_err(|error| match error.classify() {
            Category::Data => Refusal::BadJson,
            Category::Io | Category::Syntax | Category::Eof => Refusal::NotJson,
        })?;
        let mut notification: Members = others.take("notification").and_then(read).ok_or(Refusal::BadJson)?;
        let devices = notification.take("devices").ok_or(Refusal::NoDevices)?;
        let devices: Vec<Device> = read(devices).ok_or(Refusal::BadJson)?;
        match devices.len() {
            0 => return Err(Refusal::NoDevices),
            1..=DEVICES_MAX => {}
            _ => return Err(Refusal::TooManyDevices),
        }
        // Old homeservers name an event by `id`. The id is empty if there is no event.
        let event = notification.text("event_id").or(notification.text("id")).filter(|id| !id.is_empty());
        Ok(Self {
            pushkeys: devices.into_iter().map(|device| device.pushkey).collect(),
            urgency: urgency(notification.text("prio").as_deref(), event.is_some()),
            topic: Topic::of(event.as_deref().unwrap_or_default()),
            outgoing: Outgoing { notification, others },
        })
    }

    /// Returns the body for each phone: as much of the notification as a push can carry. `None`: even the shortest form
    /// is too long.
    pub(crate) fn into_body(self) -> Option<Body> {
        let mut outgoing = self.outgoing;
        let shorten: [fn(&mut Outgoing<'_>); 2] = [
            |outgoing| outgoing.notification.0.retain(|(name, _)| name != CONTENT),
            |outgoing| {
                outgoing.notification.0.retain(|(name, _)| EVENT_ID_ONLY.contains(&name.as_str()));
                outgoing.others.0.clear();
            },
        ];
        let mut shorten = shorten.into_iter();
        loop {
            let bytes = serde_json::to_vec(&outgoing).ok()?;
            if bytes.len() <= BODY_BYTES_MAX {
                return Some(Body::from_bytes(&bytes));
            }
            shorten.next()?(&mut outgoing);
        }
    }
}

/// Returns the urgency for the notification's `prio`: `high`, the default, or `low` (Push Gateway API).
///
/// Synapse's `low` is a message that makes no sound: normal urgency in the table of RFC 8030 §5.3. The RFC's low
/// urgency is for updates that can wait for power or Wi-Fi, as a count of unread messages can.
fn urgency(prio: Option<&str>, event: bool) -> Urgency {
    match (prio, event) {
        (Some("low"), true) => Urgency::Normal,
        (Some("low") | None, false) => Urgency::Low,
        (_, _) => Urgency::High,
    }
}

fn read<'a, T: Deserialize<'a>>(value: &'a RawValue) -> Option<T> {
    serde_json::from_str(value.get()).ok()
}

impl<'a> Members<'a> {
    /// Removes a member. Of several with the same name, the last one counts, as with other parsers.
    fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        self.0.extract_if(.., |(own, _)| own == name).last().map(|(_, value)| value)
    }

    /// Returns the value of a member, if it is a text.
    fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.0
            .iter()
            .rfind(|(own, _)| own == name)
            .and_then(|(_, value)| read::<Text>(value))
            .map(|text| text.0)
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Deserialize<'a> for Members<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'a> Visitor<'a> for Object {
            type Value = Members<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Serialize for Outgoing<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("notification", &self.notification)?;
        for (name, value) in &self.others.0 {
            object.serialize_entry(name, value)?;
        }
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const DEVICES: &str = r#""devices":[{"app_id":"a","pushkey":"https://push.example.com/push/x"}]"#;

    fn body(request: &str) -> Option<String> {
        let body = Notification::parse(request.as_bytes()).unwrap().into_body()?;
        Some(String::from_utf8(STANDARD.decode(body.as_base64()).unwrap()).unwrap())
    }

    /// Returns a notification with these members beside its device.
    fn with(members: &str) -> String {
        format!(r#"{{"notification":{{{DEVICES},{members}}}}}"#)
    }

    fn refusal(request: &str) -> Refusal {
        Notification::parse(request.as_bytes()).err().unwrap()
    }

    #[test]
    fn all_but_the_devices_goes_on_as_it_came() {
        let request = r#" { "a": [1,  2], "notification" : {"z":1.0e2,"counts":{"unread":2 },
            "devices":[{"pushkey":"x","data":{}}],"big":123456789012345678901234567890,"\u00fc":"\ud800",
            "type":null}, "b":{}}"#;
        let expected = r#"{"notification":{"z":1.0e2,"counts":{"unread":2 },"big":123456789012345678901234567890,"ü":"\ud800","type":null},"a":[1,  2],"b":{}}"#;
        assert_eq!(body(request).unwrap(), expected);
        let (one, two) = (r#""devices":[{"pushkey":"one"}]"#, r#""dev\u0069ces":[{"pushkey":"two"}]"#);
        let twice = format!(r#"{{"notification":{{{one},"id":"",{two}}}}}"#);
        assert_eq!(Notification::parse(twice.as_bytes()).unwrap().pushkeys, ["two"]);
        assert_eq!(body(&twice).unwrap(), r#"{"notification":{"id":""}}"#);
    }

    #[test]
    fn what_is_too_long_loses_its_content_first_and_never_what_names_the_event() {
        let long = "ä".repeat(BODY_BYTES_MAX / 2);
        let least = r#""event_id":"$1","room_id":"!1","counts":{"unread":1},"prio":"high""#;
        let named = format!(r#""room_name":"garden",{least}"#);
        let content = format!(r#""content":{{"body":"{long}"}}"#);
        assert_eq!(
            body(&with(&format!("{content},{named}"))).unwrap(),
            format!(r#"{{"notification":{{{named}}}}}"#)
        );
        let both = format!(r#""room_name":"{long}",{content},{least}"#);
        assert_eq!(body(&with(&both)).unwrap(), format!(r#"{{"notification":{{{least}}}}}"#));
        assert_eq!(body(&with(&format!(r#""event_id":"{long}""#))), None);

        let fits = BODY_BYTES_MAX - r#"{"notification":{"content":""}}"#.len();
        for (length, kept) in [(fits, BODY_BYTES_MAX), (fits + 1, r#"{"notification":{}}"#.len())] {
            let content = format!(r#""content":"{}""#, "a".repeat(length));
            assert_eq!(body(&with(&content)).unwrap().len(), kept);
        }
    }

    #[test]
    fn what_is_no_notification_is_refused() {
        for request in ["", "{", "nonsense", "{\"notification\":{}", "{}{}", "\u{feff}{}"] {
            assert_eq!(refusal(request), Refusal::NotJson, "{request}");
        }
        assert_eq!(Notification::parse(b"{\"a\":\"\xff\"}").err(), Some(Refusal::NotJson));
        for request in [
            "[]",
            "null",
            "1",
            "{}",
            r#"{"notification":[]}"#,
            r#"{"notification":{"devices":{}}}"#,
            r#"{"notification":{"devices":[{"app_id":"a"}]}}"#,
            r#"{"notification":{"devices":[{"pushkey":1}]}}"#,
        ] {
            assert_eq!(refusal(request), Refusal::BadJson, "{request}");
        }
        for request in [r#"{"notification":{}}"#, r#"{"notification":{"devices":[]}}"#] {
            assert_eq!(refusal(request), Refusal::NoDevices, "{request}");
        }
        let devices =
            |count| json!({"notification": {"devices": vec![json!({"pushkey": "x"}); count]}}).to_string();
        assert_eq!(refusal(&devices(DEVICES_MAX + 1)), Refusal::TooManyDevices);
        assert_eq!(Notification::parse(devices(DEVICES_MAX).as_bytes()).unwrap().pushkeys.len(), DEVICES_MAX);
        let deep = with(&format!(r#""content":{}1{}"#, "[".repeat(100_000), "]".repeat(100_000)));
        assert_eq!(body(&deep).as_deref(), Some(r#"{"notification":{}}"#), "nesting costs no stack");
    }

    #[test]
    fn urgency_is_by_prio_and_the_topic_by_the_event() {
        let parse = |members: &str| {
            let request = with(members);
            let notification = Notification::parse(request.as_bytes()).unwrap();
            (notification.urgency, notification.topic)
        };
        let (event, count) = (Topic::of("$1"), Topic::of(""));
        for (members, expected) in [
            (r#""event_id":"$1","prio":"high""#, (Urgency::High, &event)),
            (r#""event_id":"$1","prio":"low""#, (Urgency::Normal, &event)),
            (r#""event_id":"$1","id":"$2","prio":null"#, (Urgency::High, &event)),
            (r#""id":"$1","prio":"urgent""#, (Urgency::High, &event)),
            (r#""id":"","counts":{"unread":1}"#, (Urgency::Low, &count)),
            (r#""event_id":7,"prio":"low""#, (Urgency::Low, &count)),
            (r#""counts":{},"prio":"high""#, (Urgency::High, &count)),
        ] {
            let (urgency, topic) = parse(members);
            assert_eq!((urgency, &topic), expected, "{members}");
        }
    }

    /// Any JSON that is not deep.
    fn any_json() -> impl Strategy<Value = Value> {
        let name = prop_oneof!["notification|devices|pushkey|prio|event_id|id|content", ".{0,8}"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((name.clone(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_notification_or_are_refused(bytes: Vec<u8>) {
            if let Ok(notification) = Notification::parse(&bytes) {
                notification.into_body();
            }
        }

        #[test]
        fn any_json_is_a_notification_or_is_refused(value in any_json(), cut in 0usize..200) {
            let text = value.to_string();
            for bytes in [text.as_bytes(), &text.as_bytes()[..cut.min(text.len())]] {
                if let Ok(notification) = Notification::parse(bytes) {
                    notification.into_body();
                }
            }
        }

        #[test]
        fn what_goes_on_is_the_request_without_the_devices(value in any_json()) {
            let mut expected = json!({"notification": {"value": value}});
            let mut request = expected.clone();
            request["notification"]["devices"] = json!([{"pushkey": "x"}]);
            if let Some(body) = body(&request.to_string())
                && expected.to_string().len() <= BODY_BYTES_MAX
            {
                prop_assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected.take());
            }
        }
    }
}
