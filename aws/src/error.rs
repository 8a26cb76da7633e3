//! Failures of AWS calls, in texts without secrets and addresses.

use std::{error::Error, fmt, iter::successors};

use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use push::ports::Unavailable;

/// DynamoDB's code for a conditional write whose condition did not hold.
const STOPPED: &str = "ConditionalCheckFailedException";

/// Why the relay does not start: the problem, and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{problem}; {mend}")]
pub struct CannotStart {
    /// The kind of cause, which tells where the remedy is.
    pub cause: Cause,
    /// The problem.
    pub problem: String,
    /// The operator's remedy.
    pub mend: &'static str,
}

/// The place of the remedy for a [`CannotStart`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The configuration: it names no table or queue of ours.
    Configuration,
    /// Permissions at AWS: the credentials are valid, but do not allow a call.
    Denied,
    /// The AWS credentials.
    Credentials,
    /// This machine's clock, which is wrong.
    Clock,
    /// Perhaps none: AWS does not answer, or fails. A later attempt may succeed.
    Unavailable,
}

impl CannotStart {
    /// Makes the error for a resource in the configuration that is not as it must be.
    pub(crate) fn new(problem: impl Into<String>, mend: &'static str) -> Self {
        Self { cause: Cause::Configuration, problem: problem.into(), mend }
    }

    /// Makes the error for a failed `call`. `missing` is the remedy if the resource does not exist.
    pub(crate) fn by(call: &'static str, failure: &Failure, missing: &'static str) -> Self {
        let (cause, problem, mend) = match failure.kind() {
            Kind::Denied => (
                Cause::Denied,
                format!("these AWS credentials do not allow {call} ({failure})"),
                "give their user or role the policy that the stack's output RelayPolicyArn names",
            ),
            Kind::Missing => (
                Cause::Configuration,
                format!("{call} finds none of that name in this region and account ({failure})"),
                missing,
            ),
            Kind::NoCredentials => (
                Cause::Credentials,
                format!("there are no AWS credentials ({failure})"),
                "set AWS_PROFILE to a profile that has some, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
                 run it where a role gives them",
            ),
            Kind::Credentials => (
                Cause::Credentials,
                format!("AWS does not accept the credentials ({failure})"),
                "check AWS_PROFILE, or AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, with temporary ones, \
                 AWS_SESSION_TOKEN: they may be mistyped, expired or deactivated",
            ),
            Kind::Clock => (
                Cause::Clock,
                format!("AWS does not accept the time of this machine ({failure})"),
                "set its clock",
            ),
            Kind::Other => (
                Cause::Unavailable,
                format!("{call} fails ({failure})"),
                "check AWS_REGION, AWS_ENDPOINT_URL if it is set, and that this machine reaches AWS",
            ),
        };
        Self { cause, problem, mend }
    }
}

/// The kind of table that is expected, and the remedy for a table of another kind.
pub(crate) struct TableMend {
    /// The kind, as "of registrations".
    pub(crate) kind: &'static str,
    /// The remedy: the variable, and its value.
    pub(crate) mend: &'static str,
}

impl TableMend {
    /// Judges a call that changes nothing. A write that only its condition stopped was allowed.
    pub(crate) fn verdict(
        &self,
        call: &'static str,
        outcome: Result<(), Failure>,
    ) -> Result<(), CannotStart> {
        match outcome {
            Ok(()) => Ok(()),
            Err(failure) if failure.is(STOPPED) => Ok(()),
            Err(failure) if failure.is("ValidationException") => {
                Err(CannotStart::new(format!("the table is none {} ({failure})", self.kind), self.mend))
            }
            Err(failure) => Err(CannotStart::by(call, &failure, self.mend)),
        }
    }
}

/// A failed call: the service's code and message, or the reason why it did not answer.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The service's code; `None`: no service answered.
    code: Option<String>,
    text: String,
}

/// The kinds of failures that have remedies of their own.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Denied,
    Missing,
    NoCredentials,
    Credentials,
    Clock,
    Other,
}

impl Failure {
    /// Makes a failure from a service's answer.
    pub(crate) fn new(code: &str, message: Option<&str>) -> Self {
        let text = format!("{code}: {}", message.unwrap_or("no message"));
        Self { code: Some(code.to_owned()), text }
    }

    /// Returns whether the credentials do not allow the call.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self.kind(), Kind::Denied)
    }

    pub(crate) fn is(&self, code: &str) -> bool {
        self.code.as_deref().is_some_and(|own| own.ends_with(code))
    }

    fn kind(&self) -> Kind {
        const DENIED: [&str; 2] = ["AccessDenied", "AccessDeniedException"];
        const MISSING: [&str; 4] =
            ["ResourceNotFoundException", "QueueDoesNotExist", "NonExistentQueue", "InvalidAddress"];
        const CREDENTIALS: [&str; 9] = [
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "SignatureDoesNotMatch",
            "ExpiredToken",
            "ExpiredTokenException",
            "IncompleteSignature",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
        ];
        // AWS refuses a signature of another hour with the code of a wrong signature; only the message differs.
        const CLOCK: [&str; 3] = ["Signature expired", "Signature not yet current", "RequestTimeTooSkewed"];
        let any = |codes: &[&str]| codes.iter().any(|code| self.is(code));
        if any(&DENIED) {
            Kind::Denied
        } else if any(&MISSING) {
            Kind::Missing
        } else if CLOCK.iter().any(|sign| self.text.contains(sign)) {
            Kind::Clock
        } else if any(&CREDENTIALS) {
            Kind::Credentials
        } else if self.code.is_none() && self.text.contains("credential") {
            Kind::NoCredentials
        } else {
            Kind::Other
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Failure {}

impl<E, R> From<SdkError<E, R>> for Failure
where
    E: ProvideErrorMetadata + Error + 'static,
    R: fmt::Debug + 'static,
{
    fn from(error: SdkError<E, R>) -> Self {
        if let Some(service) = error.as_service_error() {
            let text = match (service.code(), service.message()) {
                (Some(code), Some(message)) => format!("{code}: {message}"),
                (code, message) => code.or(message).unwrap_or("an error that has no name").to_owned(),
            };
            return Self { code: service.code().map(str::to_owned), text };
        }
        // Only `Display` is used: `Debug` and the SDK's own report show whole requests. Causes that still show a
        // request, and those that name no reason, are left out.
        const EMPTY: [&str; 3] = ["dispatch failure", "io error", "other"];
        let error: &dyn Error = &error;
        let causes = successors(Some(error), |cause| (*cause).source()).map(ToString::to_string);
        let mut said: Vec<String> = Vec::new();
        for cause in causes.filter(|cause| !cause.contains('{') && !EMPTY.contains(&cause.as_str())) {
            if !said.iter().any(|text| text.contains(&cause)) {
                said.push(cause);
            }
        }
        Self { code: None, text: if said.is_empty() { error.to_string() } else { said.join(": ") } }
    }
}

/// Returns the conversion of a failed call to the ports' error.
pub(crate) fn unavailable<E, R>(call: &'static str) -> impl Fn(SdkError<E, R>) -> Unavailable
where
    E: ProvideErrorMetadata + Error + 'static,
    R: fmt::Debug + 'static,
{
    move |error| Unavailable::new(format!("{call}: {}", Failure::from(error)))
}

/// Returns whether a conditional write was made. False: its condition did not hold.
pub(crate) fn made<T, E, R>(
    call: &'static str,
    outcome: Result<T, SdkError<E, R>>,
) -> Result<bool, Unavailable>
where
    E: ProvideErrorMetadata + Error + 'static,
    R: fmt::Debug + 'static,
{
    match outcome {
        Ok(_) => Ok(true),
        Err(error) if error.as_service_error().and_then(ProvideErrorMetadata::code) == Some(STOPPED) => {
            Ok(false)
        }
        Err(error) => Err(unavailable(call)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: Option<&str>, text: &str) -> Kind {
        Failure { code: code.map(str::to_owned), text: text.to_owned() }.kind()
    }

    #[test]
    fn what_an_operator_can_mend_is_told_apart() {
        let service = |code: &str| kind(Some(code), "a message");
        assert_eq!(service("AccessDeniedException"), Kind::Denied);
        assert_eq!(service("KMS.AccessDeniedException"), Kind::Denied);
        assert_eq!(service("AWS.SimpleQueueService.NonExistentQueue"), Kind::Missing);
        assert_eq!(service("ResourceNotFoundException"), Kind::Missing);
        assert_eq!(service("UnrecognizedClientException"), Kind::Credentials);
        assert_eq!(service("InvalidSignatureException"), Kind::Credentials);
        assert_eq!(
            kind(
                Some("InvalidSignatureException"),
                "Signature expired: 20260101T000000Z is now earlier than …"
            ),
            Kind::Clock
        );
        for passing in ["InternalServerError", "ThrottlingException", "ServiceUnavailable"] {
            assert_eq!(service(passing), Kind::Other);
        }
        assert_eq!(
            kind(None, "the credential provider was not enabled: no providers in chain provided credentials"),
            Kind::NoCredentials
        );
        assert_eq!(kind(None, "tcp connect error: Connection refused (os error 111)"), Kind::Other);
    }
}
