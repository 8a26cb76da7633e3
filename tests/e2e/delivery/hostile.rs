//! Any user of the XMPP server can send any stanza to the component. No stanza may disturb other users.

use e2e::{Kind, Phone, RawClient, SOON, Upwire, User, XmppServer, http};
use tokio_xmpp::jid::BareJid;

use self::stanzas::{Expected, Hostile};

mod registrations;
mod stanzas;
mod xml;

/// The push server, a phone that must get its pushes, and a hostile user.
struct Scene<'a> {
    server: &'a XmppServer,
    upwire: Upwire,
    phone: Phone,
    endpoint: String,
    user: User,
    villain: RawClient,
    sent: usize,
}

impl<'a> Scene<'a> {
    async fn set(server: &'a XmppServer) -> Self {
        let upwire = Upwire::on(server).start_ready().await;
        let phone = Phone::connect(server, &server.user().await, "phone").await;
        let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
        let user = server.user().await;
        let villain = RawClient::connect(server, &user, "villain").await;
        Self { server, upwire, phone, endpoint, user, villain, sent: 0 }
    }

    fn component(&self) -> &BareJid {
        &self.upwire.component.jid
    }

    /// Sends one stanza. Checks that it is answered as expected, and that the service goes on.
    async fn survives(&mut self, hostile: &Hostile) {
        self.sent += 1;
        let id = format!("villain-{}", self.sent);
        let xml = hostile.xml(self.component().as_str(), &id);
        let answered = match self.villain.send(&xml).await {
            Ok(()) => self.answered(hostile, &id).await,
            Err(error) => Err(error),
        };
        if answered.is_err() {
            // The server refused the stanza, and ended the session.
            assert!(hostile.expected.may_be_refused(), "{}: the server ended the session", hostile.name);
            self.villain = RawClient::connect(self.server, &self.user, "villain").await;
        }
        self.goes_on(hostile.name).await;
    }

    /// Waits for the expected answer. An error means that the server ended the session.
    async fn answered(&mut self, hostile: &Hostile, id: &str) -> std::io::Result<()> {
        match hostile.expected {
            Expected::Nothing => {}
            Expected::Result => {
                self.villain.read_until(id, SOON).await?;
            }
            Expected::Error(condition) | Expected::ErrorOrRefusal(condition) => {
                self.villain.read_until(id, SOON).await?;
                let rest = self.villain.read_until("</iq>", SOON).await?;
                assert!(
                    rest.contains("<error ") && rest.contains(condition),
                    "{}: {condition}, not {rest}",
                    hostile.name
                );
            }
        }
        self.everything_is_read().await
    }

    /// Returns when the push server has read everything that was sent before: a stream is in order.
    async fn everything_is_read(&mut self) -> std::io::Result<()> {
        let (component, id) = (self.component(), format!("sync-{}", self.sent));
        let ping = format!("<iq type='get' id='{id}' to='{component}'><ping xmlns='urn:xmpp:ping'/></iq>");
        self.villain.send(ping).await?;
        self.villain.read_until(&id, SOON).await.map(drop)
    }

    async fn goes_on(&self, after: &str) {
        let body = format!("after {}", self.sent);
        assert_eq!(http::post(&self.endpoint, body.clone()).await.status, 201, "{after}");
        assert_eq!(self.phone.next_push(SOON).await.body, body.as_bytes(), "{after}");
        println!("after {after}");
        self.upwire.never_counted("upwire_xmpp_reconnects_total").await;
        self.upwire.metric_is("upwire_xmpp_stream_up", 1.0).await;
    }

    async fn survives_all(&mut self, stanzas: Vec<Hostile>) {
        for hostile in &stanzas {
            self.survives(hostile).await;
        }
    }
}

async fn the_stream_survives_presence_and_messages_of_all_kinds(server: &XmppServer) {
    let mut scene = Scene::set(server).await;
    scene.survives_all(stanzas::presences()).await;
    scene.survives_all(stanzas::messages()).await;
}

async fn requests_of_all_kinds_are_answered(server: &XmppServer) {
    let mut scene = Scene::set(server).await;
    scene.survives_all(stanzas::requests()).await;
    scene.survives_all(stanzas::registrations()).await;
    scene.survives_all(stanzas::to_names_below()).await;
}

async fn answers_of_all_kinds_are_ignored(server: &XmppServer) {
    Scene::set(server).await.survives_all(stanzas::answers()).await;
}

async fn the_stream_survives_xml_of_all_kinds(server: &XmppServer) {
    let mut scene = Scene::set(server).await;
    scene.survives_all(xml::characters()).await;
    scene.survives_all(xml::namespaces()).await;
}

async fn the_stream_survives_what_its_parser_refuses(server: &XmppServer) {
    let mut scene = Scene::set(server).await;
    scene.survives_all(xml::refused_by_the_parser()).await;
}

async fn the_stream_survives_stanzas_of_all_sizes(server: &XmppServer) {
    let mut scene = Scene::set(server).await;
    for kilobytes in [8, 60, 64, 200] {
        scene.survives_all(xml::large_tokens(kilobytes << 10)).await;
        scene.survives_all(xml::large_texts(kilobytes << 10)).await;
    }
    // Thousands of levels crash ejabberd itself.
    for depth in if server.kind == Kind::Prosody { vec![62, 70, 1000, 10_000] } else { vec![62, 70, 200] } {
        scene.survives(&xml::deep(depth)).await;
    }
    scene.survives_all(xml::wide()).await;
    if server.kind == Kind::Ejabberd {
        // Prosody ends a session at 256 KiB. ejabberd computes for 10 s on one token of 5 MiB, as long as on 25 of 1
        // MiB.
        scene.survives_all(xml::large_tokens(1 << 20)).await;
        scene.survives_all(xml::large_texts(5 << 20)).await;
    }
}

async fn a_flood_of_requests_delays_nobody_for_long(server: &XmppServer) {
    const REQUESTS: usize = 3000;
    let mut scene = Scene::set(server).await;
    let component = scene.component().clone();
    let flood: String = (0..REQUESTS)
        .map(|number| {
            format!("<iq type='get' id='flood-{number}' to='{component}'><ping xmlns='urn:xmpp:ping'/></iq>")
        })
        .collect();
    scene.villain.send(flood).await.unwrap();
    scene.goes_on("a flood").await;
    scene.villain.read_until("flood-0'", SOON).await.unwrap();
    scene.goes_on("its first answer").await;
}

on_each_server!(
    the_stream_survives_presence_and_messages_of_all_kinds,
    requests_of_all_kinds_are_answered,
    answers_of_all_kinds_are_ignored,
    the_stream_survives_xml_of_all_kinds,
    the_stream_survives_what_its_parser_refuses,
    the_stream_survives_stanzas_of_all_sizes,
    a_flood_of_requests_delays_nobody_for_long,
);
