//! Changes of a tenant's limits, webhook and note, from the command line.

use std::str::FromStr;

use push::tenant::{Quota, TEXT_BYTES_MAX};
use push::{Rate, Tenant};
use url::Url;

use crate::configuration::ConfigurationError;

/// The settings that an operator gives for a tenant.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Changes {
    /// Most registrations; beyond it new ones are refused, and those that live go on; or none
    #[arg(long, value_name = "REGISTRATIONS", value_parser = count)]
    registrations: Option<Change<u64>>,

    /// Most pushes in a calendar month, in UTC; beyond it senders are asked to wait; or none
    #[arg(long, value_name = "PUSHES", value_parser = count)]
    pushes_per_month: Option<Change<u64>>,

    /// Rate at which its senders may push, all together: so many at once, a slash, and so many per second after that;
    /// or none
    #[arg(long, value_name = "BURST/PER_SECOND", value_parser = rate)]
    rate: Option<Change<Rate>>,

    /// An http or https URL that is POSTed to when 80 or 100 percent of a quota are used; or none
    #[arg(long, value_name = "URL", value_parser = webhook)]
    webhook: Option<Change<String>>,

    /// Anything that you want to remember; or none
    #[arg(long, value_name = "TEXT", value_parser = note)]
    note: Option<Change<String>>,
}

/// The change that an option makes.
#[derive(Debug, Clone)]
enum Change<T> {
    Lift,
    To(T),
}

/// Parses a limit; `None`: the text is none.
fn limit<T: FromStr>(text: &str) -> Option<Change<T>> {
    if text == "none" { Some(Change::Lift) } else { text.parse().ok().map(Change::To) }
}

fn count(text: &str) -> Result<Change<u64>, &'static str> {
    limit(text).ok_or("it is no whole number; write it as in 5000; or none")
}

/// Parses a rate. The rate's own error is not used: it names `off`, which only UPWIRE_RATE takes.
fn rate(text: &str) -> Result<Change<Rate>, &'static str> {
    limit(text).ok_or(
        "it is no rate; write the burst, a slash, and the pushes per second after it, as in 60/1; or none",
    )
}

fn webhook(text: &str) -> Result<Change<String>, String> {
    if text == "none" {
        return Ok(Change::Lift);
    }
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or("it is no http or https URL; write it as in https://billing.example/upwire; or none")?;
    note(text)
}

fn note(text: &str) -> Result<Change<String>, String> {
    match text {
        "none" => Ok(Change::Lift),
        text if text.contains(char::is_control) => {
            Err("it has a line break or another control character; write it as one line of plain text".into())
        }
        text if text.len() <= TEXT_BYTES_MAX => Ok(Change::To(text.to_owned())),
        _ => Err(format!("it has more than {TEXT_BYTES_MAX} bytes")),
    }
}

impl Changes {
    /// Refuses credentials in the webhook, since no call sends them. The check is not in the option's parser, whose
    /// error would print them.
    pub(super) fn check(&self) -> Result<(), ConfigurationError> {
        let Some(Change::To(webhook)) = &self.webhook else { return Ok(()) };
        if !Url::parse(webhook).is_ok_and(|url| has_credentials(&url)) {
            return Ok(());
        }
        let problem = "the URL has a user name or a password, which the call would not send";
        let mend = "leave them out, and let the webhook accept calls from this server's address, or by a path that \
                    nobody guesses";
        Err(ConfigurationError::new("--webhook", problem, mend))
    }

    /// Returns whether there are no changes.
    pub(super) const fn is_empty(&self) -> bool {
        let Self { registrations, pushes_per_month, rate, webhook, note } = self;
        registrations.is_none()
            && pushes_per_month.is_none()
            && rate.is_none()
            && webhook.is_none()
            && note.is_none()
    }

    /// Makes the changes.
    pub(super) fn put_into(&self, tenant: &mut Tenant) {
        fn set<T: Clone>(place: &mut Option<T>, change: Option<&Change<T>>) {
            match change {
                None => {}
                Some(Change::Lift) => *place = None,
                Some(Change::To(value)) => *place = Some(value.clone()),
            }
        }
        let before = tenant.quotas;
        set(&mut tenant.quotas.registrations, self.registrations.as_ref());
        set(&mut tenant.quotas.pushes_per_month, self.pushes_per_month.as_ref());
        set(&mut tenant.quotas.rate, self.rate.as_ref());
        set(&mut tenant.webhook, self.webhook.as_ref());
        set(&mut tenant.note, self.note.as_ref());
        // The relay judges and reports anew.
        if tenant.quotas.pushes_per_month != before.pushes_per_month {
            tenant.used_up = None;
            forget_events(tenant, Quota::Pushes);
        }
        if tenant.quotas.registrations != before.registrations {
            forget_events(tenant, Quota::Registrations);
        }
    }
}

fn forget_events(tenant: &mut Tenant, of: Quota) {
    if let Some(told) = &mut tenant.told {
        told.events.retain(|(quota, _)| *quota != of);
    }
    tenant.told = tenant.told.take().filter(|told| !told.events.is_empty());
}

/// Returns whether a URL has a user name or a password.
pub(super) fn has_credentials(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}
