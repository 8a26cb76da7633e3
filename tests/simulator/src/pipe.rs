//! A connection between a relay and the XMPP server carries bytes in both directions. It can stall or break.

use std::{
    collections::VecDeque,
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use relay::{Connect, ConnectError};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::sleep,
};

/// One life of a relay's process: each start begins another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Life {
    pub(crate) process: usize,
    pub(crate) number: u64,
}

#[derive(Debug)]
struct State {
    to_server: Vec<u8>,
    to_relay: VecDeque<u8>,
    reads: Option<Waker>,
    writes: Option<Waker>,
    broken: bool,
    hung_up: bool,
    stalled: bool,
    /// True if the server's end has vanished: writes succeed, and go nowhere.
    deaf: bool,
    /// True if the relay tried to write while the connection was stalled.
    caught: bool,
}

impl State {
    fn wake(&mut self) {
        self.reads.take().into_iter().chain(self.writes.take()).for_each(Waker::wake);
    }
}

/// Both ends of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Pipe {
    pub(crate) life: Life,
    state: Arc<Mutex<State>>,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the bytes that the relay has written. `true`: it decided to write them before a pause.
    pub(crate) fn take(&self) -> (Vec<u8>, bool) {
        let mut state = self.lock();
        let bytes = std::mem::take(&mut state.to_server);
        let caught = state.caught && !bytes.is_empty();
        state.caught &= !caught;
        (bytes, caught)
    }

    /// Returns whether the relay has closed its end.
    pub(crate) fn is_hung_up(&self) -> bool {
        self.lock().hung_up
    }

    pub(crate) fn write(&self, text: &str) {
        let mut state = self.lock();
        state.to_relay.extend(text.as_bytes());
        state.wake();
    }

    /// Closes the server's end.
    pub(crate) fn hang_up(&self) {
        let mut state = self.lock();
        state.broken = true;
        state.wake();
    }

    /// Removes the server's end without telling the relay.
    pub(crate) fn vanish(&self) {
        self.lock().deaf = true;
    }

    /// Stops the connection, or lets it go on: a stalled one lets the relay read and write nothing.
    pub(crate) fn stall(&self, stalled: bool) {
        let mut state = self.lock();
        state.stalled = stalled;
        state.wake();
    }
}

/// The relay's end of a [`Pipe`].
#[derive(Debug)]
pub(crate) struct Connection {
    pipe: Pipe,
    hub: Arc<Hub>,
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.pipe.lock();
        if state.stalled || (state.to_relay.is_empty() && !state.broken) {
            state.reads = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = state.to_relay.len().min(buffer.remaining());
        let bytes: Vec<u8> = state.to_relay.drain(..count).collect();
        buffer.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.pipe.lock();
        if state.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.stalled {
            state.caught = true;
            state.writes = Some(context.waker().clone());
            return Poll::Pending;
        }
        if !state.deaf {
            state.to_server.extend_from_slice(bytes);
        }
        self.hub.news.notify_one();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe.lock().hung_up = true;
        self.hub.news.notify_one();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.pipe.lock().hung_up = true;
        self.hub.news.notify_one();
    }
}

/// The XMPP server's port for components: relays connect to it, and the server accepts their connections.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    /// Notified when bytes, or the end of a connection, have come for the server.
    pub(crate) news: Notify,
    port: Mutex<Port>,
}

#[derive(Debug, Default)]
struct Port {
    open: bool,
    accepted: Vec<Pipe>,
}

impl Hub {
    fn port(&self) -> MutexGuard<'_, Port> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self, open: bool) {
        self.port().open = open;
    }

    /// Takes the connections that were made since the last call.
    pub(crate) fn accept(&self) -> Vec<Pipe> {
        std::mem::take(&mut self.port().accepted)
    }
}

/// One relay's way to the server.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    pub(crate) life: Life,
    pub(crate) hub: Arc<Hub>,
}

impl fmt::Display for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated server")
    }
}

impl Connect for Connector {
    type Connection = Connection;

    async fn connect(&self) -> Result<Connection, ConnectError> {
        sleep(Duration::from_millis(1)).await;
        let mut port = self.hub.port();
        if !port.open {
            return Err(ConnectError::Nothing);
        }
        let state = State {
            to_server: Vec::new(),
            to_relay: VecDeque::new(),
            reads: None,
            writes: None,
            broken: false,
            hung_up: false,
            stalled: false,
            deaf: false,
            caught: false,
        };
        let pipe = Pipe { life: self.life, state: Arc::new(Mutex::new(state)) };
        port.accepted.push(pipe.clone());
        Ok(Connection { pipe, hub: Arc::clone(&self.hub) })
    }
}
