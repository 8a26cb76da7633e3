//! The marker: the refusals that it allows to an ingress, and the relays that it admits.

use super::*;
use crate::testing;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

fn epoch(seconds: u64) -> Epoch {
    Epoch::from_seconds(1_800_000_000 + seconds)
}

fn keys(secrets: &[&str], legacy: &[&str]) -> Keys {
    Keys {
        secrets: secrets.iter().map(|secret| Fingerprint::of(secret.as_bytes())).collect(),
        legacy: legacy.iter().map(|key| Fingerprint::of(key.as_bytes())).collect(),
    }
}

/// Returns the marker of a table that has been in use for long.
fn old(keys: Keys) -> Marker {
    Marker {
        table: Some("t".into()),
        keys,
        seen_until: epoch(1).as_seconds(),
        gaps: Vec::new(),
        begun: None,
        legacy_since: BTreeMap::new(),
        shed: None,
    }
}

#[test]
fn an_ingress_needs_every_secret_of_the_relay_and_may_have_more() {
    let marker = old(keys(&["b", "a"], &["l"]));
    for covering in [keys(&["a", "b"], &["l"]), keys(&["a", "c", "b"], &["m", "l"])] {
        assert_eq!(marker.vouch(&covering, Some("t")), Ok(()));
    }
    for lacking in [keys(&["a"], &["l"]), keys(&["a", "b"], &["m"]), keys(&["a", "b"], &[]), keys(&[], &[])] {
        assert_eq!(marker.vouch(&lacking, Some("t")), Err(Doubt::Secrets));
    }
    assert_eq!(marker.vouch(&keys(&["a", "b"], &["l"]), Some("u")), Err(Doubt::Table));
    assert_eq!(marker.vouch(&keys(&["a", "b"], &["l"]), None), Ok(()), "no table is named");
}

#[test]
fn a_relay_needs_the_secret_that_signs_and_the_table() {
    let marker = old(keys(&["b", "a"], &["l"]));
    assert_eq!(marker.admit(&keys(&["c", "b"], &[]), Some("t")), Ok(()));
    assert_eq!(marker.admit(&keys(&["a", "c"], &["l"]), Some("t")), Err(Misfit::Secrets));
    assert_eq!(marker.admit(&keys(&["b"], &[]), Some("u")), Err(Misfit::Table));
    let nameless = Marker { table: None, ..marker };
    assert_eq!(nameless.admit(&keys(&["b"], &[]), Some("u")), Ok(()), "it gets that name");
}

#[test]
fn what_a_new_or_restored_table_may_have_lost_is_in_doubt_for_three_days() {
    let new = Marker::begin(None, keys(&["a"], &[]), None, at(10));
    assert_eq!(new.vouch_over(epoch(10), None, at(10)), Err(Doubt::Restored), "an empty table");

    let restored = Marker::begin(Some(&old(keys(&["a"], &[]))), keys(&["b", "a"], &[]), None, at(100));
    assert_eq!(restored.table(), Some("t"));
    for (seconds, over) in [(0, Ok(())), (1, Err(Doubt::Restored)), (100, Err(Doubt::Restored))] {
        assert_eq!(restored.vouch_over(epoch(seconds), None, at(200)), over, "{seconds}");
    }
    let mut restored = restored;
    assert_eq!(restored.vouch_over(epoch(101), None, at(200)), Err(Doubt::Restored), "not noted yet");
    let lapsed =
        Registration { expires_at: at(150), ..testing::registration("juliet@example.com/a", at(101)) };
    assert_eq!(restored.vouch_over(epoch(101), Some(&lapsed), at(200)), Ok(()), "its row is there");
    restored.note(keys(&["b", "a"], &[]), at(150));
    assert_eq!(restored.vouch_over(epoch(101), None, at(200)), Ok(()));
    let later = at(100) + DOUBT;
    assert_eq!(restored.vouch_over(epoch(1), None, later), Ok(()), "they had three days");
    let again = Marker::begin(Some(&restored), keys(&["b"], &[]), None, at(160));
    assert_eq!(again.vouch_over(epoch(50), None, at(200)), Err(Doubt::Restored), "a restart forgets no gap");
    assert_eq!(again.vouch_over(epoch(120), None, at(200)), Ok(()));
}

#[test]
fn a_row_that_lapsed_since_its_table_was_copied_may_have_been_renewed_in_between() {
    const DAY: i64 = 86_400;
    // The table is copied on day 0, and restored on day 5. Some rows are purged by then.
    let copied = old(keys(&["a"], &[]));
    let restored = Marker::begin(Some(&copied), keys(&["a"], &[]), None, at(5 * DAY));
    let row = |begun, lives_for| {
        let target = testing::target("juliet@example.com/phone");
        Registration::renew(None, target, at(begun), TimeDelta::seconds(lives_for))
    };
    let of = |row: &Registration, now| {
        let shows = restored.vouch_over(row.epoch, Some(row), now);
        (shows, restored.vouch_over(row.epoch, None, now))
    };
    let now = at(6 * DAY);
    let doubt = Err(Doubt::Restored);
    assert_eq!(of(&row(-DAY, 3 * DAY), now), (doubt, doubt), "it lapsed in the gap");
    assert_eq!(of(&row(-DAY, 6 * DAY + 1), now), (doubt, doubt), "it lapsed after the gap");
    assert_eq!(of(&row(-2 * DAY, DAY), now).0, Ok(()), "it had lapsed in the copy");
    assert_eq!(of(&row(-DAY, 3 * DAY), at(5 * DAY) + DOUBT), (Ok(()), Ok(())), "phones had three days");
    let mut restored = restored.clone();
    restored.note(keys(&["a"], &[]), now);
    for begun in [5 * DAY, 5 * DAY + 60] {
        let later = row(begun, 60);
        assert_eq!(restored.vouch_over(later.epoch, Some(&later), now), Ok(()), "it began after the gap");
    }
    let revoked = Registration { revoked: true, ..row(-DAY, 3 * DAY) };
    assert!(tells_of(Some(&revoked), revoked.epoch));

    // A relay that only starts again has lost no renewal.
    let again = Marker::begin(Some(&copied), keys(&["a"], &[]), None, at(1 + 3600));
    let lapsed = row(-DAY, DAY + 60);
    assert_eq!(again.vouch_over(lapsed.epoch, Some(&lapsed), at(4000)), Ok(()));
    assert_eq!(again.vouch_over(lapsed.epoch, None, at(4000)), Ok(()));
}

#[test]
fn a_token_of_before_a_new_table_is_in_doubt_for_three_days() {
    let marker = Marker::begin(None, keys(&["a"], &[]), None, at(10));
    let marker = Marker::begin(Some(&marker), keys(&["a"], &[]), None, at(60));
    let end = at(10) + DOUBT;
    let cases = [
        (Some(9), at(60), Err(Doubt::Begun)),
        (None, at(60), Err(Doubt::Begun)),
        (Some(10), at(60), Ok(())),
        (Some(9), end - TimeDelta::seconds(1), Err(Doubt::Begun)),
        (Some(9), end, Ok(())),
        (None, end, Ok(())),
    ];
    for (claimed, now, verdict) in cases {
        assert_eq!(marker.vouch_unknown(claimed.map(epoch), now), verdict, "{claimed:?} {now}");
    }
    assert_eq!(
        old(keys(&["a"], &[])).vouch_unknown(None, at(0)),
        Ok(()),
        "a version before noted no beginning"
    );
}

#[test]
fn gaps_are_bounded_and_none_is_forgotten_before_its_time() {
    let mut marker = Marker::begin(Some(&old(keys(&["a"], &[]))), keys(&["a"], &[]), None, at(1));
    for second in 1..100 {
        marker = Marker::begin(Some(&marker), keys(&["a"], &[]), None, at(10 * second));
        marker.note(keys(&["a"], &[]), at(10 * second + 1));
    }
    assert_eq!(marker.gaps.len(), GAPS_MAX);
    for lost in [1, 5, 500, 989] {
        assert_eq!(marker.vouch_over(epoch(lost), None, at(1000)), Err(Doubt::Restored), "{lost}");
    }
    let after = Marker::begin(Some(&marker), keys(&["a"], &[]), None, at(2000) + DOUBT);
    assert_eq!(after.gaps.len(), 1);
}

#[test]
fn pushes_are_shed_up_to_an_urgency_and_for_a_time() {
    let mut marker = old(keys(&["a"], &[]));
    assert_eq!(marker.shed_for(Urgency::VeryLow, at(0)), None);
    marker.shed(Urgency::Low, at(0));
    for shed in [Urgency::VeryLow, Urgency::Low] {
        assert_eq!(marker.shed_for(shed, at(30)), Some(TimeDelta::seconds(60)));
    }
    assert_eq!(marker.shed_for(Urgency::Normal, at(30)), None);
    assert_eq!(marker.shed_for(Urgency::Low, at(90)), None);
    assert_eq!(Marker::parse(&marker.to_json()), Ok(marker));
}

#[test]
fn the_stored_form_does_not_change_and_a_later_one_is_read() {
    let marker = Marker::begin(Some(&old(keys(&["a"], &["l"]))), keys(&["a"], &["l"]), None, at(2));
    let text = r#"{"table":"t","keys":{"secrets":["8bcc7173580915c5fdd00de29a4d64eb"],"legacy":["ebaa66c5ba8f809c8723ac3594b48b83"]},"seen_until":1800000002,"gaps":[{"from":1800000001,"to":1800000002,"until":1800259202}],"legacy_since":{"ebaa66c5ba8f809c8723ac3594b48b83":1800000002}}"#;
    assert_eq!(marker.to_json(), text);
    let later = text.replacen('{', r#"{"more":[1],"#, 1);
    assert_eq!(Marker::parse(&later), Ok(marker));
}

#[test]
fn a_predecessors_key_is_in_use_since_it_was_first_there() {
    let (one, two) = (Fingerprint::of(b"one"), Fingerprint::of(b"two"));
    let keys = |legacy: &[Fingerprint]| Keys { legacy: legacy.iter().copied().collect(), ..Keys::default() };
    let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
    let mut marker = Marker::begin(None, keys(&[one]), None, at(100));
    marker.note(keys(&[one, two]), at(200));
    assert_eq!((marker.legacy_since(one), marker.legacy_since(two)), (Some(at(100)), Some(at(200))));
    // The relay runs without the key for a while, then has it again; the marker is stored in between.
    let marker = Marker::begin(Some(&marker), keys(&[]), None, at(300));
    let marker = Marker::begin(Some(&Marker::parse(&marker.to_json()).unwrap()), keys(&[one]), None, at(400));
    assert_eq!((marker.legacy_since(one), marker.legacy_since(two)), (Some(at(100)), Some(at(200))));
    assert_eq!(marker.legacy_since(Fingerprint::of(b"three")), None);

    let mut marker = marker;
    for number in 0..100_u8 {
        marker.note(keys(&[one, Fingerprint::of(&[number])]), at(500 + i64::from(number)));
    }
    assert_eq!(marker.legacy_since(one), Some(at(100)), "it is in use");
    assert_eq!((marker.legacy_since(two), marker.legacy_since.len()), (None, LEGACY_KEYS_MAX + 2));
}

#[test]
fn a_gap_is_forgotten_the_moment_its_time_is_over() {
    let marker = Marker::begin(None, keys(&["a"], &[]), None, at(0));
    for (seconds, gaps) in [(-1, 2), (0, 1)] {
        let now = at(seconds) + DOUBT;
        assert_eq!(Marker::begin(Some(&marker), keys(&["a"], &[]), None, now).gaps.len(), gaps, "{seconds}");
    }
}

#[test]
fn a_row_of_a_later_life_settles_it_in_a_gap_too() {
    let marker = Marker::begin(None, keys(&["a"], &[]), None, at(10));
    let row = testing::registration("juliet@example.com/phone", at(5));
    assert!(tells_of(Some(&row), epoch(4)) && !tells_of(Some(&row), epoch(5)));
    for (seconds, over) in [(6, Err(Doubt::Restored)), (5, Err(Doubt::Restored)), (4, Ok(()))] {
        assert_eq!(marker.vouch_over(epoch(seconds), Some(&row), at(20)), over, "{seconds}");
    }
}

#[test]
fn a_doubt_has_a_label_and_names_the_setting_to_mend() {
    let told = [
        (Doubt::Missing, "missing", "UPWIRE_REGISTRATIONS_TABLE"),
        (Doubt::Table, "table", "UPWIRE_TABLE_ID"),
        (Doubt::Secrets, "secrets", "UPWIRE_SECRET"),
        (Doubt::Restored, "restored", "72 hours"),
        (Doubt::Begun, "new", "UPWIRE_SECRET"),
    ];
    assert_eq!(told.map(|(doubt, ..)| doubt), Doubt::ALL);
    for (doubt, reason, setting) in told {
        assert_eq!(doubt.reason(), reason);
        assert!(doubt.mend().contains(setting), "{doubt:?}");
    }
    assert_eq!(format!("{:?}", Fingerprint::of(b"a")), "Fingerprint(8bcc7173580915c5fdd00de29a4d64eb)");
}
