//! The Matrix push gateway of the cloud function.

use std::collections::BTreeSet;

use e2e::{Answer, Kind, Phone, SOON, XmppServer, eventually, http};
use futures::future::join_all;
use serde_json::json;
use tokio_xmpp::parsers::stanza_error::DefinedCondition;

use super::matrix::{gateway, notification, refused, rejected};
use crate::cloud::{Cloud, UNDER_LOAD, calls, costing};

async fn a_notification_goes_the_whole_way_and_costs_what_it_should(server: &XmppServer) {
    let cloud = Cloud::new().await;
    let relay = cloud.relay_on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let (endpoint, gone) = (
        phone.endpoint(&relay.component.jid, "app").await,
        phone.endpoint(&relay.component.jid, "gone").await,
    );
    let url = &cloud.function.url;
    assert_eq!(http::get(&gateway(url)).await.json(), json!({"unifiedpush": {"gateway": "matrix"}}));

    let (request, body) = notification("$1", &[&endpoint]);
    let taken = costing(&cloud.ingress_ways, [("BatchGetItem", 1), ("SendMessageBatch", 1)], async || {
        http::post(&gateway(url), request.clone()).await
    })
    .await;
    assert_eq!((taken.status, &taken.json()["rejected"]), (200, &json!([])));
    assert_eq!(phone.next_push(SOON).await.body, body);

    phone.set_answer(Answer::Error(DefinedCondition::ItemNotFound));
    assert_eq!(http::post_patiently(&gone, &[], "anyone there?").await.status, 201);
    eventually(SOON, "410", async || http::post(&gone, "and now?").await.status == 410).await;
    phone.set_answer(Answer::Result);
    let forged = format!("{endpoint}A");
    let (request, _) = notification("$2", &[&gone, "https://push.example.org/push/x", &forged]);
    let all = json!([gone, "https://push.example.org/push/x", forged]);
    let dead = costing(&cloud.ingress_ways, [("BatchGetItem", 2)], async || {
        http::post(&gateway(url), request.clone()).await
    })
    .await;
    assert_eq!((dead.status, &dead.json()["rejected"]), (200, &all));

    let before = cloud.ingress_ways.calls();
    refused(url, "{", 400, "M_BAD_JSON").await;
    refused(url, "{}", 400, "M_BAD_JSON").await;
    assert_eq!(http::send("PUT", &gateway(url), &[], "x").await.status, 405);
    assert_eq!(cloud.ingress_ways.calls_since(&before), calls([]));
}

on_each_server!(a_notification_goes_the_whole_way_and_costs_what_it_should);

#[tokio::test]
async fn a_hundred_devices_are_read_in_one_call_and_queued_in_ten() {
    let _turn = UNDER_LOAD.acquire().await;
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    let relay = cloud.relay_on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let mut endpoints = Vec::new();
    for ten in 0..10 {
        let names = (0..10).map(|number| format!("app {}", 10 * ten + number)).collect::<Vec<_>>();
        endpoints.extend(join_all(names.iter().map(|name| phone.endpoint(&relay.component.jid, name))).await);
    }
    let (request, body) = notification("$1", &endpoints);
    let expected = calls([("BatchGetItem", 1), ("SendMessageBatch", 10)]);
    // On a busy machine, the emulator may be too slow for a call. The function then answers 503, and the request is
    // repeated.
    eventually(SOON, "it is taken in so many calls", async || {
        let before = cloud.ingress_ways.calls();
        let answer = http::post(&gateway(&cloud.function.url), request.clone()).await;
        assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
        answer.status == 200 && cloud.ingress_ways.calls_since(&before) == expected
    })
    .await;
    // Pushes of a request that got a 503 come, too.
    eventually(SOON, "each of them has got it", async || {
        let pushes = phone.pushes();
        assert!(pushes.iter().all(|push| push.body == body));
        pushes.iter().map(|push| &push.application).collect::<BTreeSet<_>>().len() == endpoints.len()
    })
    .await;
}

#[tokio::test]
async fn what_is_out_of_reach_is_told_and_costs_no_pusher() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    let relay = cloud.relay_on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&relay.component.jid, "app").await;
    for (event, way) in [("$1", &cloud.ingress_ways.queue), ("$2", &cloud.ingress_ways.table)] {
        let (request, _) = notification(event, &[&endpoint, "https://push.example.org/push/x"]);
        way.cut();
        let told = refused(&cloud.function.url, request.clone(), 503, "M_UNKNOWN").await;
        assert_eq!(told.header("retry-after"), Some("5"));
        way.mend();
        let foreign = json!(["https://push.example.org/push/x"]);
        assert_eq!(rejected(&cloud.function.url, request).await, foreign);
    }
    phone.wait_for_pushes(2, SOON).await;
}
