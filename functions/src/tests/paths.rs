//! Paths as proxies and their operators change them.

use super::*;
use crate::{legacy, legacy::LegacyKeys};

async fn pushed(store: &Store, home: &str, path: &str) -> StatusCode {
    let request = Request::post(path).body(Body::from("hello")).unwrap();
    let ingress = store.ingress_at(Some(home.parse().unwrap()));
    ingress.oneshot(request).await.unwrap().status()
}

#[tokio::test]
async fn an_endpoint_is_one_wherever_it_stands_and_however_many_slashes_there_are() {
    let store = store();
    let endpoint = store.endpoint(store.row.epoch);
    let token = endpoint.strip_prefix("/push/").unwrap();
    let forms = [
        format!("/push/{token}"),
        format!("//push/{token}"),
        format!("/push//{token}"),
        format!("/push/{token}/"),
        format!("/{token}"),
        format!("/up/push/{token}"),
        format!("/up//push/{token}//"),
        format!("/other/push/{token}"),
        format!("/push/push/{token}"),
        format!("/push/{}", token.replace('-', "%2D").replace('_', "%5F")),
        format!("/{}", token.replace('-', "%2D").replace('_', "%5F")),
        format!("/push/{token}?up=1"),
    ];
    for path in &forms {
        for home in ["https://push.example.com", "https://push.example.com/up/"] {
            assert_eq!(pushed(&store, home, path).await, StatusCode::CREATED, "{path} at {home}");
        }
    }
    assert_eq!(store.calls(), [24, 0, 24, 0]);
    for path in
        [format!("/push/{token}/x"), format!("/push/x/{}", &token[1..]), "/push/".into(), "/up".into()]
    {
        let status = pushed(&store, "https://push.example.com", &path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(store.calls(), [24, 0, 24, 0]);
}

#[tokio::test]
async fn a_push_message_resource_is_one_wherever_it_stands() {
    let store = store();
    for path in ["//message/{}", "/message/{}/", "/other/message/{}", "/{}"] {
        let request = Request::delete(path.replace("{}", &store.message()));
        let withdrawn = store.answer(request.body(Body::empty()).unwrap()).await;
        assert_eq!(withdrawn.status(), StatusCode::NO_CONTENT, "{path}");
    }
}

#[tokio::test]
async fn a_path_longer_than_any_endpoint_names_nothing() {
    let store = store();
    let endpoint = store.endpoint(store.row.epoch);
    let path = |length: usize| format!("/{}{endpoint}", "x".repeat(length - 1 - endpoint.len()));
    for (home, room) in [("https://push.example.com", 1024), ("https://push.example.com/up", 1026)] {
        assert_eq!(pushed(&store, home, &path(room)).await, StatusCode::CREATED, "{home}");
        assert_eq!(pushed(&store, home, &path(room + 2)).await, StatusCode::NOT_FOUND, "{home}");
    }
}

#[tokio::test]
async fn a_token_of_a_predecessor_is_one_below_push_alone() {
    let mut row = store().row;
    row.target.legacy = Some(now() + TimeDelta::hours(1));
    let store = Store { legacy: LegacyKeys::default().with_jwt(SECRET), ..store() };
    let endpoint = legacy::tests::endpoint(&row);
    let token = endpoint.strip_prefix("/push/").unwrap();
    let home = "https://push.example.com/up";
    for path in [format!("//push/{token}/"), format!("/up/push//{token}")] {
        assert_eq!(pushed(&store, home, &path).await, StatusCode::CREATED, "{path}");
    }
    for path in [format!("/{token}"), format!("/up/{token}"), format!("/other/push/{token}")] {
        assert_eq!(pushed(&store, home, &path).await, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn the_gateway_and_the_page_are_found_as_well() {
    let store = store();
    for path in ["//_matrix/push/v1/notify", "/up/_matrix//push/v1/notify/", "/", "//", "/up/", "/up"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let ingress = store.ingress_at(Some("https://push.example.com/up".parse().unwrap()));
        assert_eq!(ingress.oneshot(request).await.unwrap().status(), StatusCode::OK, "{path}");
    }
}
