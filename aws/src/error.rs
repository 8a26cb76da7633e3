//! What AWS says when it does not do what it was asked, in words that show no secret and no address.

use std::{error::Error, fmt};

use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use push::ports::Unavailable;

/// Why the relay does not start: the problem, and the mend.
#[derive(Debug, thiserror::Error)]
#[error("{problem}; {mend}")]
pub struct CannotStart {
    /// Who can do something about it.
    pub cause: Cause,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub mend: &'static str,
}

/// Where the mend of a [`CannotStart`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// In the configuration: it names no table or queue of ours.
    Configuration,
    /// At AWS: the credentials, or what they allow.
    Credentials,
    /// Perhaps in time: AWS does not answer, or is not well.
    Unavailable,
}

impl CannotStart {
    /// The configuration names something that is not as it must be.
    pub(crate) fn new(problem: impl Into<String>, mend: &'static str) -> Self {
        Self { cause: Cause::Configuration, problem: problem.into(), mend }
    }

    /// Why `call` failed, where the mend for whatever is missing is `missing`.
    pub(crate) fn by(call: &'static str, failure: &Failure, missing: &'static str) -> Self {
        match failure.kind() {
            Kind::Denied => Self {
                cause: Cause::Credentials,
                problem: format!("these AWS credentials do not allow {call} ({failure})"),
                mend: "give their user or role the policy that the stack's output RelayPolicyArn names",
            },
            Kind::Missing => Self::new(format!("{call} finds nothing there ({failure})"), missing),
            Kind::Credentials => Self {
                cause: Cause::Credentials,
                problem: format!("AWS does not accept the credentials, or there are none ({failure})"),
                mend: "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run it where a role gives them",
            },
            Kind::Other => Self {
                cause: Cause::Unavailable,
                problem: format!("{call} fails ({failure})"),
                mend: "check AWS_REGION, AWS_ENDPOINT_URL if it is set, and that this machine reaches AWS",
            },
        }
    }
}

/// What came of a call that failed: the service's code and message, or what kept it from answering.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Option<String>,
    text: String,
}

/// The failures that an operator can tell apart and mend.
enum Kind {
    Denied,
    Missing,
    Credentials,
    Other,
}

impl Failure {
    pub(crate) fn is(&self, code: &str) -> bool {
        self.code.as_deref().is_some_and(|own| own.ends_with(code))
    }

    fn kind(&self) -> Kind {
        const MISSING: [&str; 3] = ["ResourceNotFoundException", "QueueDoesNotExist", "NonExistentQueue"];
        const CREDENTIALS: [&str; 8] = [
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "SignatureDoesNotMatch",
            "ExpiredToken",
            "ExpiredTokenException",
            "IncompleteSignature",
            "MissingAuthenticationToken",
        ];
        let any = |codes: &[&str]| codes.iter().any(|code| self.is(code));
        if any(&["AccessDenied", "AccessDeniedException"]) {
            Kind::Denied
        } else if any(&MISSING) {
            Kind::Missing
        } else if any(&CREDENTIALS) || self.text.contains("credentials") {
            Kind::Credentials
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
            let code = service.code().unwrap_or("no code");
            let message = service.message().unwrap_or("no message");
            return Self { code: service.code().map(str::to_owned), text: format!("{code}: {message}") };
        }
        // `Display` alone: `Debug`, and the SDK's own report, show whole requests.
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        Self { code: None, text }
    }
}

/// A failed call as the ports know it.
pub(crate) fn unavailable<E, R>(call: &'static str) -> impl Fn(SdkError<E, R>) -> Unavailable
where
    E: ProvideErrorMetadata + Error + 'static,
    R: fmt::Debug + 'static,
{
    move |error| Unavailable::new(format!("{call}: {}", Failure::from(error)))
}
