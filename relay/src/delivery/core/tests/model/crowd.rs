//! More is to go out than there are places: `World::check_sent` holds the windows and the shares at each push.

use super::*;

/// Those who want places: one account with many full JIDs, other accounts of its domain, and accounts of another one.
const GROUPS: [(&str, usize); 3] =
    [("mallory@example.org/{}", 8), ("user{}@example.org/phone", 3), ("user{}@example.com/phone", 6)];

#[derive(Debug, Clone)]
enum Step {
    /// Each full JID of a group gets so many pushes.
    Post(usize, usize),
    /// Each of the first full JIDs of a group answers so many of its pushes.
    Answer(usize, usize, usize),
    Pass(u64),
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..GROUPS.len(), 1usize..8).prop_map(|(group, each)| Step::Post(group, each)),
        4 => (0..GROUPS.len(), 1usize..9, 1usize..4).prop_map(|(group, first, each)| Step::Answer(group, first, each)),
        1 => (1u64..4).prop_map(Step::Pass),
        1 => Just(Step::Reconnect),
    ]
}

struct Crowd {
    world: World,
    groups: Vec<Vec<(String, RegistrationId)>>,
    out: BTreeMap<String, VecDeque<MessageId>>,
}

impl Crowd {
    /// The first group has answered, and takes all places that it may.
    fn new() -> Self {
        let mut world = World::narrow();
        let mut member = |name: &str, number: usize| {
            let jid = name.replace("{}", &number.to_string());
            let application = u8::try_from(number).unwrap();
            (jid.clone(), world.register(&jid, application))
        };
        let groups =
            GROUPS.iter().map(|(name, count)| (0..*count).map(|number| member(name, number)).collect());
        let groups = groups.collect();
        world.strict = true;
        let mut crowd = Self { world, groups, out: BTreeMap::new() };
        let first = GROUPS[0].1;
        [Step::Post(0, 20), Step::Answer(0, first, 2)].iter().for_each(|step| crowd.take(step));
        crowd
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Post(group, each) => {
                for (_, app) in self.groups[group].clone() {
                    self.world.post_some(app, each);
                }
            }
            Step::Answer(group, first, each) => {
                for (jid, _) in self.groups[group].iter().take(first) {
                    for _ in 0..each {
                        if let Some(push) = self.out.get_mut(jid).and_then(VecDeque::pop_front) {
                            self.world.answer(push, jid, None);
                        }
                    }
                }
            }
            Step::Pass(seconds) => self.world.pass(Duration::from_secs(seconds)),
            Step::Reconnect => {
                self.out.clear();
                self.world.disconnect();
                self.world.connect();
            }
        }
        for (push, to) in self.world.take_sent() {
            self.out.entry(to).or_default().push_back(push);
        }
    }
}

/// Each case sends pushes by the hundred.
fn cases() -> u32 {
    ProptestConfig::default().cases.div_ceil(4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn of_more_pushes_than_there_are_places_each_goes_out_within_its_window_and_share(
        steps in prop::collection::vec(step(), 1..8)
    ) {
        let mut crowd = Crowd::new();
        steps.iter().for_each(|step| crowd.take(step));
    }
}
