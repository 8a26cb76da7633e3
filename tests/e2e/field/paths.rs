//! Paths that a proxy or its operator has changed. No sender unsubscribes because of a slash.

use e2e::{SOON, http};
use serde_json::json;

use super::Scene;
use crate::senders::matrix::{notification, rejected};

/// binwiederhier/ntfy#370: the base URL ends with a slash too many, and nothing comes at once any more.
/// eikek/docspell#579: every URL has `//`, and gets a 404.
/// UP-NextPush/server-app#27: nginx adds a slash at the end.
#[tokio::test]
async fn a_push_arrives_however_many_slashes_there_are() {
    let scene = Scene::set().await;
    let (url, token) = (&scene.upwire.public_url, scene.token());
    for path in ["//push/{}", "/push//{}", "/push/{}/", "/up/push/{}", "/{}"] {
        let bent = format!("{url}{}", path.replace("{}", token));
        assert_eq!(http::get(&bent).await.json(), json!({"unifiedpush": {"version": 1}}), "{path}");
        let accepted = http::post(&bent, path).await;
        assert_eq!(accepted.status, 201, "{path}");
        assert_eq!(scene.phone.next_push(SOON).await.body, path.as_bytes());
    }
    // Other paths are still refused.
    for path in ["//push/", "/push/{}/x", "/push/x{}"] {
        let bent = format!("{url}{}", path.replace("{}", token));
        assert_eq!(http::post(&bent, "x").await.status, 404, "{path}");
    }
}

/// Applications may give such a URL to their homeserver, too.
/// binwiederhier/ntfy#383: a pushkey that differs from the base URL in a detail is rejected, and the pusher deleted.
#[tokio::test]
async fn a_pushkey_is_taken_however_many_slashes_there_are() {
    let scene = Scene::set().await;
    let (url, token) = (&scene.upwire.public_url, scene.token());
    for (event, path) in [("$1", "//push/{}"), ("$2", "/push/{}/"), ("$3", "/up/push//{}?up=1")] {
        let pushkey = format!("{url}{}", path.replace("{}", token));
        let (request, body) = notification(event, &[pushkey]);
        assert_eq!(rejected(url, request).await, json!([]), "{path}");
        assert_eq!(scene.phone.next_push(SOON).await.body, body);
    }
}
