//! A disk with too little room: accepted pushes are delivered, and no new push is accepted.

use e2e::{Kind, Phone, SOON, Upwire, XmppServer, eventually, hashed, http};
use tokio_xmpp::parsers::stanza_error::{DefinedCondition, ErrorType};

use crate::mailbox::{nothing_is_left, post_some};

#[tokio::test]
async fn a_disk_below_the_floor_is_told_to_all_and_holds_up_no_push_that_was_accepted() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let component = server.component();
    let mut before = Upwire::as_component(server, component.clone()).start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let endpoint = phone.endpoint(&component.jid, "app").await;
    phone.disconnect().await;
    let accepted = post_some(&endpoint, "accepted", 6).await;
    before.mailbox_holds(accepted.len()).await;
    before.terminate();
    assert!(before.wait_exit(SOON).await.success());

    let upwire = Upwire::as_component(server, component.clone())
        .set("UPWIRE_DATABASE", before.database().display())
        .set("UPWIRE_PUBLIC_URL", &before.public_url)
        .set("UPWIRE_LISTEN", before.public_url.strip_prefix("http://").unwrap())
        // No disk has this much room.
        .set("UPWIRE_DISK_FLOOR", 1_u64 << 60)
        .start();
    let ready = async || {
        http::try_send(&http::client(), "GET", &format!("{}/readyz", upwire.admin_url), &[], "").await
    };
    eventually(SOON, "the administration address answers", async || ready().await.is_ok()).await;
    let phone = Phone::connect(server, &user, "phone").await;
    // A sweep finds the pushes, whether the relay is connected already or not.
    nothing_is_left(&upwire).await;
    phone.has_got(&accepted).await;

    let unready = ready().await.unwrap();
    assert_eq!(unready.status, 503);
    assert!(unready.text().contains("UPWIRE_DISK_FLOOR"), "{}", unready.text());
    let refused = http::post(&endpoint, "new").await;
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some_and(|wait| wait.parse::<u32>().is_ok()));
    let refused = phone.register(&component.jid, &hashed("another app"), &hashed("1")).await.unwrap_err();
    assert_eq!(
        (refused.type_, refused.defined_condition),
        (ErrorType::Wait, DefinedCondition::InternalServerError)
    );
    upwire.queue_empties().await;
}
