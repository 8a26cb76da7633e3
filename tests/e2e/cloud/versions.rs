//! Function and relay are replaced at different moments. Each works with the other half of the commit before.

use std::path::{Path, PathBuf};

use e2e::{Kind, Phone, SOON, XmppServer, eventually, http, profile_folder};

use super::Cloud;

/// Returns the folder of the binaries of the commit before, for `make versions`; otherwise, of the binaries of this
/// build.
fn before() -> PathBuf {
    std::env::var_os("UPWIRE_BASE_BINARIES").map_or_else(profile_folder, PathBuf::from)
}

/// Starts a function and a relay of two versions, which then change places. Each reads what the other writes.
async fn change_places(of_function: &Path, of_relay: &Path) {
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut cloud = Cloud::of(of_function, []).await;
    let component = server.component();
    let relay_of = |binaries: &Path| {
        cloud.relay_by(&cloud.relay_ways, server, component.clone()).with_binary(binaries.join("upwire"))
    };
    let (first, second) = (relay_of(of_relay), relay_of(of_function));

    let mut relay = first.start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let endpoint = phone.endpoint(&component.jid, "app").await;
    let (base, token) = endpoint.rsplit_once('/').unwrap();
    let forged = format!("{base}/{}", http::forged(token));
    eventually(SOON, "the function believes its marker", async || {
        http::post_patiently(&forged, &[], "forged").await.status == 404
    })
    .await;
    assert_eq!(http::post_patiently(&endpoint, &[], "there").await.status, 201);
    phone.wait_for_body("there").await;
    phone.leave(SOON).await;
    assert_eq!(http::post_patiently(&endpoint, &[], "away").await.status, 201);
    let withdrawn = http::post_patiently(&endpoint, &[], "withdrawn").await;
    // The function takes its host for one of AWS, where every URL is HTTPS.
    let location = withdrawn.header("location").unwrap().replacen("https:", "http:", 1);
    let mut in_doubt = false;
    eventually(SOON, "the function finds what the relay has kept", async || {
        let status = http::send("DELETE", &location, &[], "").await.status;
        in_doubt |= status == 503;
        status == 204 || in_doubt && status == 404
    })
    .await;
    relay.kill();
    assert_eq!(http::post_patiently(&endpoint, &[], "queued").await.status, 201);

    cloud.function.replace_by(of_relay).await;
    let relay = second.start_ready().await;
    assert_eq!(http::post_patiently(&endpoint, &[], "replaced").await.status, 201);
    let phone = Phone::connect(server, &user, "phone").await;
    assert_eq!(phone.endpoint(&component.jid, "app").await, endpoint);
    for body in ["away", "queued", "replaced"] {
        phone.wait_for_body(body).await;
    }
    cloud.queue_empties().await;
    cloud.mailbox_empties().await;
    drop(relay);
}

#[tokio::test]
async fn a_relay_that_is_replaced_first_works_with_the_function_of_before() {
    change_places(&before(), &profile_folder()).await;
}

#[tokio::test]
async fn a_function_that_is_replaced_first_works_with_the_relay_of_before() {
    change_places(&profile_folder(), &before()).await;
}
