//! SIGHUP has the files of the access list and the secrets read again: all of them, or none.

use std::fs;
use std::path::PathBuf;

use e2e::{Kind, Phone, SOON, Upwire, UpwireBuilder, User, XmppServer, folder, hashed, http};
use tokio_xmpp::parsers::stanza_error::DefinedCondition;

use crate::cloud::Cloud;

const OLD: &str = "an-old-secret-of-more-than-32-bytes-0123456789";
const NEW: &str = "a-new-secret-of-more-than-32-bytes-0123456789";

/// The files of a server, the phone of a user on the list, and that of another user.
struct Scene {
    files: PathBuf,
    listed: Phone,
    other: Phone,
    user: User,
}

impl Scene {
    async fn set(server: &XmppServer) -> Self {
        let (listed, user) = (server.user().await, server.user().await);
        let scene = Self {
            files: folder("reread"),
            other: Phone::connect(server, &user, "phone").await,
            listed: Phone::connect(server, &listed, "phone").await,
            user,
        };
        scene.write("acl", &listed.jid.to_string());
        scene
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.files.join(name), text).unwrap();
    }

    fn list_all(&self) {
        let listed = self.listed.jid().to_bare();
        self.write("acl", &format!("# The family\n{listed}\n{} # a friend\n", self.user.jid));
    }

    fn with_list(&self, upwire: UpwireBuilder) -> UpwireBuilder {
        upwire.set("UPWIRE_ACL_FILE", self.files.join("acl").display())
    }
}

async fn endpoint(phone: &Phone, upwire: &Upwire) -> Result<String, DefinedCondition> {
    let registered = phone.register(&upwire.component.jid, &hashed("app"), &hashed("1")).await;
    registered.map(|registered| registered.endpoint).map_err(|error| error.defined_condition)
}

async fn who_is_added_to_the_list_can_register(server: &XmppServer, scene: &Scene, mut upwire: Upwire) {
    assert!(endpoint(&scene.listed, &upwire).await.is_ok());
    assert_eq!(endpoint(&scene.other, &upwire).await, Err(DefinedCondition::Forbidden));
    scene.list_all();
    upwire.hang_up();
    upwire.log_line(&["what the files say is in force", "\"changed\":\"UPWIRE_ACL_FILE\""]).await;
    assert!(endpoint(&scene.other, &upwire).await.is_ok());
    assert!(endpoint(&scene.listed, &upwire).await.is_ok());

    let stranger = Phone::connect(server, &server.user().await, "phone").await;
    for text in ["localhost.*", "", "a b"] {
        scene.write("acl", text);
        upwire.hang_up();
        upwire
            .log_line(&[
                "ERROR",
                "nothing changes",
                "UPWIRE_ACL_FILE",
                if text.is_empty() { "nobody" } else { "line 1: entry 1 is" },
            ])
            .await;
        assert!(endpoint(&scene.other, &upwire).await.is_ok());
        assert_eq!(endpoint(&stranger, &upwire).await, Err(DefinedCondition::Forbidden));
    }
    upwire.never_counted("upwire_xmpp_reconnects_total").await;
}

async fn who_is_added_to_the_list_of_a_server_can_register(server: &XmppServer) {
    let scene = Scene::set(server).await;
    let upwire = scene.with_list(Upwire::on(server)).start_ready().await;
    who_is_added_to_the_list_can_register(server, &scene, upwire).await;
}

on_each_server!(who_is_added_to_the_list_of_a_server_can_register);

#[tokio::test]
async fn who_is_added_to_the_list_of_a_relay_can_register() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let (scene, cloud) = (Scene::set(server).await, Cloud::new().await);
    let upwire = scene.with_list(cloud.relay_on(server)).start_ready().await;
    who_is_added_to_the_list_can_register(server, &scene, upwire).await;
}

#[tokio::test]
async fn secrets_rotate_while_it_runs_and_a_file_that_is_wrong_changes_none() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let scene = Scene::set(server).await;
    scene.write("secret", OLD);
    let secrets = scene.files.join("secret");
    let mut upwire =
        scene.with_list(Upwire::on(server)).set("UPWIRE_SECRET_FILE", secrets.display()).start_ready().await;
    let by_old = endpoint(&scene.listed, &upwire).await.unwrap();

    // The list is right, and the secret is wrong. Neither is taken.
    scene.list_all();
    scene.write("secret", &format!("{NEW},short"));
    upwire.hang_up();
    upwire.log_line(&["nothing changes", "UPWIRE_SECRET_FILE", "at least 32"]).await;
    assert_eq!(endpoint(&scene.other, &upwire).await, Err(DefinedCondition::Forbidden));
    assert_eq!(endpoint(&scene.listed, &upwire).await.as_ref(), Ok(&by_old));

    scene.write("secret", &format!("{NEW},{OLD}"));
    upwire.hang_up();
    upwire.log_line(&["in force", "UPWIRE_ACL_FILE, UPWIRE_SECRET_FILE"]).await;
    let by_new = endpoint(&scene.listed, &upwire).await.unwrap();
    assert_ne!(by_new, by_old, "the first signs");
    assert!(endpoint(&scene.other, &upwire).await.is_ok());

    scene.write("secret", NEW);
    upwire.hang_up();
    upwire.log_line(&["WARN", "no longer in their files"]).await;
    for (endpoint, body) in [(&by_old, "by the old"), (&by_new, "by the new")] {
        assert_eq!(http::post(endpoint, body).await.status, 201);
        assert_eq!(scene.listed.next_push(SOON).await.body, body.as_bytes());
    }
    for secret in [OLD, NEW] {
        upwire.never_logged(&[secret]);
    }
}

#[tokio::test]
async fn the_next_connection_is_made_with_the_components_secret_of_then() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let scene = Scene::set(server).await;
    let component = server.component();
    scene.write("component-secret", "wrong");
    let mut upwire = Upwire::as_component(server, component.clone())
        .unset("UPWIRE_COMPONENT_SECRET")
        .set("UPWIRE_COMPONENT_SECRET_FILE", scene.files.join("component-secret").display())
        .start();
    upwire.log_line(&["not-authorized"]).await;
    scene.write("component-secret", &component.secret);
    upwire.hang_up();
    upwire.ready().await;
}
