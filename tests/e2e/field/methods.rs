//! Senders that use another method than POST.

use e2e::{SOON, http};

use super::Scene;

/// forkgram/forkgram-classic#121: Telegram's simple push is a PUT. Without a gateway that turns it into a POST, nothing
/// arrives.
#[tokio::test]
async fn a_put_of_telegram_arrives_once() {
    let scene = Scene::set().await;
    for version in 1..=3 {
        let body = format!("version={version}");
        let accepted = http::send("PUT", &scene.endpoint, &[], body.clone()).await;
        assert_eq!(accepted.status, 201);
        assert!(accepted.header("location").is_some() && accepted.header("ttl").is_some());
        assert_eq!(scene.phone.next_push(SOON).await.body, body.as_bytes());
    }
    let preflight =
        http::send("OPTIONS", &scene.endpoint, &[("Origin", "https://app.example.org")], "").await;
    assert_eq!((preflight.status, preflight.header("content-length")), (204, None));
    assert_eq!(preflight.header("access-control-allow-methods"), Some("POST, PUT, GET, HEAD, OPTIONS"));
    assert_eq!(http::send("PUT", &scene.endpoint, &[], "").await.json()["code"], "empty_body");
}
