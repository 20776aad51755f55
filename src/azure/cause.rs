//! Why an attempt failed: whether another one may help, and what is told when there is none.

use std::time::{Duration, SystemTime};

use http::StatusCode;

use super::error::{Defect, Failure};
use super::error_body::ErrorBody;
use super::exchange::{Answer, TransportError, TransportErrorKind};
use super::outgoing::Outgoing;
use super::{Error, ErrorKind};

/// `Retry-After` of an answer, in seconds or as an HTTP date; 0, which much of Azure sends always, says nothing. A date is one of
/// the service's clock, so it is compared with the answer's own `Date`: the clock of this machine may be off.
pub(super) fn retry_after(answer: &Answer) -> Option<Duration> {
    let text = answer.header("retry-after")?.trim();
    let delay = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_not_a_number) => {
            let until = httpdate::parse_http_date(text).ok()?;
            let now = answer
                .header("date")
                .and_then(|date| httpdate::parse_http_date(date.trim()).ok())
                .unwrap_or_else(SystemTime::now);
            until.duration_since(now).ok()?
        }
    };
    (!delay.is_zero()).then_some(delay)
}

/// Why an attempt failed.
pub(super) enum Cause {
    Transport(TransportError),
    Status {
        status: StatusCode,
        retry_after: Option<Duration>,
        request_id: Option<String>,
        body: ErrorBody,
        /// The answer could not have a body.
        head: bool,
    },
    Defect(Defect, Option<String>),
}

/// Conflicts that pass by themselves ("Resource is locked by another operation").
const TRANSIENT_CODES: [&str; 5] = [
    "AnotherOperationInProgress",
    "CanceledAndSupersededDueToAnotherOperation",
    "ReferencedResourceNotProvisioned",
    "RetryableError",
    "RetryableErrorDueToAnotherOperation",
];

/// A network interface is held for a virtual machine whose creation failed, for 180 s ("reserved for another Virtual
/// Machine"); answered with 400 to its deletion and to its use.
const RESERVED: &str = "NicReservedForAnotherVm";

impl Cause {
    pub(super) fn deadline(limit: Duration) -> Self {
        Self::Transport(TransportError {
            kind: TransportErrorKind::Timeout,
            text: format!("not finished within {} s", limit.as_secs()),
            host_known: true,
        })
    }

    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::Transport(_) | Self::Defect(..) => None,
        }
    }

    /// Whether the service, or the way to it, has more requests than it can bear.
    pub(super) fn is_overload(&self) -> bool {
        match self {
            Self::Transport(error) => error.kind == TransportErrorKind::Timeout,
            Self::Status { status, .. } => matches!(
                *status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
            ),
            Self::Defect(..) => false,
        }
    }

    /// Whether there were more requests than Azure allows. With the codes of [`TRANSIENT_CODES`] the network provider says the
    /// same of a single resource that is busy; 503 it is in an outage, too.
    pub(super) fn is_throttled(&self) -> bool {
        matches!(self, Self::Status { status: StatusCode::TOO_MANY_REQUESTS, body, .. }
            if !body.code.as_deref().is_some_and(|code| TRANSIENT_CODES.contains(&code)))
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Transport(_) | Self::Defect(..) => None,
        }
    }

    /// Whether the request may have been carried out nevertheless.
    pub(super) fn is_unclear(&self) -> bool {
        match self {
            Self::Transport(error) => !error.is_unsent(),
            Self::Status { status, .. } => {
                *status == StatusCode::REQUEST_TIMEOUT || status.is_server_error()
            }
            Self::Defect(..) => true,
        }
    }

    /// Whether another attempt may succeed and does no harm.
    pub(super) fn is_transient(&self, request: &Outgoing<'_>) -> bool {
        match self {
            Self::Transport(error) => match error.kind {
                TransportErrorKind::UnknownHost | TransportErrorKind::NotConnected => true,
                TransportErrorKind::Tls
                | TransportErrorKind::Timeout
                | TransportErrorKind::Broken
                | TransportErrorKind::TooLong => request.repeatable || error.is_unsent(),
                TransportErrorKind::Certificate
                | TransportErrorKind::Protocol
                | TransportErrorKind::NotAllowed
                | TransportErrorKind::Unreadable => false,
            },
            Self::Status { status, body, .. } => match status.as_u16() {
                // Refused before anything was done.
                429 => true,
                408 | 500 | 502 | 503 | 504 => request.repeatable,
                404 => request.awaits_existence,
                400 => self.is_reservation(),
                409 | 412 => body
                    .code
                    .as_deref()
                    .is_some_and(|code| TRANSIENT_CODES.contains(&code)),
                _ => false,
            },
            Self::Defect(..) => request.repeatable,
        }
    }

    /// Whether the resource is held for another one, and will be free at a known time.
    pub(super) fn is_reservation(&self) -> bool {
        matches!(self, Self::Status { body, .. } if body.code.as_deref() == Some(RESERVED))
    }

    pub(super) fn into_error(
        self,
        request: &Outgoing<'_>,
        attempts: u32,
        elapsed: Duration,
        repeated: bool,
    ) -> Error {
        let failure = |kind, message| Failure {
            attempts,
            elapsed,
            repeated,
            ..Failure::new(kind, request.operation, request.resource, message)
        };
        match self {
            Self::Transport(error) => {
                let kind = match error.kind {
                    TransportErrorKind::UnknownHost
                    | TransportErrorKind::NotConnected
                    | TransportErrorKind::Tls
                    | TransportErrorKind::Broken => ErrorKind::Network,
                    TransportErrorKind::Certificate => ErrorKind::Certificate,
                    TransportErrorKind::Timeout => ErrorKind::Timeout,
                    TransportErrorKind::Protocol | TransportErrorKind::TooLong => {
                        ErrorKind::InvalidAnswer
                    }
                    TransportErrorKind::NotAllowed => ErrorKind::Configuration,
                    TransportErrorKind::Unreadable => ErrorKind::Unreadable,
                };
                failure(kind, error.text).into()
            }
            Self::Defect(defect, request_id) => Failure {
                request_id,
                defect: Some(defect.clone()),
                ..failure(ErrorKind::InvalidAnswer, defect.to_string())
            }
            .into(),
            Self::Status {
                status,
                retry_after,
                request_id,
                body,
                head,
            } => {
                let mut message = body.message.unwrap_or_else(|| {
                    let reason = status.canonical_reason().unwrap_or("unknown status");
                    match head {
                        true => reason.to_owned(),
                        false => format!("{reason}, without an explanation"),
                    }
                });
                if let Some(wait) = retry_after {
                    message.push_str(&format!("; to be repeated after {} s", wait.as_secs()));
                }
                Failure {
                    status: Some(status),
                    code: body.code.clone(),
                    request_id,
                    ..failure(kind_of(status, body.code.as_deref()), message)
                }
                .into()
            }
        }
    }
}

fn kind_of(status: StatusCode, code: Option<&str>) -> ErrorKind {
    match status.as_u16() {
        401 => ErrorKind::Unauthorized,
        403 => ErrorKind::Forbidden,
        404 => ErrorKind::NotFound,
        409 | 412 => ErrorKind::Conflict,
        408 | 504 => ErrorKind::Timeout,
        429 => ErrorKind::Throttled,
        503 if code == Some("ServerBusy") => ErrorKind::Throttled,
        400..500 => ErrorKind::Refused,
        500.. => ErrorKind::Service,
        // An informational, successful or redirecting status that this request cannot have.
        _ => ErrorKind::InvalidAnswer,
    }
}
