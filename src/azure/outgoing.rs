//! One request, and all that the retry loop has to know about it: what makes it acceptable, what may be repeated, what is done with
//! the answer.

use std::fmt;

use futures_util::future::BoxFuture;
use http::{Request, StatusCode};

use super::Error;
use super::error::Defect;
use super::exchange::Answer;
use crate::intake::{Intake, Unbounded};
use crate::payload::Payload;

/// What a request needs to be accepted. Called for each attempt, since tokens and SAS change under way.
pub(super) trait Credential: Send + Sync {
    /// Completes the request. Returns the generation of the credential used, for [`renew`](Self::renew).
    fn authorize<'a>(
        &'a self,
        request: &'a mut Request<Payload>,
    ) -> BoxFuture<'a, Result<u64, Error>>;

    /// Whether this answer means that the credential, not the request, was refused.
    fn is_refused(&self, status: StatusCode) -> bool;

    /// Replaces the credential of that generation, unless somebody did already. `false` if there is no other to be had.
    fn renew(&self, generation: u64) -> BoxFuture<'_, Result<bool, Error>>;
}

/// No credential at all.
pub(super) struct Anonymous;

impl Credential for Anonymous {
    fn authorize<'a>(
        &'a self,
        _request: &'a mut Request<Payload>,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(async { Ok(0) })
    }

    fn is_refused(&self, _status: StatusCode) -> bool {
        false
    }

    fn renew(&self, _generation: u64) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async { Ok(false) })
    }
}

/// Looks at a successful answer; its complaint makes the attempt a failed one.
pub(super) type Check<'a> = &'a (dyn Fn(&Answer) -> Result<(), Defect> + Send + Sync);

/// One request, and what the loop has to know about it.
pub(super) struct Outgoing<'a> {
    /// Verb and object for messages: `create snapshot`.
    pub(super) operation: &'static str,
    /// Which one, for messages.
    pub(super) resource: &'a (dyn fmt::Display + Send + Sync),
    pub(super) request: Request<Payload>,
    pub(super) credential: &'a dyn Credential,
    /// Statuses that mean success.
    pub(super) success: &'a [u16],
    /// Safe to send again although an earlier attempt may have been carried out.
    pub(super) repeatable: bool,
    /// The resource is known to be coming: 404 is waited out.
    pub(super) awaits_existence: bool,
    pub(super) reception: Reception<'a>,
}

/// What is done with the body of a successful answer.
#[derive(Clone, Copy)]
pub(super) struct Reception<'a> {
    /// Longest body accepted, in bytes.
    pub(super) limit: u64,
    pub(super) check: Option<Check<'a>>,
    pub(super) intake: &'a dyn Intake,
}

impl Reception<'_> {
    /// Takes an answer of a service in JSON or XML; a page of a thousand virtual machines has a few MB.
    pub(super) const DOCUMENT: Self = Self::up_to(64 << 20);

    /// Takes up to `limit` bytes as they are.
    pub(super) const fn up_to(limit: u64) -> Self {
        Self {
            limit,
            check: None,
            intake: &Unbounded,
        }
    }
}

impl<'a> Outgoing<'a> {
    /// A request that is repeatable by its method, with an answer that is a document.
    pub(super) fn new(
        operation: &'static str,
        resource: &'a (dyn fmt::Display + Send + Sync),
        request: Request<Payload>,
        success: &'a [u16],
        credential: &'a dyn Credential,
    ) -> Self {
        let repeatable = request.method().is_idempotent();
        Self {
            operation,
            resource,
            request,
            credential,
            success,
            repeatable,
            awaits_existence: false,
            reception: Reception::DOCUMENT,
        }
    }
}

/// A received answer, and how many attempts it took.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) answer: Answer,
    pub(super) attempts: u32,
}
