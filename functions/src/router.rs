//! Routing: finds the resource that a request is for.

use std::{borrow::Cow, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::Uri,
    middleware,
    response::IntoResponse,
    routing::{delete, get, post},
};
use percent_encoding::percent_decode_str;
use push::ports::{QueueWriter, Store, Withdrawals};
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;
use url::Url;

use crate::{
    cors,
    ingress::Ingress,
    matrix, message_resource, page,
    place::{MESSAGE_PATH, PUSH_PATH, Place},
    push_resource,
    rejection::{self, Rejection},
    unread::Unread,
};

impl<R: Store, Q: QueueWriter, M: Withdrawals> Ingress<R, Q, M> {
    /// Returns the path of the route that a request's path means; `None`: the path is too long to mean any.
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

/// Makes the ingress a service. `place.rs` decides which route a path means, before the routes are matched.
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

/// Refuses a path without a route. Its last segment may be a token that was made with a secret this ingress lacks.
async fn no_route<R: Store, Q: QueueWriter, M: Withdrawals>(
    State(ingress): State<Arc<Ingress<R, Q, M>>>,
    uri: Uri,
) -> Rejection {
    let last = uri.path().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    ingress.vouch_unknown(last).await.err().unwrap_or(Rejection::NotFound)
}
