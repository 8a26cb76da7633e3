//! The unread rest of a refused request's body. The server reads it before it answers: if the connection closes while
//! the client still sends, the client may never see the answer.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::header::EXPECT,
};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;

/// Most bytes of the rest that are read. A client that sends more may lose the answer.
const REST_BYTES_MAX: usize = 65_536;
/// Longest time to wait for the rest.
const REST_TIMEOUT: Duration = Duration::from_secs(1);

/// A body whose rest can be read after its reader has stopped.
#[derive(Debug, Clone)]
struct Shared(Arc<Mutex<Body>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.lock()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().size_hint()
    }
}

/// The rest of a request's body.
pub(crate) struct Unread(Option<Shared>);

impl Unread {
    /// Splits off the rest of a request's body; the request still has the body. A client that sends `Expect` (RFC 9110
    /// §10.1.1) sends no body unasked, so there is no rest.
    pub(crate) fn of(request: Request) -> (Request, Self) {
        if request.body().is_end_stream() || request.headers().contains_key(EXPECT) {
            return (request, Self(None));
        }
        let (head, body) = request.into_parts();
        let body = Shared(Arc::new(Mutex::new(body)));
        (Request::from_parts(head, Body::new(body.clone())), Self(Some(body)))
    }

    /// Reads the rest, unless it is long or slow.
    pub(crate) async fn read(self) {
        if let Some(rest) = self.0
            && rest.size_hint().lower() <= REST_BYTES_MAX as u64
        {
            let _ = timeout(REST_TIMEOUT, Limited::new(rest, REST_BYTES_MAX).collect()).await;
        }
    }
}
