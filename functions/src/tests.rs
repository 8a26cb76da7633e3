//! The ingress over stores that no emulator can be: one whose copies lag, one that panics, one that does not answer.

mod any_request;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, Response, StatusCode},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use jid::BareJid;
use push::{
    Application, Epoch, Instance, MessageId, PushMessage, Registration, RegistrationId, Secrets, Target, Ttl,
    VapidKey,
    ports::{
        Consistency, Kept, Mailbox, QueueWriter, Recipient, Registrations, Renewal, Revocation, Unavailable,
        Waiting,
    },
};
use ring::hmac;
use tower::ServiceExt;
use url::Url;

use crate::{Ingress, LegacyKeys, PublicUrl, router};

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
const LIFETIME: TimeDelta = TimeDelta::days(7);

/// What an eventually consistent read finds.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Copies {
    AllAgree,
    /// The registration is too young to be seen.
    Lag,
    Panic,
}

/// What the mailbox has of the push that a sender withdraws.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Post {
    Waits,
    Nothing,
    OutOfReach,
    /// It never answers.
    Hangs,
}

/// What it cost: reads that may lag, reads that may not, sends, withdrawals.
pub(crate) type Calls = [usize; 4];
pub(crate) const NO_CALL: Calls = [0; 4];

/// What the queue does with a push.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Line {
    Takes,
    OutOfReach,
    /// It never answers.
    Hangs,
}

#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) row: Registration,
    /// Registrations beside that one.
    pub(crate) others: Vec<Registration>,
    pub(crate) copies: Copies,
    pub(crate) post: Post,
    pub(crate) line: Line,
    pub(crate) legacy: LegacyKeys,
    pub(crate) sent: Arc<Mutex<Vec<PushMessage>>>,
    pub(crate) calls: Arc<[AtomicUsize; 4]>,
}

impl Registrations for Store {
    async fn find(
        &self,
        id: RegistrationId,
        consistency: Consistency,
    ) -> Result<Option<Registration>, Unavailable> {
        let strong = consistency == Consistency::Strong;
        self.calls[usize::from(strong)].fetch_add(1, Relaxed);
        assert!(self.copies != Copies::Panic, "a defect");
        let lags = self.copies == Copies::Lag && !strong;
        Ok(Some(self.row.clone()).filter(|row| row.target.registration_id() == id && !lags))
    }

    async fn find_all(
        &self,
        ids: BTreeSet<RegistrationId>,
        consistency: Consistency,
    ) -> Result<Vec<Registration>, Unavailable> {
        let strong = consistency == Consistency::Strong;
        self.calls[usize::from(strong)].fetch_add(1, Relaxed);
        let lags = self.copies == Copies::Lag && !strong;
        let rows = self.others.iter().chain([&self.row]).filter(|_| !lags);
        Ok(rows.filter(|row| ids.contains(&row.target.registration_id())).cloned().collect())
    }

    async fn register(
        &self,
        target: Target,
        now: DateTime<Utc>,
        lifetime: TimeDelta,
        renewal: Renewal,
    ) -> Result<Registration, Unavailable> {
        assert!(
            target.legacy.is_some() && renewal == Renewal::WhereNeeded,
            "the ingress registers nobody else"
        );
        let present = Registrations::find(self, target.registration_id(), Consistency::Strong).await?;
        Ok(present.unwrap_or_else(|| Registration::renew(None, target, now, lifetime)))
    }

    async fn revoke(&self, _: RegistrationId, _: Epoch, _: DateTime<Utc>) -> Result<Revocation, Unavailable> {
        Err(Unavailable::new("the ingress revokes nothing"))
    }

    async fn throttle(&self, _: RegistrationId, _: Epoch, _: DateTime<Utc>) -> Result<(), Unavailable> {
        Err(Unavailable::new("the ingress throttles nobody"))
    }
}

impl QueueWriter for Store {
    async fn send(&self, message: PushMessage) -> Result<(), Unavailable> {
        self.send_all(vec![message]).await
    }

    async fn send_all(&self, messages: Vec<PushMessage>) -> Result<(), Unavailable> {
        self.calls[2].fetch_add(1, Relaxed);
        match self.line {
            Line::Takes => self.sent.lock().unwrap().extend(messages),
            Line::OutOfReach => return Err(Unavailable::new("out of reach")),
            Line::Hangs => std::future::pending().await,
        }
        Ok(())
    }
}

impl Mailbox for Store {
    async fn note_asked(&self, _: &BareJid, _: MessageId, _: DateTime<Utc>) -> Result<(), Unavailable> {
        Err(not_of_the_ingress())
    }

    async fn withdraw(
        &self,
        account: &BareJid,
        message: MessageId,
        _: DateTime<Utc>,
    ) -> Result<bool, Unavailable> {
        self.calls[3].fetch_add(1, Relaxed);
        assert_eq!((account.as_str(), message), ("juliet@example.com", named()));
        match self.post {
            Post::Waits => Ok(true),
            Post::Nothing => Ok(false),
            Post::OutOfReach => Err(Unavailable::new("out of reach")),
            Post::Hangs => std::future::pending().await,
        }
    }

    async fn keep(&self, _: Waiting, _: usize) -> Result<Kept, Unavailable> {
        Err(not_of_the_ingress())
    }

    async fn waiting(
        &self,
        _: &BareJid,
        _: Option<MessageId>,
        _: usize,
    ) -> Result<Vec<Waiting>, Unavailable> {
        Err(not_of_the_ingress())
    }

    async fn find(&self, _: &BareJid, _: MessageId) -> Result<Option<Waiting>, Unavailable> {
        Err(not_of_the_ingress())
    }

    async fn remove(&self, _: Vec<(BareJid, MessageId)>) -> Result<(), Unavailable> {
        Err(not_of_the_ingress())
    }

    async fn clear(&self, _: &BareJid, _: RegistrationId, _: Epoch) -> Result<usize, Unavailable> {
        Err(not_of_the_ingress())
    }

    async fn recipients(
        &self,
        _: Option<Recipient>,
        _: usize,
    ) -> Result<(Vec<Recipient>, Option<Recipient>), Unavailable> {
        Err(not_of_the_ingress())
    }
}

fn not_of_the_ingress() -> Unavailable {
    Unavailable::new("all that the ingress does to a mailbox is to withdraw from it")
}

/// The push that is withdrawn.
fn named() -> MessageId {
    MessageId::from_bytes([9; MessageId::BYTES])
}

#[expect(clippy::disallowed_methods, reason = "the ingress reads the clock itself")]
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}

pub(crate) fn registration(application: u8) -> Registration {
    let target = Target {
        recipient: "juliet@example.com/phone".parse().unwrap(),
        application: Application::from_bytes([application; 32]),
        instance: Instance::from_bytes([2; 32]),
        vapid: None,
        legacy: None,
    };
    Registration::renew(None, target, now(), LIFETIME)
}

pub(crate) fn store() -> Store {
    Store {
        row: registration(1),
        others: Vec::new(),
        copies: Copies::AllAgree,
        post: Post::Waits,
        line: Line::Takes,
        legacy: LegacyKeys::default(),
        sent: Arc::default(),
        calls: Arc::default(),
    }
}

impl Store {
    fn id(&self) -> RegistrationId {
        self.row.target.registration_id()
    }

    pub(crate) fn calls(&self) -> Calls {
        [0, 1, 2, 3].map(|call| self.calls[call].load(Relaxed))
    }

    fn ingress(&self) -> Router {
        self.ingress_at(None)
    }

    pub(crate) fn ingress_at(&self, public_url: Option<Url>) -> Router {
        router(Ingress {
            registrations: self.clone(),
            queue: self.clone(),
            mailbox: self.clone(),
            secrets: secrets(),
            legacy: self.legacy.clone(),
            public_url,
            component: None,
            default_ttl: Ttl::from_seconds(60),
            max_ttl: Ttl::from_seconds(u32::MAX),
        })
    }

    pub(crate) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        self.ingress().oneshot(request).await.unwrap()
    }

    /// The path of its endpoint in this life.
    fn endpoint(&self, epoch: Epoch) -> String {
        format!("/push/{}", secrets().sign(self.id(), epoch).as_str())
    }

    /// The answer to a push to this path.
    async fn push(&self, path: &str) -> Response<Body> {
        self.answer(Request::post(path).body(Body::from("hello")).unwrap()).await
    }

    /// The answer to a push of the present life.
    async fn push_now(&self) -> Response<Body> {
        self.push(&self.endpoint(self.row.epoch)).await
    }

    /// The answer to a withdrawal by this token.
    async fn withdraw(&self, token: &str) -> Response<Body> {
        self.answer(Request::delete(format!("/message/{token}")).body(Body::empty()).unwrap()).await
    }

    /// The token of the push that is withdrawn.
    fn message(&self) -> String {
        secrets().sign_message(self.id(), named()).as_str().to_owned()
    }
}

pub(crate) fn secrets() -> Secrets {
    Secrets::parse(SECRET).unwrap()
}

pub(crate) fn header(response: &Response<Body>, name: &str) -> Option<String> {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn an_accepted_push_costs_one_eventual_read_and_one_send() {
    let store = store();
    assert_eq!(store.push_now().await.status(), StatusCode::CREATED);
    assert_eq!(store.calls(), [1, 0, 1, 0]);
}

#[tokio::test]
async fn a_registration_too_young_to_be_seen_costs_nobody_a_subscription() {
    let store = Store { copies: Copies::Lag, ..store() };
    assert_eq!(store.push_now().await.status(), StatusCode::CREATED);
    assert_eq!(store.calls(), [1, 1, 1, 0]);
}

#[tokio::test]
async fn a_refusal_for_good_is_confirmed_by_a_strong_read() {
    let store = store();
    let other = Epoch::from_seconds(store.row.epoch.as_seconds() + 1);
    assert_eq!(store.push(&store.endpoint(other)).await.status(), StatusCode::GONE);
    assert_eq!(store.calls(), [1, 1, 0, 0]);
}

#[tokio::test]
async fn a_forgery_costs_nothing() {
    let store = store();
    let reversed = |token: &str| token.chars().rev().collect::<String>();
    let endpoint = store.endpoint(store.row.epoch);
    let endpoint = endpoint.strip_prefix("/push/").unwrap();
    for token in [&reversed(endpoint), &store.message()] {
        assert_eq!(store.push(&format!("/push/{token}")).await.status(), StatusCode::NOT_FOUND);
    }
    for token in [&reversed(&store.message()), endpoint, &store.message()[1..], "x", "%FF"] {
        assert_eq!(store.withdraw(token).await.status(), StatusCode::NOT_FOUND, "{token}");
    }
    assert_eq!(store.calls(), NO_CALL);
}

/// The path of an endpoint that Prosody's module issued, for the target of this row.
pub(crate) fn legacy_endpoint(row: &Registration) -> String {
    let Target { recipient, application, instance, legacy, .. } = &row.target;
    let claims = serde_json::json!({
        "sub": recipient, "application": application, "instance": instance,
        "exp": legacy.unwrap().timestamp(),
    });
    let signed =
        [r#"{"alg":"HS256"}"#, &claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), signed.as_bytes());
    format!("/push/{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn an_endpoint_of_a_predecessor_gets_its_row_with_its_first_push_and_has_one_life() {
    let mut store = Store { legacy: LegacyKeys::default().with_jwt(SECRET), ..store() };
    let mut row = store.row.clone();
    let expiry = |seconds| DateTime::from_timestamp(now().timestamp() + seconds, 0);
    row.target.legacy = expiry(3600);
    let endpoint = legacy_endpoint(&row);
    let first = store.push(&endpoint).await;
    assert_eq!((first.status(), store.calls()), (StatusCode::CREATED, [1, 1, 1, 0]));
    let ttl: u32 = header(&first, "ttl").unwrap().parse().unwrap();
    assert_eq!(ttl, 60);

    store.row = row;
    assert_eq!((store.push(&endpoint).await.status(), store.calls()), (StatusCode::CREATED, [2, 1, 2, 0]));
    store.row.revoked = true;
    assert_eq!((store.push(&endpoint).await.status(), store.calls()), (StatusCode::GONE, [3, 2, 2, 0]));

    store.row.target.legacy = expiry(-1);
    let expired = legacy_endpoint(&store.row);
    assert_eq!((store.push(&expired).await.status(), store.calls()), (StatusCode::GONE, [4, 2, 2, 0]));
    store.legacy = LegacyKeys::default();
    assert_eq!((store.push(&endpoint).await.status(), store.calls()), (StatusCode::NOT_FOUND, [4, 2, 2, 0]));
}

#[tokio::test]
async fn a_panic_costs_one_500() {
    let store = Store { copies: Copies::Panic, ..store() };
    assert_eq!(store.push_now().await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(store.withdraw(&store.message()).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn senders_over_their_rate_are_told_for_how_long_by_the_one_read() {
    let mut store = store();
    store.row.throttled_until = Some(now() + TimeDelta::seconds(3600));
    let refused = store.push_now().await;
    assert_eq!((refused.status(), store.calls()), (StatusCode::TOO_MANY_REQUESTS, [1, 0, 0, 0]));
    let seconds = header(&refused, "retry-after").unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&seconds), "{seconds}");
    assert_eq!(header(&refused, "content-type").as_deref(), Some("application/problem+json"));

    store.row.throttled_until = Some(now());
    assert_eq!(store.push_now().await.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn who_does_not_sign_for_a_key_is_refused_by_the_one_read_whatever_the_rate() {
    let mut store = store();
    store.row.target.vapid = Some(VapidKey::from_bytes(&[4; VapidKey::BYTES]).unwrap());
    store.row.throttled_until = Some(now() + TimeDelta::seconds(3600));
    let unsigned = store.push_now().await;
    assert_eq!((unsigned.status(), store.calls()), (StatusCode::UNAUTHORIZED, [1, 0, 0, 0]));
    assert_eq!(header(&unsigned, "www-authenticate"), None);

    let mut request = Request::post(store.endpoint(store.row.epoch)).header("authorization", "vapid t=x");
    request = request.extension(PublicUrl("https://push.example.com".parse().unwrap()));
    let badly_signed = store.answer(request.body(Body::from("hello")).unwrap()).await;
    assert_eq!((badly_signed.status(), store.calls()), (StatusCode::FORBIDDEN, [2, 0, 0, 0]));

    store.row.revoked = true;
    assert_eq!(store.push_now().await.status(), StatusCode::GONE, "before anyone is asked who it is");
}

#[tokio::test]
async fn a_dead_registration_is_gone_whatever_its_rate_was() {
    let mut store = store();
    store.row.throttled_until = Some(now() + TimeDelta::seconds(3600));
    store.row.revoked = true;
    assert_eq!(store.push_now().await.status(), StatusCode::GONE);
}

#[tokio::test]
async fn the_ttl_that_is_answered_is_the_one_that_is_kept() {
    let store = store();
    let longest = (LIFETIME * 2).num_seconds();
    for (asked, kept) in [(0, 0..=0), (60, 60..=60), (u32::MAX, longest - 60..=longest)] {
        let request = Request::post(store.endpoint(store.row.epoch)).header("ttl", asked);
        let accepted = store.answer(request.body(Body::from("hello")).unwrap()).await;
        let answered = header(&accepted, "ttl").unwrap().parse().unwrap();
        assert!(kept.contains(&answered), "{asked}: {answered}");
    }
}

#[tokio::test]
async fn a_push_is_named_below_where_its_sender_reached_the_ingress_and_by_a_token() {
    let store = store();
    let mut request = Request::post(store.endpoint(store.row.epoch)).body(Body::from("hello")).unwrap();
    request.extensions_mut().insert(PublicUrl("https://push.example.com/stage".parse().unwrap()));
    let location = header(&store.answer(request).await, "location").unwrap();
    let token = location.strip_prefix("https://push.example.com/stage/message/").unwrap();
    let (registration, _) = secrets().verify_message(token).unwrap();
    assert_eq!((registration, token.len()), (store.id(), 70));
}

#[tokio::test]
async fn a_withdrawal_costs_one_strong_read_and_one_removal() {
    for copies in [Copies::AllAgree, Copies::Lag] {
        let store = Store { copies, ..store() };
        let withdrawn = store.withdraw(&store.message()).await;
        assert_eq!((withdrawn.status(), store.calls()), (StatusCode::NO_CONTENT, [0, 1, 0, 1]));
        assert!(to_bytes(withdrawn.into_body(), 1).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_waits_for_a_registration_that_is_dead_or_throttled_can_be_withdrawn() {
    let mut store = store();
    store.row.throttled_until = Some(now() + TimeDelta::seconds(3600));
    store.row.revoked = true;
    assert_eq!(store.withdraw(&store.message()).await.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn what_does_not_wait_is_not_found() {
    let store = Store { post: Post::Nothing, ..store() };
    let refused = store.withdraw(&store.message()).await;
    assert_eq!((refused.status(), store.calls()), (StatusCode::NOT_FOUND, [0, 1, 0, 1]));
    assert_eq!(header(&refused, "content-type").as_deref(), Some("application/problem+json"));

    let of_another = secrets().sign_message(RegistrationId::from_bytes([3; 16]), named());
    assert_eq!(store.withdraw(of_another.as_str()).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(store.calls(), [0, 2, 0, 1], "no row, no mailbox");
}

#[tokio::test]
async fn a_mailbox_that_does_not_answer_is_503_and_in_time() {
    for post in [Post::OutOfReach, Post::Hangs] {
        let store = Store { post, ..store() };
        let refused = store.withdraw(&store.message()).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(header(&refused, "retry-after").as_deref(), Some("5"));
    }
}
