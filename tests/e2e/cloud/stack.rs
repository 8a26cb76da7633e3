//! template.yaml, deployed as a whole on an emulator that runs the function as a process of its own.

use std::collections::BTreeSet;
use std::process::Command;

use e2e::{
    Answer, ENDPOINT_SECRET, Emulator, EmulatorKind, Kind, Phone, SOON, Upwire, Ways, XmppServer, eventually,
    http, profile_folder, target_folder,
};
use serde_json::{Value, json};
use tokio_xmpp::parsers::stanza_error::DefinedCondition;

use super::template::python;
use crate::senders::matrix::{notification, rejected};

pub(crate) async fn deploy(emulator: &Emulator, front: &str) -> Value {
    deploy_with(emulator, front, &[]).await
}

/// Deploys the stack with further arguments for infra/local/stack.py. Updates a stack that exists.
pub(crate) async fn deploy_with(emulator: &Emulator, front: &str, further: &[&str]) -> Value {
    let binary = profile_folder().join("upwire-ingress").display().to_string();
    let (secret, front) = (format!("EndpointSecret={ENDPOINT_SECRET}"), format!("Front={front}"));
    let mut arguments = vec!["infra/local/stack.py", "--endpoint", &emulator.endpoint, "--function", &binary];
    arguments.extend(["--parameter", &secret, "--parameter", &front]);
    arguments.extend(further);
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    let deploying = tokio::task::spawn_blocking(move || {
        python(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    });
    deploying.await.unwrap()
}

pub(crate) fn output<'a>(outputs: &'a Value, name: &str) -> &'a str {
    outputs[name].as_str().unwrap_or_else(|| panic!("no output {name}: {outputs}"))
}

/// Runs `infra/smoke.sh` on the stack, with all checks that an emulator supports. Returns its output, as an error if it
/// fails.
async fn smoke(emulator: &Emulator, url: &str, endpoint: &str) -> Result<String, String> {
    let arguments = ["upwire", "--url", url, "--endpoint", endpoint, "--idle", "1", "--close", "--alarms"];
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/smoke.sh"));
    command
        .args(arguments)
        .envs(Emulator::variables(&emulator.endpoint))
        .env("AWS_DEFAULT_REGION", "us-east-1");
    command.env("UPWIRE_PYTHON", target_folder().join("ministack/venv/bin/python"));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

async fn the_stack_carries_a_push_to_the_phone(front: &str) {
    let server = XmppServer::shared(Kind::Prosody).await;
    let emulator = Emulator::start(EmulatorKind::Ministack).await;
    let outputs = deploy(&emulator, front).await;
    let queue = output(&outputs, "QueueUrl");
    let relay = Upwire::relay_on(server)
        .set("UPWIRE_PUBLIC_URL", output(&outputs, "PublicUrl"))
        .set("UPWIRE_QUEUE_URL", queue)
        .set("UPWIRE_REGISTRATIONS_TABLE", output(&outputs, "RegistrationsTable"))
        .set("UPWIRE_MAILBOX_TABLE", output(&outputs, "MailboxTable"))
        .set("UPWIRE_TABLE_ID", output(&outputs, "TableId"))
        .set_all(Emulator::variables(&emulator.endpoint))
        .start_ready()
        .await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&relay.component.jid, "app").await;

    let answer = http::post_patiently(&endpoint, &[("ttl", "60")], &b"\x00\xff through the stack"[..]).await;
    assert_eq!((answer.status, answer.header("ttl")), (201, Some("60")), "{}", answer.text());
    assert_eq!(phone.next_push(SOON).await.body, b"\x00\xff through the stack");
    emulator.queue_holds(queue, 0).await;

    let table = smoke(&emulator, output(&outputs, "PublicUrl"), &endpoint).await.unwrap();
    let count = |verdict: &str| table.lines().filter(|line| line.starts_with(verdict)).count();
    assert_eq!((count("ok"), count("FAILED"), count("left out")), (13, 0, 3), "{table}");
    phone.wait_for_body([0xff; 4096]).await;
    let elsewhere = format!("{}/nothing", output(&outputs, "PublicUrl"));
    let failed = smoke(&emulator, &elsewhere, &elsewhere).await.unwrap_err();
    assert!(failed.contains("FAILED"), "what fails is said: {failed}");

    phone.set_answer(Answer::Error(DefinedCondition::ItemNotFound));
    assert_eq!(http::post_patiently(&endpoint, &[], "to nobody").await.status, 201);
    eventually(SOON, "410", async || http::post(&endpoint, "gone?").await.status == 410).await;
    assert_eq!(http::post(&format!("{endpoint}x"), "forged").await.status, 404);
}

#[tokio::test]
async fn a_push_goes_through_the_stack_behind_a_function_url() {
    the_stack_carries_a_push_to_the_phone("FunctionUrl").await;
}

#[tokio::test]
async fn a_push_goes_through_the_stack_behind_an_http_api() {
    the_stack_carries_a_push_to_the_phone("HttpApi").await;
}

/// Returns the actions that a policy document grants, without those for logs.
fn granted(document: &Value) -> BTreeSet<String> {
    // Conditional statements are for a stack that follows another push server.
    let statements = document["Statement"].as_array().unwrap().iter();
    let statements: Vec<_> = statements.filter(|statement| statement.get("Fn::If").is_none()).collect();
    assert!(statements.iter().all(|statement| statement["Effect"] == "Allow"));
    let actions = statements.iter().flat_map(|statement| match &statement["Action"] {
        Value::Array(actions) => actions.clone(),
        action => vec![action.clone()],
    });
    let actions = actions.map(|action| action.as_str().unwrap().to_owned());
    actions.filter(|action| !action.starts_with("logs:")).collect()
}

/// Returns the actions that the calls on the wire need. In SQS, a batch needs the permission of its single call.
fn needed(ways: &Ways) -> BTreeSet<String> {
    let sqs = ways.queue.calls().into_keys().map(|call| format!("sqs:{}", call.trim_end_matches("Batch")));
    sqs.chain(ways.table.calls().into_keys().map(|call| format!("dynamodb:{call}"))).collect()
}

#[tokio::test]
async fn each_half_may_do_what_it_does_and_nothing_else() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = super::Cloud::new().await;
    let mut relay = cloud.relay_on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&relay.component.jid, "app").await;
    // Pushes take every way: delivered (and withdrawn too late), from a homeserver, put off, refused. One entry is
    // poison.
    let answer = http::post_patiently(&endpoint, &[], "delivered").await;
    assert_eq!(answer.status, 201);
    phone.next_push(SOON).await;
    // The function assumes TLS in front of it, so its `Location` begins with `https:`.
    let delivered = answer.header("location").unwrap().replacen("https:", "http:", 1);
    assert_eq!(http::send("DELETE", &delivered, &[], "").await.status, 404, "it waits no longer");
    let (from_homeserver, _) = notification("$1", &[&endpoint]);
    assert_eq!(rejected(&cloud.function.url, from_homeserver).await, json!([]));
    phone.next_push(SOON).await;
    cloud.emulator.send(&cloud.queues.url, "poison").await;
    cloud.emulator.queue_holds(&cloud.queues.dead_letters, 1).await;
    phone.set_answer(Answer::Silent);
    assert_eq!(http::post_patiently(&endpoint, &[], "put off").await.status, 201);
    phone.next_push(SOON).await;
    phone.set_answer(Answer::Error(DefinedCondition::ItemNotFound));
    assert_eq!(http::post_patiently(&endpoint, &[], "refused").await.status, 201);
    eventually(SOON, "410", async || http::post(&endpoint, "gone?").await.status == 410).await;
    relay.terminate();
    relay.wait_exit(SOON).await;

    let template = python(&[
        "-c",
        "import json; from samtranslator.yaml_helper import yaml_parse; \
         print(json.dumps(yaml_parse(open('template.yaml').read())['Resources']))",
    ]);
    let role = &template["IngressRole"]["Properties"]["Policies"];
    assert_eq!(role.as_array().unwrap().len(), 1);
    assert_eq!(granted(&role[0]["PolicyDocument"]), needed(&cloud.ingress_ways));
    assert_eq!(granted(&template["RelayPolicy"]["Properties"]["PolicyDocument"]), needed(&cloud.relay_ways));
}
