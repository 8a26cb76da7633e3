//! The driver between a stream of the test's own and ports in memory, in paused time.

use std::time::Duration;

use chrono::{DateTime, Utc};
use push::{PushMessage, Registration, testing};
use tokio::{task::JoinHandle, time::timeout};

use super::*;
use crate::{
    delivery::{core::Settings, domains::DomainBounds, room::Room},
    driver::{forgetting::Forgetting, trail::Outcome},
    jobs::memory::Memory,
    stream::{
        component::StreamNumber,
        stanza::{Answer, Incoming, Query, Request},
    },
};

const ALICE: &str = "alice@example.com/phone";
/// Longest time for a step of the driver.
const SOON: Duration = Duration::from_secs(5);

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

/// A driver that runs, and the other ends of its channels.
struct Scene {
    store: Memory,
    row: Registration,
    events: mpsc::Sender<Event>,
    pushes: mpsc::Receiver<Outgoing>,
    replies: mpsc::Receiver<String>,
    access: watch::Sender<AccessList>,
    stop: CancellationToken,
    trail: Trail,
    _forgetting: Forgetting,
    running: JoinHandle<Result<(), TaskDied>>,
}

impl Scene {
    /// Starts a driver with a stream, and with a phone that has one registration.
    async fn new() -> Self {
        Self::with(Fence::open()).await
    }

    async fn with(fence: Fence) -> Self {
        let row = testing::registration(ALICE, now());
        let store = Memory::default();
        store.lock().rows.insert(row.target.registration_id(), row.clone());
        let settings = Settings {
            component: BareJid::new("notify.example.com").unwrap(),
            ack_timeout: Duration::from_secs(30),
            room: Room::OF_RELAY,
            meter: None,
            domain_bounds: DomainBounds { registrations: 100, mailbox: 100 },
            contact: Vec::new(),
        };
        let list = AccessList::Everyone(Vec::new());
        let core = Core::new(settings, list.clone());
        let (access, access_now) = watch::channel(list);
        let (events, events_in) = mpsc::channel(8);
        let (pushes_in, pushes) = mpsc::channel(8);
        let (replies_in, replies) = mpsc::channel(1);
        let stream = StreamEnds { events: events_in, pushes: pushes_in, replies: replies_in };
        let (trail, forgetting, stop) = (Trail::default(), Forgetting::default(), CancellationToken::new());
        let jobs = store.jobs(now(), fence.clone());
        let driver = Driver::new(core, jobs, stream, access_now, trail.clone(), forgetting.heard());
        let running = tokio::spawn(driver.run(stop.clone(), fence));
        events.send(Event::Online(StreamNumber::number(1))).await.unwrap();
        Self { store, row, events, pushes, replies, access, stop, trail, _forgetting: forgetting, running }
    }

    fn post(&self, number: u32) -> PushMessage {
        let push = testing::push(number, &self.row, now());
        self.store.post(push.clone());
        push
    }

    /// Waits until the next push goes out. Its stanza has the id of this one.
    async fn sees(&mut self, push: &PushMessage) {
        let Outgoing { stream, xml } = timeout(SOON, self.pushes.recv()).await.expect("it is sent").unwrap();
        assert_eq!(stream, StreamNumber::number(1));
        assert!(xml.contains(&push.id.to_string()) && xml.contains(ALICE), "{xml}");
    }

    async fn hears(&self, stanza: Incoming) {
        self.events.send(Event::stanza(stanza)).await.unwrap();
    }

    async fn answers(&self, push: &PushMessage) {
        let from = ALICE.parse().unwrap();
        self.hears(Incoming::Answer(Answer { from, id: push.id.to_string(), error: None })).await;
    }

    /// Waits until `holds` returns true.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let until = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(2 * SOON, until).await.unwrap_or_else(|_| panic!("{what}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_push_of_the_queue_goes_out_and_its_result_deletes_it() {
    let mut scene = Scene::new().await;
    let push = scene.post(1);
    scene.sees(&push).await;
    assert_eq!(scene.store.lock().queue.len(), 1, "nobody has answered yet");
    scene.answers(&push).await;
    scene.until("it is deleted", |scene| scene.store.lock().queue.is_empty()).await;
    assert_eq!(scene.trail.find(push.id).unwrap().outcome, Outcome::Delivered);
}

#[tokio::test(start_paused = true)]
async fn a_push_that_nobody_answers_waits_in_the_mailbox() {
    let mut scene = Scene::new().await;
    let push = scene.post(1);
    scene.sees(&push).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    scene.until("the ticks notice it", |scene| scene.store.lock().waiting.contains_key(&push.id)).await;
    assert!(scene.store.lock().queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stop_awaits_the_answers_in_flight_and_gives_back_the_rest() {
    let mut scene = Scene::new().await;
    let answered = scene.post(1);
    scene.sees(&answered).await;
    scene.stop.cancel();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!scene.running.is_finished(), "an answer may come yet");
    let late = scene.post(2);
    scene.answers(&answered).await;
    timeout(SOON, &mut scene.running).await.expect("nothing is in flight").unwrap().unwrap();
    let inside = scene.store.lock();
    assert_eq!(inside.queue.keys().collect::<Vec<_>>(), [&late.id]);
    assert!(inside.closed, "the queue is told last");
}

#[tokio::test(start_paused = true)]
async fn without_its_lease_a_relay_sends_nothing_and_ends() {
    let mut scene = Scene::with(Fence::lost_before()).await;
    let push = scene.post(1);
    timeout(SOON, &mut scene.running).await.expect("it ends").unwrap().unwrap();
    assert!(scene.pushes.recv().await.is_none());
    assert_eq!(scene.store.lock().queue.keys().collect::<Vec<_>>(), [&push.id]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_streams_task_ends_the_relay_with_an_error() {
    let Scene { events, running, .. } = Scene::new().await;
    drop(events);
    timeout(SOON, running).await.expect("it ends").unwrap().expect_err("the stream's task is dead");
}

#[tokio::test(start_paused = true)]
async fn answers_wait_for_room_in_the_stream_and_keep_their_order() {
    let mut scene = Scene::new().await;
    for number in 0..5 {
        let request = Request::new(ALICE.parse().unwrap(), format!("ping{number}"), Query::Ping);
        scene.hears(Incoming::Request(request)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for number in 0..5 {
        let reply = timeout(SOON, scene.replies.recv()).await.expect("each is answered").unwrap();
        assert!(reply.contains(&format!("ping{number}")), "{reply}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_of_access_that_changes_counts_for_the_next_request() {
    let mut scene = Scene::new().await;
    for (list, admitted) in [("example.org", false), ("example.com", true)] {
        scene.access.send_replace(list.parse().unwrap());
        let target = Box::new(scene.row.target.clone());
        let request = Request::new(ALICE.parse().unwrap(), list.into(), Query::Register(Ok(target)));
        scene.hears(Incoming::Request(request)).await;
        let reply = timeout(SOON, scene.replies.recv()).await.expect("it is answered").unwrap();
        assert_eq!(reply.contains("https://push.example.com/push/"), admitted, "{reply}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_out_when_the_stream_ends_goes_out_on_the_next_one() {
    let mut scene = Scene::new().await;
    let push = scene.post(1);
    scene.sees(&push).await;
    scene.events.send(Event::Offline).await.unwrap();
    scene.events.send(Event::Online(StreamNumber::number(2))).await.unwrap();
    let outgoing = timeout(SOON, scene.pushes.recv()).await.expect("it is sent again").unwrap();
    assert_eq!(outgoing.stream, StreamNumber::number(2));
    assert!(outgoing.xml.contains(&push.id.to_string()), "{}", outgoing.xml);
}
