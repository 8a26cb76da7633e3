//! Stands in for an XMPP server with its users: the server's half of one component connection (XEP-0114), and thousands
//! of phones that exist only in a table. A real server with as many sessions would be measured instead of Upwire.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use e2e::bench::{BODY_BYTES, Journal, stanza};
use e2e::{Component, UNIFIED_PUSH, hashed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

const READ_BUFFER_BYTES: usize = 256 << 10;
/// Most stanzas that the component has not read yet.
const UNREAD_MAX: usize = 1 << 18;
const ANSWER_DEADLINE: Duration = Duration::from_secs(120);
const BODY_BASE64_BYTES: usize = BODY_BYTES.div_ceil(3) * 4;

/// A full JID's way of treating a push.
#[derive(Clone)]
pub(crate) enum Temper {
    /// The push is noted in the journal, and answered at once.
    Answers(Rc<Journal>),
    /// The push is taken, and never answered.
    Silent,
}

/// A stand-in for an XMPP server. It answers for a full JID without a temper that the phone is away.
pub(crate) struct StandIn {
    /// Upwire's component.
    pub(crate) component: Component,
    address: String,
    phones: RefCell<HashMap<String, Temper>>,
    /// The unanswered registrations, by the id of their IQ.
    asked: RefCell<HashMap<String, oneshot::Sender<anyhow::Result<String>>>>,
    asks: Cell<u64>,
    to_component: mpsc::Sender<Vec<u8>>,
}

impl StandIn {
    /// Listens for the component, and takes its first connection.
    pub(crate) async fn start(component: Component) -> anyhow::Result<Rc<Self>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (to_component, stanzas) = mpsc::channel(UNREAD_MAX);
        let stand_in = Rc::new(Self {
            component,
            address: listener.local_addr()?.to_string(),
            phones: RefCell::default(),
            asked: RefCell::default(),
            asks: Cell::default(),
            to_component,
        });
        let server = Rc::clone(&stand_in);
        tokio::task::spawn_local(async move {
            if let Err(error) = server.serve(listener, stanzas).await {
                eprintln!("the component's connection has ended: {error:#}");
            }
        });
        Ok(stand_in)
    }

    /// Returns the address to which the component connects.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Puts a full JID online, and sends its directed presence.
    pub(crate) fn come(&self, jid: &str, temper: Temper) {
        self.phones.borrow_mut().insert(jid.to_owned(), temper);
        self.send(format!("<presence from='{jid}' to='{}'/>", self.component.jid));
    }

    /// Ends the session of a full JID.
    pub(crate) fn leave(&self, jid: &str) {
        self.phones.borrow_mut().remove(jid);
        self.send(format!("<presence type='unavailable' from='{jid}' to='{}'/>", self.component.jid));
    }

    /// Registers an application, or renews its registration. Returns the endpoint.
    pub(crate) async fn register(&self, jid: &str, application: usize) -> anyhow::Result<String> {
        let id = format!("r{}", self.asks.replace(self.asks.get() + 1));
        let (answer, answered) = oneshot::channel();
        self.asked.borrow_mut().insert(id.clone(), answer);
        let (application, instance) = (hashed(&format!("application {application}")), hashed("instance"));
        self.send(format!(
            "<iq type='set' id='{id}' from='{jid}' to='{}'><register xmlns='{UNIFIED_PUSH}' \
             application='{application}' instance='{instance}'/></iq>",
            self.component.jid
        ));
        timeout(ANSWER_DEADLINE, answered).await.with_context(|| format!("{id} is not answered"))??
    }

    fn send(&self, stanza: String) {
        let sent = self.to_component.try_send(stanza.into_bytes());
        // The channel is closed only at the end of the run.
        assert!(!matches!(sent, Err(mpsc::error::TrySendError::Full(_))), "the component reads too slowly");
    }

    async fn serve(
        self: Rc<Self>,
        listener: TcpListener,
        stanzas: mpsc::Receiver<Vec<u8>>,
    ) -> anyhow::Result<()> {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (reading, writing) = self.let_in(stream).await?.into_split();
        tokio::task::spawn_local(write(writing, stanzas));
        self.read(reading).await
    }

    /// Accepts the handshake of the component, without a check of the secret.
    async fn let_in(&self, mut stream: TcpStream) -> anyhow::Result<TcpStream> {
        let mut unread = Vec::new();
        read_past(&mut stream, &mut unread, b"<stream:stream").await?;
        let header = format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
             xmlns:stream='http://etherx.jabber.org/streams' id='stand-in' from='{}'>",
            self.component.jid
        );
        stream.write_all(header.as_bytes()).await?;
        read_past(&mut stream, &mut unread, b"</handshake").await?;
        stream.write_all(b"<handshake/>").await?;
        Ok(stream)
    }

    async fn read(&self, mut stream: OwnedReadHalf) -> anyhow::Result<()> {
        let mut unread = Vec::with_capacity(READ_BUFFER_BYTES);
        loop {
            let (now, mut taken) = (Instant::now(), 0);
            while let Some(length) = stanza_length(&unread[taken..]) {
                self.take(&unread[taken..taken + length], now)?;
                taken += length;
            }
            unread.drain(..taken);
            if stream.read_buf(&mut unread).await? == 0 {
                bail!("closed");
            }
        }
    }

    fn take(&self, stanza: &[u8], now: Instant) -> anyhow::Result<()> {
        let head = stanza.split(|byte| *byte == b'>').next().unwrap_or_default();
        let attribute = |name| stanza::attribute(head, name).map(String::from_utf8_lossy).unwrap_or_default();
        let id = attribute("id");
        match &*attribute("type") {
            "get" | "set" => self.request(stanza, &id, &attribute("to"), now),
            "result" | "error" => {
                let Some(asker) = self.asked.borrow_mut().remove(&*id) else { return Ok(()) };
                let endpoint = endpoint(stanza).with_context(|| String::from_utf8_lossy(stanza).into_owned());
                // The caller may have given up.
                let _ = asker.send(endpoint);
            }
            // Presence.
            _ => {}
        }
        Ok(())
    }

    fn request(&self, stanza: &[u8], id: &str, to: &str, now: Instant) {
        let component = &self.component.jid;
        let result = || format!("<iq type='result' id='{id}' from='{to}' to='{component}'/>");
        let Some(body) = pushed(stanza) else { return self.send(result()) };
        match self.phones.borrow().get(to) {
            Some(Temper::Answers(journal)) => {
                journal.arrived(body, now);
                self.send(result());
            }
            Some(Temper::Silent) => {}
            None => self.send(format!(
                "<iq type='error' id='{id}' from='{to}' to='{component}'><error type='cancel'>\
                 <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
            )),
        }
    }
}

/// Writes the stanzas, as many at a time as have gathered.
async fn write(mut stream: OwnedWriteHalf, mut stanzas: mpsc::Receiver<Vec<u8>>) {
    let mut batch = Vec::new();
    while let Some(stanza) = stanzas.recv().await {
        batch.extend_from_slice(&stanza);
        while let Ok(more) = stanzas.try_recv() {
            batch.extend_from_slice(&more);
        }
        if stream.write_all(&batch).await.is_err() {
            return;
        }
        batch.clear();
    }
}

/// Reads until a tag that begins with these bytes is complete, and drops it with everything before.
async fn read_past(stream: &mut TcpStream, unread: &mut Vec<u8>, tag: &[u8]) -> anyhow::Result<()> {
    loop {
        let begin = unread.windows(tag.len()).position(|window| window == tag);
        let end =
            begin.and_then(|begin| Some(begin + unread[begin..].iter().position(|byte| *byte == b'>')?));
        if let Some(end) = end {
            unread.drain(..=end);
            return Ok(());
        }
        if stream.read_buf(unread).await? == 0 {
            bail!("closed at the handshake");
        }
    }
}

/// Returns the length of the stanza at the start, once it is complete. No stanza of Upwire's contains another of its
/// own name.
fn stanza_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.iter().position(|byte| *byte == b'>')? + 1;
    if bytes[..head].ends_with(b"/>") {
        return Some(head);
    }
    let name: &[u8] = if bytes.starts_with(b"<iq") { b"</iq>" } else { b"</presence>" };
    // The body is skipped: its base64 contains no tag.
    let from = match bytes[head..].starts_with(b"<push") {
        true => head + BODY_BASE64_BYTES.min(bytes.len() - head),
        false => head,
    };
    bytes[from..].windows(name.len()).position(|window| window == name).map(|at| from + at + name.len())
}

/// Returns the base64 of a push.
fn pushed(stanza: &[u8]) -> Option<&[u8]> {
    let mut tags = stanza.split(|byte| *byte == b'>').skip(1);
    tags.next().filter(|tag| tag.starts_with(b"<push"))?;
    tags.next()
}

fn endpoint(stanza: &[u8]) -> Option<String> {
    let registered = stanza.split(|byte| *byte == b'>').find(|tag| tag.starts_with(b"<registered"))?;
    String::from_utf8(stanza::attribute(registered, "endpoint")?.to_vec()).ok()
}
