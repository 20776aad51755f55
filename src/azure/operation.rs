//! Long-running operations: waiting until Azure has done what it accepted.
//!
//! Three forms occur ("Track asynchronous Azure operations"): `Azure-AsyncOperation` names an address that tells a
//! status, `Location` one that answers 202 until it is done, and where neither is given the resource's own
//! `provisioningState` tells. A failed operation answers 200 with the status `Failed`. Every status that is not known
//! to be an end means that it is still running.
//!
//! The addresses are signed, several KB long, and never logged. Whoever creates a resource reads it afterwards: the
//! result that an operation carries leaves members out.

use std::time::Duration;

use http::{Method, StatusCode, Uri};
use serde_json::Value;
use tokio::time::Instant;

use super::arm::Subject;
use super::call::{BuildError, Call};
use super::error::Failure;
use super::error_body::ErrorBody;
use super::exchange::Answer;
use super::retry::retry_after;
use super::{Azure, Error, ErrorKind};

/// Disk operations finish in well under a second; the first look is early, then looks become rare.
const FIRST_DELAY: Duration = Duration::from_millis(250);
const MAX_DELAY: Duration = Duration::from_secs(30);

const ACCEPTED: [u16; 4] = [200, 201, 202, 204];

/// Waits that double, unless the service names one.
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(FIRST_DELAY)
    }

    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let own = self.0;
        self.0 = own.saturating_mul(2).min(MAX_DELAY);
        asked.unwrap_or(own)
    }
}

/// How far something is.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Running(String),
    Succeeded,
    /// Ended as `Failed` or `Canceled`; which word.
    Failed(String),
}

impl Progress {
    /// Reads a status word; the service spells `Canceled` both ways.
    fn of(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "succeeded" => Self::Succeeded,
            "failed" | "canceled" | "cancelled" => Self::Failed(word.to_owned()),
            _ => Self::Running(word.to_owned()),
        }
    }
}

/// Where to ask how far it is.
enum Watch {
    Status(Uri),
    Location(Uri),
    /// The resource's own state; its absence is the end of a deletion.
    Resource {
        address: Uri,
        deleted: bool,
    },
}

/// What a finished operation returned.
pub(super) struct Finished {
    /// `properties.output` of the status, or the body of an answer that needed no waiting; `Null` if there is none.
    pub(super) output: Value,
    /// Where the result can be read, if the answer named such a place.
    pub(super) location: Option<Uri>,
    /// How many attempts the first request took.
    pub(super) attempts: u32,
}

impl Azure {
    /// Sends a call and waits until its operation has ended.
    ///
    /// # Errors
    ///
    /// The refusal of the request; [`ErrorKind::OperationFailed`]; [`ErrorKind::Timeout`] after the time this view is
    /// ready to wait.
    pub(super) async fn run(
        &self,
        subject: Subject<'_>,
        call: Result<Call, BuildError>,
    ) -> Result<Finished, Error> {
        let call = call.map_err(|error| subject.unbuildable(&error))?;
        let method = call.request.method().clone();
        let address = call.request.uri().clone();
        let received = self.send(subject, Ok(call)).await?;
        let first = &received.answer;

        let location = self.header_address(subject, first, "location")?;
        let status = self.header_address(subject, first, "azure-asyncoperation")?;
        let watch = match (status, &location, first.status) {
            (Some(status), _, _) => Some(Watch::Status(status)),
            (None, Some(location), StatusCode::ACCEPTED) => Some(Watch::Location(location.clone())),
            (None, _, code) if method == Method::PUT || method == Method::PATCH => {
                let running = code == StatusCode::ACCEPTED
                    || self.check_resource(subject, first)? != Progress::Succeeded;
                running.then_some(Watch::Resource {
                    address,
                    deleted: false,
                })
            }
            (None, _, StatusCode::ACCEPTED) if method == Method::DELETE => Some(Watch::Resource {
                address,
                deleted: true,
            }),
            (None, _, StatusCode::ACCEPTED) => {
                return Err(subject.invalid("accepted, but no address tells how far it is"));
            }
            (None, _, _) => None,
        };
        let output = match watch {
            Some(watch) => self.wait(subject, &watch, retry_after(first)).await?,
            None => subject.json(first)?,
        };
        Ok(Finished {
            output,
            location,
            attempts: received.attempts,
        })
    }

    /// Deletes and waits until it is gone; what does not exist is gone.
    pub(super) async fn delete(
        &self,
        subject: Subject<'_>,
        call: Result<Call, BuildError>,
    ) -> Result<(), Error> {
        match self.run(subject, call).await {
            Ok(_finished) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn wait(
        &self,
        subject: Subject<'_>,
        watch: &Watch,
        mut asked: Option<Duration>,
    ) -> Result<Value, Error> {
        let started = Instant::now();
        let mut backoff = Backoff::new();
        let mut state = String::from("accepted");
        loop {
            let delay = backoff.next(asked);
            let spent = started.elapsed();
            if spent + delay > self.patience {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    subject.operation,
                    subject.resource,
                    format!("still {state} after {} s", spent.as_secs()),
                ));
            }
            self.sender
                .pause(delay, subject.operation, subject.resource)
                .await?;
            let (progress, answer) = match watch {
                Watch::Status(address) => {
                    let answer = self.follow(subject, address, &ACCEPTED, true).await?;
                    (self.check_status(subject, &answer)?, answer)
                }
                Watch::Location(address) => {
                    let answer = self.follow(subject, address, &ACCEPTED, true).await?;
                    let progress = match answer.status {
                        StatusCode::ACCEPTED => Progress::Running("running".into()),
                        _ => Progress::Succeeded,
                    };
                    (progress, answer)
                }
                Watch::Resource { address, deleted } => {
                    match self.follow(subject, address, &[200], !deleted).await {
                        Err(error) if *deleted && error.is_not_found() => return Ok(Value::Null),
                        Err(error) => return Err(error),
                        Ok(answer) if *deleted => (Progress::Running("deleting".into()), answer),
                        Ok(answer) => (self.check_resource(subject, &answer)?, answer),
                    }
                }
            };
            match progress {
                Progress::Succeeded => return self.output(subject, watch, &answer),
                Progress::Failed(word) => return Err(failed(subject, &answer, &word)),
                Progress::Running(word) => state = word,
            }
            asked = retry_after(&answer);
        }
    }

    fn output(&self, subject: Subject<'_>, watch: &Watch, answer: &Answer) -> Result<Value, Error> {
        let mut body = subject.json(answer)?;
        Ok(match watch {
            Watch::Status(_) => body
                .pointer_mut("/properties/output")
                .map(Value::take)
                .unwrap_or_default(),
            Watch::Location(_) | Watch::Resource { .. } => body,
        })
    }

    fn check_status(&self, subject: Subject<'_>, answer: &Answer) -> Result<Progress, Error> {
        let body = subject.json(answer)?;
        match (body.get("status").and_then(Value::as_str), answer.status) {
            (Some(word), _) => Ok(Progress::of(word)),
            (None, StatusCode::NO_CONTENT) => Ok(Progress::Succeeded),
            (None, StatusCode::ACCEPTED) => Ok(Progress::Running("running".into())),
            (None, _) => Err(subject.invalid("the operation's answer has no `status`")),
        }
    }

    /// `provisioningState` of a resource; one without it is ready.
    fn check_resource(&self, subject: Subject<'_>, answer: &Answer) -> Result<Progress, Error> {
        let body = subject.json(answer)?;
        Ok(body
            .pointer("/properties/provisioningState")
            .and_then(Value::as_str)
            .map_or(Progress::Succeeded, Progress::of))
    }

    fn header_address(
        &self,
        subject: Subject<'_>,
        answer: &Answer,
        name: &str,
    ) -> Result<Option<Uri>, Error> {
        match answer.header(name) {
            None | Some("") => Ok(None),
            Some(text) => self.own_address(subject, text).map(Some),
        }
    }
}

fn failed(subject: Subject<'_>, answer: &Answer, word: &str) -> Error {
    let body = ErrorBody::parse(&answer.headers, &answer.contiguous());
    let explained = body.code.is_some();
    let reason = body.message.filter(|_| explained);
    Failure {
        code: body.code,
        request_id: answer.request_id(),
        ..Failure::new(
            ErrorKind::OperationFailed,
            subject.operation,
            subject.resource,
            match reason {
                Some(reason) => format!("the operation ended as {word}: {reason}"),
                None => format!("the operation ended as {word}, without an explanation"),
            },
        )
    }
    .into()
}
