//! The tables and the queue on AWS.

use aws::{CannotStart, MailboxTable, Queue, RegistrationsTable};

use super::finding::Finding;
use crate::relay::cloud;

/// The names of the parts on AWS.
pub(super) struct Names {
    pub(super) registrations: String,
    pub(super) mailbox: Option<String>,
    pub(super) queue_url: Option<String>,
}

/// Tries each call that the relay makes, and changes nothing; the table of registrations, if it may be used.
pub(super) async fn check(names: &Names) -> anyhow::Result<(Option<RegistrationsTable>, Vec<Finding>)> {
    let config = cloud::config().await?;
    let table = RegistrationsTable::new(&config, &names.registrations);
    let checked = table.check().await;
    let usable = checked.is_ok().then(|| table.clone());
    let mut findings = vec![finding("table", &names.registrations, checked)];
    findings.push(match &names.mailbox {
        Some(name) => finding("mailbox", name, MailboxTable::new(&config, name).check().await),
        None => Finding::skipped("mailbox", "UPWIRE_MAILBOX_TABLE is not set"),
    });
    findings.push(match &names.queue_url {
        Some(url) => finding("queue", url, Queue::open(&config, url).await.map(drop)),
        None => Finding::skipped("queue", "UPWIRE_QUEUE_URL is not set"),
    });
    Ok((usable, findings))
}

fn finding(check: &'static str, name: &str, checked: Result<(), CannotStart>) -> Finding {
    match checked {
        Ok(()) => Finding::ok(check, format!("{name} may be used")),
        Err(error) => {
            let what = format!("{name}: {}", error.problem);
            Finding::error(check, what, "the relay does not start without it", error.mend)
        }
    }
}
