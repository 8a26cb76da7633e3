//! Web Push by common libraries, over TLS. Encrypted pushes arrive, and the application decrypts them.

use e2e::{
    Authority, Kind, Library, Message, Phone, SOON, Stunnel, Subscription, Upwire, XmppServer, free_port,
    hashed,
};

use crate::mailbox::{NEVER_SECONDS, nothing_is_left};

const LIBRARIES: [Library; 2] = [Library::WebPush, Library::Pywebpush];
/// The encodings, each with the longest payload that makes a body of 4096 bytes (RFC 8188 §2,
/// draft-ietf-httpbis-encryption-encoding-03 §2).
const ENCODINGS: [(&str, usize); 2] = [("aes128gcm", 4096 - 86 - 17), ("aesgcm", 4096 - 18)];

/// An upwire that senders reach by TLS, on which `web-push` insists.
struct Secured {
    upwire: Upwire,
    authority: Authority,
    tunnel: Stunnel,
}

async fn secured(server: &XmppServer) -> Secured {
    let (authority, port) = (Authority::new(), free_port());
    let tunnel = Stunnel::start(&authority.certificate("localhost"), port).await;
    let upwire = Upwire::on(server)
        .set("UPWIRE_LISTEN", format!("127.0.0.1:{port}"))
        .set("UPWIRE_PUBLIC_URL", format!("https://localhost:{}", tunnel.port))
        .set("UPWIRE_ACK_TIMEOUT", NEVER_SECONDS)
        .start_ready()
        .await;
    Secured { upwire, authority, tunnel }
}

fn message<'a>(payload: &'a str, encoding: &'a str) -> Message<'a> {
    Message { payload, encoding, ttl: 300, urgency: "normal", topic: None, vapid: None }
}

#[tokio::test]
async fn what_they_encrypt_arrives_and_decrypts() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let Secured { upwire, authority, tunnel: _tunnel } = secured(server).await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    let (subscription, vapid) = (Subscription::new().await, Subscription::new().await.keys);
    let mut sent = Vec::new();
    for library in LIBRARIES {
        for (encoding, longest) in ENCODINGS {
            let signed = format!("{library:?} in {encoding}, signed: grüß");
            let longest = "x".repeat(longest);
            let messages = [
                Message { vapid: Some(&vapid), ..message(&signed, encoding) },
                Message { ttl: 0, ..message(&longest, encoding) },
            ];
            for message in messages {
                let accepted = library.send(&endpoint, &authority.trusted, &subscription, &message).await;
                let kept = message.ttl.to_string();
                let answered = (accepted.status, accepted.header("ttl"));
                assert_eq!(answered, (201, Some(&*kept)), "{library:?} {encoding}: {}", accepted.text());
                sent.push(message.payload.to_owned());
            }
            let longer = format!("{longest}x");
            let message = message(&longer, encoding);
            let refused = library.send(&endpoint, &authority.trusted, &subscription, &message).await;
            assert_eq!(refused.status, 413, "{library:?} {encoding}");
        }
    }
    let arrived = phone.wait_for_pushes(sent.len(), SOON).await;
    let bodies = arrived.into_iter().map(|push| push.body);
    assert_eq!(subscription.decrypt(bodies).await, sent);
}

/// In `aesgcm`, the libraries sign as a draft of VAPID had it.
#[tokio::test]
async fn what_they_sign_opens_an_endpoint_that_is_bound_to_their_key() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let Secured { upwire, authority, tunnel: _tunnel } = secured(server).await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let subscription = Subscription::new().await;
    let (own, another) = (Subscription::new().await.keys, Subscription::new().await.keys);
    let (application, instance) = (hashed("app"), hashed("1"));
    let bound = phone.register_bound(&upwire.component.jid, &application, &instance, &own.public).await;
    let endpoint = bound.unwrap().endpoint;
    for library in LIBRARIES {
        for (encoding, _) in ENCODINGS {
            for (vapid, status) in [(Some(&own), 201), (Some(&another), 403), (None, 401)] {
                let message = Message { vapid, ..message("signed", encoding) };
                let answer = library.send(&endpoint, &authority.trusted, &subscription, &message).await;
                assert_eq!(answer.status, status, "{library:?} {encoding}: {}", answer.text());
            }
        }
    }
    let bodies = phone.wait_for_pushes(4, SOON).await.into_iter().map(|push| push.body);
    assert_eq!(subscription.decrypt(bodies).await, ["signed"; 4]);
}

#[tokio::test]
async fn their_urgency_topic_and_ttl_are_honoured() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let Secured { upwire, authority, tunnel: _tunnel } = secured(server).await;
    let subscription = Subscription::new().await;
    for library in LIBRARIES {
        let user = server.user().await;
        let phone = Phone::connect(server, &user, "phone").await;
        let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
        phone.disconnect().await;
        let plain = message("normal", "aes128gcm");
        let messages = [
            Message { payload: "low", urgency: "low", ..plain },
            Message { payload: "old", topic: Some("news"), ..plain },
            plain,
            Message { payload: "now or never", ttl: 0, ..plain },
            Message { payload: "new", topic: Some("news"), encoding: "aesgcm", ..plain },
            Message { payload: "high", urgency: "high", ..plain },
        ];
        for message in &messages {
            let accepted = library.send(&endpoint, &authority.trusted, &subscription, message).await;
            assert_eq!(accepted.status, 201, "{library:?}: {}", accepted.text());
        }
        upwire.queue_empties().await;
        upwire.mailbox_holds(4).await;
        let phone = Phone::connect(server, &user, "phone").await;
        phone.greet(&upwire.component.jid).await;
        nothing_is_left(&upwire).await;
        let bodies = phone.has_got_count(4).await.into_iter().map(|push| push.body);
        assert_eq!(subscription.decrypt(bodies).await, ["high", "normal", "new", "low"], "{library:?}");
    }
}

#[tokio::test]
async fn they_understand_that_an_endpoint_is_none() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let Secured { upwire: _upwire, authority, tunnel } = secured(server).await;
    let endpoint = format!("https://localhost:{}/push/x", tunnel.port);
    let subscription = Subscription::new().await;
    for library in LIBRARIES {
        let refused =
            library.send(&endpoint, &authority.trusted, &subscription, &message("x", "aesgcm")).await;
        assert_eq!((refused.status, refused.json()["status"].as_u64()), (404, Some(404)), "{library:?}");
    }
}
