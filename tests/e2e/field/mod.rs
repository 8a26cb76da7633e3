//! Input from the open Internet and from tired operators: symptoms of other servers, played on this one. Each kind has
//! a file; most cases name the public report.

mod clock;
mod connections;
mod encodings;
mod health;
mod legacy;
mod logins;
mod logs;
mod mends;
mod methods;
mod paths;
mod settings;
mod tls;

use std::fs::File;
use std::path::Path;

use e2e::{Kind, Phone, SOON, Upwire, UpwireBuilder, XmppServer, eventually};

/// A server, a phone that is online, and an endpoint of the phone.
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

    /// Returns the token behind `/push/`.
    fn token(&self) -> &str {
        self.endpoint.rsplit('/').next().unwrap()
    }
}

/// Waits until another process could open a database that this process had open.
async fn is_released(database: &Path) {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    let lock = File::open(name).unwrap();
    eventually(SOON, "the database is released", async || lock.try_lock().is_ok()).await;
}
