//! Probes of the server's health. A container runtime restarts an unhealthy server.

use std::process::Command;

use e2e::{FaultProxy, Kind, SOON, Upwire, XmppServer, eventually, free_port, profile_folder};
use tokio::task::spawn_blocking;

/// Arguments of the check in the image. It has no shell, so the check is the server's own program.
const CHECK: [&str; 1] = ["health"];

/// Runs the check while the proxies of a test go on. Returns its exit code and its words.
async fn ask(admin_listen: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut health = Command::new(profile_folder().join("upwire"));
    health.env_clear().env("UPWIRE_ADMIN_LISTEN", admin_listen).args(CHECK).args(arguments);
    let output = spawn_blocking(move || health.output().unwrap()).await.unwrap();
    let said = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap().trim().to_owned())
}

/// GoogleContainerTools/distroless#183: an image without a shell has no `curl` for a probe.
#[tokio::test]
async fn a_container_without_a_shell_asks_the_server_itself() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let way = FaultProxy::to(server.component_port).await;
    let mut upwire = Upwire::on(server).set("UPWIRE_XMPP_SERVER", way.address()).start_ready().await;
    let address = upwire.admin_url.strip_prefix("http://").unwrap().to_owned();
    assert_eq!(ask(&address, &[]).await, (Some(0), "healthy".into()));
    assert_eq!(ask(&address, &["--ready"]).await, (Some(0), "ready".into()));

    // A restart does not help while the XMPP server is away.
    way.cut();
    let not_connected = "upwire: the component is not connected to the XMPP server";
    eventually(SOON, "it is not ready", async || {
        ask(&address, &["--ready"]).await == (Some(1), not_connected.into())
    })
    .await;
    assert_eq!(ask(&address, &[]).await, (Some(0), "healthy".into()));

    let (code, said) = ask(upwire.public_url.strip_prefix("http://").unwrap(), &[]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("is no Upwire: set UPWIRE_ADMIN_LISTEN"), "{said}");
    upwire.terminate();
    upwire.wait_exit(SOON).await;
    let (code, said) = ask(&address, &[]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("no server answers at") && said.contains("Connection refused"), "{said}");
    assert_eq!(ask("somewhere", &[]).await.0, Some(64));
}

/// A server that accepts a connection and does not answer is unhealthy.
#[tokio::test]
async fn a_server_that_does_not_answer_is_not_well() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).start_ready().await;
    let port = upwire.admin_url.rsplit_once(':').unwrap().1.parse().unwrap();
    let way = FaultProxy::to(port).await;
    way.stall();
    let (code, said) = ask(&way.address(), &[]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("no server answers at"), "{said}");
    way.mend();
    let everywhere = format!(":{}", way.port);
    assert_eq!(ask(&everywhere, &[]).await, (Some(0), "healthy".into()));
    assert_eq!(ask(&format!("127.0.0.1:{}", free_port()), &[]).await.0, Some(1));
}

#[test]
fn the_image_and_its_task_ask_by_that() {
    let container = include_str!("../../../infra/relay/Containerfile");
    assert!(
        container.contains(r#"CMD ["/upwire", "health"]"#) && container.contains(r#"ENTRYPOINT ["/upwire"]"#)
    );
    assert!(include_str!("../../../infra/fargate.yaml").contains("Command: [CMD, /upwire, health]"));
}
