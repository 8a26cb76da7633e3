//! `upwire doctor` on AWS: each missing permission, missing tables and queues, and faults of a stack.

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::{Emulator, EmulatorKind, Kind, Upwire, XmppServer, free_port};
use serde_json::{Value, json};

use super::doctor::{Report, Variables, examine, with};
use crate::cloud::stack::{deploy, output};
use crate::cloud::start::reading_in_between;
use crate::cloud::template::{python_at, translated};

const VISIBILITY: Duration = Duration::from_secs(30);

/// Returns the variables of a relay that does not run.
async fn relay(endpoint: &str) -> Variables {
    let server = XmppServer::shared(Kind::Prosody).await;
    let component = server.component();
    let mut variables: Variables = Emulator::variables(endpoint);
    variables.extend([
        ("UPWIRE_PUBLIC_URL", "https://push.invalid".to_owned()),
        ("UPWIRE_COMPONENT", component.jid.to_string()),
        ("UPWIRE_COMPONENT_SECRET", component.secret.clone()),
        ("UPWIRE_XMPP_SERVER", server.component_address()),
        ("UPWIRE_SECRET", e2e::ENDPOINT_SECRET.to_owned()),
        ("UPWIRE_ADMIN_LISTEN", format!("127.0.0.1:{}", free_port())),
    ]);
    variables
}

async fn whole(emulator: &Emulator) -> Variables {
    let mut variables = relay(&emulator.endpoint).await;
    variables.extend([
        ("UPWIRE_REGISTRATIONS_TABLE", emulator.table().await),
        ("UPWIRE_MAILBOX_TABLE", emulator.mailbox_table().await),
        ("UPWIRE_QUEUE_URL", emulator.queue(VISIBILITY, 1000).await.url),
    ]);
    variables
}

#[tokio::test]
async fn tables_and_a_queue_that_are_not_there_are_found() {
    let emulator = Emulator::shared().await;
    let mut variables = with(&whole(emulator).await, "UPWIRE_MAILBOX_TABLE", "no-such-table");
    variables.remove("UPWIRE_QUEUE_URL");
    let report = examine(&variables, &[]).await;
    report.finds("table", "ok");
    report.wrong("mailbox", "error", "no-such-table");
    report.finds("queue", "skipped");
    report.finds("component", "skipped");
    report.finds("stack", "skipped");
}

#[tokio::test]
async fn a_secret_that_the_marker_does_not_name_is_found() {
    let emulator = Emulator::shared().await;
    let mut variables = whole(emulator).await;
    let relay = Upwire::relay_on(XmppServer::shared(Kind::Prosody).await);
    let settings = variables.iter().filter(|(name, _)| !name.starts_with("UPWIRE_COMPONENT"));
    let settings = settings.filter(|(name, _)| !["UPWIRE_ADMIN_LISTEN", "UPWIRE_PUBLIC_URL"].contains(*name));
    let settings = settings.map(|(name, value)| (*name, value.clone()));
    let _relay = relay.set_all(settings).start_ready().await;
    examine(&variables, &[]).await.finds("secrets", "ok");
    variables.insert("UPWIRE_SECRET", "b-secret-of-more-than-32-bytes-0123456789".to_owned());
    let report = examine(&variables, &[]).await;
    report.wrong("secrets", "error", "lacks the secret that endpoints are signed with");
}

/// Returns the actions that the relay's policy grants on resources whose definition has one of these words.
fn granted(words: &[&str]) -> BTreeSet<String> {
    let template = translated(&[]);
    let policy = &template["Resources"]["RelayPolicy"]["Properties"]["PolicyDocument"]["Statement"];
    let statements = policy.as_array().unwrap().iter().filter(|statement| {
        let resource = statement["Resource"].to_string();
        words.iter().any(|word| resource.contains(word))
    });
    let actions = statements.flat_map(|statement| statement["Action"].as_array().unwrap());
    actions.map(|action| action.as_str().unwrap().to_owned()).collect()
}

/// Returns the actions that a finding names as allowed.
fn allowed(report: &Report, check: &str) -> BTreeSet<String> {
    let found = report.findings.iter().find(|found| found["check"] == check && found["level"] == "ok");
    let what = found.unwrap_or_else(|| panic!("{check}: {:?}", report.findings))["what"].as_str().unwrap();
    let (_, actions) = what.split_once(" allows ").unwrap();
    actions.split(", ").map(str::to_owned).collect()
}

#[tokio::test]
async fn each_action_that_the_policy_grants_is_asked_about() {
    let report = examine(&whole(Emulator::shared().await).await, &[]).await;
    for (check, words) in [
        ("table", &["Ref\":\"Registrations\""][..]),
        ("mailbox", &["Ref\":\"Mailbox\""]),
        ("queue", &["\"Queue\"", "\"DeadLetters\"", "Queue.Arn", "DeadLetters.Arn"]),
    ] {
        assert_eq!(allowed(&report, check), granted(words), "{check}");
    }
}

/// Returns the statements that the findings ask an operator to add.
fn statements(report: &Report) -> Vec<Value> {
    let missing = report.findings.iter().filter(|found| found["check"] == "permissions");
    missing
        .map(|found| {
            assert_eq!(found["level"], "error");
            let mend = found["mend"].as_str().unwrap();
            serde_json::from_str(&mend[mend.find('{').unwrap()..]).unwrap()
        })
        .collect()
}

#[tokio::test]
async fn each_permission_that_is_missing_is_named_with_its_statement() {
    const DENIED: &str =
        r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"by the test"}"#;
    let emulator = Emulator::shared().await;
    let variables = whole(emulator).await;
    let table = |variable| format!("table/{}", variables[variable]);
    let (registrations, mailbox) = (table("UPWIRE_REGISTRATIONS_TABLE"), table("UPWIRE_MAILBOX_TABLE"));
    let queue = variables["UPWIRE_QUEUE_URL"].rsplit('/').next().unwrap().to_owned();
    let (index, dead) = (format!("{mailbox}/index/by_registration"), format!("{queue}-dead-letters"));
    let by_account = format!("{registrations}/index/by_account");
    let cases: [(&str, &[&str]); 13] = [
        ("dynamodb:GetItem", &[&registrations, &mailbox]),
        ("dynamodb:PutItem", &[&registrations, &mailbox]),
        ("dynamodb:UpdateItem", &[&registrations, &mailbox]),
        ("dynamodb:DeleteItem", &[&mailbox]),
        ("dynamodb:BatchWriteItem", &[&mailbox]),
        ("dynamodb:BatchGetItem", &[&mailbox]),
        ("dynamodb:Query", &[&by_account, &mailbox, &index]),
        ("dynamodb:Scan", &[&by_account, &index]),
        ("sqs:ReceiveMessage", &[&queue]),
        ("sqs:DeleteMessage", &[&queue]),
        ("sqs:ChangeMessageVisibility", &[&queue]),
        ("sqs:GetQueueUrl", &[&dead]),
        ("sqs:SendMessage", &[&queue, &dead]),
    ];
    for (action, resources) in cases {
        let call = format!(".{}", action.split_once(':').unwrap().1);
        let refuse =
            move |target: String, _| std::future::ready(target.ends_with(&call).then(|| DENIED.to_owned()));
        let (endpoint, proxy) = reading_in_between(emulator.endpoint.clone(), refuse).await;
        let report = examine(&with(&variables, "AWS_ENDPOINT_URL", endpoint), &[]).await;
        report.wrong("permissions", "error", action);
        let statements = statements(&report);
        assert_eq!(statements.len(), resources.len(), "{action}: {statements:?}");
        for (statement, resource) in statements.iter().zip(resources) {
            assert_eq!((&statement["Effect"], &statement["Action"]), (&json!("Allow"), &json!(action)));
            let named = statement["Resource"].as_str().unwrap();
            assert!(
                named.starts_with("arn:aws:") && named.ends_with(resource),
                "{action}: {named}, not {resource}"
            );
        }
        proxy.abort();
    }
}

#[tokio::test]
async fn a_stack_that_has_drifted_and_alarms_that_nobody_hears_are_found() {
    let emulator = Emulator::start(EmulatorKind::Ministack).await;
    let outputs = deploy(&emulator, "HttpApi").await;
    let mut variables = relay(&emulator.endpoint).await;
    let environment = output(&outputs, "RelayEnvironment");
    for variable in [
        "UPWIRE_QUEUE_URL",
        "UPWIRE_REGISTRATIONS_TABLE",
        "UPWIRE_MAILBOX_TABLE",
        "UPWIRE_TABLE_ID",
        "UPWIRE_PUBLIC_URL",
    ] {
        let value = environment.lines().find_map(|line| line.strip_prefix(variable)?.strip_prefix('='));
        variables.insert(variable, value.unwrap().to_owned());
    }
    let report = examine(&variables, &["--stack", "upwire"]).await;
    for check in ["stack", "settings", "drift"] {
        report.finds(check, "ok");
    }
    report.wrong("alarms", "error", "nobody is subscribed");
    let other = with(&variables, "UPWIRE_TABLE_ID", "another");
    examine(&other, &["--stack", "upwire"]).await.wrong("settings", "error", "UPWIRE_TABLE_ID is another");

    let change = "import boto3, sys\n\
        topic, queue = sys.argv[1:]\n\
        boto3.client('sns').subscribe(TopicArn=topic, Protocol='email', Endpoint='you@example.com')\n\
        boto3.client('sqs').set_queue_attributes(QueueUrl=queue, Attributes={'VisibilityTimeout': '45'})\n";
    let (topic, queue) =
        (output(&outputs, "AlarmTopicArn").to_owned(), output(&outputs, "QueueUrl").to_owned());
    let endpoint = emulator.endpoint.clone();
    let changing = tokio::task::spawn_blocking(move || python_at(&endpoint, &["-c", change, &topic, &queue]));
    changing.await.unwrap().unwrap();
    let report = examine(&variables, &["--stack", "upwire"]).await;
    report.wrong("drift", "warning", "Queue (AWS::SQS::Queue) differs in /VisibilityTimeout is 45, not 60");
    // ministack treats every mail address as confirmed.
    report.finds("alarms", "ok");

    let report = examine(&variables, &["--stack", "nowhere"]).await;
    report.wrong("stack", "warning", "cloudformation:DescribeStacks");
}
