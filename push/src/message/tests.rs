use proptest::prelude::*;

use super::*;
use crate::testing::{chance, registration, wishes};

const ENTRY: &str = r#"{"v":1,"id":"AAAAAAAAAAAAAAAAAAAAAA","registration":"00000000000000000000000000000007","epoch":5,"recipient":"juliet@example.com/phone","application":"bK3sdmrbtj3bf6XA2S12b8jJUA5TT1dhPEyeoZfVSRM=","instance":"EtD/1XPLmoIph7W73CZ/uyv6FAnhEAXY1GySHX17vAw=","accepted_at":1800000000123,"expires_at":1800086400123,"urgency":"very-low","topic":"upd","body":"aGVsbG8="}"#;

#[test]
fn an_immediate_push_is_over_after_seconds_and_another_at_its_expiry() {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let registration = registration("juliet@example.com/phone", now);
    let push = |ttl| PushMessage::new(chance(0), &registration, wishes(ttl), Body::from_bytes(b"x"), now);
    assert!(push(0).is_immediate() && !push(0).is_expired(now));
    assert!(push(0).is_expired(now + TimeDelta::minutes(1)));
    assert!(!push(1).is_immediate() && push(1).is_expired(now + TimeDelta::seconds(1)));
    let longest = push(u32::MAX).expires_at;
    assert_eq!(longest, now + TimeDelta::days(14), "the registration's expiry and one renewal");
}

#[test]
fn a_push_is_in_the_part_of_its_registration_whatever_its_chance() {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let mut parts = std::collections::BTreeSet::new();
    for instance in 0..32 {
        let target = crate::Target {
            recipient: FullJid::new("juliet@example.com/phone").unwrap(),
            application: Application::from_bytes([1; 32]),
            instance: Instance::from_bytes([instance; 32]),
            vapid: None,
            legacy: None,
        };
        let part = target.registration_id().part();
        let registration = Registration::renew(None, target, now, TimeDelta::days(7));
        for chance in [0, 1, 2, 3, 0x7e, 0xff] {
            let wishes = Wishes { ttl: Ttl::from_seconds(60), urgency: Urgency::Normal, topic: None };
            let push = PushMessage::new([chance; 8], &registration, wishes, Body::from_bytes(b"x"), now);
            assert_eq!(push.id.part(), part);
            assert_eq!(push.id.as_bytes()[15] >> 2, chance >> 2, "the rest is chance");
        }
        parts.insert(part);
    }
    assert_eq!(parts.len(), usize::from(RegistrationId::PARTS));
}

#[test]
fn an_entry_reads_back_and_one_of_another_version_does_not() {
    let push = PushMessage::from_entry(ENTRY.as_bytes()).unwrap();
    assert_eq!(push.to_entry(), ENTRY);
    let newer = ENTRY.replacen('1', "2", 1);
    assert_eq!(PushMessage::from_entry(newer.as_bytes()), Err(BadEntry::UnknownVersion(2)));
    assert_eq!(PushMessage::from_entry(br#"{"v":300,"x":1}"#), Err(BadEntry::UnknownVersion(300)));
    for malformed in ["", "{", "null", "{\"v\":1}", &ENTRY.replace("juliet@", "@")] {
        let error = PushMessage::from_entry(malformed.as_bytes()).unwrap_err();
        assert!(matches!(error, BadEntry::Malformed { .. }), "{malformed}");
    }
}

#[test]
fn a_body_is_base64_and_its_debug_form_shows_none_of_it() {
    let body = Body::from_bytes(b"hello");
    assert_eq!((body.as_base64(), format!("{body:?}").as_str()), ("aGVsbG8=", "Body(8 characters)"));
    let id = MessageId::from_bytes([0; 16]);
    assert_eq!(format!("{id:?}"), "MessageId(AAAAAAAAAAAAAAAAAAAAAA)");
}

proptest! {
    #[test]
    fn any_bytes_are_an_entry_or_are_refused(bytes: Vec<u8>) {
        let _ = PushMessage::from_entry(&bytes);
    }

    #[test]
    fn a_damaged_entry_is_refused_or_still_one(at in 0..ENTRY.len(), length in 0usize..40, other: String) {
        let end = (at + length).min(ENTRY.len());
        if let Ok(push) = PushMessage::from_entry([&ENTRY[..at], &other, &ENTRY[end..]].concat().as_bytes()) {
            prop_assert_eq!(PushMessage::from_entry(push.to_entry().as_bytes()), Ok(push));
        }
    }
}

#[test]
fn a_body_has_as_many_bytes_as_it_was_made_of() {
    for count in 0..8 {
        assert_eq!(Body::from_bytes(&vec![7; count]).byte_count(), count);
    }
}
