//! Phones that cost next to nothing: they register, then note each push in the journal and answer it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use e2e::{RawClient, UNIFIED_PUSH, XmppServer, hashed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_xmpp::jid::{BareJid, FullJid};

use crate::journal::Journal;
use crate::stanza;

const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
const READ_BUFFER_BYTES: usize = 256 << 10;

/// A phone before its pushes.
pub(crate) struct Phone(RawClient);

impl Phone {
    /// Logs in to a fresh account.
    pub(crate) async fn connect(server: &XmppServer) -> Self {
        Self(RawClient::connect(server, &server.user().await, "phone").await)
    }

    /// The full JID.
    pub(crate) fn jid(&self) -> &FullJid {
        self.0.jid()
    }

    /// Greets a push server, registers with it, and returns the endpoint.
    pub(crate) async fn register(&mut self, push_server: &BareJid) -> anyhow::Result<String> {
        let (application, instance) = (hashed("bench"), hashed("instance"));
        let register = format!(
            "<presence to='{push_server}'/><iq type='set' id='r' to='{push_server}'>\
             <register xmlns='{UNIFIED_PUSH}' application='{application}' instance='{instance}'/></iq>"
        );
        self.0.send(register).await?;
        let answer = self.0.read_until("</iq>", ANSWER_DEADLINE).await?;
        let endpoint = stanza::attribute(answer.as_bytes(), "endpoint");
        let endpoint = endpoint.with_context(|| format!("no endpoint in {answer}"))?;
        Ok(String::from_utf8(endpoint.to_vec())?)
    }

    /// Answers pushes in the background for as long as the bench runs.
    pub(crate) fn answer_all(self, journal: Rc<Journal>) {
        let (jid, stream) = (self.jid().clone(), self.0.into_stream());
        tokio::task::spawn_local(async move {
            if let Err(error) = answer(stream, &journal).await {
                // What it no longer gets is counted as lost.
                eprintln!("{jid} has ended: {error:#}");
            }
        });
    }
}

async fn answer(mut stream: TcpStream, journal: &Journal) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut unread = Vec::with_capacity(READ_BUFFER_BYTES);
    let mut answers = Vec::new();
    loop {
        if stream.read_buf(&mut unread).await? == 0 {
            bail!("the server closed the stream");
        }
        let now = Instant::now();
        let mut taken = 0;
        while let Some((push, length)) = stanza::push(&unread[taken..])? {
            journal.arrived(push.body_base64, now);
            let parts: [&[u8]; 5] = [b"<iq type='result' id='", push.id, b"' to='", push.from, b"'/>"];
            answers.extend(parts.iter().copied().flatten());
            taken += length;
        }
        unread.drain(..taken);
        stream.write_all(&answers).await?;
        answers.clear();
    }
}
