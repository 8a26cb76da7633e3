use proptest::prelude::*;

use super::*;
use crate::testing::{WEEK, registration, target};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

fn key(number: u8) -> Option<VapidKey> {
    let mut point = [number; VapidKey::BYTES];
    point[0] = 4;
    VapidKey::from_bytes(&point).ok()
}

fn first() -> Registration {
    registration("juliet@example.com/Conversations.r4nD", at(0))
}

#[test]
fn hashes_are_standard_base64_of_32_bytes() {
    let text = "bK3sdmrbtj3bf6XA2S12b8jJUA5TT1dhPEyeoZfVSRM=";
    assert_eq!(text.parse::<Application>().unwrap().to_string(), text);
    assert_eq!("".parse::<Instance>(), Err(HashError::Missing));
    assert_eq!("bK3s".parse::<Instance>(), Err(HashError::WrongLength(3)));
    for wrong in
        ["%", "bK3sdmrbtj3bf6XA2S12b8jJUA5TT1dhPEyeoZfVSRM", "bK3sdmrbtj3bf6XA2S12b8jJUA5TT1dhPEyeoZfVSR-="]
    {
        assert_eq!(wrong.parse::<Instance>(), Err(HashError::NotBase64), "{wrong}");
    }
}

#[test]
fn the_resource_does_not_change_the_id() {
    let id = target("juliet@example.com/a").registration_id();
    assert_eq!(id, target("juliet@example.com/b").registration_id());
    assert_ne!(id, target("romeo@example.com/a").registration_id());
}

#[test]
fn a_renewal_keeps_the_epoch_and_moves_the_recipient() {
    let first = first();
    let renewed = Registration::renew(Some(&first), target("juliet@example.com/b"), at(100), WEEK);
    assert_eq!(renewed.epoch, first.epoch);
    assert_eq!(renewed.target.recipient.resource().as_str(), "b");
    assert_eq!(renewed.expires_at, at(100) + WEEK);
}

#[test]
fn a_lapse_or_a_revocation_starts_a_new_epoch() {
    let lapsed = first();
    let late = lapsed.expires_at;
    assert!(Registration::renew(Some(&lapsed), lapsed.target.clone(), late, WEEK).epoch > lapsed.epoch);
    for (lifetime, margin) in [(WEEK, 60), (TimeDelta::seconds(10), 5)] {
        for (left, is_new) in [(margin, true), (margin + 1, false)] {
            let almost = late - TimeDelta::seconds(left);
            let next = Registration::renew(Some(&lapsed), lapsed.target.clone(), almost, lifetime);
            assert_eq!(next.epoch > lapsed.epoch, is_new, "{left} s are left of {lifetime}");
        }
    }

    let revoked = Registration { revoked: true, ..first() };
    for now in [at(0), at(-1000)] {
        let next = Registration::renew(Some(&revoked), revoked.target.clone(), now, WEEK);
        assert!(next.epoch > revoked.epoch, "within the same second, and with a clock that went back");
    }
}

#[test]
fn another_key_starts_a_new_epoch_and_the_same_does_not() {
    for (before, after) in [(None, key(1)), (key(1), key(2)), (key(1), None)] {
        let bound = |vapid| Target { vapid, ..target("juliet@example.com/a") };
        let row = Registration::renew(None, bound(before), at(0), WEEK);
        assert!(!row.needs_renewal(&bound(before), at(1), WEEK));
        assert_eq!(Registration::renew(Some(&row), bound(before), at(1), WEEK).epoch, row.epoch);

        assert!(row.needs_renewal(&bound(after), at(1), WEEK));
        for now in [at(0), at(1), at(-1000)] {
            let throttled = Registration { throttled_until: Some(at(99)), ..row.clone() };
            let next = Registration::renew(Some(&throttled), bound(after), now, WEEK);
            assert!(next.epoch > row.epoch && next.target.vapid == after);
            assert_eq!(next.throttled_until, None, "other senders");
        }
        let id = bound(before).registration_id();
        assert_eq!(id, bound(after).registration_id());
    }
}

#[test]
fn a_renewal_is_needed_for_another_jid_or_when_a_day_is_almost_over() {
    let row = first();
    let same = &row.target;
    let hours = |hours: i64| at(hours * 3600);
    assert!(!row.needs_renewal(same, at(0), WEEK));
    assert!(!row.needs_renewal(same, hours(20) - TimeDelta::seconds(1), WEEK));
    assert!(row.needs_renewal(same, hours(20), WEEK));
    assert!(row.needs_renewal(same, at(0) + WEEK * 2, WEEK));
    assert!(row.needs_renewal(same, at(0), WEEK * 3), "lives have become longer");
    assert!(row.needs_renewal(same, at(0), WEEK / 2), "or shorter");
    assert!(row.needs_renewal(&target("juliet@example.com/b"), at(0), WEEK));
    assert!(Registration { revoked: true, ..first() }.needs_renewal(same, at(0), WEEK));

    let lives = |hours| Registration::renew(None, same.clone(), at(0), TimeDelta::hours(hours));
    assert!(!lives(60).needs_renewal(same, hours(12) - TimeDelta::seconds(1), TimeDelta::hours(60)));
    assert!(
        lives(60).needs_renewal(same, hours(12), TimeDelta::hours(60)),
        "as much as is advertised is left"
    );
    for lifetime in [1, 24, 47, 48] {
        assert!(lives(lifetime).needs_renewal(same, at(0), TimeDelta::hours(lifetime)), "{lifetime} h");
    }
}

#[test]
fn two_days_are_advertised_or_as_much_as_is_left_for_a_renewal() {
    let row = first();
    for (hours, left, margin) in [(0_i64, 48, 0), (119, 48, 0), (120, 48, 60), (121, 47, 60), (167, 1, 60)] {
        let (now, left) = (at(hours * 3600), TimeDelta::hours(left) - TimeDelta::seconds(margin));
        assert_eq!(row.advertised_expiry(now), now + left, "after {hours} h");
    }
    for seconds in [10, 3600] {
        let lifetime = TimeDelta::seconds(seconds);
        let row = Registration::renew(None, row.target.clone(), at(0), lifetime);
        let last = row.advertised_expiry(at(0)) - TimeDelta::seconds(1);
        assert_eq!(Registration::renew(Some(&row), row.target.clone(), last, lifetime).epoch, row.epoch);
    }
}

#[test]
fn a_phone_that_renews_what_expires_within_a_day_has_its_row_written_daily() {
    let mut row = first();
    let (mut advertised, mut written) = (row.advertised_expiry(at(0)), 0);
    for now in (0..30 * 24).map(|hour| at(hour * 3600)) {
        if advertised - now < TimeDelta::hours(24) {
            if row.needs_renewal(&row.target, now, WEEK) {
                row = Registration::renew(Some(&row), row.target.clone(), now, WEEK);
                written += 1;
            }
            advertised = row.advertised_expiry(now);
        }
        assert!(row.expires_at - now > TimeDelta::days(5), "who leaves now keeps the endpoint for days");
    }
    assert!((27..=30).contains(&written), "{written} in 30 days");
}

#[test]
fn an_endpoint_of_a_predecessor_is_a_registration_beside_ours_and_has_one_life() {
    let legacy = |seconds| Target { legacy: Some(at(seconds)), ..target("juliet@example.com/a") };
    let ids = [&target("juliet@example.com/a"), &legacy(10), &legacy(11)].map(Target::registration_id);
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[2] != ids[0]);

    let row = Registration::renew(None, legacy(10), at(0), TimeDelta::seconds(10));
    assert!(row.lives(at(9)) && !row.lives(at(10)));
    for row in [row.clone(), Registration { revoked: true, ..row }] {
        assert!([0, 6, 9, 20].iter().all(|now| !row.needs_renewal(&legacy(10), at(*now), WEEK)));
    }
}

#[test]
fn a_registration_lives_until_its_expiry() {
    let row = first();
    assert!(row.lives(row.expires_at - TimeDelta::milliseconds(1)));
    assert!(!row.lives(row.expires_at));
    assert!(!Registration { revoked: true, ..row }.lives(at(0)));
}

#[test]
fn senders_over_their_rate_wait_until_the_moment_that_the_row_names() {
    assert_eq!(first().throttled_for(at(0)), None);
    let throttled = Registration { throttled_until: Some(at(10)), ..first() };
    for (now, wait) in [(0, Some(10)), (9, Some(1)), (10, None), (11, None)] {
        assert_eq!(throttled.throttled_for(at(now)), wait.map(TimeDelta::seconds), "{now}");
    }
}

#[test]
fn a_row_may_be_deleted_a_day_after_its_expiry() {
    assert_eq!(first().purge_at(), at(0) + WEEK + TimeDelta::days(1));
}

#[test]
fn a_registration_id_is_32_hexadecimal_digits() {
    let id = RegistrationId::from_bytes([0xab; RegistrationId::BYTES]);
    let text = "ab".repeat(RegistrationId::BYTES);
    assert_eq!(format!("{id:?}"), format!("RegistrationId({text})"));
    let read = |text: &str| serde_json::from_value::<RegistrationId>(text.into());
    assert_eq!(read(&text).unwrap(), id);
    for wrong in ["", "7", &format!("+{}", &text[1..]), &format!("{text}0"), &text.replacen('a', "g", 1)] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn an_epoch_has_40_bits_at_most() {
    assert_eq!(Epoch::from_seconds(u64::MAX), Epoch::MAX);
    assert_eq!(Epoch::MAX.as_seconds(), 0xff_ffff_ffff);
    assert_eq!(Epoch::from_seconds(7).as_seconds(), 7);
}

proptest! {
    #[test]
    fn any_text_is_a_hash_or_is_refused(text: String, bytes in prop::collection::vec(any::<u8>(), 30..35)) {
        for text in [&text, &STANDARD.encode(bytes)] {
            if let Ok(hash) = text.parse::<Application>() {
                prop_assert_eq!(&hash.to_string(), text);
            }
        }
    }
}
