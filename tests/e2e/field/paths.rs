//! Paths that a proxy, or whoever configured it, has bent: nobody unsubscribes for a slash.

use e2e::{SOON, http};
use serde_json::json;

use super::Scene;
use crate::senders::matrix::{notification, rejected};

/// binwiederhier/ntfy#370: a slash too many at the end of the base URL, and nothing comes at once any more.
/// eikek/docspell#579: `//` in every URL, and 404 for all of them.
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
    // Paths that are none of ours stay so.
    for path in ["//push/", "/push/{}/x", "/push/x{}"] {
        let bent = format!("{url}{}", path.replace("{}", token));
        assert_eq!(http::post(&bent, "x").await.status, 404, "{path}");
    }
}

/// The same in what applications give to their homeserver.
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
