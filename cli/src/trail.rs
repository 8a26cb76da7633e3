//! Requests of an operator's commands to the running relay, at the administration address. One reads the trail of the
//! last pushes, with ids and times and no addresses; another makes the relay forget an account.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use push::{MessageId, RegistrationId};
use relay::{Forgetting, Outcome, Trace, Trail};
use serde::{Deserialize, Serialize};
use tokio_xmpp::jid::BareJid;

/// Most pushes of one registration in an answer.
const LAST_MAX: usize = 20;

/// The outcome of a push that waits in the mailbox.
pub(crate) const WAITS: &str = Outcome::Waits.as_str();

/// A trace as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The push.
    pub(crate) id: MessageId,
    /// Its registration.
    pub(crate) registration: RegistrationId,
    /// Time of acceptance.
    pub(crate) accepted_at: DateTime<Utc>,
    /// Time of expiry.
    pub(crate) expires_at: DateTime<Utc>,
    /// Its latest state ([`relay::Outcome::as_str`]).
    pub(crate) outcome: String,
    /// Time of the latest state.
    pub(crate) at: DateTime<Utc>,
    /// Number of errors that phones answered, and that did not end the push.
    pub(crate) failures: u32,
    /// Time at which it last went out unanswered.
    pub(crate) unanswered_at: Option<DateTime<Utc>>,
}

impl Told {
    fn of(id: MessageId, trace: Trace) -> Self {
        let Trace { registration, accepted_at, expires_at, outcome, at, failures, unanswered_at, .. } = trace;
        let outcome = outcome.as_str().to_owned();
        Self { id, registration, accepted_at, expires_at, outcome, at, failures, unanswered_at }
    }
}

/// Returns the path that reads a push.
pub(crate) fn path_of_push(id: MessageId) -> String {
    format!("/pushes/{id}")
}

/// Returns the path that reads the last pushes of a registration.
pub(crate) fn path_of_registration(id: RegistrationId) -> String {
    format!("/registrations/{id}/pushes")
}

/// The path that makes the relay forget an account.
pub(crate) const FORGET_PATH: &str = "/accounts/forget";

/// The account to forget. The request is JSON, which a page in a browser cannot send here without a preflight.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Forget {
    /// Its bare JID.
    pub(crate) account: String,
}

/// Returns the routes.
pub(crate) fn routes(trail: Trail, forgetting: Forgetting) -> Router {
    let forget = post(async move |Json(Forget { account }): Json<Forget>| match account.parse::<BareJid>() {
        Err(_) => StatusCode::BAD_REQUEST,
        Ok(account) => match forgetting.forget(account) {
            true => StatusCode::ACCEPTED,
            // The relay stands by, and holds nothing.
            false => StatusCode::NO_CONTENT,
        },
    });
    Router::new()
        .route(FORGET_PATH, forget)
        .route("/pushes/{id}", get(push))
        .route("/registrations/{id}/pushes", get(pushes))
        .with_state(trail)
}

async fn push(State(trail): State<Trail>, Path(id): Path<MessageId>) -> Result<Json<Told>, StatusCode> {
    let trace = trail.find(id).ok_or(StatusCode::NOT_FOUND)?;
    Ok(Json(Told::of(id, trace)))
}

async fn pushes(State(trail): State<Trail>, Path(id): Path<RegistrationId>) -> Json<Vec<Told>> {
    let last = trail.of_registration(id, LAST_MAX);
    Json(last.into_iter().map(|(id, trace)| Told::of(id, trace)).collect())
}
