//! A stack with data is upgraded from the template of the change before, and rolled back.

use std::process::Command;

use aws::{QueueSender, RegistrationsTable};
use chrono::{TimeDelta, Utc};
use e2e::{Emulator, EmulatorKind, Kind, Phone, SOON, Upwire, XmppServer, folder, hashed, http};
use push::message::Wishes;
use push::ports::{QueueWriter, Registrations, Renewal};
use push::{Body, PushMessage, Registration, Target, Ttl, Urgency};
use serde_json::Value;
use tokio_xmpp::jid::FullJid;

use super::stack::{deploy, deploy_with, output};
use super::template::ROOT;

const FRONT: &str = "HttpApi";
/// Outputs that name stores of data, or that phones and senders know. An upgrade changes none.
const LASTING: [&str; 5] = ["PublicUrl", "QueueUrl", "RegistrationsTable", "MailboxTable", "TableId"];

/// Runs git. Returns `None` if the checkout has no history.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).current_dir(ROOT).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// Returns the last template that differs from this checkout's, and its commit. Without history, returns this
/// checkout's.
fn template_before() -> (String, String) {
    let present = std::fs::read_to_string(format!("{ROOT}/template.yaml")).unwrap();
    let commits = git(&["log", "--first-parent", "--format=%H", "--", "template.yaml"]).unwrap_or_default();
    let mut templates = commits
        .lines()
        .filter_map(|commit| Some((git(&["show", &format!("{commit}:template.yaml")])?, commit.to_owned())));
    templates.find(|(template, _)| *template != present).unwrap_or_else(|| {
        eprintln!("no history: the stack is upgraded from its own template");
        (present, "present".to_owned())
    })
}

/// Returns the lasting outputs of a template that has them.
fn lasting(outputs: &Value) -> Vec<(&'static str, &str)> {
    LASTING.iter().filter_map(|name| Some((*name, outputs[name].as_str()?))).collect()
}

/// Queues a push as the function does. Today's function may not start with the variables of an earlier template.
#[expect(clippy::disallowed_methods, reason = "the relay compares with its own clock")]
async fn queue(emulator: &Emulator, outputs: &Value, phone: &FullJid, body: &str) {
    let target = Target {
        recipient: phone.clone(),
        application: hashed("app").parse().unwrap(),
        instance: hashed("1").parse().unwrap(),
        vapid: None,
        legacy: None,
    };
    let table = RegistrationsTable::new(&emulator.config(), output(outputs, "RegistrationsTable"));
    let found = table.register(target, Utc::now(), TimeDelta::days(7), Renewal::WhereNeeded, 1).await;
    let row: Registration = found.unwrap().stored().expect("room for the registration that is there");
    let wishes = Wishes { ttl: Ttl::from_seconds(86_400), urgency: Urgency::Normal, topic: None };
    let message =
        PushMessage::new(rand::random(), &row, wishes, Body::from_bytes(body.as_bytes()), Utc::now());
    let queue = QueueSender::new(&emulator.config(), output(outputs, "QueueUrl"));
    queue.send(message).await.unwrap();
}

#[tokio::test]
async fn a_stack_of_the_template_before_keeps_its_data_through_an_upgrade_and_a_rollback() {
    let (template, commit) = template_before();
    let file = folder("template").join(format!("{commit}.yaml"));
    std::fs::write(&file, template).unwrap();
    let of_before = ["--template", &file.display().to_string()].map(str::to_owned);
    let of_before = of_before.each_ref().map(String::as_str);

    let server = XmppServer::shared(Kind::Prosody).await;
    let emulator = Emulator::start(EmulatorKind::Ministack).await;
    let before = deploy_with(&emulator, FRONT, &of_before).await;
    assert!(lasting(&before).len() >= 4, "{commit}: {before}");
    let variables = [
        ("UPWIRE_PUBLIC_URL", "PublicUrl"),
        ("UPWIRE_QUEUE_URL", "QueueUrl"),
        ("UPWIRE_REGISTRATIONS_TABLE", "RegistrationsTable"),
        ("UPWIRE_MAILBOX_TABLE", "MailboxTable"),
        ("UPWIRE_TABLE_ID", "TableId"),
    ];
    let mut relay = Upwire::relay_on(server).set_all(Emulator::variables(&emulator.endpoint));
    for (variable, name) in variables {
        if let Some(value) = before[name].as_str() {
            relay = relay.set(variable, value);
        }
    }
    let relay = relay.start_ready().await;
    let component = &relay.component.jid;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let endpoint = phone.endpoint(component, "app").await;
    let jid = phone.jid().clone();
    phone.leave(SOON).await;
    queue(&emulator, &before, &jid, "before the upgrade").await;
    relay.metric_reaches("upwire_mailbox_kept_total", 1.0).await;

    let after = deploy(&emulator, FRONT).await;
    for (name, value) in lasting(&before) {
        assert_eq!(after[name], value, "{name} of {commit} and of today");
    }
    assert_eq!(http::post_patiently(&endpoint, &[], "after the upgrade").await.status, 201);
    relay.metric_reaches("upwire_mailbox_kept_total", 2.0).await;
    let phone = Phone::connect(server, &user, "phone").await;
    assert_eq!(phone.endpoint(component, "app").await, endpoint, "the row of before is renewed");
    for body in ["before the upgrade", "after the upgrade"] {
        phone.wait_for_body(body).await;
    }
    phone.leave(SOON).await;
    assert_eq!(http::post_patiently(&endpoint, &[], "before the rollback").await.status, 201);
    relay.metric_reaches("upwire_mailbox_kept_total", 3.0).await;

    let rolled_back = deploy_with(&emulator, FRONT, &of_before).await;
    assert_eq!(lasting(&rolled_back), lasting(&before), "{commit}");
    queue(&emulator, &rolled_back, &jid, "after the rollback").await;
    let phone = Phone::connect(server, &user, "phone").await;
    assert_eq!(phone.endpoint(component, "app").await, endpoint);
    for body in ["before the rollback", "after the rollback"] {
        phone.wait_for_body(body).await;
    }
}
