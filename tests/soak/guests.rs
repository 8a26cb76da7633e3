//! Applications that register, renew, get a push, and are gone: the whole life of a registration.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::bench::stanza;
use e2e::{RawClient, SOON, UNIFIED_PUSH, Upwire, XmppServer, hashed, http};
use tokio::time::sleep;
use tokio_xmpp::jid::BareJid;

/// Number of phones whose applications come and end.
pub(crate) const GUESTS: usize = 2;
/// Number of applications of each phone, which come again and again in the same rows.
const APPLICATIONS: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);
const CREATED: u16 = 201;
const NOT_FOUND: &str = "<error type='cancel'>\
                         <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";

/// A phone with one application at a time.
pub(crate) struct Guest {
    phone: RawClient,
    component: BareJid,
    client: reqwest::Client,
}

impl Guest {
    /// Logs in, and sends directed presence.
    pub(crate) async fn enter(server: &XmppServer, upwire: &Upwire, number: usize) -> anyhow::Result<Self> {
        let user = server.user().await;
        let mut phone = RawClient::connect(server, &user, &format!("guest{number}")).await;
        let component = upwire.component.jid.clone();
        phone.send(format!("<presence to='{component}'/>")).await?;
        Ok(Self { phone, component, client: http::client() })
    }

    /// Goes through one life after the other until nothing is left to send, and counts them.
    pub(crate) async fn register_and_end(
        mut self,
        left: Rc<Cell<usize>>,
        lives: Rc<Cell<usize>>,
    ) -> anyhow::Result<()> {
        let mut application = 0;
        while left.get() > 0 {
            self.live(&hashed(&format!("guest {application}"))).await?;
            lives.set(lives.get() + 1);
            application = (application + 1) % APPLICATIONS;
            sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn live(&mut self, application: &str) -> anyhow::Result<()> {
        let endpoint = self.register(application).await?;
        ensure!(self.register(application).await? == endpoint, "a renewal has another endpoint");
        let status = self.post(&endpoint).await?;
        ensure!(status == CREATED, "a push to a new registration: {status}");
        self.refuse().await?;
        // The refusal ends the registration as soon as it is written.
        let mut status = CREATED;
        while status == CREATED {
            sleep(PAUSE).await;
            status = self.post(&endpoint).await?;
        }
        ensure!(matches!(status, 404 | 410), "a push to a registration that has ended: {status}");
        Ok(())
    }

    async fn register(&mut self, application: &str) -> anyhow::Result<String> {
        let (component, instance) = (&self.component, hashed("instance"));
        let register = format!(
            "<iq type='set' id='r' to='{component}'><register xmlns='{UNIFIED_PUSH}' \
             application='{application}' instance='{instance}'/></iq>"
        );
        self.phone.send(register).await?;
        loop {
            let iq = self.read().await?;
            // A push that was sent before the end of the last life was seen is refused, too.
            if iq.contains("<push") {
                self.answer(&iq, "error", NOT_FOUND).await?;
                continue;
            }
            let endpoint = stanza::attribute(iq.as_bytes(), "endpoint");
            let endpoint = endpoint.with_context(|| format!("no endpoint in {iq}"))?;
            return Ok(String::from_utf8(endpoint.to_vec())?);
        }
    }

    /// Answers the next push with `item-not-found`: the application is gone.
    async fn refuse(&mut self) -> anyhow::Result<()> {
        let iq = self.read().await?;
        self.answer(&iq, "error", NOT_FOUND).await
    }

    /// Reads the next stanza that is no ping, and answers pings.
    async fn read(&mut self) -> anyhow::Result<String> {
        loop {
            let iq = self.phone.read_until("</iq>", SOON).await?;
            if !iq.contains("<ping") {
                return Ok(iq);
            }
            self.answer(&iq, "result", "").await?;
        }
    }

    async fn answer(&mut self, iq: &str, kind: &str, content: &str) -> anyhow::Result<()> {
        let (_, iq) = iq.split_once("<iq ").with_context(|| format!("no IQ: {iq}"))?;
        let iq = format!("<iq {iq}");
        let id = stanza::attribute(iq.as_bytes(), "id").with_context(|| format!("no id: {iq}"))?;
        let (id, component) = (String::from_utf8_lossy(id), &self.component);
        let answer = format!("<iq type='{kind}' id='{id}' to='{component}'>{content}</iq>");
        Ok(self.phone.send(answer).await?)
    }

    async fn post(&self, endpoint: &str) -> anyhow::Result<u16> {
        Ok(http::try_send(&self.client, "POST", endpoint, &[("TTL", "60")], "guest").await?.status)
    }
}
