//! The ingress: takes pushes from application servers and from Matrix homeservers, checks their tokens, and queues
//! them; withdraws those that still wait.

mod aesgcm;
mod allowance;
mod cors;
mod doubt;
pub mod embedded_format;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod header;
mod jose;
mod legacy;
mod marker;
mod matrix;
mod message_resource;
mod page;
mod parameters;
mod place;
mod push_resource;
mod rejection;
mod seldom;
pub mod settings;
mod tenants;
#[cfg(test)]
mod tests;
mod unread;
mod vapid;

use std::{borrow::Cow, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::Uri,
    middleware,
    response::IntoResponse,
    routing::{delete, get, post},
};
use jid::BareJid;
use metrics::{counter, describe_counter};
use percent_encoding::percent_decode_str;
use push::{
    Clock, Secrets, Ttl,
    ports::{QueueWriter, Store, Withdrawals},
};
use tokio::sync::watch;
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;
use url::Url;

use self::{place::Place, unread::Unread};
pub use allowance::Allowance;
pub use legacy::{
    BadPasetoKey, LEGACY_LIFE, LEGACY_MAX, LEGACY_OF_DOMAIN_MAX, LegacyKeys, LegacyTally, LegacyTerms,
};
pub use marker::MarkerWatch;
pub use matrix::Dropped;
pub use rejection::{Rejection, VapidFault};
pub use seldom::Seldom;
pub use tenants::TenantWatch;

/// The path under the public URL that endpoints live at.
pub const PUSH_PATH: &str = "push";

/// The path under the public URL that push message resources live at.
const MESSAGE_PATH: &str = "message";

/// The longest that the stores and the queue together may take over a request: a gateway bans a host that needs
/// more than two seconds (docs/senders.md, "What senders do").
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);

const ACCEPTED: &str = "upwire_pushes_accepted_total";
const WITHDRAWN: &str = "upwire_pushes_withdrawn_total";
const REFUSED: &str = "upwire_pushes_refused_total";

const DOUBTED: &str = "upwire_endpoints_doubted_total";
const SHED: &str = "upwire_pushes_shed_total";

/// Describes the metrics of the ingress to the recorder.
pub fn describe_metrics() {
    describe_counter!(ACCEPTED, "Pushes answered with 201, or taken from a Matrix homeserver");
    describe_counter!(WITHDRAWN, "Pushes that their senders withdrew while they waited");
    describe_counter!(REFUSED, "Requests refused, and pushkeys rejected, by reason");
    describe_counter!(DOUBTED, "Requests answered 503, since a 404 or 410 may have been wrong, by reason");
    describe_counter!(SHED, "Pushes answered 429, since the relay is behind and they are not urgent");
    counter!(SHED).increment(0);
    counter!(ACCEPTED).increment(0);
    counter!(WITHDRAWN).increment(0);
}

/// The parts and settings of an ingress.
#[derive(Debug, Clone)]
pub struct Ingress<R, Q, M> {
    /// The registrations' store.
    pub registrations: R,
    /// The queue's writing end.
    pub queue: Q,
    /// Where pushes wait for phones that are away.
    pub mailbox: M,
    /// The secrets that endpoints and push message resources were signed with, at any time.
    pub secrets: watch::Receiver<Secrets>,
    /// The keys that endpoints of a predecessor were made with; their tokens are taken at the same path.
    pub legacy: watch::Receiver<LegacyKeys>,
    /// The terms of those endpoints.
    pub legacy_terms: LegacyTerms,
    /// The record that has to agree before an endpoint is said to have ended.
    pub marker: MarkerWatch,
    /// The rate at which pushes of one registration are taken.
    pub allowance: Allowance,
    /// The tenants, for which less may be taken.
    pub tenants: TenantWatch,
    /// Where application servers reach this ingress; the push message resources are named below it.
    /// `None`: wherever a request says that it was sent to ([`PublicUrl`]).
    pub public_url: Option<Url>,
    /// The push server that people enter on their phones; the page at the root names it.
    pub component: Option<BareJid>,
    /// The wall clock.
    pub clock: Clock,
    /// An endpoint that was refused because its life was over stays so, whatever the clock says later.
    pub remembers_refusals: bool,
    /// Matrix notifications that no push can carry.
    pub dropped: Dropped,
    /// How long a push without `TTL` is kept.
    pub default_ttl: Ttl,
    /// The longest that any push is kept.
    pub max_ttl: Ttl,
}

/// An extension of a request: where its sender reached this ingress, for one that was not told.
#[derive(Debug, Clone)]
pub struct PublicUrl(pub Url);

impl<R, Q, M> Ingress<R, Q, M> {
    /// Where senders reach it: first where they do from now on, then where this one did. Two while it moves; none if
    /// nobody says.
    fn homes<'a>(&'a self, reached_at: Option<&'a PublicUrl>) -> impl Iterator<Item = &'a Url> + Clone {
        self.public_url.iter().chain(reached_at.map(|PublicUrl(url)| url))
    }
}

impl<R: Store, Q: QueueWriter, M: Withdrawals> Ingress<R, Q, M> {
    /// The path of the route that a request's path means; `None` where that is too long to mean any.
    fn route_of<'a>(&self, path: &'a str) -> Option<Cow<'a, str>> {
        let home = self.public_url.as_ref().map_or("", Url::path);
        let elsewhere = |last: &str| {
            let token = percent_decode_str(last).decode_utf8().ok()?;
            let secrets = self.secrets.borrow();
            let route = if secrets.verify(&token).is_ok() {
                PUSH_PATH
            } else if secrets.verify_message(&token).is_ok() {
                MESSAGE_PATH
            } else {
                return None;
            };
            Some(format!("/{route}/{token}").into())
        };
        Some(match Place::of_request(path, home)? {
            Place::Page => "/".into(),
            Place::Gateway => matrix::PATH.into(),
            Place::Push(token) => format!("/{PUSH_PATH}/{token}").into(),
            Place::Message(token) => format!("/{MESSAGE_PATH}/{token}").into(),
            Place::Elsewhere(last) => elsewhere(last).unwrap_or(path.into()),
        })
    }
}

/// The ingress as a service. Which of its routes a request means is decided before they are looked at: see `place.rs`.
pub fn router<R: Store, Q: QueueWriter, M: Withdrawals>(ingress: Ingress<R, Q, M>) -> Router {
    let ingress = Arc::new(ingress);
    let routes = routes(&ingress);
    let answer = async move |request: Request| {
        let (mut request, unread) = Unread::of(request);
        let response = match ingress.route_of(request.uri().path()) {
            None => Rejection::NotFound.into_response(),
            Some(path) => {
                // No route reads a query.
                if let Ok(uri) = Uri::try_from(&*path) {
                    *request.uri_mut() = uri;
                }
                match routes.clone().oneshot(request).await {
                    Ok(response) => response,
                    Err(impossible) => match impossible {},
                }
            }
        };
        if response.status().is_client_error() || response.status().is_server_error() {
            unread.read().await;
        }
        response
    };
    Router::new()
        .fallback(answer)
        .layer(CatchPanicLayer::custom(rejection::after_a_panic))
        .layer(middleware::map_response(cors::expose))
}

fn routes<R: Store, Q: QueueWriter, M: Withdrawals>(ingress: &Arc<Ingress<R, Q, M>>) -> Router {
    let push_resource = post(push_resource::push::<R, Q, M>)
        .put(push_resource::push::<R, Q, M>)
        .get(push_resource::discover::<R, Q, M>)
        .options(async || cors::preflight(push_resource::METHODS))
        .fallback(async || Rejection::MethodNotAllowed(push_resource::METHODS));
    let message_resource = delete(message_resource::withdraw::<R, Q, M>)
        .options(async || cors::preflight(message_resource::METHODS))
        .fallback(async || Rejection::MethodNotAllowed(message_resource::METHODS));
    let matrix = post(matrix::notify::<R, Q, M>)
        .get(matrix::discover)
        .options(async || cors::preflight(matrix::METHODS))
        .fallback(matrix::other_method);
    let page = page::Page::new(ingress.component.as_ref());
    let page = get(async move || page.answer()).fallback(async || Rejection::MethodNotAllowed(page::METHODS));
    Router::new()
        .route(&format!("/{PUSH_PATH}/{{token}}"), push_resource)
        .route(&format!("/{MESSAGE_PATH}/{{token}}"), message_resource)
        .route(matrix::PATH, matrix)
        .route("/", page)
        .fallback(no_route::<R, Q, M>)
        .with_state(ingress.clone())
}

/// Refuses a path that means nothing here. Its last segment may be a token by a secret that this ingress lacks.
async fn no_route<R: Store, Q: QueueWriter, M: Withdrawals>(
    State(ingress): State<Arc<Ingress<R, Q, M>>>,
    uri: Uri,
) -> Rejection {
    let last = uri.path().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    ingress.vouch_unknown(last).await.err().unwrap_or(Rejection::NotFound)
}
