//! template.yaml as SAM reads it, without a deployment.

use std::fs;
use std::process::Command;

use e2e::{profile_folder, target_folder};
use serde_json::{Value, json};

pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Returns the JSON that a Python program with the emulator's libraries prints.
pub(crate) fn python(arguments: &[&str]) -> Value {
    let text = python_at("", arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

/// Returns the output of a Python program, with AWS at this endpoint; its error output if it fails.
pub(crate) fn python_at(endpoint: &str, arguments: &[&str]) -> Result<String, String> {
    let interpreter = target_folder().join("ministack/venv/bin/python");
    let mut command = Command::new(interpreter);
    command
        .args(arguments)
        .current_dir(ROOT)
        .env_remove("AWS_PROFILE")
        .env("AWS_DEFAULT_REGION", "us-east-1");
    command.envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")]);
    if !endpoint.is_empty() {
        command.env("AWS_ENDPOINT_URL", endpoint);
    }
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Returns the template after SAM's transformation, with these parameters.
pub(crate) fn translated(parameters: &[&str]) -> Value {
    let mut arguments = vec!["infra/local/stack.py", "--translate"];
    arguments.extend(parameters.iter().flat_map(|parameter| ["--parameter", parameter]));
    python(&arguments)
}

/// Returns the logical ids of the resources of a type.
fn of_type(template: &Value, kind: &str) -> Vec<String> {
    let resources = template["Resources"].as_object().unwrap().iter();
    resources.filter(|(_, resource)| resource["Type"] == kind).map(|(name, _)| name.clone()).collect()
}

/// Returns the parameters that `make deploy` would pass to SAM, with these among them.
fn deployment(parameters: &str) -> Vec<String> {
    let make = Command::new("make")
        .args(["--dry-run", "deploy", &format!("PARAMETERS={parameters}")])
        .current_dir(ROOT)
        .output()
        .unwrap();
    let lines = String::from_utf8(make.stdout).unwrap();
    let line = lines.lines().find(|line| line.contains("sam deploy")).unwrap().to_owned();
    line.split('\'').nth(1).unwrap().split_whitespace().map(str::to_owned).collect()
}

#[test]
fn another_value_of_a_parameter_is_another_version_of_the_function() {
    let version = |given: &str| {
        let parameters = deployment(given);
        let parameters: Vec<_> = parameters.iter().map(String::as_str).collect();
        let template = translated(&parameters);
        let versions = of_type(&template, "AWS::Lambda::Version");
        assert_eq!(versions.len(), 1, "{versions:?}");
        // Lambda publishes no version of an unchanged function.
        let release = parameters.iter().find_map(|parameter| parameter.strip_prefix("Release=")).unwrap();
        let description = &template["Resources"]["Ingress"]["Properties"]["Description"];
        assert!(description.as_str().unwrap().ends_with(release), "{description}");
        let kept = &template["Resources"][&versions[0]]["DeletionPolicy"];
        assert_eq!(kept, "Retain", "the version before is what a rollback goes to");
        versions[0].clone()
    };
    let secret = |digit: &str| format!("EndpointSecret={}", digit.repeat(40));
    assert_ne!(version(&secret("1")), version(&secret("2")));
    assert_ne!(version("MaxTtl=60"), version("MaxTtl=61"));
}

#[test]
fn code_and_settings_by_another_hand_are_another_version_too() {
    let version = |template: &Value| of_type(template, "AWS::Lambda::Version");
    assert_eq!(version(&translated(&[])), version(&translated(&[])));
    let other = python(&[
        "-c",
        "import json, sys; sys.argv = ['stack', '--translate']; sys.path.insert(0, 'infra/local'); import stack; \
         read = stack.yaml_parse; \
         stack.yaml_parse = lambda text: read(text.replace('Timeout: 5', 'Timeout: 4')); stack.main()",
    ]);
    assert_ne!(version(&other), version(&translated(&[])));
}

#[test]
fn senders_reach_the_function_by_its_alias_alone() {
    let template = translated(&["Front=Both"]);
    let alias = of_type(&template, "AWS::Lambda::Alias");
    assert_eq!(alias.len(), 1);
    assert_eq!(template["Resources"][&alias[0]]["Properties"]["Name"], "live");
    let mut ways = 0;
    for (kind, property) in [
        ("AWS::Lambda::Url", "TargetFunctionArn"),
        ("AWS::Lambda::Permission", "FunctionName"),
        ("AWS::ApiGatewayV2::Integration", "IntegrationUri"),
    ] {
        for name in of_type(&template, kind) {
            ways += 1;
            assert_eq!(
                template["Resources"][&name]["Properties"][property]["Ref"],
                alias[0].as_str(),
                "{name}"
            );
        }
    }
    assert_eq!(ways, 5);
}

#[test]
fn senders_that_move_one_after_the_other_move_back_by_alarms() {
    assert_eq!(of_type(&translated(&[]), "AWS::CodeDeploy::DeploymentGroup"), Vec::<String>::new());
    for kind in ["Canary10Percent5Minutes", "Canary10Percent15Minutes", "Linear10PercentEvery1Minute"] {
        let template = translated(&[&format!("Deployment={kind}")]);
        let group = &template["Resources"]["IngressDeploymentGroup"]["Properties"];
        assert_eq!(group["DeploymentConfigName"]["Fn::Sub"][1]["ConfigName"], kind);
        assert!(
            group["AutoRollbackConfiguration"]["Events"]
                .as_array()
                .unwrap()
                .contains(&"DEPLOYMENT_STOP_ON_ALARM".into())
        );
        let alarms = group["AlarmConfiguration"]["Fn::If"][1]["Alarms"].as_array().unwrap();
        let alarms: Vec<_> = alarms.iter().map(|alarm| alarm["Name"]["Ref"].as_str().unwrap()).collect();
        assert_eq!(alarms, ["NewRefuses", "NewIsUnavailable", "NewFails"]);
        for alarm in alarms {
            assert_eq!(template["Resources"][alarm]["Type"], "AWS::CloudWatch::Alarm");
        }
        let alias = &template["Resources"]["IngressAliaslive"];
        let policy = &alias["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"];
        assert_eq!(policy["DeploymentGroupName"]["Ref"], "IngressDeploymentGroup");
    }
}

#[test]
fn a_relay_on_fargate_has_every_setting_and_another_stands_by() {
    let parse = "import json; from samtranslator.yaml_helper import yaml_parse; \
                 print(json.dumps(yaml_parse(open('infra/fargate.yaml').read())))";
    let template = python(&["-c", parse]);
    let resources = &template["Resources"];
    let service = &resources["Service"]["Properties"];
    assert_eq!(service["DesiredCount"]["Ref"], "Tasks");
    let deployment = &service["DeploymentConfiguration"];
    assert_eq!(
        (&deployment["MinimumHealthyPercent"], &deployment["MaximumPercent"]),
        (&100.into(), &200.into())
    );

    let container = &resources["Task"]["Properties"]["ContainerDefinitions"][0];
    let lists = [&container["Environment"], &container["Secrets"]];
    let given = lists.map(Value::to_string).concat();
    let help = Command::new(profile_folder().join("upwire")).args(["relay", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let names = help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next());
    // The task has no files, and its administration address is not reached from elsewhere.
    let settings: Vec<_> =
        names.filter(|name| !name.ends_with("_FILE") && *name != "UPWIRE_ADMIN_LISTEN").collect();
    assert!(settings.len() > 15, "{settings:?}");
    for setting in settings {
        assert!(given.contains(&format!("\"{setting}\"")), "{setting} cannot be set on Fargate");
    }
    let passed_on = translated(&[])["Resources"]["Relay"]["Properties"]["Parameters"].clone();
    for parameter in template["Parameters"].as_object().unwrap().keys() {
        assert!(!passed_on[parameter].is_null(), "{parameter}");
    }
}

#[test]
fn a_stack_with_a_relay_on_fargate_has_two_relays_in_the_subnets_of_two_zones() {
    let template = translated(&["RelayOnFargate=true"]);
    let tasks = &template["Parameters"]["RelayTasks"];
    assert_eq!(tasks["Default"], 2);
    assert!(tasks["Description"].as_str().unwrap().contains("subnets of two zones"), "{tasks}");
    let given = &template["Resources"]["Relay"]["Properties"]["Parameters"];
    assert_eq!(
        [&given["Tasks"], &given["Subnets"]],
        [&json!({"Ref": "RelayTasks"}), &json!({"Ref": "RelaySubnets"})]
    );
    let service = fs::read_to_string(format!("{ROOT}/infra/fargate.yaml")).unwrap();
    assert!(service.contains("Subnets: !Ref Subnets"), "tasks are spread over all of them");
    let page = fs::read_to_string(format!("{ROOT}/docs/aws/deploy.md")).unwrap();
    assert!(page.contains("RelaySubnets=subnet-…,subnet-…"), "the command names two");
}
