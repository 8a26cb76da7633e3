//! A short connection as the component, for an operator who looks for a fault while no relay runs.

use std::{io, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    time::{Instant, timeout, timeout_at},
};
use tokio_xmpp::{jid::Jid, parsers::ns};

use super::{
    component::{Stream, connect, write_all},
    connect::Connect,
    failure::{CONNECT_TIMEOUT, StreamError},
    framing::{Frame, STREAM_FOOTER, serialize},
    stanza,
};
use crate::stream::component::ComponentAccount;

/// Number of pings that go out. Two connections of one name share them.
const PINGS: usize = 16;
/// Longest wait for the last of them.
const PINGS_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for the stream to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The outcome of a trial in which a stream was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// Number of pings that the component sent to itself.
    pub sent: usize,
    /// Number of these pings that came back on this connection.
    pub came_back: usize,
    /// A domain whose stanzas came instead, if any did.
    pub elsewhere: Option<String>,
}

/// The failure to open a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct NoStream {
    /// The reason, in words.
    pub problem: String,
    /// The remedy, in words for the operator.
    pub mend: &'static str,
}

impl From<StreamError> for NoStream {
    fn from(error: StreamError) -> Self {
        Self { problem: error.to_string(), mend: error.mend() }
    }
}

/// Connects as the component, pings itself, and hangs up. A relay that is connected under the same name may lose
/// stanzas meanwhile, because ejabberd spreads them over both connections.
///
/// # Errors
/// No stream could be opened.
pub async fn try_component<C: Connect>(account: &ComponentAccount<C>) -> Result<Trial, NoStream> {
    let connected = timeout(CONNECT_TIMEOUT, connect(account)).await;
    let stream = connected.unwrap_or(Err(StreamError::Timeout))?;
    Ok(ping_itself(stream, account).await.map_err(StreamError::from)?)
}

async fn ping_itself<S, C>(stream: Stream<S>, account: &ComponentAccount<C>) -> io::Result<Trial>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite,
{
    let Stream { mut reader, mut writer } = stream;
    let mut trial = Trial { sent: PINGS, came_back: 0, elsewhere: None };
    let ping = serialize(&stanza::ping(&account.component));
    write_all(&mut writer, &ping.repeat(PINGS)).await?;
    let end = Instant::now() + PINGS_TIMEOUT;
    while trial.came_back < PINGS
        && let Ok(frame) = timeout_at(end, reader.next()).await
    {
        let Frame::Element(element) = frame? else { continue };
        let to = element.attr::<str>("to").and_then(|to| to.parse::<Jid>().ok());
        match to {
            Some(to) if to.domain() != account.component.domain() => {
                trial.elsewhere = Some(to.domain().as_str().to_owned());
            }
            Some(_) if element.has_child("ping", ns::PING) => trial.came_back += 1,
            _ => {}
        }
    }
    // Best effort: the trial is over.
    let _ = timeout(CLOSE_TIMEOUT, async {
        write_all(&mut writer, STREAM_FOOTER).await?;
        writer.shutdown().await
    })
    .await;
    Ok(trial)
}
