//! A store in memory, with failures that no emulator offers.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use axum::{
    Router,
    body::Body,
    http::{Request, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use jid::{BareJid, FullJid};
use push::{
    Application, Clock, Epoch, Fingerprint, Marker, MessageId, PushMessage, Registration, RegistrationId,
    Roster, Secrets, Target, Ttl,
    marker::Keys,
    ports::{
        Consistency, Markers, NotQueued, QueueWriter, Registered, Registrations, Renewal, Revocation,
        Tenants, Unavailable, Withdrawals,
    },
    testing,
};
use tokio::sync::watch;
use tower::ServiceExt;
use url::Url;

use crate::{
    ingress::{Allowance, Dropped, Ingress, LegacyTerms, MarkerWatch, TenantWatch},
    legacy::LegacyKeys,
    router::router,
};

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const LIFETIME: TimeDelta = TimeDelta::days(7);

/// The row that an eventually consistent read finds.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Copies {
    AllAgree,
    /// Eventual reads do not show the registration yet.
    Lag,
    Panic,
}

/// The state in the mailbox of the push that a sender withdraws.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Post {
    Waits,
    Nothing,
    OutOfReach,
    /// The mailbox never answers.
    Hangs,
}

/// Numbers of calls: eventual reads, strong reads, sends, withdrawals.
pub(crate) type Calls = [usize; 4];
pub(crate) const NO_CALL: Calls = [0; 4];

/// The answer of the queue to a push.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Line {
    Takes,
    OutOfReach,
    /// The queue holds as many pushes of the registration as it may.
    ShareUsedUp,
    /// The queue never answers.
    Hangs,
}

#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) row: Registration,
    /// Registrations beside `row`.
    pub(crate) others: Vec<Registration>,
    pub(crate) copies: Copies,
    pub(crate) post: Post,
    pub(crate) line: Line,
    pub(crate) legacy: LegacyKeys,
    pub(crate) legacy_terms: LegacyTerms,
    pub(crate) dropped: Dropped,
    pub(crate) clock: Clock,
    /// The epochs that were revoked; `None`: the ingress does not store refusals.
    pub(crate) refusals: Option<Arc<Mutex<Vec<Epoch>>>>,
    pub(crate) marker: Option<Marker>,
    /// Number of reads of the marker.
    pub(crate) marker_reads: Arc<AtomicUsize>,
    pub(crate) watch: MarkerWatch,
    pub(crate) allowance: Allowance,
    /// The roster; `None`: it cannot be read.
    pub(crate) roster: Arc<Mutex<Option<Roster>>>,
    /// Number of reads of the roster.
    pub(crate) roster_reads: Arc<AtomicUsize>,
    pub(crate) tenants: TenantWatch,
    pub(crate) sent: Arc<Mutex<Vec<PushMessage>>>,
    pub(crate) calls: Arc<[AtomicUsize; 4]>,
}

impl Markers for Store {
    async fn marker(&self) -> Result<Option<Marker>, Unavailable> {
        self.marker_reads.fetch_add(1, Relaxed);
        Ok(self.marker.clone())
    }
}

impl Tenants for Store {
    async fn roster(&self) -> Result<Roster, Unavailable> {
        self.roster_reads.fetch_add(1, Relaxed);
        self.roster.lock().unwrap().clone().ok_or_else(|| Unavailable::new("out of reach"))
    }
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
        _: usize,
    ) -> Result<Registered, Unavailable> {
        assert!(
            target.legacy.is_some() && renewal == Renewal::WhereNeeded,
            "the ingress registers nobody else"
        );
        let present = Registrations::find(self, target.registration_id(), Consistency::Strong).await?;
        let row = present.unwrap_or_else(|| Registration::renew(None, target, now, lifetime));
        Ok(Registered::Stored(row))
    }

    async fn revoke(
        &self,
        id: RegistrationId,
        epoch: Epoch,
        recipient: &FullJid,
        asked_at: DateTime<Utc>,
    ) -> Result<Revocation, Unavailable> {
        let Some(refusals) = &self.refusals else {
            return Err(Unavailable::new("the ingress revokes nothing"));
        };
        assert_eq!((id, recipient), (self.id(), &self.row.target.recipient));
        if self.row.renewed_at > asked_at {
            return Ok(Revocation::GoesOn);
        }
        refusals.lock().unwrap().push(epoch);
        Ok(Revocation::Revoked)
    }
}

impl QueueWriter for Store {
    async fn send(&self, message: PushMessage) -> Result<(), NotQueued> {
        self.send_all(vec![message]).await
    }

    async fn send_all(&self, messages: Vec<PushMessage>) -> Result<(), NotQueued> {
        self.calls[2].fetch_add(1, Relaxed);
        match self.line {
            Line::Takes => self.sent.lock().unwrap().extend(messages),
            Line::OutOfReach => return Err(Unavailable::new("out of reach").into()),
            Line::ShareUsedUp => return Err(NotQueued::TooMany),
            Line::Hangs => std::future::pending().await,
        }
        Ok(())
    }
}

impl Withdrawals for Store {
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
}

/// Returns the id of the push that is withdrawn.
pub(crate) fn named() -> MessageId {
    MessageId::from_bytes([9; MessageId::BYTES])
}

#[expect(clippy::disallowed_methods, reason = "the ingress reads the clock itself")]
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}

pub(crate) fn registration(application: u8) -> Registration {
    let application = Application::from_bytes([application; 32]);
    let target = Target { application, ..testing::target("juliet@example.com/phone") };
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
        legacy_terms: LegacyTerms::default(),
        dropped: Dropped::at_most(3),
        clock: Clock::system(),
        refusals: None,
        marker: Some(long_in_use(secrets().fingerprints())),
        marker_reads: Arc::default(),
        watch: MarkerWatch::default(),
        allowance: Allowance::default(),
        roster: Arc::new(Mutex::new(Some(Roster::default()))),
        roster_reads: Arc::default(),
        tenants: TenantWatch::default(),
        sent: Arc::default(),
        calls: Arc::default(),
    }
}

/// Returns the marker of a table that a relay with these secrets has used for a month.
pub(crate) fn long_in_use(secrets: Vec<Fingerprint>) -> Marker {
    let keys = Keys { secrets, ..Keys::default() };
    let mut marker = Marker::begin(None, keys.clone(), None, now() - TimeDelta::days(30));
    marker.note(keys, now() + TimeDelta::hours(1));
    marker
}

impl Store {
    pub(crate) fn id(&self) -> RegistrationId {
        self.row.target.registration_id()
    }

    pub(crate) fn calls(&self) -> Calls {
        [0, 1, 2, 3].map(|call| self.calls[call].load(Relaxed))
    }

    pub(crate) fn marker_reads(&self) -> usize {
        self.marker_reads.load(Relaxed)
    }

    fn ingress(&self) -> Router {
        self.ingress_at(None)
    }

    pub(crate) fn ingress_at(&self, public_url: Option<Url>) -> Router {
        router(Ingress {
            registrations: self.clone(),
            queue: self.clone(),
            mailbox: self.clone(),
            secrets: watch::channel(secrets()).1,
            legacy: watch::channel(self.legacy.clone()).1,
            legacy_terms: self.legacy_terms.clone(),
            marker: self.watch.clone(),
            allowance: self.allowance.clone(),
            tenants: self.tenants.clone(),
            public_url,
            component: None,
            clock: self.clock.clone(),
            remembers_refusals: self.refusals.is_some(),
            dropped: self.dropped.clone(),
            default_ttl: Ttl::from_seconds(60),
            max_ttl: Ttl::from_seconds(u32::MAX),
        })
    }

    pub(crate) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        self.ingress().oneshot(request).await.unwrap()
    }

    /// Returns the path of the endpoint of this life.
    pub(crate) fn endpoint(&self, epoch: Epoch) -> String {
        format!("/push/{}", secrets().sign(self.id(), epoch).as_str())
    }

    /// Pushes to this path, and returns the answer.
    pub(crate) async fn push(&self, path: &str) -> Response<Body> {
        self.answer(Request::post(path).body(Body::from("hello")).unwrap()).await
    }

    /// Pushes to the endpoint of the present life, and returns the answer.
    pub(crate) async fn push_now(&self) -> Response<Body> {
        self.push(&self.endpoint(self.row.epoch)).await
    }

    /// Withdraws with this token, and returns the answer.
    pub(crate) async fn withdraw(&self, token: &str) -> Response<Body> {
        self.answer(Request::delete(format!("/message/{token}")).body(Body::empty()).unwrap()).await
    }

    /// Returns the token of the push that is withdrawn.
    pub(crate) fn message(&self) -> String {
        secrets().sign_message(self.id(), named()).as_str().to_owned()
    }
}

pub(crate) fn secrets() -> Secrets {
    Secrets::parse(SECRET).unwrap()
}

pub(crate) fn header(response: &Response<Body>, name: &str) -> Option<String> {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
}
