//! The stream over TLS: ejabberd's own, and a tunnel's in front of Prosody. It carries the same as without TLS. A
//! server with a wrong certificate is named with the remedy.

use std::path::Path;
use std::slice::from_ref;

use e2e::{
    Authority, Certificate, Kind, Load, Phone, SOON, Settings, Stunnel, Upwire, UpwireBuilder, XmppServer,
    http,
};

use super::refused::goes_on_trying;

/// Prepares an `upwire serve` that speaks TLS to a port of this machine, and trusts this authority alone.
fn over_tls(server: &XmppServer, port: u16, trusted: &Path) -> UpwireBuilder {
    Upwire::on(server)
        .set("UPWIRE_XMPP_SERVER", format!("tls://localhost:{port}"))
        .set("SSL_CERT_FILE", trusted.display())
}

async fn ejabberd_with(certificate: Certificate) -> XmppServer {
    let settings = Settings { component_tls: Some(certificate), ..Settings::default() };
    XmppServer::start_with(Kind::Ejabberd, settings).await
}

#[tokio::test]
async fn ejabberd_offers_tls_and_comes_back() {
    let authority = Authority::new();
    let mut server = ejabberd_with(authority.certificate("localhost")).await;
    let mut upwire = over_tls(&server, server.component_port, &authority.trusted).start_ready().await;
    let phone = Phone::connect(&server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    Load::start(from_ref(&endpoint), 200).finish().await.arrives(&[&phone]).await;

    server.kill();
    upwire.unready().await;
    let meanwhile = Load::start(from_ref(&endpoint), 20).finish().await;
    server.start_again().await;
    upwire.ready().await;
    meanwhile.arrives(&[&phone]).await;
    upwire.terminate();
    assert!(upwire.wait_exit(SOON).await.success(), "it stops as cleanly as over plain text");
}

#[tokio::test]
async fn a_tunnel_in_front_of_prosody_offers_tls_and_both_come_back() {
    let authority = Authority::new();
    let mut server = XmppServer::start(Kind::Prosody).await;
    let mut tunnel = Stunnel::start(&authority.certificate("localhost"), server.component_port).await;
    let mut upwire = over_tls(&server, tunnel.port, &authority.trusted).start_ready().await;
    let phone = Phone::connect(&server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    Load::start(from_ref(&endpoint), 200).finish().await.arrives(&[&phone]).await;

    tunnel.kill();
    upwire.unready().await;
    let without_tunnel = Load::start(from_ref(&endpoint), 20).finish().await;
    tunnel.start_again().await;
    upwire.ready().await;
    without_tunnel.arrives(&[&phone]).await;

    server.stop().await;
    upwire.unready().await;
    let without_server = Load::start(from_ref(&endpoint), 20).finish().await;
    server.start_again().await;
    upwire.ready().await;
    without_server.arrives(&[&phone]).await;
}

/// An operator without an authority uses a self-signed certificate, and names it to both sides.
#[tokio::test]
async fn a_certificate_that_is_its_own_authority_is_trusted_where_it_is_named() {
    let certificate =
        Certificate::self_signed(&["subjectAltName=DNS:localhost", "basicConstraints=critical,CA:FALSE"]);
    let server = ejabberd_with(certificate.clone()).await;
    let upwire = over_tls(&server, server.component_port, &certificate.file).start_ready().await;
    let phone = Phone::connect(&server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    assert_eq!(http::post(&endpoint, "hello").await.status, 201);
    assert_eq!(phone.next_push(SOON).await.body, b"hello");

    let mut stranger = Upwire::on(&server)
        .set("UPWIRE_XMPP_SERVER", format!("tls://localhost:{}", server.component_port))
        .start();
    goes_on_trying(&mut stranger, "of no authority that is trusted here", "SSL_CERT_FILE").await;
    let mut plain = Upwire::on(&server).start();
    goes_on_trying(&mut plain, "hung up before it opened a stream", "write tls:// before it").await;
}

#[tokio::test]
async fn a_certificate_that_is_not_as_it_should_be_is_named() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let authority = Authority::new();
    let cases = [
        (authority.certificate("xmpp.example.com"), "not for localhost but for", "UPWIRE_XMPP_SERVER"),
        (authority.expired_certificate("localhost"), "has expired", "a new certificate"),
        (Authority::new().certificate("localhost"), "of no authority that is trusted here", "SSL_CERT_FILE"),
        // openssl makes this certificate by default.
        (Certificate::self_signed(&["subjectAltName=DNS:localhost"]), "CaUsedAsEndEntity", "CA:FALSE"),
    ];
    for (certificate, problem, mend) in cases {
        let tunnel = Stunnel::start(&certificate, server.component_port).await;
        let mut upwire = over_tls(server, tunnel.port, &authority.trusted).start();
        goes_on_trying(&mut upwire, problem, mend).await;
    }
}

async fn a_port_that_speaks_no_tls_is_named(server: &XmppServer) {
    let authority = Authority::new();
    let mut upwire = over_tls(server, server.component_port, &authority.trusted).start();
    goes_on_trying(&mut upwire, "does not speak TLS", "leave tls:// out of UPWIRE_XMPP_SERVER").await;
}

on_each_server!(a_port_that_speaks_no_tls_is_named);

#[tokio::test]
async fn plain_text_to_a_tunnel_is_named() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let tunnel = Stunnel::start(&Authority::new().certificate("localhost"), server.component_port).await;
    let address = format!("localhost:{}", tunnel.port);
    let mut upwire = Upwire::on(server).set("UPWIRE_XMPP_SERVER", address).start();
    goes_on_trying(&mut upwire, "hung up before it opened a stream", "write tls:// before it").await;
}
