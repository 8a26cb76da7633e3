//! A client that sends any bytes. It logs in by hand-written XML, with no library between the test and the server.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_xmpp::jid::FullJid;

use crate::wait::SOON;
use crate::xmpp_server::{User, XmppServer};

const OPEN: &str = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                    xmlns:stream='http://etherx.jabber.org/streams'>";

/// A session without stream management, on a bare TCP connection.
pub struct RawClient {
    jid: FullJid,
    stream: TcpStream,
    unread: Vec<u8>,
}

impl RawClient {
    /// Logs in and binds the resource.
    pub async fn connect(server: &XmppServer, user: &User, resource: &str) -> Self {
        let mut client = Self::log_in(server, user, resource).await;
        client.bind().await;
        client
    }

    /// Logs in with SASL PLAIN. The client has no full JID until `bind`.
    pub async fn log_in(server: &XmppServer, user: &User, resource: &str) -> Self {
        let jid = user.jid.with_resource_str(resource).expect("a resource");
        let stream = TcpStream::connect(("127.0.0.1", server.c2s_port)).await.expect("the server");
        let mut client = Self { jid, stream, unread: Vec::new() };
        let plain = STANDARD.encode(format!("\0{}\0{}", user.name(), user.password));
        client.say(OPEN, "</stream:features>").await;
        let auth = format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>");
        client.say(&auth, "<success").await;
        client.say(OPEN, "</stream:features>").await;
        client
    }

    /// Binds the resource.
    pub async fn bind(&mut self) {
        let bind = format!(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
             <resource>{}</resource></bind></iq>",
            self.jid.resource()
        );
        self.say(&bind, "</iq>").await;
    }

    /// Returns the full JID.
    pub fn jid(&self) -> &FullJid {
        &self.jid
    }

    /// Sends these bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Reads until `needle` has come, and returns all text up to its end. Returns an error if the server closes before.
    /// Panics when the deadline passes.
    pub async fn read_until(&mut self, needle: &str, deadline: Duration) -> std::io::Result<String> {
        let read = async {
            loop {
                let text = String::from_utf8_lossy(&self.unread);
                if let Some(at) = text.find(needle) {
                    let (taken, rest) = text.split_at(at + needle.len());
                    let (taken, rest) = (taken.to_owned(), rest.as_bytes().to_vec());
                    self.unread = rest;
                    return Ok(taken);
                }
                if self.stream.read_buf(&mut self.unread).await? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
        };
        match timeout(deadline, read).await {
            Ok(read) => read,
            Err(_) => panic!(
                "not within {deadline:?}: {} reads {needle:?}; so far: {}",
                self.jid,
                String::from_utf8_lossy(&self.unread)
            ),
        }
    }

    /// Returns whether the server closes the connection before the deadline.
    pub async fn closed(&mut self, deadline: Duration) -> bool {
        let read = async {
            loop {
                match self.stream.read_buf(&mut self.unread).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        };
        timeout(deadline, read).await.is_ok()
    }

    /// Returns the connection and the unread bytes, for a client that reads in a way of its own.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.unread)
    }

    async fn say(&mut self, xml: &str, answer: &str) {
        self.send(xml).await.expect("the server reads");
        if let Err(error) = self.read_until(answer, SOON).await {
            let so_far = String::from_utf8_lossy(&self.unread);
            panic!("{} logs in: {error}, after {so_far}", self.jid);
        }
    }
}
