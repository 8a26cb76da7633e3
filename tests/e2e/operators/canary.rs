//! `upwire canary`: a push from end to end, by a timer.

use std::process::{Command, Output};

use e2e::{Kind, Upwire, XmppServer, eventually_some, folder, profile_folder};

use crate::cloud::Cloud;

/// Runs the canary to its end. Returns its output.
async fn run(server: &XmppServer, component: &str, more: &[(&str, String)]) -> Output {
    let user = server.user().await;
    let mut canary = Command::new(profile_folder().join("upwire"));
    canary.arg("canary").args(["--jid", &user.jid.to_string(), "--push-server", component]);
    canary.args(["--server", &format!("127.0.0.1:{}", server.c2s_port), "--plaintext", "--pushes", "3"]);
    canary.env_clear().env("UPWIRE_PASSWORD", &user.password);
    canary.envs(more.iter().map(|(name, value)| (*name, value)));
    tokio::task::spawn_blocking(move || canary.output().unwrap()).await.unwrap()
}

/// Runs the canary until no push is missing. On a busy machine, a push may be late.
async fn well(server: &XmppServer, component: &str, more: &[(&str, String)]) -> String {
    eventually_some(e2e::SOON, "nothing is missing", async || {
        let output = run(server, component, more).await;
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    })
    .await
}

async fn pushes_arrive_and_prometheus_is_told_how_fast(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let file = folder("canary").join("canary.prom");
    let textfile = [("UPWIRE_CANARY_TEXTFILE", file.display().to_string())];
    let said = well(server, upwire.component.jid.as_str(), &textfile).await;
    assert!(said.starts_with("3 of 3 arrived; p50 "), "{said}");
    let metrics = std::fs::read_to_string(&file).unwrap();
    assert!(metrics.contains("upwire_canary_missing 0\n"), "{metrics}");
    assert!(metrics.contains("upwire_canary_seconds{quantile=\"0.95\"} "), "{metrics}");
}

on_each_server!(pushes_arrive_and_prometheus_is_told_how_fast);

#[tokio::test]
async fn what_does_not_arrive_is_missing_and_an_error() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let file = folder("canary").join("canary.prom");
    let told = [("UPWIRE_CANARY_TEXTFILE", file.display().to_string())];
    // No such component is connected.
    let output = run(server, "nobody.localhost", &told).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let metrics = std::fs::read_to_string(&file).unwrap();
    assert!(metrics.contains("upwire_canary_missing 3\n") && !metrics.contains("quantile"), "{metrics}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "none of 3 arrived\n");

    // The registration works, but the ingress is elsewhere.
    let upwire = Upwire::on(server).set("UPWIRE_PUBLIC_URL", "http://127.0.0.1:1").start_ready().await;
    let output = run(server, upwire.component.jid.as_str(), &told).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("a push is missing") && log.contains("3 of 3 pushes did not arrive"), "{log}");
}

#[tokio::test]
async fn cloudwatch_is_told_of_the_way_through_the_function_and_the_relay() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    let relay = cloud.relay_on(server).start_ready().await;
    let stack = [("UPWIRE_METRICS_STACK", "a-stack".to_owned())];
    let line = well(server, relay.component.jid.as_str(), &stack).await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["CanaryMissing"], &line["Stack"]), (&0.0.into(), &"a-stack".into()));
    assert!(line["CanaryP50"].as_f64() <= line["CanaryP95"].as_f64(), "{line}");
}
