use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn moment(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

fn peer(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    [127, 1, high, low].into()
}

/// The tokens of all connections, which tell which of them have to close.
struct Told(Vec<(Id, CancellationToken)>);

impl Told {
    fn admit(&mut self, crowd: &mut Crowd, peer: IpAddr, now: Instant) -> Option<Id> {
        let (id, closing) = crowd.admit(peer, now).place?;
        self.0.push((id, closing));
        Some(id)
    }

    fn ids(&self) -> Vec<Id> {
        self.0.iter().filter(|(_, closing)| closing.is_cancelled()).map(|(id, _)| *id).collect()
    }
}

#[test]
fn at_the_bound_the_request_that_is_incomplete_for_longest_goes_then_who_is_idle_for_longest() {
    let (mut crowd, mut told, start) = (Crowd::new(4, Proxies::default()), Told(Vec::new()), Instant::now());
    let ids: Vec<_> = (0..4)
        .map(|number| told.admit(&mut crowd, peer(number), moment(start, number.into())).unwrap())
        .collect();
    // The oldest is answered, and is idle. The next has begun to send, which does not make it younger.
    crowd.note(ids[0], Phase::Idle { since: moment(start, 5) });
    crowd.note(ids[1], Phase::Receiving { since: moment(start, 1), until: moment(start, 11) });
    let fifth = told.admit(&mut crowd, peer(9), moment(start, 6)).unwrap();
    assert_eq!(told.ids(), [ids[1]]);
    for id in [ids[2], ids[3], fifth] {
        crowd.note(id, Phase::Answering);
    }
    told.admit(&mut crowd, peer(9), moment(start, 7)).unwrap();
    assert_eq!(told.ids(), [ids[0], ids[1]]);

    crowd.note(5, Phase::Answering);
    let refused = crowd.admit(peer(9), moment(start, 8));
    assert!(refused.place.is_none() && refused.is_full && refused.closed == Some(Reason::Crowd));
    crowd.leave(fifth);
    assert!(crowd.admit(peer(9), moment(start, 9)).place.is_some());
}

#[test]
fn a_peer_has_so_many_incomplete_requests_and_a_proxy_any_number() {
    let here = IpAddr::from([127, 0, 0, 1]);
    let proxies = || Proxies::new(vec![super::super::network("192.0.2.0/24").unwrap()]);
    for (one, is_bound) in [(peer(1), true), (here, false), ([192, 0, 2, 7].into(), false)] {
        let (mut crowd, mut told, start) = (Crowd::new(1000, proxies()), Told(Vec::new()), Instant::now());
        for second in 0..64 {
            told.admit(&mut crowd, one, moment(start, second));
        }
        crowd.note(0, Phase::Answering);
        told.admit(&mut crowd, one, moment(start, 64));
        assert!(told.ids().is_empty(), "one of them is complete");
        told.admit(&mut crowd, one, moment(start, 65));
        assert_eq!(told.ids(), if is_bound { vec![1] } else { vec![] }, "{one}");
        // An idle connection whose next request begins counts, too.
        crowd.note(0, Phase::Idle { since: moment(start, 66) });
        crowd.note(0, Phase::Receiving { since: moment(start, 67), until: moment(start, 77) });
        assert_eq!(told.ids(), if is_bound { vec![1, 2] } else { vec![] }, "{one}");
        told.admit(&mut crowd, peer(2), moment(start, 68));
        assert_eq!(told.ids().len(), if is_bound { 2 } else { 0 }, "another peer");
    }
}

#[test]
fn a_network_of_ipv6_is_one_peer() {
    let (mut crowd, mut told, start) =
        (Crowd::new(1000, Proxies::default()), Told(Vec::new()), Instant::now());
    for number in 0..=64 {
        let address = format!("2001:db8:1:2::{number:x}").parse().unwrap();
        told.admit(&mut crowd, address, moment(start, number));
    }
    told.admit(&mut crowd, "2001:db8:1:3::1".parse().unwrap(), moment(start, 65));
    assert_eq!(told.ids(), [0]);
}

proptest! {
    /// In any order of events, the bound holds, and the counts agree.
    #[test]
    fn the_bounds_hold(steps in prop::collection::vec((0u8..5, 0u64..40, 0u16..3), 1..300)) {
        let (mut crowd, start) = (Crowd::new(12, Proxies::default()), Instant::now());
        for (second, (step, id, number)) in (0..).zip(steps) {
            let now = moment(start, second);
            match step {
                0 => drop(crowd.admit(peer(number), now)),
                1 => drop(crowd.note(id, Phase::Receiving { since: now, until: now })),
                2 => drop(crowd.note(id, Phase::Answering)),
                3 => drop(crowd.note(id, Phase::Idle { since: now })),
                _ => crowd.leave(id),
            }
            prop_assert!(crowd.connections.len() <= 12);
            let phases = |holds: fn(&Phase) -> bool| crowd.connections.values().filter(|one| holds(&one.phase)).count();
            prop_assert_eq!(crowd.incomplete.len(), phases(|phase| phase.incomplete_since().is_some()));
            prop_assert_eq!(crowd.idle.len(), phases(|phase| matches!(phase, Phase::Idle { .. })));
            prop_assert_eq!(crowd.of_peers.values().map(BTreeSet::len).sum::<usize>(), crowd.incomplete.len());
        }
    }
}
