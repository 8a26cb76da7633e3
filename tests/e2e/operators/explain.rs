//! `upwire explain`: its words on endpoints and pushes, beside a running server and without one.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use e2e::{Emulator, Kind, Phone, SOON, Upwire, XmppServer, eventually_some, hashed, http, profile_folder};
use push::ports::{Registrations, Renewal};
use push::{MessageId, Secrets, Urgency};
use serde_json::Value;

use crate::ports::{WEEK, at, target};

type Variables = BTreeMap<&'static str, String>;

/// Runs `upwire explain` in this environment alone.
fn run(arguments: &[&str], variables: &Variables) -> Output {
    let mut command = Command::new(profile_folder().join("upwire"));
    command.env_clear().env("AWS_EC2_METADATA_DISABLED", "true").envs(variables);
    command.arg("explain").args(arguments).output().unwrap()
}

fn explained(subject: &str, variables: &Variables) -> Value {
    let output = run(&["--json", subject], variables);
    assert!(output.status.success(), "{subject}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Waits until the verdict has these words. Returns the whole explanation.
async fn says(subject: &str, variables: &Variables, words: &str) -> Value {
    eventually_some(SOON, &format!("{subject} is explained by {words:?}"), async || {
        let explained = explained(subject, variables);
        explained["verdict"].as_str().unwrap().contains(words).then_some(explained)
    })
    .await
}

fn beside(upwire: &Upwire) -> Variables {
    let admin = upwire.admin_url.strip_prefix("http://").unwrap();
    [("UPWIRE_DATABASE", upwire.database().display().to_string()), ("UPWIRE_ADMIN_LISTEN", admin.to_owned())]
        .into()
}

/// Posts a push. Returns its `Location`.
async fn post(endpoint: &str) -> String {
    let answer = http::post_with(endpoint, &[("TTL", "3600")], "x").await;
    assert_eq!(answer.status, 201);
    answer.header("location").unwrap().to_owned()
}

#[tokio::test]
async fn a_push_is_followed_from_its_delivery_to_its_wait_while_the_server_runs() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut upwire = Upwire::on(server).start_ready().await;
    let component = upwire.component.jid.clone();
    let variables = beside(&upwire);
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(&component).await;
    let endpoint = phone.endpoint(&component, "app").await;
    let lives = says(&endpoint, &variables, "no push has come to it lately").await;
    assert_eq!(lives["token"]["signed_by"]["of"], 1);
    assert_eq!((&lives["life"], &lives["waiting"]["pushes"]), (&"lives".into(), &0.into()));
    assert_eq!(lives["registration"]["recipient"], phone.jid().as_str());

    let location = post(&endpoint).await;
    let delivered = says(&location, &variables, "It was delivered").await;
    let id = delivered["push"]["id"].as_str().unwrap();
    says(id, &variables, "It was delivered").await;
    says(&endpoint, &variables, "The last push was delivered").await;
    let registration = delivered["id"].as_str().unwrap();
    says(registration, &variables, "The last push was delivered").await;
    let text = String::from_utf8(run(&[&location], &variables).stdout).unwrap();
    assert!(text.lines().last().unwrap().starts_with("It was delivered"), "{text}");
    assert!(text.contains("signed by secret 1 of 1") && text.contains("delivered 20"), "{text}");

    // The answer of the process has no address.
    let told = http::get(&format!("{}/pushes/{id}", upwire.admin_url)).await.text();
    assert!(told.contains("delivered") && !told.contains('@'), "{told}");

    phone.disconnect().await;
    let waits = post(&endpoint).await;
    upwire.mailbox_holds(1).await;
    says(&waits, &variables, "It waits: the phone").await;
    says(&endpoint, &variables, "1 push waits: the phone").await;

    // The tenant is suspended.
    let domain = user.jid.domain().to_string();
    let tenant = |action: &str| {
        let mut command = Command::new(profile_folder().join("upwire"));
        command.env_clear().envs(&variables).args(["tenant", action, &domain]).status().unwrap()
    };
    assert!(tenant("add").success() && tenant("suspend").success());
    says(&endpoint, &variables, "Senders get 429: the tenant").await;
    says(&waits, &variables, "It waits: the tenant").await;
    assert!(tenant("resume").success());
    says(&waits, &variables, "It waits: the phone").await;

    // Without a server, the command still tells what is stored.
    upwire.terminate();
    assert_eq!(upwire.wait_exit(SOON).await.code(), Some(0));
    let alone = says(&waits, &variables, "It waits: the phone").await;
    assert!(alone["process"]["unreachable"].as_str().unwrap().contains("UPWIRE_ADMIN_LISTEN"), "{alone}");
    says(&location, &variables, "did not answer").await;
}

#[tokio::test]
async fn an_endpoint_that_is_over_or_elsewhere_says_so() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut upwire = Upwire::on(server).start_ready().await;
    let component = upwire.component.jid.clone();
    let variables = beside(&upwire);
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let endpoint = phone.endpoint(&component, "app").await;
    let mut ending = Command::new(profile_folder().join("upwire"));
    let ended = ending.envs(&variables).args(["registrations", "end", &endpoint]).status().unwrap();
    assert!(ended.success());
    says(&endpoint, &variables, "or by an operator: senders get 410").await;
    let renewed = phone.register(&component, &hashed("app"), &hashed("1")).await.unwrap().endpoint;
    says(&renewed, &variables, "no push has come").await;
    says(&endpoint, &variables, "a newer endpoint").await;

    let token = Secrets::parse(&"x".repeat(32))
        .unwrap()
        .sign(target("juliet", "a").registration_id(), push::Epoch::from_seconds(1_700_000_000));
    says(token.as_str(), &variables, "No secret that is known here").await;
    let unknown = MessageId::new(Urgency::Normal, at(1), [7; 8]).to_string();
    says(&unknown, &variables, "does not remember").await;
    let wrong = run(&["https://push.example.com/push/abc"], &variables);
    assert_eq!(wrong.status.code(), Some(64), "{wrong:?}");
    upwire.assert_running();
}

#[tokio::test]
async fn an_endpoint_on_aws_is_explained_from_any_machine() {
    let emulator = Emulator::shared().await;
    let (table, mailbox) = (emulator.table().await, emulator.mailbox_table().await);
    let mut variables: Variables = Emulator::variables(&emulator.endpoint);
    let secret = "a".repeat(32);
    variables.extend([
        ("UPWIRE_REGISTRATIONS_TABLE", table.clone()),
        ("UPWIRE_MAILBOX_TABLE", mailbox),
        ("UPWIRE_SECRET", format!("{},{secret}", "b".repeat(32))),
        ("UPWIRE_ADMIN_LISTEN", format!("127.0.0.1:{}", e2e::free_port())),
    ]);
    let store = aws::RegistrationsTable::new(&emulator.config(), &table);
    // The row is compared with the present, which is later than the suite's moments.
    let life = WEEK + chrono::TimeDelta::days(36_500);
    let juliet = target("juliet", "a");
    let row =
        store.register(juliet.clone(), at(0), life, Renewal::Always, 9).await.unwrap().stored().unwrap();
    let token = Secrets::parse(&secret).unwrap().sign(juliet.registration_id(), row.epoch);
    let lives = says(token.as_str(), &variables, "nothing waits for it").await;
    assert_eq!(lives["token"]["signed_by"]["secret"], 2);
    assert!(lives["process"]["unreachable"].is_string(), "{lives}");
}
