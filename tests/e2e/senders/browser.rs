//! The page at the root, and pages of other origins, in a real Chromium.

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use e2e::{Kind, Phone, SOON, Upwire, XmppServer, browse, http};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::cloud::Cloud;

fn texts(values: Vec<Value>) -> Vec<String> {
    values.iter().map(|value| value.as_str().unwrap_or_default().to_owned()).collect()
}

/// Checks that the page under this URL sends pushes, and explains the answers.
async fn the_page_sends(url: &str, phone: &Phone, endpoint: &str, component: &str) {
    let token = endpoint.rsplit('/').next().unwrap();
    let submit = |endpoint: &str| json!({"submit": {"endpoint": endpoint, "text": "from a page"}});
    let foreign = format!("https://elsewhere.example/push/{}", token.replace(|_: char| true, "8"));
    let (mut results, mut said) = (Vec::new(), Vec::new());
    let tasks = [json!({"open": url}), submit(endpoint), submit("https://example.com/"), submit(&foreign)];
    results.extend(browse(&[&tasks[..], &[json!({"console": true})]].concat()).await);
    let console = results.pop().unwrap();
    said.extend(texts(results));
    assert!(said[0].contains(component), "what to enter in Conversations: {}", said[0]);
    assert!(said[1].starts_with("201: ") && said[1].contains("300 seconds"), "{}", said[1]);
    assert!(said[2].contains("not an endpoint"), "{}", said[2]);
    assert!(said[3].starts_with("404: ") && said[3].contains("Unknown endpoint"), "{}", said[3]);
    let complaints = console.as_array().unwrap().iter().map(Value::to_string);
    // A browser notes each answer without success. Any other note would be of the content security policy.
    let complaints: Vec<String> =
        complaints.filter(|complaint| !complaint.contains("status of 404")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    assert_eq!(phone.next_push(SOON).await.body, b"from a page");
}

#[tokio::test]
async fn the_page_of_an_embedded_server_sends_a_test_push() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    the_page_sends(&upwire.public_url, &phone, &endpoint, upwire.component.jid.as_str()).await;
}

/// A reverse proxy may keep the path or strip it; a page has its own address either way.
#[tokio::test]
async fn the_page_of_a_server_below_a_path_sends_a_test_push() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire =
        Upwire::on(server).set("UPWIRE_PUBLIC_URL", "https://push.example.com/up/").start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    for path in ["up", "up/", ""] {
        let url = format!("{}/{path}", upwire.public_url);
        the_page_sends(&url, &phone, &endpoint, upwire.component.jid.as_str()).await;
    }
}

#[tokio::test]
async fn the_page_of_the_function_sends_a_test_push() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    let relay = cloud.relay_on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&relay.component.jid, "app").await;
    the_page_sends(&relay.public_url, &phone, &endpoint, "known to whoever runs this one").await;
}

/// Starts a server that has only an empty page. Returns its origin.
async fn another_origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}/", listener.local_addr().unwrap());
    let page = Router::new()
        .route("/", get(async || Html("<!doctype html><title>another origin</title><body>here")));
    tokio::spawn(async { axum::serve(listener, page).await });
    origin
}

#[tokio::test]
async fn a_page_of_another_origin_pushes_and_reads_the_answer() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).set("UPWIRE_QUEUE_MAX", 1).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    // The headers and the DELETE need a preflight.
    let script = format!(
        "const answer = await fetch('{endpoint}', {{method: 'POST', body: 'across', headers: {{TTL: '60', Topic: 'x', \
         Urgency: 'high', Authorization: 'vapid t=x, k=y', 'Content-Encoding': 'aes128gcm', 'Content-Type': \
         'application/octet-stream'}}}}); \
         const withdrawn = await fetch(answer.headers.get('Location'), {{method: 'DELETE'}}); \
         return [answer.status, answer.headers.get('TTL'), answer.headers.get('Location'), withdrawn.status];"
    );
    let found = "const answer = await fetch('{endpoint}'); return [answer.status, await answer.json()];";
    let found = found.replace("{endpoint}", &endpoint);
    let origin = another_origin().await;
    let did = browse(&[json!({"open": origin}), json!({"run": script}), json!({"run": found})]).await;
    assert_eq!((&did[1][0], &did[1][1]), (&json!(201), &json!("60")), "{did:?}");
    assert!(did[1][2].as_str().unwrap().contains("/message/"), "{did:?}");
    // The push is on its way or delivered, so it cannot be withdrawn.
    assert_eq!(did[1][3], 404, "{did:?}");
    assert_eq!(did[2], json!([200, {"unifiedpush": {"version": 1}}]));
    assert_eq!(phone.next_push(SOON).await.body, b"across");
}

#[tokio::test]
async fn a_page_of_another_origin_reads_when_to_try_again() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).set("UPWIRE_RATE", "1/1").start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    let script = format!(
        "for (let number = 0; number < 1000; number++) {{ \
         const answer = await fetch('{endpoint}', {{method: 'POST', body: String(number)}}); \
         if (answer.status === 429) return [answer.headers.get('Retry-After'), (await answer.json()).title]; }}"
    );
    let did = browse(&[json!({"open": another_origin().await}), json!({"run": script})]).await;
    assert!(did[1][0].as_str().is_some_and(|wait| wait.parse::<u32>().is_ok_and(|wait| wait > 0)), "{did:?}");
    assert_eq!(did[1][1], "Too many pushes");
}

#[tokio::test]
async fn the_page_loads_nothing_and_may_be_framed_by_nobody() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).start_ready().await;
    let page = http::get(&upwire.public_url).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    for part in ["default-src 'none'", "frame-ancestors 'none'", "connect-src 'self'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for loaded in ["src=", "<link", "@import", "url("] {
        assert!(!page.text().contains(loaded), "{loaded}");
    }
    let refused = http::post(&upwire.public_url, "x").await;
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
}
