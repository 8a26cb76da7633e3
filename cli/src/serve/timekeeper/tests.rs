//! A clock that jumps, under a real ingress and a real store.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use chrono::TimeDelta;
use functions::{Allowance, Dropped, Ingress, LegacyKeys, LegacyTerms, MarkerWatch};
use push::ports::{MarkerWriter, QueueReader, Registrations, Renewal, Settlement};
use push::{Instance, Marker, Registration, Secrets, Target, Ttl, marker::Keys, testing};
use relay::Uptime;
use tokio::sync::watch;
use tower::ServiceExt;

use super::*;
use crate::clock::acceptance;

const SECRET: &str = "a-secret-of-more-than-32-bytes-0123456789";
const DAY: i64 = 86_400;

/// The machine's uptime in seconds, and the error of its clock in seconds.
#[derive(Default)]
struct Machine {
    up: AtomicI64,
    off: AtomicI64,
}

struct Scene {
    machine: Arc<Machine>,
    folder: tempfile::TempDir,
    database: Database,
    timekeeper: Timekeeper,
    ingress: Router,
}

fn secrets() -> Secrets {
    Secrets::parse(SECRET).unwrap()
}

fn sources(machine: &Arc<Machine>) -> Sources {
    let (by_wall, by_uptime) = (machine.clone(), machine.clone());
    Sources {
        wall: Clock::new(move || {
            let seconds = by_wall.up.load(Relaxed) + by_wall.off.load(Relaxed);
            DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
        }),
        uptime: Uptime::new(move || Duration::from_secs(by_uptime.up.load(Relaxed).unsigned_abs())),
        boot: "this".into(),
        is_synchronized: || Some(false),
    }
}

impl Scene {
    async fn set() -> Self {
        let (machine, folder) = (Arc::new(Machine::default()), tempfile::tempdir().unwrap());
        let database = Database::open(&folder.path().join("upwire.db")).unwrap();
        let timekeeper = Timekeeper::begin(database.clone(), sources(&machine)).await.unwrap();
        let database = database.with_clock(timekeeper.clock());
        let keys = Keys { secrets: secrets().fingerprints(), ..Keys::default() };
        let mut marker = Marker::begin(None, keys.clone(), None, DateTime::UNIX_EPOCH);
        marker.note(keys, timekeeper.clock().now() + TimeDelta::days(365));
        database.set_marker(&marker).await.unwrap();
        let ingress = functions::router(Ingress {
            registrations: database.clone(),
            queue: database.clone(),
            mailbox: database.clone(),
            secrets: watch::channel(secrets()).1,
            legacy: watch::channel(LegacyKeys::default()).1,
            legacy_terms: LegacyTerms::default(),
            marker: MarkerWatch::default(),
            allowance: Allowance::default(),
            tenants: functions::TenantWatch::default(),
            public_url: None,
            component: None,
            clock: timekeeper.clock(),
            remembers_refusals: true,
            dropped: Dropped::at_most(10),
            default_ttl: Ttl::from_seconds(60),
            max_ttl: Ttl::from_seconds(1000),
        });
        Self { machine, folder, database, timekeeper, ingress }
    }

    /// Returns the path of an endpoint that lives for `days`.
    async fn endpoint(&self, number: u8, days: i64) -> String {
        let row = self.register(number, days).await;
        format!("/push/{}", secrets().sign(row.target.registration_id(), row.epoch).as_str())
    }

    async fn register(&self, number: u8, days: i64) -> Registration {
        let instance = Instance::from_bytes([number; 32]);
        let target = Target { instance, ..testing::target("juliet@example.com/phone") };
        let (now, life) = (self.timekeeper.clock().now(), TimeDelta::days(days));
        self.database.register(target, now, life, Renewal::Always, 100).await.unwrap().stored().unwrap()
    }

    async fn push(&self, path: &str) -> StatusCode {
        self.answer(path).await.0
    }

    /// Pushes, and returns the status and the TTL of the answer.
    async fn answer(&self, path: &str) -> (StatusCode, Option<String>) {
        let request = Request::post(path).header("ttl", "600").body(Body::from("hello")).unwrap();
        let answer = self.ingress.clone().oneshot(request).await.unwrap();
        let ttl = answer.headers().get("ttl").map(|ttl| ttl.to_str().unwrap().to_owned());
        (answer.status(), ttl)
    }

    /// Returns the answer to a Matrix homeserver for this pushkey.
    async fn notify(&self, path: &str) -> (StatusCode, String) {
        let key = format!("https://push.example.com{path}");
        let body = serde_json::json!({"notification": {"event_id": "$1", "devices": [{"app_id": "a", "pushkey": key}]}});
        let request = Request::post("/_matrix/push/v1/notify").body(Body::from(body.to_string())).unwrap();
        let answer = self.ingress.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), 10_000).await.unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn pass(&mut self, seconds: i64) {
        self.machine.up.fetch_add(seconds, Relaxed);
        self.timekeeper.look().await;
    }

    async fn jump(&mut self, seconds: i64) {
        self.machine.off.store(seconds, Relaxed);
        self.pass(1).await;
    }

    /// Does what `upwire clock accept` does.
    async fn accept(&mut self) {
        let wall = self.timekeeper.sources.wall().timestamp_millis();
        std::fs::write(acceptance(self.database.path()), wall.to_string()).unwrap();
        self.pass(1).await;
        assert!(!self.timekeeper.clock().read().is_in_doubt());
    }
}

#[tokio::test]
async fn a_clock_that_jumps_ends_no_endpoint() {
    let mut scene = Scene::set().await;
    let (lives, over) = (scene.endpoint(1, 7).await, scene.endpoint(2, 0).await);
    for jump in [30 * DAY, -30 * DAY, -1_700_000_000] {
        scene.jump(jump).await;
        assert!(scene.timekeeper.clock().read().is_in_doubt());
        assert_eq!(scene.answer(&lives).await, (StatusCode::CREATED, Some("600".into())));
        assert_eq!(scene.push(&over).await, StatusCode::SERVICE_UNAVAILABLE, "it may only look over");
        assert_eq!(scene.notify(&lives).await, (StatusCode::OK, r#"{"rejected":[]}"#.into()));
        assert_eq!(scene.notify(&over).await.0, StatusCode::SERVICE_UNAVAILABLE);
        let received = scene.database.receive(10).await.unwrap();
        assert_eq!(received.len(), 2, "they are due");
        // One push is postponed, and due again on time, whatever the machine's clock shows.
        let again = scene.timekeeper.clock().now() + TimeDelta::seconds(5);
        let mut settlements: Vec<_> =
            received.iter().map(|delivery| Settlement::Delete(delivery.receipt)).collect();
        settlements[0] = Settlement::Postpone(received[0].receipt, again);
        scene.database.settle(settlements).await.unwrap();
        scene.pass(5).await;
        let received = scene.database.receive(10).await.unwrap();
        assert_eq!(received.len(), 1);
        scene.database.settle(vec![Settlement::Delete(received[0].receipt)]).await.unwrap();
    }
    scene.jump(0).await;
    assert!(!scene.timekeeper.clock().read().is_in_doubt());
    assert_eq!(scene.push(&lives).await, StatusCode::CREATED);
    assert_eq!(scene.push(&over).await, StatusCode::GONE);
    let (status, rejected) = scene.notify(&over).await;
    assert!(status == StatusCode::OK && rejected.contains(&over), "{rejected}");
}

#[tokio::test]
async fn a_push_of_a_time_in_doubt_is_kept_by_either_clock() {
    let mut scene = Scene::set().await;
    let lives = scene.endpoint(1, 70).await;
    scene.jump(30 * DAY).await;
    assert_eq!(scene.answer(&lives).await, (StatusCode::CREATED, Some("600".into())));
    let received = scene.database.receive(10).await.unwrap();
    scene.accept().await;
    let now = scene.timekeeper.clock().now();
    assert!(
        !received[0].message.is_expired(now) && received[0].message.is_expired(now + TimeDelta::seconds(600))
    );
}

#[tokio::test]
async fn an_endpoint_that_was_refused_stays_so_when_the_clock_goes_back() {
    let mut scene = Scene::set().await;
    let (one, other) = (scene.endpoint(1, 7).await, scene.endpoint(2, 7).await);
    scene.jump(30 * DAY).await;
    scene.accept().await;
    assert_eq!(scene.push(&one).await, StatusCode::GONE);
    let (_, rejected) = scene.notify(&one).await;
    assert!(rejected.contains(&one), "{rejected}");
    scene.jump(0).await;
    assert_eq!(scene.push(&one).await, StatusCode::SERVICE_UNAVAILABLE, "nothing is said in doubt");
    scene.accept().await;
    assert_eq!(scene.push(&one).await, StatusCode::GONE, "never again");
    assert_eq!(scene.push(&other).await, StatusCode::CREATED, "nobody was told that it is over");
    let again = scene.endpoint(1, 7).await;
    assert_ne!(again, one);
    assert_eq!(scene.push(&again).await, StatusCode::CREATED);
}

#[tokio::test]
async fn the_time_that_was_known_outlives_the_process_and_an_old_word_is_no_word() {
    let mut scene = Scene::set().await;
    scene.pass(100).await;
    scene.timekeeper.note().await;
    scene.machine.off.store(30 * DAY, Relaxed);
    std::fs::write(acceptance(scene.database.path()), "1800000000000").unwrap();
    let begun = Timekeeper::begin(scene.database.clone(), sources(&scene.machine)).await.unwrap();
    assert_eq!(begun.clock().read().ahead(), TimeDelta::days(30));
    assert!(!acceptance(scene.database.path()).exists());
    // After another boot, the time for which the machine was off is not known.
    scene.machine.up.store(0, Relaxed);
    let another = Sources { boot: "another".into(), ..sources(&scene.machine) };
    let begun = Timekeeper::begin(scene.database.clone(), another).await.unwrap();
    let reading = begun.clock().read();
    assert_eq!(reading.now, DateTime::from_timestamp(1_800_000_100, 0).unwrap());
    assert!(reading.is_in_doubt());
    scene.folder.close().unwrap();
}
