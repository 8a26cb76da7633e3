//! The stack of template.yaml, read with an operator's credentials: its outputs, its drift from the template, and the
//! subscribers of its alarms.

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_cloudformation::types::{
    PropertyDifference, StackDriftDetectionStatus, StackResourceDrift, StackResourceDriftStatus,
};
use aws_types::SdkConfig;
use push::ports::Unavailable;
use tokio::time::{sleep, timeout};

use crate::error::unavailable;

/// Time between two calls that ask whether the drift detection has ended.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Longest wait for the drift detection. It takes about a minute for a stack of this size.
const COMPARISON_MAX: Duration = Duration::from_secs(300);
/// The ARN that SNS gives to a subscription before it is confirmed.
const PENDING: &str = "PendingConfirmation";

/// A stack by its name.
#[derive(Debug, Clone)]
pub struct Stack {
    cloudformation: aws_sdk_cloudformation::Client,
    sns: aws_sdk_sns::Client,
    name: String,
}

/// The state of a stack, as CloudFormation returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackState {
    /// The status, as `UPDATE_COMPLETE`.
    pub status: String,
    /// The outputs by their keys.
    pub outputs: BTreeMap<String, String>,
}

/// A resource that differs from the template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drifted {
    /// The logical id in the template.
    pub resource: String,
    /// The resource type, as `AWS::SQS::Queue`.
    pub kind: String,
    /// The properties that differ. Values are shown if they are numbers or truth values; others may be secrets. `None`:
    /// the resource was deleted.
    pub differences: Option<Vec<String>>,
}

/// The subscribers of a topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Subscribers {
    /// Number of confirmed subscriptions.
    pub confirmed: usize,
    /// Number of unconfirmed subscriptions.
    pub pending: usize,
}

impl Stack {
    /// Makes a client of the stack of this name. Makes no call.
    #[must_use]
    pub fn new(config: &SdkConfig, name: &str) -> Self {
        Self {
            cloudformation: aws_sdk_cloudformation::Client::new(config),
            sns: aws_sdk_sns::Client::new(config),
            name: name.to_owned(),
        }
    }

    /// Reads the stack's status and outputs.
    ///
    /// # Errors
    /// The call fails.
    pub async fn state(&self) -> Result<StackState, Unavailable> {
        let call = self.cloudformation.describe_stacks().stack_name(&self.name).send();
        let answer = call.await.map_err(unavailable("cloudformation:DescribeStacks"))?;
        let stack = answer.stacks.unwrap_or_default().into_iter().next();
        let stack = stack.ok_or_else(|| Unavailable::new("cloudformation:DescribeStacks: there is none"))?;
        let status = stack.stack_status().map_or_else(String::new, |status| status.as_str().to_owned());
        let outputs = stack.outputs.unwrap_or_default().into_iter();
        let outputs = outputs.filter_map(|output| Some((output.output_key?, output.output_value?)));
        Ok(StackState { status, outputs: outputs.collect() })
    }

    /// Starts CloudFormation's drift detection, waits for it, and returns the drifted resources. Nested stacks are not
    /// compared.
    ///
    /// # Errors
    /// A call or the detection fails, or the detection takes too long.
    pub async fn drifted(&self) -> Result<Vec<Drifted>, Unavailable> {
        let call = self.cloudformation.detect_stack_drift().stack_name(&self.name).send();
        let answer = call.await.map_err(unavailable("cloudformation:DetectStackDrift"))?;
        let detection = answer.stack_drift_detection_id.unwrap_or_default();
        let compared = timeout(COMPARISON_MAX, self.compared(&detection)).await;
        compared.map_err(|_| Unavailable::new("cloudformation:DetectStackDrift: it takes too long"))??;

        let mut drifted = Vec::new();
        let mut next = None;
        loop {
            let call = self.cloudformation.describe_stack_resource_drifts().stack_name(&self.name);
            let call = call
                .stack_resource_drift_status_filters(StackResourceDriftStatus::Modified)
                .stack_resource_drift_status_filters(StackResourceDriftStatus::Deleted)
                .set_next_token(next);
            let answer = call.send().await;
            let answer = answer.map_err(unavailable("cloudformation:DescribeStackResourceDrifts"))?;
            drifted.extend(answer.stack_resource_drifts.unwrap_or_default().iter().map(Drifted::of));
            next = answer.next_token;
            if next.is_none() {
                return Ok(drifted);
            }
        }
    }

    async fn compared(&self, detection: &str) -> Result<(), Unavailable> {
        loop {
            let call = self.cloudformation.describe_stack_drift_detection_status();
            let answer = call.stack_drift_detection_id(detection).send().await;
            let answer = answer.map_err(unavailable("cloudformation:DescribeStackDriftDetectionStatus"))?;
            match answer.detection_status() {
                Some(StackDriftDetectionStatus::DetectionInProgress) => sleep(LOOK_AGAIN).await,
                Some(StackDriftDetectionStatus::DetectionFailed) => {
                    let reason = answer.detection_status_reason().unwrap_or("no reason is given");
                    return Err(Unavailable::new(format!("cloudformation:DetectStackDrift: {reason}")));
                }
                _ => return Ok(()),
            }
        }
    }

    /// Counts the subscribers of a topic.
    ///
    /// # Errors
    /// The call fails.
    pub async fn subscribers(&self, topic: &str) -> Result<Subscribers, Unavailable> {
        let call = self.sns.list_subscriptions_by_topic().topic_arn(topic).into_paginator().items().send();
        let all: Result<Vec<_>, _> = call.collect().await;
        let all = all.map_err(unavailable("sns:ListSubscriptionsByTopic"))?;
        let mut subscribers = Subscribers::default();
        for subscription in all {
            match subscription.subscription_arn() {
                Some(PENDING) => subscribers.pending += 1,
                // A deleted subscription has another text in place of its ARN.
                Some(arn) if arn.starts_with("arn:") => subscribers.confirmed += 1,
                _ => {}
            }
        }
        Ok(subscribers)
    }
}

impl Drifted {
    fn of(drift: &StackResourceDrift) -> Self {
        let deleted = drift.stack_resource_drift_status() == Some(&StackResourceDriftStatus::Deleted);
        let differences = || drift.property_differences().iter().map(difference).collect();
        Self {
            resource: drift.logical_resource_id().unwrap_or_default().to_owned(),
            kind: drift.resource_type().unwrap_or_default().to_owned(),
            differences: (!deleted).then(differences),
        }
    }
}

fn difference(difference: &PropertyDifference) -> String {
    let path = difference.property_path().unwrap_or_default();
    let plain = |text: Option<&str>| {
        let text = text?.trim_matches('"');
        (text.parse::<f64>().is_ok() || matches!(text, "true" | "false")).then(|| text.to_owned())
    };
    match (plain(difference.actual_value()), plain(difference.expected_value())) {
        (Some(actual), Some(expected)) => format!("{path} is {actual}, not {expected}"),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_numbers_and_truths_and_no_secret() {
        let differ = |actual: &str, expected: &str| {
            let differing = PropertyDifference::builder().property_path("/A/B");
            difference(&differing.actual_value(actual).expected_value(expected).build())
        };
        assert_eq!(differ("30", "60"), "/A/B is 30, not 60");
        assert_eq!(differ("\"30\"", "true"), "/A/B is 30, not true");
        assert_eq!(differ("a secret", "another"), "/A/B");
        assert_eq!(differ("null", "60"), "/A/B");
    }
}
