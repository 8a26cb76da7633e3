//! One connection: its phase, and the time limit of each phase.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::head::Head;
use super::socket::Socket;

/// Longest time to receive the head of a request. For the first request, it includes the TLS handshake.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time to receive the rest of a request. The ingress itself answers 408 after 10 s.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest time for an answer. The ingress takes at most 2 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest idle time of a connection. Longer than the minute for which nginx keeps idle connections.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Most bytes of a request's head, and of the part of a body that is in memory at a time.
const BUFFER_BYTES_MAX: usize = 16 * 1024;

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No bytes have come yet.
    Fresh { since: Instant },
    /// A request is being received.
    Receiving { since: Instant, until: Instant },
    /// A request was received, and is not answered yet.
    Answering,
    /// The last request is answered.
    Idle { since: Instant },
}

impl Phase {
    /// Returns the time since which a request is incomplete, if one is.
    pub(crate) fn incomplete_since(self) -> Option<Instant> {
        match self {
            Self::Fresh { since } | Self::Receiving { since, .. } => Some(since),
            Self::Answering | Self::Idle { .. } => None,
        }
    }

    fn deadline(self, now: Instant) -> Instant {
        match self {
            Self::Fresh { since } => since + HEAD_TIMEOUT,
            Self::Receiving { until, .. } => until,
            Self::Answering => now + ANSWER_TIMEOUT,
            Self::Idle { since } => since + IDLE_TIMEOUT,
        }
    }
}

/// The end of a connection.
pub(crate) enum End {
    /// The connection ended by either side, or to make room.
    Over,
    /// A request did not come in time.
    Slow,
}

/// Answers the requests of one connection, which is open since `since`. Returns when it is closed, when a time limit is
/// over, when `closing` is cancelled, or when the server stops. Calls `note` with each new phase.
pub(crate) async fn attend(
    socket: Socket,
    since: Instant,
    router: Router,
    stop: &CancellationToken,
    closing: &CancellationToken,
    note: impl Fn(Phase),
) -> End {
    let progress = Progress::new(since);
    let service = service_fn(|request| answer(request, router.clone(), progress.clone()));
    let io = TokioIo::new(Observed { socket, progress: progress.clone() });
    let mut builder = http1::Builder::new();
    // hyper's timeout would begin at the end of the last request, and close idle connections.
    builder.header_read_timeout(None).max_buf_size(BUFFER_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(io, service));
    let (mut stopped, mut told) = (pin!(stop.cancelled()), pin!(closing.cancelled()));
    let mut known = progress.phase();
    let mut timer = pin!(sleep_until(known.deadline(Instant::now())));
    let mut is_stopping = false;
    poll_fn(|cx| {
        if told.as_mut().poll(cx).is_ready() {
            return Poll::Ready(End::Over);
        }
        if !is_stopping && stopped.as_mut().poll(cx).is_ready() {
            if matches!(progress.phase(), Phase::Fresh { .. }) {
                return Poll::Ready(End::Over);
            }
            is_stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        // An error concerns the peer alone. hyper has answered it if it could.
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(End::Over);
        }
        let phase = progress.phase();
        if phase != known {
            known = phase;
            note(phase);
            timer.as_mut().reset(phase.deadline(Instant::now()));
        }
        timer.as_mut().poll(cx).map(|()| match phase {
            Phase::Idle { .. } => End::Over,
            Phase::Fresh { .. } | Phase::Receiving { .. } | Phase::Answering => End::Slow,
        })
    })
    .await
}

async fn answer(
    request: Request<Incoming>,
    router: Router,
    progress: Progress,
) -> Result<Response, Infallible> {
    let framing = progress.framing();
    if framing == Framing::Ambiguous {
        return Ok((StatusCode::BAD_REQUEST, [(header::CONNECTION, "close")]).into_response());
    }
    let is_last = framing == Framing::Unseen && request.headers().contains_key(header::TRANSFER_ENCODING);
    if request.body().is_end_stream() {
        progress.complete();
    } else {
        progress.expect_body(Instant::now());
    }
    let body = |incoming| Body::new(ObservedBody { incoming, progress: progress.clone() });
    let mut response = router.oneshot(request.map(body)).await?;
    if is_last {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    progress.answered(Instant::now());
    Ok(response)
}

/// The headers by which a head tells the end of its request.
#[derive(Debug, PartialEq, Eq)]
enum Framing {
    /// At most one such header.
    Clear,
    /// Both headers: the request is refused (RFC 9112 §6.3).
    Ambiguous,
    /// The head was not inspected, since it came directly behind another request. If it has a `Transfer-Encoding`, that
    /// counts, and the connection is closed after the request (RFC 9112 §6.1).
    Unseen,
}

/// The phase of a connection, which its socket, its requests' bodies and its answers update.
#[derive(Clone)]
struct Progress(Arc<Mutex<State>>);

struct State {
    phase: Phase,
    /// The head that is being received; `None`: the next bytes may not begin a head.
    head: Option<Head>,
}

impl Progress {
    fn new(since: Instant) -> Self {
        Self(Arc::new(Mutex::new(State { phase: Phase::Fresh { since }, head: Some(Head::default()) })))
    }

    fn phase(&self) -> Phase {
        self.0.lock().phase
    }

    /// Notes bytes that have come.
    fn received(&self, bytes: &[u8], now: Instant) {
        let mut state = self.0.lock();
        match state.phase {
            Phase::Fresh { since } => {
                state.phase = Phase::Receiving { since, until: since + HEAD_TIMEOUT };
            }
            Phase::Idle { .. } => state.phase = Phase::Receiving { since: now, until: now + HEAD_TIMEOUT },
            Phase::Receiving { .. } | Phase::Answering => {}
        }
        if let Some(head) = &mut state.head {
            head.read(bytes);
        }
    }

    /// Returns how the received head tells the end of its request.
    fn framing(&self) -> Framing {
        match self.0.lock().head.take() {
            Some(head) if head.is_ambiguous() => Framing::Ambiguous,
            Some(head) if head.is_whole() => Framing::Clear,
            Some(_) | None => Framing::Unseen,
        }
    }

    fn expect_body(&self, now: Instant) {
        let mut state = self.0.lock();
        if let Phase::Receiving { since, .. } = state.phase {
            state.phase = Phase::Receiving { since, until: now + BODY_TIMEOUT };
        }
    }

    fn complete(&self) {
        self.0.lock().phase = Phase::Answering;
    }

    fn answered(&self, now: Instant) {
        let mut state = self.0.lock();
        // The next bytes may be the unread rest of a body.
        let is_whole = state.phase == Phase::Answering;
        state.head = is_whole.then(Head::default);
        state.phase = Phase::Idle { since: now };
    }
}

/// A socket whose reads are observed.
struct Observed {
    socket: Socket,
    progress: Progress,
}

impl AsyncRead for Observed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        let came = &buffer.filled()[before..];
        if !came.is_empty() {
            self.progress.received(came, Instant::now());
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Observed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

/// A body whose end is observed.
struct ObservedBody {
    incoming: Incoming,
    progress: Progress,
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if frame.is_none() || self.incoming.is_end_stream() {
            self.progress.complete();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
