//! The stack on AWS, with an operator's credentials: checks its drift from the template, the settings against its
//! outputs, and the subscribers of its alarms.

use aws::{Drifted, SdkConfig, Stack, StackState, Subscribers};
use push::ports::Unavailable;
use url::Url;

use super::finding::Finding;

/// The settings that tie a relay to a stack, with their values here.
pub(super) type Settings = [(&'static str, Option<String>)];

const ALLOW: &str = "run it with the credentials of an operator, whom cloudformation:DescribeStacks, DetectStackDrift, \
    DescribeStackDriftDetectionStatus, DescribeStackResourceDrifts and sns:ListSubscriptionsByTopic are allowed, and what \
    reads the resources; see that the stack is there: aws cloudformation describe-stacks";

/// Checks the stack of this name.
pub(super) async fn check(config: &SdkConfig, name: &str, settings: &Settings) -> Vec<Finding> {
    let stack = Stack::new(config, name);
    let state = match stack.state().await {
        Ok(state) => state,
        Err(error) => return vec![unknown("stack", &error)],
    };
    let mut findings = vec![status(name, &state)];
    findings.extend(outputs(name, &state, settings));
    findings.push(match state.outputs.get("AlarmTopicArn") {
        Some(topic) => stack
            .subscribers(topic)
            .await
            .map_or_else(|error| unknown("alarms", &error), |all| alarms(topic, all)),
        None => Finding::skipped("alarms", format!("{name} has no output AlarmTopicArn")),
    });
    match stack.drifted().await {
        Ok(drifted) if drifted.is_empty() => {
            findings
                .push(Finding::ok("drift", format!("the resources of {name} are as its template has them")));
        }
        Ok(drifted) => findings.extend(drifted.iter().map(|drifted| drift(name, drifted))),
        Err(error) => findings.push(unknown("drift", &error)),
    }
    findings
}

fn unknown(check: &'static str, error: &Unavailable) -> Finding {
    Finding::warning(check, error.to_string(), "it cannot be looked at", ALLOW)
}

fn status(name: &str, state: &StackState) -> Finding {
    let what = format!("{name} is in the state {}", state.status);
    if matches!(state.status.as_str(), "CREATE_COMPLETE" | "UPDATE_COMPLETE") {
        return Finding::ok("stack", what);
    }
    let why =
        "its last change is under way, or was not made: function and relay may be of different versions";
    let mend = format!(
        "see why, and deploy again: aws cloudformation describe-stack-events --stack-name {name}; make deploy"
    );
    Finding::warning("stack", what, why, mend)
}

/// Checks whether the settings here agree with the stack's output.
fn outputs(name: &str, state: &StackState, settings: &Settings) -> Vec<Finding> {
    let Some(environment) = state.outputs.get("RelayEnvironment") else {
        return vec![Finding::skipped("settings", format!("{name} has no output RelayEnvironment"))];
    };
    let lines = environment.lines().filter_map(|line| line.trim().split_once('='));
    let differing: Vec<_> = lines
        .filter_map(|(variable, theirs)| {
            let ours = settings.iter().find(|(known, _)| *known == variable)?.1.as_deref();
            let differs = !ours.is_some_and(|ours| same(ours, theirs));
            differs.then(|| {
                let ours = ours.unwrap_or("not set");
                let what = format!("{variable} is {ours}, and {theirs} in the stack");
                let why = "function and relay do not work on the same queue and tables, or phones get other endpoints";
                let mend = format!(
                    "write the stack's output into /etc/upwire/relay.env, and restart the relay: aws cloudformation \
                     describe-stacks --stack-name {name} --output text --query \
                     \"Stacks[0].Outputs[?OutputKey=='RelayEnvironment'].OutputValue\""
                );
                Finding::error("settings", what, why, mend)
            })
        })
        .collect();
    if differing.is_empty() {
        return vec![Finding::ok("settings", format!("the settings here are those of {name}"))];
    }
    differing
}

fn same(one: &str, other: &str) -> bool {
    one == other || matches!((Url::parse(one), Url::parse(other)), (Ok(one), Ok(other)) if one == other)
}

fn alarms(topic: &str, subscribers: Subscribers) -> Finding {
    let Subscribers { confirmed, pending } = subscribers;
    if confirmed > 0 {
        return Finding::ok("alarms", format!("{confirmed} hear of alarms"));
    }
    let what = match pending {
        0 => "nobody is subscribed to the topic of the alarms".to_owned(),
        1 => "the one who is subscribed to the topic of the alarms has not confirmed it".to_owned(),
        more => format!("none of the {more} who are subscribed to the topic of the alarms has confirmed it"),
    };
    let mend = format!(
        "follow the link in the mail from AWS; without one, have it sent again: aws sns subscribe --topic-arn {topic} \
         --protocol email --notification-endpoint you@example.com"
    );
    Finding::error("alarms", what, "no alarm reaches anybody", mend)
}

fn drift(name: &str, drifted: &Drifted) -> Finding {
    let Drifted { resource, kind, differences } = drifted;
    let what = match differences {
        None => format!("{resource} ({kind}) was deleted"),
        Some(differences) => format!("{resource} ({kind}) differs in {}", differences.join(", ")),
    };
    let why = "somebody has changed it by other means than the template; the next deployment may set it back, or fail";
    let mend = format!(
        "see both values, and set it back (after make close: make open), or write the change into the template: aws \
         cloudformation describe-stack-resource-drifts --stack-name {name} --stack-resource-drift-status-filters MODIFIED \
         DELETED"
    );
    let finding = Finding::warning("drift", what, why, mend);
    if differences.is_none() { Finding { level: super::Level::Error, ..finding } } else { finding }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn state(status: &str, environment: &str) -> StackState {
        let outputs = [("RelayEnvironment".to_owned(), environment.to_owned())];
        StackState { status: status.to_owned(), outputs: outputs.into() }
    }

    #[test]
    fn a_change_that_was_not_made_is_found() {
        assert_eq!(status("upwire", &state("UPDATE_COMPLETE", "")).level, Level::Ok);
        for unwell in ["UPDATE_ROLLBACK_COMPLETE", "UPDATE_IN_PROGRESS", "ROLLBACK_COMPLETE"] {
            assert_eq!(status("upwire", &state(unwell, "")).level, Level::Warning, "{unwell}");
        }
    }

    #[test]
    fn settings_of_another_stack_are_found() {
        let state = state(
            "",
            "AWS_REGION=us-east-1\nUPWIRE_TABLE_ID=one\nUPWIRE_PUBLIC_URL=https://push.example.com\n",
        );
        let find = |table_id: Option<&str>| {
            let settings = [
                ("AWS_REGION", Some("us-east-1".to_owned())),
                ("UPWIRE_TABLE_ID", table_id.map(str::to_owned)),
                ("UPWIRE_PUBLIC_URL", Some("https://push.example.com/".to_owned())),
            ];
            outputs("upwire", &state, &settings)
        };
        assert_eq!(find(Some("one"))[0].level, Level::Ok, "a URL may end in a slash");
        for other in [Some("another"), None] {
            let found = find(other);
            assert_eq!((found.len(), found[0].level), (1, Level::Error));
            assert!(found[0].what.contains("UPWIRE_TABLE_ID"), "{found:?}");
        }
    }

    #[test]
    fn alarms_that_nobody_hears_of_are_found() {
        let level = |confirmed, pending| alarms("arn", Subscribers { confirmed, pending }).level;
        assert_eq!((level(1, 0), level(1, 1)), (Level::Ok, Level::Ok));
        assert_eq!((level(0, 0), level(0, 1), level(0, 2)), (Level::Error, Level::Error, Level::Error));
    }
}
