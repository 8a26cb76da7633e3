//! Stanzas that the XMPP server sends to the wrong component.

use e2e::{Kind, Phone, RawClient, SOON, Settings, Upwire, XmppServer, hashed, http};

/// With ejabberd's default, a component gets the stanzas for any other component of its listener that is not connected.
#[tokio::test]
async fn a_component_leaves_alone_what_is_for_another() {
    let settings = Settings { global_routes: true, ..Settings::default() };
    let server = XmppServer::start_with(Kind::Ejabberd, settings).await;
    let mut upwire = Upwire::on(&server).start_ready().await;
    let other = server.component();
    let mut client = RawClient::connect(&server, &server.user().await, "raw").await;

    let register = format!(
        "<register xmlns='{}' application='{}' instance='{}'/>",
        e2e::UNIFIED_PUSH,
        hashed("app"),
        hashed("1")
    );
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    for _ in 0..3 {
        for (kind, payload) in [("get", ping), ("set", &*register), ("get", ""), ("result", "")] {
            let iq = format!("<iq type='{kind}' id='for-another' to='{}'>{payload}</iq>", other.jid);
            client.send(iq).await.unwrap();
        }
        client.send(format!("<presence to='{}'/>", other.jid)).await.unwrap();
    }
    // The stream is in order: once this is answered, everything before was read.
    let own = &upwire.component.jid;
    client.send(format!("<iq type='get' id='for-itself' to='{own}'>{ping}</iq>")).await.unwrap();
    let until_then = client.read_until("for-itself", SOON).await.unwrap();
    assert!(!until_then.contains("for-another"), "{until_then}");

    let own = own.to_string();
    let warning = upwire.log_line(&["stanzas for another domain", other.jid.as_str()]).await;
    assert!(warning.contains("WARN") && warning.contains("global_routes: false"), "{warning}");
    assert!(warning.contains(&own), "{warning}");
    let warnings = upwire.log_lines(&["stanzas for another domain"], 1).await.len();
    assert_eq!(warnings, 1, "one for each domain");
    upwire.never_counted("upwire_registrations_total").await;
    upwire.never_counted("upwire_xmpp_reconnects_total").await;

    let phone = Phone::connect(&server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    assert_eq!(http::post(&endpoint, "x").await.status, 201);
    phone.next_push(SOON).await;
}
