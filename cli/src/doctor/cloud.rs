//! The tables and the queue on AWS: checks whether the credentials allow each call of the relay.

use aws::{MailboxTable, Permission, Queue, RegistrationsTable, SdkConfig};

use super::finding::Finding;

const WHY: &str = "the relay does not start without it";

/// The names of the tables, and the URL of the queue.
pub(super) struct Names {
    pub(super) registrations: String,
    pub(super) mailbox: Option<String>,
    pub(super) queue_url: Option<String>,
}

/// Tries each call that the relay makes, and changes nothing. Also returns the table of registrations, if it may be
/// read.
pub(super) async fn check(config: &SdkConfig, names: &Names) -> (Option<RegistrationsTable>, Vec<Finding>) {
    let table = RegistrationsTable::new(config, &names.registrations);
    let permissions = table.permissions().await;
    let usable = permissions.first().is_some_and(|read| read.verdict.is_ok()).then_some(table);
    let mut findings = found("table", &names.registrations, &permissions);
    match &names.mailbox {
        Some(name) => {
            let permissions = MailboxTable::new(config, name).permissions().await;
            findings.extend(found("mailbox", name, &permissions));
        }
        None => findings.push(Finding::skipped("mailbox", "UPWIRE_MAILBOX_TABLE is not set")),
    }
    match &names.queue_url {
        Some(url) => findings.extend(found("queue", url, &Queue::permissions(config, url).await)),
        None => findings.push(Finding::skipped("queue", "UPWIRE_QUEUE_URL is not set")),
    }
    (usable, findings)
}

/// Makes one finding for all allowed actions, and one for each action that is not allowed.
fn found(check: &'static str, name: &str, permissions: &[Permission]) -> Vec<Finding> {
    let allowed = permissions.iter().filter(|permission| permission.verdict.is_ok());
    let allowed: Vec<&str> = allowed.map(|permission| permission.action).collect();
    let mut findings = Vec::new();
    if !allowed.is_empty() {
        findings.push(Finding::ok(check, format!("{name} allows {}", allowed.join(", "))));
    }
    findings.extend(permissions.iter().filter_map(|permission| {
        let error = permission.verdict.as_ref().err()?;
        Some(if permission.is_denied() {
            let mend = format!(
                "attach the stack's policy: aws iam attach-user-policy --user-name upwire-relay --policy-arn ARN, with the \
                 output RelayPolicyArn (attach-role-policy for a role); or add this statement to another of its policies: {}",
                permission.statement()
            );
            Finding::error("permissions", format!("{name}: {}", error.problem), WHY, mend)
        } else {
            Finding::error(check, format!("{name}: {}", error.problem), WHY, error.mend)
        })
    }));
    findings
}
