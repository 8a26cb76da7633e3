//! Sole owner of the stream to the XMPP server (XEP-0114): connects, authenticates, reads, writes,
//! pings, and connects again.

use std::{future::pending, io, time::Duration};

use metrics::{counter, gauge};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{mpsc, watch},
    task::yield_now,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_xmpp::{jid::BareJid, minidom::Element, parsers::component::Handshake};

pub(crate) use super::inbox::{Event, StreamNumber};
use super::{
    connect::{Connect, ServerAddress},
    failure::{CONNECT_TIMEOUT, SILENCE_MAX, StreamError},
    framing::{Frame, FrameReader, STREAM_FOOTER, serialize, stream_header},
    inbox::Inbox,
    reconnect::Reconnect,
    stanza,
};
use crate::{
    clock::STANDSTILL,
    lease::Fence,
    measures::{RECONNECTS, STREAM_UP},
    mutants::{Mutant, mutant},
};

/// Silence after which a ping asks whether the stream lives.
const PING_AFTER: Duration = Duration::from_secs(10);
/// Time after a standstill to read what came meanwhile.
const TO_WAKE: Duration = Duration::from_secs(1);
/// Longest wait for the end of a stream that was lost.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for the end of a stream that we close. Until it ends, ejabberd gives it answers that are meant for the
/// next stream.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most stanzas written at once.
const WRITE_BATCH_MAX: usize = 128;

/// A push for one stream.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) stream: StreamNumber,
    pub(crate) xml: String,
}

/// The component's account at the XMPP server.
#[derive(Clone)]
pub struct ComponentAccount<C = ServerAddress> {
    /// The component's name, a domain.
    pub component: BareJid,
    /// The secret shared with the server. Each connection takes the one that is current then.
    pub secret: watch::Receiver<String>,
    /// The way to the server's port for components.
    pub server: C,
}

/// The stream's side of the channels.
pub(crate) struct Component<C> {
    pub(crate) account: ComponentAccount<C>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) pushes: mpsc::Receiver<Outgoing>,
    pub(crate) replies: mpsc::Receiver<String>,
    /// True while there is a stream. The relay's readiness goes by it.
    pub(crate) connected: watch::Sender<bool>,
    /// The fence past which nothing is written.
    pub(crate) fence: Fence,
}

/// A stream after its handshake.
pub(super) struct Stream<S> {
    pub(super) reader: FrameReader<ReadHalf<S>>,
    pub(super) writer: WriteHalf<S>,
}

/// The end of a stream.
enum End {
    /// The relay stops: nobody is left to send.
    Stopped,
    Lost(StreamError),
}

impl<C: Connect> Component<C> {
    /// Keeps a stream up until nobody is left to send on it.
    pub(crate) async fn run(mut self) {
        let mut reconnect = Reconnect::new(self.account.server.is_on_this_machine());
        let mut number = StreamNumber(0);
        let mut inbox = Inbox::new(self.account.component.clone(), self.events.clone());
        loop {
            let connecting = timeout(CONNECT_TIMEOUT, connect(&self.account));
            let connected = tokio::select! {
                biased;
                connected = connecting => connected.unwrap_or(Err(StreamError::Timeout)),
                () = discard(&mut self.replies, &mut self.pushes) => return,
            };
            let (error, was_up) = match connected {
                Ok(stream) => {
                    number = StreamNumber(number.0 + 1);
                    let since = Instant::now();
                    match self.hold(stream, number, &mut inbox).await {
                        End::Stopped => return,
                        End::Lost(error) => {
                            reconnect.note_stream(since.elapsed());
                            (error, true)
                        }
                    }
                }
                Err(error) => (error, false),
            };
            self.tell(&error, was_up, &mut reconnect);
            tokio::select! {
                biased;
                () = sleep(reconnect.next_delay()) => {}
                () = discard(&mut self.replies, &mut self.pushes) => return,
            }
        }
    }

    /// Reports why there is no stream. A server that stops in good order is no failure, unless it stays away.
    fn tell(&self, error: &StreamError, was_up: bool, reconnect: &mut Reconnect) {
        let (component, server, now) = (&self.account.component, &self.account.server, Instant::now());
        if was_up && error.is_orderly() && reconnect.note_stop(now) {
            tracing::info!(%component, %server, %error, "the XMPP server has closed the stream, as when it stops or restarts: connecting again");
        } else if error.is_absence() && reconnect.is_restart(now) {
            tracing::debug!(%component, %server, %error, "the XMPP server is not back yet");
        } else if reconnect.note_failure(&error.to_string(), now) {
            tracing::error!(%component, %server, %error, mend = error.mend(), "no stream to the XMPP server");
        }
    }

    /// Announces a stream, carries it to its end, and announces the end.
    async fn hold<S: AsyncRead + AsyncWrite>(
        &mut self,
        stream: Stream<S>,
        number: StreamNumber,
        inbox: &mut Inbox,
    ) -> End {
        tracing::info!(component = %self.account.component, server = %self.account.server, "connected to the XMPP server");
        if number.0 > 1 {
            counter!(RECONNECTS).increment(1);
        }
        gauge!(STREAM_UP).set(1.0);
        inbox.tell(Event::Online(number)).await;
        self.connected.send_replace(true);

        let end = self.carry(stream, number, inbox).await;

        self.connected.send_replace(false);
        gauge!(STREAM_UP).set(0.0);
        inbox.tell(Event::Offline).await;
        end
    }

    /// Reads and writes a stream independently, so that neither a full channel nor a full socket makes them wait for
    /// each other.
    async fn carry<S: AsyncRead + AsyncWrite>(
        &mut self,
        stream: Stream<S>,
        number: StreamNumber,
        inbox: &mut Inbox,
    ) -> End {
        let Stream { mut reader, mut writer } = stream;
        let (heard, last_heard) = watch::channel(Instant::now());
        let end = {
            let reading = read(&mut reader, inbox, &heard);
            let ping = stanza::ping(&self.account.component);
            let outgoing = (&mut self.replies, &mut self.pushes);
            let writing = write(&mut writer, outgoing, number, &ping, last_heard, &self.fence);
            // Writing is polled first: it comes to wait for answers in the end. A flood that is read could use up the
            // turn of this task each time.
            tokio::select! {
                biased;
                end = writing => end,
                error = reading => End::Lost(error),
            }
        };
        // Best effort: the other side may be gone.
        let footer = async {
            write_all(&mut writer, STREAM_FOOTER).await?;
            writer.shutdown().await?;
            while !matches!(reader.next().await?, Frame::Closed) {}
            io::Result::Ok(())
        };
        let patience = if matches!(end, End::Stopped) { CLOSE_TIMEOUT } else { ABANDON_TIMEOUT };
        let _ = timeout(patience, footer).await;
        end
    }
}

/// Throws away stanzas for a stream that has ended, until nobody is left to send.
async fn discard(replies: &mut mpsc::Receiver<String>, pushes: &mut mpsc::Receiver<Outgoing>) {
    loop {
        tokio::select! {
            biased;
            reply = replies.recv() => if reply.is_none() { return },
            Some(_) = pushes.recv(), if !mutant(Mutant::OldStream) => {}
        }
    }
}

pub(super) async fn connect<C: Connect>(
    account: &ComponentAccount<C>,
) -> Result<Stream<C::Connection>, StreamError> {
    let (reader, mut writer) = tokio::io::split(account.server.connect().await?);
    let mut reader = FrameReader::new(reader);

    let opening = async {
        write_all(&mut writer, &stream_header(account.component.as_str())).await?;
        reader.next().await
    };
    let id = match opening.await {
        Ok(Frame::Opened(id)) => id,
        // A port that speaks TLS hangs up on plain text without a word, or resets the connection.
        Ok(_) => return Err(StreamError::Unopened),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error.into()),
        Err(_) => return Err(StreamError::Unopened),
    };
    let handshake = Handshake::from_stream_id_and_password(id, account.secret.borrow().as_str());
    write_all(&mut writer, &String::from(&Element::from(handshake))).await?;
    match reader.next().await? {
        Frame::Element(element) if element.name() == "handshake" => Ok(Stream { reader, writer }),
        frame => Err(StreamError::of(&frame).unwrap_or(StreamError::Closed)),
    }
}

/// Writes the whole text, and flushes what TLS keeps back.
pub(super) async fn write_all<S: AsyncWrite>(writer: &mut WriteHalf<S>, text: &str) -> io::Result<()> {
    writer.write_all(text.as_bytes()).await?;
    writer.flush().await
}

/// Passes stanzas on until the stream ends.
async fn read<S: AsyncRead>(
    reader: &mut FrameReader<ReadHalf<S>>,
    inbox: &mut Inbox,
    heard: &watch::Sender<Instant>,
) -> StreamError {
    loop {
        let frame = match reader.next().await {
            Ok(frame) => frame,
            // Over TLS, this is an end that the server did not announce.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return StreamError::Closed,
            Err(error) => return StreamError::Io(error),
        };
        heard.send_replace(Instant::now());
        if let Some(error) = StreamError::of(&frame) {
            return error;
        }
        if inbox.take(frame).await.is_err() {
            // The relay stops. The writing side ends the stream when it has written all.
            return pending().await;
        }
    }
}

/// Writes replies and pushes, and pings when nothing comes, until nobody is left to send.
async fn write<S: AsyncWrite>(
    writer: &mut WriteHalf<S>,
    (replies, pushes): (&mut mpsc::Receiver<String>, &mut mpsc::Receiver<Outgoing>),
    number: StreamNumber,
    ping: &Element,
    last_heard: watch::Receiver<Instant>,
    fence: &Fence,
) -> End {
    let (mut reply_batch, mut push_batch) = (Vec::new(), Vec::new());
    let mut pinged_at = None;
    let mut woken_at: Option<Instant> = None;
    loop {
        let heard = *last_heard.borrow();
        let pinged = pinged_at.is_some_and(|pinged| pinged > heard);
        let quiet_until = heard + if pinged { SILENCE_MAX } else { PING_AFTER };
        let quiet_until = woken_at.map_or(quiet_until, |woken| quiet_until.max(woken + TO_WAKE));
        let mut bytes = String::new();
        tokio::select! {
            biased;
            () = sleep_until(quiet_until), if !pinged || !mutant(Mutant::SilenceIgnored) => {
                // Something may have come since.
                if *last_heard.borrow() != heard {
                    continue;
                }
                if quiet_until.elapsed() >= STANDSTILL {
                    woken_at = Some(Instant::now());
                    continue;
                }
                if pinged {
                    return End::Lost(StreamError::Silent);
                }
                pinged_at = Some(Instant::now());
                bytes = serialize(ping);
            }
            count = replies.recv_many(&mut reply_batch, WRITE_BATCH_MAX) => if count == 0 {
                return End::Stopped;
            },
            _ = pushes.recv_many(&mut push_batch, WRITE_BATCH_MAX), if !pushes.is_closed() => {}
        }
        // Other stanzas that are ready join this write.
        yield_now().await;
        // Replies without end must not hold up pushes.
        while push_batch.len() < WRITE_BATCH_MAX
            && let Ok(push) = pushes.try_recv()
        {
            push_batch.push(push);
        }
        bytes.extend(reply_batch.drain(..));
        let current = push_batch.drain(..).filter(|push| push.stream == number || mutant(Mutant::OldStream));
        bytes.extend(current.map(|push| push.xml));
        // If the lease is lost, the relay is told of it, and ends this task.
        fence.held().await;
        // A socket that takes nothing for 25 s is as dead as one that gives nothing.
        match timeout(SILENCE_MAX, write_all(writer, &bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return End::Lost(error.into()),
            Err(_) => return End::Lost(StreamError::Silent),
        }
    }
}

#[cfg(test)]
mod tests;
