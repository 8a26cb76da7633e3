//! The ingress over stores that no emulator can be: one whose copies lag, and one that panics.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use chrono::{DateTime, TimeDelta, Utc};
use push::{
    Application, Epoch, Instance, PushMessage, Registration, RegistrationId, Secrets, Target, Ttl,
    ports::{Consistency, QueueWriter, Registrations, Renewal, Revocation, Unavailable},
};
use tower::ServiceExt;

use crate::{Ingress, PublicUrl, router};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What an eventually consistent read finds.
#[derive(Clone, Copy, PartialEq)]
enum Copies {
    AllAgree,
    /// The registration is too young to be seen.
    Lag,
    Panic,
}

#[derive(Clone)]
struct Store {
    row: Registration,
    copies: Copies,
    eventual_reads: Arc<AtomicUsize>,
    strong_reads: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
}

impl Registrations for Store {
    async fn find(
        &self,
        id: RegistrationId,
        consistency: Consistency,
    ) -> Result<Option<Registration>, Unavailable> {
        let reads = match consistency {
            Consistency::Eventual => &self.eventual_reads,
            Consistency::Strong => &self.strong_reads,
        };
        reads.fetch_add(1, Relaxed);
        assert!(self.copies != Copies::Panic, "a defect");
        let lags = self.copies == Copies::Lag && consistency == Consistency::Eventual;
        Ok(Some(self.row.clone()).filter(|row| row.target.registration_id() == id && !lags))
    }

    async fn register(
        &self,
        _: Target,
        _: DateTime<Utc>,
        _: TimeDelta,
        _: Renewal,
    ) -> Result<Registration, Unavailable> {
        Err(Unavailable::new("the ingress registers nobody"))
    }

    async fn revoke(&self, _: RegistrationId, _: Epoch, _: DateTime<Utc>) -> Result<Revocation, Unavailable> {
        Err(Unavailable::new("the ingress revokes nothing"))
    }
}

impl QueueWriter for Store {
    async fn send(&self, _: PushMessage) -> Result<(), Unavailable> {
        self.sent.fetch_add(1, Relaxed);
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "the ingress reads the clock itself")]
fn store(copies: Copies) -> Store {
    let target = Target {
        recipient: "juliet@example.com/phone".parse().unwrap(),
        application: Application::from_bytes([1; 32]),
        instance: Instance::from_bytes([2; 32]),
    };
    let row = Registration::renew(None, target, Utc::now(), TimeDelta::days(7));
    let [eventual_reads, strong_reads, sent] = Default::default();
    Store { row, copies, eventual_reads, strong_reads, sent }
}

fn ingress(store: &Store) -> Router {
    router(Ingress {
        registrations: store.clone(),
        queue: store.clone(),
        secrets: Secrets::parse(SECRET).unwrap(),
        public_url: None,
        default_ttl: Ttl::from_seconds(60),
        max_ttl: Ttl::from_seconds(60),
    })
}

fn token(store: &Store, epoch: Epoch) -> String {
    let secrets = Secrets::parse(SECRET).unwrap();
    secrets.sign(store.row.target.registration_id(), epoch).as_str().to_owned()
}

/// The answer to a push of this life, and how many reads and sends it took.
async fn push(store: &Store, epoch: Epoch, path_of: impl Fn(&str) -> String) -> (StatusCode, [usize; 3]) {
    let request = Request::post(path_of(&token(store, epoch))).body(Body::from("hello")).unwrap();
    let status = ingress(store).oneshot(request).await.unwrap().status();
    let counts = [&store.eventual_reads, &store.strong_reads, &store.sent];
    (status, counts.map(|count| count.load(Relaxed)))
}

fn endpoint(token: &str) -> String {
    format!("/push/{token}")
}

#[tokio::test]
async fn an_accepted_push_costs_one_eventual_read_and_one_send() {
    let store = store(Copies::AllAgree);
    assert_eq!(push(&store, store.row.epoch, endpoint).await, (StatusCode::CREATED, [1, 0, 1]));
}

#[tokio::test]
async fn a_registration_too_young_to_be_seen_costs_nobody_a_subscription() {
    let store = store(Copies::Lag);
    assert_eq!(push(&store, store.row.epoch, endpoint).await, (StatusCode::CREATED, [1, 1, 1]));
}

#[tokio::test]
async fn a_refusal_for_good_is_confirmed_by_a_strong_read() {
    let store = store(Copies::AllAgree);
    let other = Epoch::from_seconds(store.row.epoch.as_seconds() + 1);
    assert_eq!(push(&store, other, endpoint).await, (StatusCode::GONE, [1, 1, 0]));
}

#[tokio::test]
async fn a_forgery_costs_nothing() {
    let store = store(Copies::AllAgree);
    let forged = |token: &str| format!("/push/{}", token.chars().rev().collect::<String>());
    assert_eq!(push(&store, store.row.epoch, forged).await, (StatusCode::NOT_FOUND, [0, 0, 0]));
}

#[tokio::test]
async fn a_panic_costs_one_500() {
    let store = store(Copies::Panic);
    let (status, _) = push(&store, store.row.epoch, endpoint).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn a_push_is_named_below_where_its_sender_reached_the_ingress() {
    let store = store(Copies::AllAgree);
    let mut request =
        Request::post(endpoint(&token(&store, store.row.epoch))).body(Body::from("hello")).unwrap();
    request.extensions_mut().insert(PublicUrl("https://push.example.com/stage".parse().unwrap()));
    let response = ingress(&store).oneshot(request).await.unwrap();
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    assert!(location.starts_with("https://push.example.com/stage/message/"), "{location}");
}
