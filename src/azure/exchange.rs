//! The HTTP seam: one request, one answer, no retry, no meaning.
//!
//! [`Transport`](super::Transport) is the real one; tests script theirs.

use std::fmt;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, StatusCode};

use crate::intake::Intake;
use crate::payload::Payload;

/// Something that carries out single HTTP requests.
pub(super) trait Exchange: Send + Sync + fmt::Debug {
    /// Sends `request` (absolute URI) and receives the whole answer, as fast as `intake` admits it; a body of more than
    /// `limit` bytes is an error.
    fn exchange<'a>(
        &'a self,
        request: Request<Payload>,
        limit: u64,
        intake: &'a dyn Intake,
    ) -> BoxFuture<'a, Result<Answer, TransportError>>;
}

/// A complete answer. `Debug` shows neither headers nor body, which may hold tokens, SAS and signed addresses.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The body, in one or more pieces.
    pub(super) body: Vec<Bytes>,
}

impl Answer {
    /// A header's text; `None` if it is missing or not text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The service's id of the request, safe to print.
    pub(super) fn request_id(&self) -> Option<String> {
        let id = self.header("x-ms-request-id")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
        (id.len() <= 100 && id.chars().all(plain)).then(|| id.to_owned())
    }

    /// Length of the body in bytes.
    pub(super) fn len(&self) -> u64 {
        self.body.iter().map(|frame| frame.len() as u64).sum()
    }

    /// The body in one piece; copies if it came in several.
    pub(super) fn contiguous(&self) -> Bytes {
        match self.body.as_slice() {
            [] => Bytes::new(),
            [only] => only.clone(),
            frames => frames.concat().into(),
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransportErrorKind {
    /// The host name has no address.
    UnknownHost,
    /// No connection: refused, no route, no answer in time.
    NotConnected,
    /// The certificate is not trusted, or not of this host.
    Certificate,
    /// TLS failed otherwise.
    Tls,
    /// Connected, but nothing came in time.
    Timeout,
    /// The connection broke before the answer was complete.
    Broken,
    /// The peer does not speak HTTP/1.1.
    Protocol,
    /// The answer has more bytes than were asked for.
    TooLong,
    /// The request may not be sent at all.
    NotAllowed,
    /// What was to be sent cannot be read.
    Unreadable,
}

/// A request without an answer.
#[derive(Clone, Debug)]
pub(super) struct TransportError {
    pub(super) kind: TransportErrorKind,
    /// For people: what was tried, what happened, what to do.
    pub(super) text: String,
    /// Whether this host ever answered: an outage is waited for, a wrong address is reported soon.
    pub(super) host_known: bool,
}

impl TransportError {
    /// Whether the service certainly did not see the request.
    pub(super) fn is_unsent(&self) -> bool {
        match self.kind {
            TransportErrorKind::UnknownHost
            | TransportErrorKind::NotConnected
            | TransportErrorKind::Certificate
            | TransportErrorKind::Tls
            | TransportErrorKind::NotAllowed => true,
            TransportErrorKind::Timeout
            | TransportErrorKind::Broken
            | TransportErrorKind::Protocol
            | TransportErrorKind::TooLong
            | TransportErrorKind::Unreadable => false,
        }
    }
}
