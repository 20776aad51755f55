//! Errors of the wire.
//!
//! One type for all of this layer. Decisions are made on [`Error::kind`], never on text. The text says what was to be
//! done to what, what happened, and where there is something to do about it, what; it never holds a secret, a SAS or
//! the address of a polling URL.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

/// What a failure means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The job was cancelled: an outcome, not a fault.
    Cancelled,
    /// The resource does not exist.
    NotFound,
    /// The credentials themselves were refused: no token, or a token that is not accepted.
    Unauthorized,
    /// The credentials are good, but do not allow this: a missing role, or a SAS that expired or was revoked.
    Forbidden,
    /// The state of the resource forbids it (409, 412).
    Conflict,
    /// The service kept refusing for load (429, or 503 of the storage service).
    Throttled,
    /// The service, or an operation in it, did not finish in time.
    Timeout,
    /// The service was not reached, or the connection broke.
    Network,
    /// The certificate of the service is not trusted.
    Certificate,
    /// An answer that cannot be right: too short, displaced, not what was asked for. [`Error::defect`] tells more.
    InvalidAnswer,
    /// The request was refused for another reason (any other 4xx).
    Refused,
    /// A long-running operation ended as failed or cancelled by the service.
    OperationFailed,
    /// The service failed (5xx).
    Service,
    /// There is no difference to a base to be had; the image has to be read in full.
    DiffUnavailable,
    /// An unusable setting: a CA file, an endpoint.
    Configuration,
    /// What was to be sent cannot be read on this machine.
    Unreadable,
}

/// What is wrong with an answer that was received in full.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// Fewer or more bytes than asked for.
    #[error("the body has {actual} bytes instead of {expected}")]
    WrongLength {
        /// Bytes asked for.
        expected: u64,
        /// Bytes received.
        actual: u64,
    },
    /// The bytes of another range.
    #[error("the answer holds {actual} instead of bytes {expected}")]
    Displaced {
        /// Range asked for, as `first-last`.
        expected: String,
        /// `Content-Range` of the answer, or what is missing.
        actual: String,
    },
    /// Anything else that does not follow the protocol.
    #[error("{0}")]
    Malformed(String),
}

/// A failed request or operation. Cheap to clone: all who waited for one token share the reason why there is none.
#[derive(Clone)]
pub struct Error(Arc<Failure>);

/// The parts of an [`Error`].
#[derive(Clone)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    /// Verb and object: `create snapshot`.
    pub(super) operation: &'static str,
    /// Which one: an id, host and path of a blob; may be empty.
    pub(super) resource: String,
    /// The cause and what to do; may be empty.
    pub(super) message: String,
    pub(super) status: Option<StatusCode>,
    pub(super) code: Option<String>,
    pub(super) request_id: Option<String>,
    pub(super) attempts: u32,
    pub(super) elapsed: Duration,
    /// An earlier attempt than the one that is told of was accepted, or may have been.
    pub(super) repeated: bool,
    pub(super) defect: Option<Defect>,
}

impl Failure {
    /// A failure without an answer of a service.
    pub(super) fn new(
        kind: ErrorKind,
        operation: &'static str,
        resource: &dyn fmt::Display,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            operation,
            resource: resource.to_string(),
            message: message.into(),
            status: None,
            code: None,
            request_id: None,
            attempts: 0,
            elapsed: Duration::ZERO,
            repeated: false,
            defect: None,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self(Arc::new(failure))
    }
}

impl Error {
    /// A failure without an answer of a service.
    pub(super) fn new(
        kind: ErrorKind,
        operation: &'static str,
        resource: &dyn fmt::Display,
        message: impl Into<String>,
    ) -> Self {
        Failure::new(kind, operation, resource, message).into()
    }

    pub(super) fn cancelled(operation: &'static str, resource: &dyn fmt::Display) -> Self {
        Self::new(ErrorKind::Cancelled, operation, resource, "cancelled")
    }

    pub(super) fn invalid_answer(
        operation: &'static str,
        resource: &dyn fmt::Display,
        defect: Defect,
    ) -> Self {
        Failure {
            defect: Some(defect.clone()),
            ..Failure::new(
                ErrorKind::InvalidAnswer,
                operation,
                resource,
                defect.to_string(),
            )
        }
        .into()
    }

    /// The same failure under another kind and text, where the caller knows better what it means.
    pub(super) fn reinterpret(&self, kind: ErrorKind, message: impl Into<String>) -> Self {
        Failure {
            kind,
            message: message.into(),
            ..(*self.0).clone()
        }
        .into()
    }

    /// The same failure, of what followed when the request itself had been accepted.
    pub(super) fn of_accepted(self) -> Self {
        Failure {
            repeated: true,
            ..Arc::unwrap_or_clone(self.0)
        }
        .into()
    }

    /// What it means.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the job was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.kind() == ErrorKind::Cancelled
    }

    /// Whether the resource does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind() == ErrorKind::NotFound
    }

    /// HTTP status of the last answer, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.0.status.map(|status| status.as_u16())
    }

    /// The service's error code, e.g. `AuthorizationFailed`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The cause and what to do, without operation, resource and identifiers.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The service's id of the last request, for its support.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// Requests made.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// Whether an attempt before the one that is told of may have been carried out: its answer was lost, or came from somebody
    /// in trouble, or it was accepted. One that was only throttled was not.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        self.0.repeated
    }

    /// Whether what was asked for may have been done nevertheless, or may be yet.
    #[must_use]
    pub fn may_be_done(&self) -> bool {
        match self.kind() {
            ErrorKind::NotFound
            | ErrorKind::Unauthorized
            | ErrorKind::Forbidden
            | ErrorKind::Conflict
            | ErrorKind::Throttled
            | ErrorKind::Refused
            | ErrorKind::Certificate
            | ErrorKind::Configuration
            | ErrorKind::Unreadable => self.is_repeated(),
            ErrorKind::Cancelled
            | ErrorKind::Timeout
            | ErrorKind::Network
            | ErrorKind::InvalidAnswer
            | ErrorKind::OperationFailed
            | ErrorKind::Service
            | ErrorKind::DiffUnavailable => true,
        }
    }

    /// Time from the first request to the last answer.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed
    }

    /// What is wrong with the answer, for [`ErrorKind::InvalidAnswer`].
    #[must_use]
    pub fn defect(&self) -> Option<&Defect> {
        self.0.defect.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failure = &*self.0;
        f.write_str(failure.operation)?;
        if !failure.resource.is_empty() {
            write!(f, " {}", failure.resource)?;
        }
        if !failure.message.is_empty() {
            write!(f, ": {}", failure.message)?;
        }
        if failure.attempts > 1 {
            let seconds = failure.elapsed.as_secs_f64();
            write!(
                f,
                "; gave up after {} attempts in {seconds:.0} s",
                failure.attempts
            )?;
        }
        let status = failure
            .status
            .map(|status| format!("status {}", status.as_u16()));
        let request = failure
            .request_id
            .as_ref()
            .map(|id| format!("request id {id}"));
        let facts: Vec<String> = [status, failure.code.clone(), request]
            .into_iter()
            .flatten()
            .collect();
        if !facts.is_empty() {
            write!(f, " ({})", facts.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind())
    }
}

impl StdError for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_verb_object_cause_and_facts() {
        let error: Error = Failure {
            status: Some(StatusCode::SERVICE_UNAVAILABLE),
            code: Some("ServerBusy".into()),
            request_id: Some("r-1".into()),
            attempts: 6,
            elapsed: Duration::from_millis(93_200),
            ..Failure::new(
                ErrorKind::Throttled,
                "read bytes",
                &"4194304..8388608 of md-x/c/abcd",
                "The server is busy.",
            )
        }
        .into();
        assert_eq!(
            error.to_string(),
            "read bytes 4194304..8388608 of md-x/c/abcd: The server is busy.; \
             gave up after 6 attempts in 93 s (status 503, ServerBusy, request id r-1)"
        );
        assert_eq!(
            Error::cancelled("read disk", &"d").to_string(),
            "read disk d: cancelled"
        );
    }
}
