//! What the open Internet and tired operators send: reports on other servers, played on this one. A file for each kind;
//! each case names the public report of the symptom.

mod clock;
mod connections;
mod encodings;
mod legacy;
mod logins;
mod logs;
mod mends;
mod methods;
mod paths;
mod settings;
mod tls;

use e2e::{Kind, Phone, Upwire, UpwireBuilder, XmppServer};

/// A server, a phone that is there, and an endpoint of it.
struct Scene {
    upwire: Upwire,
    phone: Phone,
    endpoint: String,
}

impl Scene {
    async fn set() -> Self {
        Self::set_with(|builder| builder).await
    }

    async fn set_with(configure: impl FnOnce(UpwireBuilder) -> UpwireBuilder) -> Self {
        let server = XmppServer::shared(Kind::Prosody).await;
        let upwire = configure(Upwire::on(server)).start_ready().await;
        let phone = Phone::connect(server, &server.user().await, "phone").await;
        phone.greet(&upwire.component.jid).await;
        let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
        Self { upwire, phone, endpoint }
    }

    /// What stands behind `/push/`.
    fn token(&self) -> &str {
        self.endpoint.rsplit('/').next().unwrap()
    }
}
