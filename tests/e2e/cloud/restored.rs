//! Both tables are restored while a stack has data, as docs/aws/operate.md, "Restore a table", describes it.

use e2e::{Emulator, EmulatorKind, Kind, Phone, SOON, Upwire, UpwireBuilder, XmppServer, eventually, http};
use serde_json::{Value, json};

use super::IN_DOUBT;
use super::levers::Stack;
use super::stack::{deploy, output};

const RESTORED: [(&str, &str); 2] =
    [("RegistrationsTable", "upwire-RegistrationsTable"), ("MailboxTable", "upwire-MailboxTable")];

async fn call(emulator: &Emulator, action: &str, table: &str, more: Value) -> Value {
    let mut asked = json!({"TableName": table});
    asked.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    emulator.call(&format!("DynamoDB_20120810.{action}"), asked).await
}

/// Returns a table's keys, indexes and settings without point-in-time recovery, which the emulator does not give to the
/// stack's own tables.
async fn settings(emulator: &Emulator, table: &str) -> Value {
    let described = call(emulator, "DescribeTable", table, json!({})).await;
    let alive = call(emulator, "DescribeTimeToLive", table, json!({})).await;
    let table = &described["Table"];
    let indexes = ["GlobalSecondaryIndexes", "LocalSecondaryIndexes"].map(|kind| {
        let indexes = table[kind].as_array().into_iter().flatten();
        json!(indexes.map(|index| json!([index["IndexName"], index["Projection"]])).collect::<Vec<_>>())
    });
    json!({
        "keys": table["KeySchema"],
        "indexes": indexes,
        "protected": table["DeletionProtectionEnabled"],
        "time to live": alive["TimeToLiveDescription"],
    })
}

/// Restores both tables. The emulator can restore the present state only.
async fn restore(emulator: &Emulator, outputs: &Value) {
    for (name, restored) in RESTORED {
        let own = output(outputs, name);
        let asked = json!({"SourceTableName": own, "TargetTableName": restored});
        emulator.call("DynamoDB_20120810.RestoreTableToPointInTime", asked).await;
        let life = json!({"TimeToLiveSpecification": {"AttributeName": "purge_at", "Enabled": true}});
        call(emulator, "UpdateTimeToLive", restored, life).await;
        let days = if name == "MailboxTable" { 1 } else { 35 };
        let recovery = json!({"PointInTimeRecoveryEnabled": true, "RecoveryPeriodInDays": days});
        let recovery = json!({"PointInTimeRecoverySpecification": recovery});
        let backups = call(emulator, "UpdateContinuousBackups", restored, recovery).await;
        let backups = &backups["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"];
        assert_eq!(backups["PointInTimeRecoveryStatus"], "ENABLED");
        call(emulator, "UpdateTable", restored, json!({"DeletionProtectionEnabled": true})).await;
        assert_eq!(settings(emulator, restored).await, settings(emulator, own).await, "{name}");
    }
}

/// Prepares a relay with the output `RelayEnvironment`. The emulator serves queue and function at other URLs than the
/// output names.
fn relay(builder: UpwireBuilder, emulator: &Emulator, outputs: &Value, environment: &str) -> UpwireBuilder {
    let lines = environment.lines().filter_map(|line| line.split_once('='));
    lines
        .fold(builder, |builder, (name, value)| builder.set(name, value))
        .set("UPWIRE_QUEUE_URL", output(outputs, "QueueUrl"))
        .set("UPWIRE_PUBLIC_URL", output(outputs, "PublicUrl"))
        .set_all(Emulator::variables(&emulator.endpoint))
}

#[tokio::test]
async fn a_stack_on_restored_tables_takes_what_they_know_of_and_ends_no_other_endpoint() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let emulator = Emulator::start(EmulatorKind::Ministack).await;
    let outputs = deploy(&emulator, "HttpApi").await;
    let stack = Stack { public_url: output(&outputs, "PublicUrl").to_owned(), emulator };
    let emulator = &stack.emulator;
    let environment = output(&outputs, "RelayEnvironment");
    let mut first = relay(Upwire::relay_on(server), emulator, &outputs, environment).start_ready().await;
    let component = first.component.clone();
    let (romeo, juliet) = (server.user().await, server.user().await);
    let absent = async |endpoint: &str, body: &str, kept: f64| {
        assert_eq!(http::post_patiently(endpoint, &[], body).await.status, 201);
        first.metric_reaches("upwire_mailbox_kept_total", kept).await;
    };
    let phone = Phone::connect(server, &romeo, "phone").await;
    let known = phone.endpoint(&component.jid, "app").await;
    phone.leave(SOON).await;
    absent(&known, "waits in the backup", 1.0).await;
    restore(emulator, &outputs).await;

    // The backup lacks two later events: a delivery and a registration.
    let phone = Phone::connect(server, &romeo, "phone").await;
    phone.greet(&component.jid).await;
    phone.wait_for_body("waits in the backup").await;
    phone.leave(SOON).await;
    let other = Phone::connect(server, &juliet, "phone").await;
    let lost = other.endpoint(&component.jid, "app").await;
    assert_eq!(http::post_patiently(&lost, &[], "of later").await.status, 201);
    other.wait_for_body("of later").await;

    stack.lever(&["close"]).await.unwrap();
    first.terminate();
    first.wait_exit(SOON).await;
    let values = ["RestoredRegistrations=upwire-RegistrationsTable", "RestoredMailbox=upwire-MailboxTable"];
    stack.lever(&[&["parameters"][..], &values].concat()).await.unwrap();
    let environment = stack.output("RelayEnvironment").await;
    assert!(environment.contains(RESTORED[0].1) && environment.contains(RESTORED[1].1), "{environment}");
    let again = Upwire::relay_as(server, component.clone());
    let _second = relay(again, emulator, &outputs, &environment).start_ready().await;
    stack.lever(&["open"]).await.unwrap();

    eventually(SOON, "an endpoint that the backup lacks is in doubt", async || {
        let answer = http::post(&lost, "of whom?").await;
        assert!([201, 503].contains(&answer.status), "{}", answer.status);
        answer.status == 503 && answer.header("retry-after") == IN_DOUBT
    })
    .await;
    assert_eq!(http::post_patiently(&known, &[], "after the restore").await.status, 201);
    let phone = Phone::connect(server, &romeo, "phone").await;
    assert_eq!(phone.endpoint(&component.jid, "app").await, known);
    for body in ["waits in the backup", "after the restore"] {
        phone.wait_for_body(body).await;
    }
    let renewed = other.endpoint(&component.jid, "app").await;
    assert_ne!(renewed, lost);
    assert_eq!(http::post_patiently(&renewed, &[], "found again").await.status, 201);
    other.wait_for_body("found again").await;
}
