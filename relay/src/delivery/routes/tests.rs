use std::time::Duration;

use chrono::DateTime;
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::delivery::account::Account;

/// An event of a phone.
#[derive(Debug, Clone, Copy)]
enum Event {
    Greets,
    Ends,
    Fails,
    OwesASign,
    Refuses,
}

fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    prop_oneof![3 => Just(Greets), 1 => Just(Ends), 1 => Just(Fails), 1 => Just(OwesASign), 1 => Just(Refuses)]
}

fn at(start: Instant, seconds: u64) -> Now {
    let wall = DateTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Now { wall, least: wall, monotonic: start + Duration::from_secs(seconds), leased: true }
}

proptest! {
    #[test]
    fn a_push_goes_where_it_would_go_alone(
        events in prop::collection::vec((0..6_usize, event(), 0..3_u64), 0..40),
    ) {
        let jid = |number| format!("juliet@example.com/phone{number}").parse::<FullJid>().unwrap();
        let registration = RegistrationId::from_bytes([7; RegistrationId::BYTES]);
        let (start, mut account, mut seconds) = (Instant::now(), Account::default(), 0);
        for (number, event, passed) in events {
            seconds += passed;
            let (now, phone) = (at(start, seconds), account.phone(&jid(number)));
            match event {
                Event::Greets => phone.greet(now),
                Event::Ends => phone.end_session(),
                Event::Fails => phone.mark_away(),
                Event::OwesASign => drop(phone.note_probe(now)),
                Event::Refuses => phone.bar(registration, now),
            }
        }
        let now = at(start, seconds + 1);
        let routes = account.routes(now);
        for named in (0..7).map(jid) {
            prop_assert_eq!(routes.route(registration, &named), account.route(registration, &named, now));
        }
    }
}

#[test]
fn whoever_has_refused_a_registration_is_not_asked_beside_those_that_are_silent() {
    let [named, silent] = ["phone", "tablet"].map(|resource| format!("juliet@example.com/{resource}"));
    let [named, silent] = [named, silent].map(|jid| jid.parse::<FullJid>().unwrap());
    let registration = RegistrationId::from_bytes([7; RegistrationId::BYTES]);
    let (start, mut account) = (Instant::now(), Account::default());
    account.phone(&named).greet(at(start, 0));
    account.phone(&silent).greet(at(start, 1));
    let (now, asked) = (at(start, 2), [silent]);
    assert_eq!(account.routes(now).other_than(&asked, registration, &named), Some(&named));
    account.phone(&named).bar(registration, now);
    assert_eq!(account.routes(now).other_than(&asked, registration, &named), None);
}
