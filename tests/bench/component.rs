//! The ceiling of an XMPP server: a component with no sender before it and no store behind it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::bench::{BODY_BYTES, Journal, TAG_BYTES, stanza};
use e2e::{Component, UNIFIED_PUSH, XmppServer, hashed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_xmpp::jid::FullJid;
use tokio_xmpp::parsers::component::Handshake;

const READ_BUFFER_BYTES: usize = 256 << 10;
/// Longest wait for an answer. After it, the server has lost a push.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// A component that only pushes.
pub(crate) struct BareComponent {
    stream: TcpStream,
    unread: Vec<u8>,
    pushes: Vec<Push>,
}

/// A push to one phone. It is written once, and only its tag changes.
struct Push {
    bytes: Vec<u8>,
    body_at: usize,
    id_at: usize,
}

impl BareComponent {
    /// Connects as a fresh component of `server` that pushes to these phones in turn.
    pub(crate) async fn connect(server: &XmppServer, phones: &[FullJid]) -> anyhow::Result<Self> {
        let component = server.component();
        let stream = TcpStream::connect(server.component_address()).await?;
        stream.set_nodelay(true)?;
        let pushes = phones.iter().map(|phone| Push::new(&component, phone)).collect::<Result<_, _>>()?;
        let mut bare = Self { stream, unread: Vec::with_capacity(READ_BUFFER_BYTES), pushes };
        bare.log_in(&component).await.context("a bare component logs in")?;
        Ok(bare)
    }

    async fn log_in(&mut self, component: &Component) -> anyhow::Result<()> {
        let open = format!(
            "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' \
             to='{}'>",
            component.jid
        );
        self.stream.write_all(open.as_bytes()).await?;
        self.read_until(b"<stream:stream").await?;
        let id = stanza::attribute(&self.unread, "id").context("a stream without id")?;
        let id = String::from_utf8(id.to_vec())?;
        self.unread.clear();
        let hash = Handshake::from_stream_id_and_password(id, &component.secret).data.context("a hash")?;
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        self.stream.write_all(format!("<handshake>{hash}</handshake>").as_bytes()).await?;
        self.read_until(b"<handshake").await?;
        self.unread.clear();
        Ok(())
    }

    /// Reads until a tag that begins with these bytes is complete.
    async fn read_until(&mut self, tag: &[u8]) -> anyhow::Result<()> {
        loop {
            let begin = self.unread.windows(tag.len()).position(|window| window == tag);
            if begin.is_some_and(|begin| self.unread[begin..].contains(&b'>')) {
                return Ok(());
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        let read = timeout(ANSWER_DEADLINE, self.stream.read_buf(&mut self.unread)).await;
        if read.context("the server answers nothing any more")?? == 0 {
            bail!("the server closed the stream: {}", String::from_utf8_lossy(&self.unread));
        }
        Ok(())
    }

    /// Sends as fast as it can, with at most `bound` pushes unanswered. Returns when nothing is left to send and
    /// everything is answered.
    pub(crate) async fn run(
        &mut self,
        bound: usize,
        journal: &Journal,
        left: Rc<Cell<usize>>,
    ) -> anyhow::Result<()> {
        let (mut unanswered, mut next) = (0, 0);
        let mut batch = Vec::new();
        loop {
            while unanswered < bound && left.get() > 0 {
                left.set(left.get() - 1);
                let place = next % self.pushes.len();
                let (number, tag) = journal.posted(None);
                batch.extend_from_slice(self.pushes[place].tagged(&tag));
                // No push server is in between that could accept the push later.
                journal.accepted(number);
                unanswered += 1;
                next += 1;
            }
            self.stream.write_all(&batch).await?;
            batch.clear();
            if unanswered == 0 {
                return Ok(());
            }
            self.read().await?;
            let mut taken = 0;
            while let Some(length) = stanza::answer(&self.unread[taken..])? {
                taken += length;
                ensure!(unanswered > 0, "more answers than pushes");
                unanswered -= 1;
            }
            self.unread.drain(..taken);
        }
    }
}

impl Push {
    fn new(component: &Component, phone: &FullJid) -> anyhow::Result<Self> {
        const ID_PLACE: &str = "IDENTIFIER-IDENT"; // As long as a tag in base64.
        let (application, instance) = (hashed("bench"), hashed("instance"));
        let body: Vec<u8> = (0..BODY_BYTES).map(|place| (place * 31 + 13).to_le_bytes()[0]).collect();
        let body = STANDARD.encode(body);
        let stanza = format!(
            "<iq type='set' id='{ID_PLACE}' from='{}' to='{phone}'><push xmlns='{UNIFIED_PUSH}' \
             application='{application}' instance='{instance}'>{body}</push></iq>",
            component.jid
        );
        let body_at = stanza.find(&body).context("the body is in the stanza")?;
        let id_at = stanza.find(ID_PLACE).context("the id is in the stanza")?;
        Ok(Self { bytes: stanza.into_bytes(), body_at, id_at })
    }

    /// Returns the stanza with this tag, which is also its id.
    fn tagged(&mut self, tag: &[u8; TAG_BYTES]) -> &[u8] {
        let base64 = STANDARD.encode(tag);
        for at in [self.body_at, self.id_at] {
            self.bytes[at..at + base64.len()].copy_from_slice(base64.as_bytes());
        }
        &self.bytes
    }
}
