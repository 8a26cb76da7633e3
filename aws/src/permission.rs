//! The permissions of these credentials, found by calls that change nothing.

use aws_sdk_dynamodb::Client;

use crate::error::{CannotStart, Cause, Failure, TableMend};

/// An action on a resource, and whether the credentials allow it.
#[derive(Debug)]
pub struct Permission {
    /// The name of the action in a policy, as `dynamodb:GetItem`.
    pub action: &'static str,
    /// The resource's ARN. The account is `*` if it is not known.
    pub resource: String,
    /// The problem and the remedy, if the call failed.
    pub verdict: Result<(), CannotStart>,
}

impl Permission {
    /// Returns whether AWS has denied the action.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(&self.verdict, Err(error) if error.cause == Cause::Denied)
    }

    /// Returns the policy statement that allows the action, as JSON.
    #[must_use]
    pub fn statement(&self) -> String {
        let Self { action, resource, .. } = self;
        format!(r#"{{"Effect":"Allow","Action":"{action}","Resource":"{resource}"}}"#)
    }
}

/// Returns the first problem that keeps the relay from its work.
pub(crate) fn all_allowed(permissions: Vec<Permission>) -> Result<(), CannotStart> {
    permissions.into_iter().try_for_each(|permission| permission.verdict)
}

/// Ends an inquiry: every further call would fail for the same reason.
pub(crate) struct Pointless;

/// The answers so far about one resource.
pub(crate) struct Inquiry {
    resource: String,
    permissions: Vec<Permission>,
}

impl Inquiry {
    pub(crate) fn of(resource: String) -> Self {
        Self { resource, permissions: Vec::new() }
    }

    pub(crate) fn of_table(client: &Client, name: &str) -> Self {
        let region = client.config().region().map_or("*", AsRef::as_ref);
        Self::of(format!("arn:aws:dynamodb:{region}:*:table/{name}"))
    }

    /// Goes on to another resource.
    pub(crate) fn turn_to(&mut self, resource: String) {
        self.resource = resource;
    }

    /// Goes on to an index of the table.
    pub(crate) fn turn_to_index(&mut self, index: &str) {
        self.resource = format!("{}/index/{index}", self.resource);
    }

    /// Notes an answer. After a denial the inquiry goes on, since other actions may be allowed.
    pub(crate) fn note(
        &mut self,
        action: &'static str,
        verdict: Result<(), CannotStart>,
    ) -> Result<(), Pointless> {
        let permission = Permission { action, resource: self.resource.clone(), verdict };
        let goes_on = permission.verdict.is_ok() || permission.is_denied();
        self.permissions.push(permission);
        if goes_on { Ok(()) } else { Err(Pointless) }
    }

    /// Notes the outcome of a call to a table.
    pub(crate) fn note_call(
        &mut self,
        mend: &TableMend,
        action: &'static str,
        outcome: Result<(), impl Into<Failure>>,
    ) -> Result<(), Pointless> {
        self.note(action, mend.verdict(action, outcome.map_err(Into::into)))
    }

    pub(crate) fn permissions(self) -> Vec<Permission> {
        self.permissions
    }
}
