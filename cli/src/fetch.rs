//! Single HTTP requests of commands.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Request};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::health::reachable;

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Longest wait for an administration address, which is on this machine.
const ADMIN_PATIENCE: Duration = Duration::from_secs(3);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status code.
    pub(crate) status: u16,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Bytes,
}

impl Answer {
    /// Returns the body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request over a connection, and reads the answer.
pub(crate) async fn ask<S>(stream: S, request: Request<Body>) -> anyhow::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let asking = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = to_bytes(Body::new(body), ANSWER_BYTES_MAX).await?;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    };
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => answer,
        // The connection may end with the answer, if the answer closes it.
        ended = connection => {
            ended?;
            asking.await
        }
    }
}

/// Asks the administration address of a running process.
pub(crate) async fn ask_admin(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    send_admin(address, Request::get(path).header("host", address.to_string()).body(Body::empty())?).await
}

/// POSTs JSON to the administration address of a running process.
pub(crate) async fn post_admin(address: SocketAddr, path: &str, json: String) -> anyhow::Result<Answer> {
    let request = Request::post(path).header("host", address.to_string());
    let request = request.header("content-type", "application/json").header("content-length", json.len());
    send_admin(address, request.body(Body::from(json))?).await
}

async fn send_admin(address: SocketAddr, request: Request<Body>) -> anyhow::Result<Answer> {
    let address = reachable(address);
    let asking = async { ask(TcpStream::connect(address).await?, request).await };
    let asked = timeout(ADMIN_PATIENCE, asking).await.map_err(|_| anyhow!("no answer in time")).flatten();
    asked.with_context(|| format!("no upwire answers at {address} (UPWIRE_ADMIN_LISTEN)"))
}
