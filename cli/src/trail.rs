//! What became of the last pushes, at the administration address: ids and moments, and no addresses.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use push::{MessageId, RegistrationId};
use relay::{Trace, Trail};
use serde::{Deserialize, Serialize};

/// Most pushes of one registration in an answer.
const LAST_MAX: usize = 20;

/// A trace as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The push.
    pub(crate) id: MessageId,
    /// Its registration.
    pub(crate) registration: RegistrationId,
    /// When it was accepted.
    pub(crate) accepted_at: DateTime<Utc>,
    /// When its time runs out.
    pub(crate) expires_at: DateTime<Utc>,
    /// What became of it ([`relay::Outcome::as_str`]).
    pub(crate) outcome: String,
    /// When that was.
    pub(crate) at: DateTime<Utc>,
    /// How often a phone answered it with an error that ends nothing.
    pub(crate) failures: u32,
    /// When it last went out without an answer.
    pub(crate) unanswered_at: Option<DateTime<Utc>>,
}

impl Told {
    fn of(id: MessageId, trace: Trace) -> Self {
        let Trace { registration, accepted_at, expires_at, outcome, at, failures, unanswered_at, .. } = trace;
        let outcome = outcome.as_str().to_owned();
        Self { id, registration, accepted_at, expires_at, outcome, at, failures, unanswered_at }
    }
}

/// Where a push is asked for.
pub(crate) fn path_of_push(id: MessageId) -> String {
    format!("/pushes/{id}")
}

/// Where the last pushes of a registration are asked for.
pub(crate) fn path_of_registration(id: RegistrationId) -> String {
    format!("/registrations/{id}/pushes")
}

/// The routes.
pub(crate) fn routes(trail: Trail) -> Router {
    Router::new()
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
