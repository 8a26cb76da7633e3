//! Phones that use little CPU: they register, then note each push in the journal and answer it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_xmpp::jid::{BareJid, FullJid};

use super::journal::Journal;
use super::stanza;
use crate::{
    phone::{UNIFIED_PUSH, hashed},
    raw_client::RawClient,
    xmpp_server::{User, XmppServer},
};

const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
const READ_BUFFER_BYTES: usize = 256 << 10;
const STREAM_END: &[u8] = b"</stream:stream>";

/// A phone that is logged in and does not answer pushes yet.
pub struct LightPhone(RawClient);

/// A phone that answers in the background until `leave`. If this is dropped, it answers until the benchmark ends.
pub struct Answering {
    leave: Rc<Notify>,
    task: JoinHandle<()>,
}

impl LightPhone {
    /// Logs in and binds its full JID.
    pub async fn connect(server: &XmppServer, user: &User) -> Self {
        let mut phone = Self::log_in(server, user).await;
        phone.bind().await;
        phone
    }

    /// Logs in. The phone is away until `bind`.
    pub async fn log_in(server: &XmppServer, user: &User) -> Self {
        Self(RawClient::log_in(server, user, "phone").await)
    }

    /// Binds its full JID, which is the same each time.
    pub async fn bind(&mut self) {
        self.0.bind().await;
    }

    /// Returns the full JID.
    pub fn jid(&self) -> &FullJid {
        self.0.jid()
    }

    /// Greets a push server, registers with it, and returns the endpoint.
    ///
    /// # Errors
    /// The registration is refused, or the stream has ended.
    pub async fn register(&mut self, push_server: &BareJid) -> anyhow::Result<String> {
        self.greet(push_server).await?;
        self.registered(push_server, "bench", "").await
    }

    /// Registers one more application, whose endpoint takes only pushes signed by this application server's key (RFC
    /// 8292).
    ///
    /// # Errors
    /// The registration is refused, or the stream has ended.
    pub async fn register_bound(&mut self, push_server: &BareJid, key: &str) -> anyhow::Result<String> {
        self.registered(push_server, "bound", &format!(" vapid='{key}'")).await
    }

    async fn registered(
        &mut self,
        push_server: &BareJid,
        application: &str,
        more: &str,
    ) -> anyhow::Result<String> {
        let (application, instance) = (hashed(application), hashed("instance"));
        let register = format!(
            "<iq type='set' id='r' to='{push_server}'><register xmlns='{UNIFIED_PUSH}' \
             application='{application}' instance='{instance}'{more}/></iq>"
        );
        self.0.send(register).await?;
        let answer = self.0.read_until("</iq>", ANSWER_DEADLINE).await?;
        let endpoint = stanza::attribute(answer.as_bytes(), "endpoint");
        let endpoint = endpoint.with_context(|| format!("no endpoint in {answer}"))?;
        Ok(String::from_utf8(endpoint.to_vec())?)
    }

    /// Sends directed presence, which tells a push server that the phone is back.
    ///
    /// # Errors
    /// The stream has ended.
    pub async fn greet(&mut self, push_server: &BareJid) -> anyhow::Result<()> {
        Ok(self.0.send(format!("<presence to='{push_server}'/>")).await?)
    }

    /// Answers pushes from now on.
    pub fn answer_all(self, journal: Rc<Journal>) -> Answering {
        let jid = self.jid().clone();
        let (stream, unread) = self.0.into_parts();
        let leave = Rc::<Notify>::default();
        let left = Rc::clone(&leave);
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = answer(stream, unread, &journal, &left).await {
                // Pushes that the phone no longer gets count as lost.
                eprintln!("{jid} has ended: {error:#}");
            }
        });
        Answering { leave, task }
    }
}

impl Answering {
    /// Closes the stream. Returns when the server has closed it, too.
    ///
    /// # Errors
    /// The task has died.
    pub async fn leave(self) -> anyhow::Result<()> {
        self.leave.notify_one();
        Ok(self.task.await?)
    }
}

async fn answer(
    mut stream: TcpStream,
    mut unread: Vec<u8>,
    journal: &Journal,
    leave: &Notify,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    unread.reserve(READ_BUFFER_BYTES);
    let mut answers = Vec::new();
    loop {
        let now = Instant::now();
        let mut taken = 0;
        while let Some((request, length)) = stanza::request(&unread[taken..])? {
            if let Some(body) = request.push_base64 {
                journal.arrived(body, now);
            }
            let parts: [&[u8]; 5] = [b"<iq type='result' id='", request.id, b"' to='", request.from, b"'/>"];
            answers.extend(parts.iter().copied().flatten());
            taken += length;
        }
        unread.drain(..taken);
        stream.write_all(&answers).await?;
        answers.clear();
        let read = tokio::select! {
            read = stream.read_buf(&mut unread) => read?,
            () = leave.notified() => return end(stream).await,
        };
        if read == 0 {
            bail!("the server closed the stream");
        }
    }
}

async fn end(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.write_all(STREAM_END).await?;
    let mut rest = Vec::new();
    timeout(ANSWER_DEADLINE, stream.read_to_end(&mut rest))
        .await
        .context("the server closes the stream")??;
    Ok(())
}
