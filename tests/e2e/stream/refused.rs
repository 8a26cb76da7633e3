//! A stream that fails: the log names the reason and the remedy, and the relay goes on trying.

use e2e::{Component, Kind, Upwire, XmppServer, free_port};
use serde_json::Value;
use tokio_xmpp::jid::BareJid;

/// Waits until the log has named the error and its remedy, and the error again: the relay goes on trying.
pub(crate) async fn goes_on_trying(upwire: &mut Upwire, error: &str, mend: &str) {
    let first = upwire.log_line(&[error]).await;
    let event: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(
        (event["level"].as_str(), event["message"].as_str()),
        (Some("ERROR"), Some("no stream to the XMPP server"))
    );
    assert!(event["error"].as_str().unwrap().contains(error), "{event}");
    assert!(event["mend"].as_str().unwrap().contains(mend), "{event}");
    assert!(event["server"].is_string() && event["component"].is_string(), "{event}");
    upwire.log_lines(&[error], 2).await;
    upwire.unready().await;
}

async fn a_wrong_secret_is_named(server: &XmppServer) {
    let component = Component { secret: "wrong".to_owned(), ..server.component() };
    let mut upwire = Upwire::as_component(server, component).start();
    goes_on_trying(&mut upwire, "not-authorized", "UPWIRE_COMPONENT_SECRET").await;
}

async fn a_component_that_the_server_does_not_know_is_named(server: &XmppServer) {
    let component = Component { jid: BareJid::new("nobody.localhost").unwrap(), ..server.component() };
    let mut upwire = Upwire::as_component(server, component).start();
    goes_on_trying(&mut upwire, "refused the stream", "UPWIRE_COMPONENT").await;
}

async fn a_port_for_clients_is_named(server: &XmppServer) {
    let port = format!("127.0.0.1:{}", server.c2s_port);
    let mut upwire = Upwire::on(server).set("UPWIRE_XMPP_SERVER", port).start();
    goes_on_trying(&mut upwire, "refused the stream", "UPWIRE_XMPP_SERVER is the port for components").await;
}

on_each_server!(
    a_wrong_secret_is_named,
    a_component_that_the_server_does_not_know_is_named,
    a_port_for_clients_is_named,
);

/// Only Prosody refuses the second process. ejabberd would spread the stanzas over both.
#[tokio::test]
async fn a_second_process_as_the_same_component_waits_for_the_first() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut first = Upwire::on(server).start_ready().await;
    let mut second = Upwire::as_component(server, first.component.clone()).start();
    goes_on_trying(&mut second, "conflict", "another process is connected as this component").await;
    first.ready().await;
    first.never_counted("upwire_xmpp_reconnects_total").await;
    first.kill();
    second.ready().await;
}

#[tokio::test]
async fn a_port_for_http_is_named() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let http = format!("127.0.0.1:{}", free_port());
    let builder = Upwire::on(server).set("UPWIRE_ADMIN_LISTEN", &http).set("UPWIRE_XMPP_SERVER", &http);
    let mut upwire = builder.start();
    goes_on_trying(&mut upwire, "what came is not XML", "UPWIRE_XMPP_SERVER is the port for components")
        .await;
}

#[tokio::test]
async fn a_port_that_says_nothing_is_named() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let mute = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = mute.local_addr().unwrap();
    let mut upwire = Upwire::on(server).set("UPWIRE_XMPP_SERVER", address).start();
    goes_on_trying(&mut upwire, "no answer within", "listens for components at UPWIRE_XMPP_SERVER").await;
}

#[tokio::test]
async fn a_server_that_is_started_later_is_found() {
    let mut server = XmppServer::start(Kind::Prosody).await;
    server.stop().await;
    let mut upwire = Upwire::on(&server).start();
    goes_on_trying(&mut upwire, "cannot connect", "listens for components at UPWIRE_XMPP_SERVER").await;
    server.start_again().await;
    upwire.ready().await;
}

#[tokio::test]
async fn a_server_whose_name_does_not_resolve_is_named() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut upwire = Upwire::on(server).set("UPWIRE_XMPP_SERVER", "xmpp.invalid:5347").start();
    goes_on_trying(&mut upwire, "name does not resolve", "UPWIRE_XMPP_SERVER").await;
}
