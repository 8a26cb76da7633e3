//! The gateway over stores that no emulator offers, and with arbitrary bytes.

use axum::{
    body::{Body, to_bytes},
    http::{Request, Response, StatusCode},
    response::IntoResponse,
};
use chrono::TimeDelta;
use proptest::prelude::*;
use push::Registration;
use serde_json::{Value, json};
use tower::ServiceExt;
use url::Url;

use super::{DEVICES_MAX, PATH, REQUEST_BYTES_MAX, Refusal};
use crate::{
    ingress::PublicUrl,
    legacy,
    legacy::LegacyKeys,
    measures::REASONS,
    rejection::tests::demanded,
    tests::{Copies, Line, NO_CALL, SECRET, Store, header, now, registration, secrets, store},
};

const HOME: &str = "https://push.example.com";

fn pushkey(registration: &Registration) -> String {
    let token = secrets().sign(registration.target.registration_id(), registration.epoch);
    format!("{HOME}/push/{}", token.as_str())
}

fn notification(pushkeys: &[String]) -> Body {
    let devices: Vec<Value> = pushkeys.iter().map(|key| json!({"app_id": "app", "pushkey": key})).collect();
    Body::from(json!({"notification": {"event_id": "$1", "devices": devices}}).to_string())
}

impl Store {
    async fn notify(&self, pushkeys: &[String]) -> Response<Body> {
        let request = Request::post(PATH).body(notification(pushkeys)).unwrap();
        self.ingress_at(Some(HOME.parse().unwrap())).oneshot(request).await.unwrap()
    }
}

async fn read_json(response: Response<Body>) -> Value {
    serde_json::from_slice(&to_bytes(response.into_body(), usize::MAX).await.unwrap()).unwrap()
}

async fn rejected(response: Response<Body>) -> Value {
    assert_eq!(response.status(), StatusCode::OK);
    read_json(response).await["rejected"].take()
}

async fn assert_refused(response: Response<Body>, status: StatusCode, code: &str) {
    assert_eq!(response.status(), status);
    let error = read_json(response).await;
    assert_eq!(error["errcode"], code);
    assert!(error["error"].is_string());
}

#[tokio::test]
async fn all_devices_together_cost_one_eventual_read_and_one_send() {
    let store = Store { others: (2..=9).map(registration).collect(), ..store() };
    let one = pushkey(&store.row);
    assert_eq!(rejected(store.notify(&[one.clone(), one.clone()]).await).await, json!([]));
    assert_eq!(store.calls(), [1, 0, 1, 0], "a pushkey that is given twice is one");

    let all: Vec<String> = store.others.iter().map(pushkey).chain([one]).collect();
    assert_eq!(rejected(store.notify(&all).await).await, json!([]));
    assert_eq!(store.calls(), [2, 0, 2, 0]);
    let mut sent: Vec<_> = store.sent.lock().unwrap().iter().map(|push| push.registration).collect();
    sent.sort();
    sent.dedup();
    assert_eq!((sent.len(), store.sent.lock().unwrap().len()), (9, 10));
}

#[tokio::test]
async fn what_is_dead_is_rejected_after_a_strong_read_and_what_is_not_ours_without_any() {
    let mut store = Store { others: vec![registration(2)], ..store() };
    let (here, dead) = (pushkey(&store.row), pushkey(&store.others[0]));
    store.others[0].revoked = true;
    let foreign = ["https://elsewhere.example.com/push/x", "", "no URL"].map(str::to_owned);
    assert_eq!(rejected(store.notify(&foreign).await).await, json!(foreign));
    assert_eq!(store.calls(), NO_CALL);

    let unknown = pushkey(&registration(3));
    let asked = [&dead, &foreign[0], &here, &unknown, &dead].map(Clone::clone);
    assert_eq!(rejected(store.notify(&asked).await).await, json!([dead, foreign[0], unknown]));
    assert_eq!(store.calls(), [1, 1, 1, 0]);
    assert_eq!(store.sent.lock().unwrap().len(), 1);

    let young = Store { copies: Copies::Lag, ..self::store() };
    assert_eq!(rejected(young.notify(&[pushkey(&young.row)]).await).await, json!([]));
    assert_eq!(young.calls(), [1, 1, 1, 0]);
}

#[tokio::test]
async fn endpoints_of_a_predecessor_are_pushkeys_until_they_expire() {
    let store = Store { legacy: LegacyKeys::default().with_jwt(SECRET), ..store() };
    let pushkey_until = |seconds: i64| {
        let mut row = store.row.clone();
        row.target.legacy = Some(now() + TimeDelta::seconds(seconds));
        format!("{HOME}{}", legacy::tests::endpoint(&row))
    };
    let (lives, expired) = (pushkey_until(3600), pushkey_until(-5));
    let all = [pushkey(&store.row), lives, expired.clone()];
    assert_eq!(rejected(store.notify(&all).await).await, json!([expired]));
    assert_eq!((store.calls()[2], store.sent.lock().unwrap().len()), (1, 2));
}

#[tokio::test]
async fn a_pushkey_is_read_as_the_path_of_a_push_is() {
    let mut row = registration(1);
    row.target.legacy = Some(now() + TimeDelta::hours(1));
    let store = Store { legacy: LegacyKeys::default().with_jwt(SECRET), ..store() };
    let ours = pushkey(&store.row);
    let ours = ours.rsplit('/').next().unwrap();
    let of_a_predecessor = legacy::tests::endpoint(&row);
    let of_a_predecessor = of_a_predecessor.rsplit('/').next().unwrap();
    let taken = [
        format!("{HOME}//push/{ours}"),
        format!("{HOME}/push//{ours}/"),
        format!("{HOME}/other/{ours}?up=1"),
        format!("{HOME}//push/{of_a_predecessor}/"),
    ];
    assert_eq!(rejected(store.notify(&taken).await).await, json!([]));
    let not_taken = [
        format!("{HOME}/{of_a_predecessor}"),
        format!("{HOME}/push/{ours}/x"),
        format!("{HOME}/{}/{ours}", "x".repeat(1024)),
        format!("https://elsewhere.example.com/push/{ours}"),
    ];
    assert_eq!(rejected(store.notify(&not_taken).await).await, json!(not_taken));
}

/// A homeserver cannot sign (RFC 8292).
#[tokio::test]
async fn an_endpoint_that_is_bound_to_a_key_is_rejected() {
    let mut store = store();
    let key = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";
    store.row.target.vapid = Some(key.parse().unwrap());
    let bound = pushkey(&store.row);
    assert_eq!(rejected(store.notify(std::slice::from_ref(&bound)).await).await, json!([bound]));
    assert!(store.sent.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_device_over_its_rate_delays_the_request_and_nobody_gets_it_twice() {
    let mut store = Store { others: vec![registration(2), registration(3)], ..store() };
    store.others[0].throttled_until = Some(now() + TimeDelta::seconds(1000));
    store.others[1].throttled_until = Some(now() + TimeDelta::seconds(3600));
    let all = [&store.row, &store.others[0], &store.others[1]].map(pushkey);
    let refused = store.notify(&all).await;
    let seconds = header(&refused, "retry-after").unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&seconds), "{seconds}");
    assert_refused(refused, StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED").await;
    assert_eq!(store.calls(), [1, 0, 0, 0], "nothing was queued for the others either");

    store.others.iter_mut().for_each(|row| row.throttled_until = Some(now()));
    assert_eq!(rejected(store.notify(&all).await).await, json!([]));
    assert_eq!(store.sent.lock().unwrap().len(), 3, "one for each");
}

#[tokio::test]
async fn a_queue_that_does_not_answer_is_503_and_in_time() {
    for line in [Line::OutOfReach, Line::Hangs] {
        let store = Store { line, ..store() };
        let dead = pushkey(&registration(2));
        let refused = store.notify(&[pushkey(&store.row), dead]).await;
        assert_eq!(header(&refused, "retry-after").as_deref(), Some("5"));
        assert_refused(refused, StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN").await;
    }
}

#[tokio::test]
async fn a_pushkey_is_at_home_where_the_homeserver_reached_the_ingress() {
    let store = store();
    for (reached_at, is_home) in
        [("https://push.example.com/", true), ("https://push.example.com/stage", false)]
    {
        let mut request = Request::post(PATH).body(notification(&[pushkey(&store.row)])).unwrap();
        request.extensions_mut().insert(PublicUrl(reached_at.parse().unwrap()));
        let rejected = rejected(store.answer(request).await).await;
        assert_eq!(rejected.as_array().unwrap().is_empty(), is_home, "{reached_at}");
    }
}

/// A stack may have a Function URL and an HTTP API, and a server may move to another name.
#[tokio::test]
async fn a_pushkey_is_at_home_at_either_address_of_the_ingress() {
    let store = store();
    let here = pushkey(&store.row);
    let [there, elsewhere] = ["there", "elsewhere"].map(|host| here.replace("push.", &format!("{host}.")));
    let keys = [here, there, elsewhere.clone()];
    let mut request = Request::post(PATH).body(notification(&keys)).unwrap();
    request.extensions_mut().insert(PublicUrl("https://there.example.com/".parse().unwrap()));
    let answer = store.ingress_at(Some(HOME.parse().unwrap())).oneshot(request).await.unwrap();
    assert_eq!(rejected(answer).await, json!([elsewhere]));
}

#[tokio::test]
async fn an_endpoint_is_of_this_host_and_below_its_path_and_signed() {
    let store = store();
    let signed = secrets().sign(store.id(), store.row.epoch);
    let token = signed.as_str();
    let is_ours = async |pushkey: &String, home: Option<&str>| {
        let home = home.map(|home| Url::parse(home).unwrap());
        let request = Request::post(PATH).body(notification(std::slice::from_ref(pushkey))).unwrap();
        let answer = store.ingress_at(home).oneshot(request).await.unwrap();
        rejected(answer).await == json!([])
    };
    let here = "https://push.example.com";
    for (pushkey, home, ours) in [
        (format!("{here}/push/{token}"), Some(here), true),
        (format!("https://PUSH.example.com:443/push/{token}?a=b#c"), Some(here), true),
        (format!("http://push.example.com/push/{token}"), Some(here), true),
        (format!("https://elsewhere.org/push/{token}"), None, true),
        (format!("{here}/up/push/{token}"), Some("https://push.example.com/up/"), true),
        (format!("{here}/push/{token}"), Some("https://push.example.com/up/"), false),
        (format!("{here}/up/push/{token}"), Some(here), true),
        (format!("https://elsewhere.org/push/{token}"), Some(here), false),
        (format!("{here}:8443/push/{token}"), Some(here), false),
        (format!("{here}.evil.org/push/{token}"), Some(here), false),
        (format!("{here}/message/{token}"), Some(here), false),
        (format!("{here}/push/{token}/"), Some(here), true),
        (format!("{here}/push/x{}", &token[1..]), Some(here), false),
        (format!("gopher://push.example.com/push/{token}"), Some(here), false),
        (format!("/push/{token}"), Some(here), false),
        (token.to_owned(), Some(here), false),
    ] {
        assert_eq!(is_ours(&pushkey, home).await, ours, "{pushkey} at {home:?}");
    }
}

/// Returns every refusal once. The match does not compile without a new one.
fn refusals() -> impl Iterator<Item = Refusal> {
    std::iter::successors(Some(Refusal::NotJson), |refusal| match refusal {
        Refusal::NotJson => Some(Refusal::BadJson),
        Refusal::BadJson => Some(Refusal::NoDevices),
        Refusal::NoDevices => Some(Refusal::TooManyDevices),
        Refusal::TooManyDevices => Some(Refusal::TooLarge),
        Refusal::TooLarge => Some(Refusal::Interrupted),
        Refusal::Interrupted => Some(Refusal::Throttled(1)),
        Refusal::Throttled(_) => Some(Refusal::Unavailable),
        Refusal::Unavailable => Some(Refusal::OtherMethod),
        Refusal::OtherMethod => None,
    })
}

#[tokio::test]
async fn each_refusal_comes_with_what_http_demands_and_is_counted_from_the_start() {
    for refusal in refusals() {
        assert!(REASONS.contains(&refusal.reason()), "{refusal:?}: REASONS lacks its reason");
        let response = refusal.into_response();
        let demanded = demanded(response.status()).expect("a status of the table");
        // After a body that was read whole, the connection stays usable.
        let demanded = demanded.filter(|_| refusal != Refusal::TooManyDevices);
        assert!(demanded.is_none_or(|name| response.headers().contains_key(name)), "{refusal:?}");
        assert!(read_json(response).await["errcode"].is_string(), "{refusal:?}");
    }
}

#[tokio::test]
async fn requests_have_their_bounds() {
    let store = store();
    let keys = vec![pushkey(&store.row); DEVICES_MAX + 1];
    assert_eq!(rejected(store.notify(&keys[1..]).await).await, json!([]));
    assert_refused(store.notify(&keys).await, StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE").await;
    let huge = Request::post(PATH).body(Body::from(vec![b' '; REQUEST_BYTES_MAX + 1])).unwrap();
    assert_refused(store.answer(huge).await, StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE").await;
}

#[tokio::test]
async fn a_notification_that_no_push_can_carry_comes_no_more_and_costs_no_pusher() {
    let store = store();
    let devices = json!([{"app_id": "app", "pushkey": pushkey(&store.row)}]);
    let request = json!({"notification": {"event_id": "$".repeat(5000), "devices": devices}});
    let send =
        async || store.answer(Request::post(PATH).body(Body::from(request.to_string())).unwrap()).await;
    assert_eq!(rejected(send().await).await, json!([]));
    assert_eq!(store.calls(), [1, 0, 0, 0]);

    // The rate of dropped notifications is bounded, too.
    for _ in 2..=3 {
        assert_eq!(rejected(send().await).await, json!([]));
    }
    let refused = send().await;
    assert!(header(&refused, "retry-after").unwrap().parse::<u64>().unwrap() <= 60);
    assert_refused(refused, StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED").await;
    assert_eq!(
        rejected(store.notify(&[pushkey(&store.row)]).await).await,
        json!([]),
        "what a push can carry"
    );
}

proptest! {
    #[test]
    fn whatever_comes_is_answered(bytes in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        "(notification|devices|pushkey|[\\[\\]{}:,\" a-z0-9\\\\]){0,60}".prop_map(String::into_bytes),
    ]) {
        let answer = async {
            let request = Request::post(PATH).body(Body::from(bytes)).unwrap();
            let response = store().answer(request).await;
            (response.status().as_u16(), read_json(response).await)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (status, body) = runtime.block_on(answer);
        prop_assert!(matches!(status, 200 | 400), "{} {}", status, body);
        let is_matrix = if status == 200 { body["rejected"].is_array() } else { body["errcode"].is_string() };
        prop_assert!(is_matrix, "{}", body);
    }
}
