//! The alarms of template.yaml over recorded data: the data that raises each alarm, and the data that does not.

use std::io::Write;
use std::process::{Command, Stdio};

use e2e::target_folder;
use serde_json::{Value, json};

use super::template::{ROOT, translated};

/// Returns the state of each case: an alarm over the periods that count for it.
fn states(template: &Value, cases: &Value) -> Vec<String> {
    let mut python = Command::new(target_folder().join("ministack/venv/bin/python"))
        .arg("tests/e2e/cloud/alarms.py")
        .current_dir(ROOT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let given = json!({"template": template, "cases": cases}).to_string();
    python.stdin.take().unwrap().write_all(given.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn alarms_wake_for_what_they_are_for_and_sleep_otherwise() {
    let cases = [
        ("ALARM", json!(["Stuck", {"visible": [3, 3, 4], "settled": [0, null, 0]}])),
        ("ALARM", json!(["Stuck", {"visible": [0, 0, 0], "held": [9, 9, 9]}])),
        ("OK", json!(["Stuck", {"visible": [3, 3, 4], "settled": [0, 1, 0]}])),
        ("OK", json!(["Stuck", {"visible": [0, 3, 3], "held": [0, 0, 0]}])),
        ("OK", json!(["Stuck", {}])),
        ("ALARM", json!(["Refusals", {"requests": [20], "refused": [11]}])),
        ("OK", json!(["Refusals", {"requests": [20], "refused": [10]}])),
        ("OK", json!(["Refusals", {"requests": [19], "refused": [19]}])),
        ("OK", json!(["Refusals", {"requests": [1000]}])),
        ("OK", json!(["Refusals", {}])),
        ("ALARM", json!(["TableThrottles", {"r_reads": [1, null], "m_writes": [null, 1]}])),
        ("OK", json!(["TableThrottles", {"m_writes": [5, null]}])),
        ("OK", json!(["TableThrottles", {}])),
        ("ALARM", json!(["RelaySilent", {}])),
        ("ALARM", json!(["RelaySilent", {"full": [0, null], "empty": [0, 0]}])),
        ("OK", json!(["RelaySilent", {"empty": [0, 15]}])),
        ("ALARM", json!(["RelayHeartbeat", {}])),
        ("ALARM", json!(["RelayHeartbeat", {"heartbeat": [0, 0, null, 0, 0]}])),
        ("OK", json!(["RelayHeartbeat", {"heartbeat": [0, 0, null, 1, 0]}])),
        ("ALARM", json!(["Canary", {}])),
        ("ALARM", json!(["Canary", {"missing": [5, null, 1]}])),
        ("OK", json!(["Canary", {"missing": [5, 0, 5]}])),
        ("ALARM", json!(["ServerErrors", {"failed": [3], "requests": [4]}])),
        ("ALARM", json!(["ServerErrors", {"failed": [60], "requests": [1000]}])),
        ("OK", json!(["ServerErrors", {"failed": [50], "requests": [1000]}])),
        ("OK", json!(["ServerErrors", {"failed": [2], "requests": [2]}])),
        ("OK", json!(["ServerErrors", {"requests": [1000]}])),
        ("OK", json!(["ServerErrors", {}])),
        // The new version refuses a tenth of the senders.
        ("ALARM", json!(["NewRefuses", {"requests": [100], "refused": [10]}])),
        ("OK", json!(["NewRefuses", {"requests": [100], "refused": [5]}])),
        ("OK", json!(["NewRefuses", {"requests": [10], "refused": [10]}])),
        ("ALARM", json!(["NewIsUnavailable", {"requests": [20], "failed": [2]}])),
        ("OK", json!(["NewIsUnavailable", {"requests": [20]}])),
        ("ALARM", json!(["NewFails", {"invocations": [1], "errors": [1]}])),
        ("OK", json!(["NewFails", {"invocations": [100], "errors": [5]}])),
        ("OK", json!(["NewFails", {}])),
        ("ALARM", json!(["OldestEntry", {"ApproximateAgeOfOldestMessage": [901]}])),
        ("OK", json!(["OldestEntry", {"ApproximateAgeOfOldestMessage": [900]}])),
        ("OK", json!(["OldestEntry", {}])),
        ("ALARM", json!(["DeadLettersThere", {"ApproximateNumberOfMessagesVisible": [1]}])),
        ("OK", json!(["DeadLettersThere", {"ApproximateNumberOfMessagesVisible": [0]}])),
        ("ALARM", json!(["IngressErrors", {"Errors": [1]}])),
        ("OK", json!(["IngressErrors", {}])),
        ("ALARM", json!(["IngressThrottles", {"Throttles": [1]}])),
        ("OK", json!(["IngressThrottles", {"Throttles": [0]}])),
        ("ALARM", json!(["EndpointsDoubted", {"Doubted": [1]}])),
        ("OK", json!(["EndpointsDoubted", {}])),
        ("ALARM", json!(["Slow", {"Duration": [1501, 1600, 1700]}])),
        ("OK", json!(["Slow", {"Duration": [1501, null, 1700]}])),
    ];
    let given: Vec<_> = cases.iter().map(|(_, case)| case.clone()).collect();
    let template = translated(&["Deployment=Canary10Percent5Minutes", "RelayAlarm=true"]);
    let states = states(&template, &json!(given));
    for ((expected, case), state) in cases.iter().zip(&states) {
        assert_eq!(state, expected, "{case}");
    }
    assert_eq!(states.len(), cases.len());

    let resources = template["Resources"].as_object().unwrap();
    let alarms = resources.iter().filter(|(_, resource)| resource["Type"] == "AWS::CloudWatch::Alarm");
    for (name, _) in alarms {
        assert!(cases.iter().any(|(_, case)| case[0] == name.as_str()), "{name} has no case");
    }
}

#[test]
fn an_alarm_tells_somebody() {
    let template = translated(&["RelayAlarm=true"]);
    let resources = template["Resources"].as_object().unwrap().iter();
    let alarms = resources.filter(|(_, resource)| resource["Type"] == "AWS::CloudWatch::Alarm");
    let alarms: Vec<_> = alarms.filter(|(name, _)| !name.starts_with("New")).collect();
    assert_eq!(alarms.len(), 13);
    for (name, alarm) in alarms {
        assert_eq!(alarm["Properties"]["AlarmActions"], json!([{"Ref": "AlarmTopic"}]), "{name}");
    }
}

/// Alarms on our own metrics use the namespace and the dimension of the lines of metrics.
#[test]
fn our_own_metrics_are_those_of_the_stack() {
    let template = translated(&[]);
    let stack = json!([{"Name": "Stack", "Value": {"Ref": "AWS::StackName"}}]);
    let doubted = &template["Resources"]["EndpointsDoubted"]["Properties"];
    assert_eq!((&doubted["Namespace"], &doubted["Dimensions"]), (&json!("Upwire"), &stack));
    let heartbeat = &template["Resources"]["RelayHeartbeat"];
    assert_eq!(heartbeat["Condition"], "HasHeartbeat");
    let metric = &heartbeat["Properties"]["Metrics"][1]["MetricStat"]["Metric"];
    assert_eq!((&metric["Namespace"], &metric["Dimensions"]), (&json!("Upwire"), &stack));
    let variables = &template["Resources"]["Ingress"]["Properties"]["Environment"]["Variables"];
    assert_eq!(variables["UPWIRE_METRICS_STACK"], json!({"Ref": "AWS::StackName"}));
}

#[test]
fn nobody_deletes_a_table_by_mistake() {
    let template = translated(&[]);
    for (table, recovery) in [("Registrations", Value::Null), ("Mailbox", json!(1))] {
        let properties = &template["Resources"][table]["Properties"];
        assert_eq!(properties["DeletionProtectionEnabled"], true, "{table}");
        let recovered = &properties["PointInTimeRecoverySpecification"];
        assert_eq!(recovered["PointInTimeRecoveryEnabled"], true, "{table}");
        assert_eq!(recovered["RecoveryPeriodInDays"], recovery, "{table}");
    }
}

#[test]
fn a_key_and_addresses_are_taken_where_they_are_given() {
    let template = translated(&[]);
    let function = &template["Resources"]["Ingress"]["Properties"]["KmsKeyArn"]["Fn::If"];
    assert_eq!(function[0], "HasEnvironmentKey");
    let role = template["Resources"]["IngressRole"].to_string();
    assert!(role.contains("kms:Decrypt"), "the function has to read what the key encrypts: {role}");
    let policy = &template["Resources"]["RelayPolicy"]["Properties"]["PolicyDocument"]["Statement"];
    let conditional =
        policy.as_array().unwrap().iter().find_map(|statement| statement.get("Fn::If")).unwrap();
    assert_eq!((&conditional[0], &conditional[1]["Effect"]), (&"HasRelaySources".into(), &"Deny".into()));
    let addresses = &conditional[1]["Condition"]["NotIpAddress"]["aws:SourceIp"];
    assert_eq!(addresses["Fn::Split"][1]["Ref"], "RelaySourceIps");
}

#[test]
fn a_budget_tells_before_it_is_spent() {
    let template = translated(&["MonthlyBudget=20", "AlarmEmail=operator@example.com"]);
    let budget = &template["Resources"]["Budget"];
    assert_eq!(budget["Condition"], "HasBudget");
    let properties = &budget["Properties"];
    assert_eq!(
        properties["Budget"]["BudgetLimit"],
        json!({"Amount": {"Ref": "MonthlyBudget"}, "Unit": "USD"})
    );
    let told = properties["NotificationsWithSubscribers"].as_array().unwrap();
    let told: Vec<_> = told
        .iter()
        .map(|one| {
            assert_eq!(one["Subscribers"][0]["Address"], json!({"Ref": "AlarmEmail"}));
            (one["Notification"]["NotificationType"].as_str().unwrap(), &one["Notification"]["Threshold"])
        })
        .collect();
    assert_eq!(told, [("ACTUAL", &json!(80)), ("FORECASTED", &json!(100))]);
}
