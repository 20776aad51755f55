//! What the generated request builders are made of: an operation, and one request for it.
//!
//! Nothing here sends anything. ARM requests are put together from an endpoint and a path; blob requests keep the
//! address they are given byte for byte, since its query carries a signature, and append to it.

use std::fmt::{self, Display};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Request, Uri, request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use url::Url;

use crate::range::ByteRange;

/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// An operation of a REST interface.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its published name, e.g. `Disks_GrantAccess`.
    pub id: &'static str,
    /// Statuses of an accepted request; any other is an error.
    pub success: &'static [u16],
    /// Whether the answer may be only the beginning: then its headers say where to ask for the end.
    pub long_running: bool,
}

/// One request for an operation, without credentials. `Debug` shows neither query nor headers nor body, since any of
/// them may hold a signature.
pub struct Call {
    /// What is asked for.
    pub operation: &'static Operation,
    /// The request.
    pub request: Request<Bytes>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("operation", &self.operation.id)
            .field("method", self.request.method())
            .field("host", &self.request.uri().host())
            .field("path", &self.request.uri().path())
            .finish_non_exhaustive()
    }
}

/// A request that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A name that would change the path instead of standing in it.
    #[error("build request {operation}: {parameter} is empty, `.` or `..`")]
    PathParameter {
        /// What was asked for.
        operation: &'static str,
        /// The parameter.
        parameter: &'static str,
    },
    /// Something that HTTP cannot carry.
    #[error("build request {operation}")]
    Http {
        /// What was asked for.
        operation: &'static str,
        /// What is wrong.
        source: http::Error,
    },
    /// A body that JSON cannot carry.
    #[error("build request {operation}")]
    Json {
        /// What was asked for.
        operation: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// Puts a [`Call`] together; the first mistake is reported at the end.
#[derive(Debug)]
pub(super) struct CallBuilder {
    operation: &'static Operation,
    request: request::Builder,
    method: Method,
    address: String,
    body: Bytes,
    error: Option<BuildError>,
}

impl CallBuilder {
    /// A request to Azure Resource Manager. Query and fragment of `endpoint` are left out, its path is kept.
    pub(super) fn arm(operation: &'static Operation, method: Method, endpoint: &Url) -> Self {
        let mut endpoint = endpoint.clone();
        endpoint.set_query(None);
        endpoint.set_fragment(None);
        let mut builder = Self::new(
            operation,
            method,
            endpoint.as_str().trim_end_matches('/').to_owned(),
        );
        builder.request = builder.request.header(ACCEPT, "application/json");
        builder
    }

    /// A request to a blob at its complete address, which is kept as it is.
    pub(super) fn blob(operation: &'static Operation, method: Method, blob: &Uri) -> Self {
        Self::new(operation, method, blob.to_string())
    }

    fn new(operation: &'static Operation, method: Method, address: String) -> Self {
        Self {
            operation,
            request: Request::builder(),
            method,
            address,
            body: Bytes::new(),
            error: None,
        }
    }

    /// A literal part of the path.
    pub(super) fn path(mut self, literal: &'static str) -> Self {
        self.address.push_str(literal);
        self
    }

    /// A name that stands for one whole segment of the path.
    pub(super) fn segment(mut self, parameter: &'static str, value: &str) -> Self {
        if matches!(value, "" | "." | "..") {
            let operation = self.operation.id;
            self.error.get_or_insert(BuildError::PathParameter {
                operation,
                parameter,
            });
        }
        self.address.extend(utf8_percent_encode(value, RESERVED));
        self
    }

    /// A parameter of the query, if there is a value. Names are literals and stay as they are.
    pub(super) fn query(mut self, name: &'static str, value: Option<impl Display>) -> Self {
        if let Some(value) = value {
            let separator = match self.address.split_once('?') {
                None => "?",
                Some((_, query)) if query.is_empty() || query.ends_with('&') => "",
                Some(_) => "&",
            };
            self.address.push_str(separator);
            self.address.push_str(name);
            self.address.push('=');
            self.address
                .extend(utf8_percent_encode(&value.to_string(), RESERVED));
        }
        self
    }

    /// A header, if there is a value.
    pub(super) fn header(mut self, name: &'static str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            self.request = self.request.header(name, value);
        }
        self
    }

    /// A range in the inclusive form of the wire, if there is one.
    pub(super) fn range_header(mut self, name: &'static str, range: Option<ByteRange>) -> Self {
        if let Some(range) = range {
            self.request = self
                .request
                .header(name, format!("bytes={}-{}", range.start(), range.last()));
        }
        self
    }

    /// An address with a signature, kept as it is and marked not to be printed.
    pub(super) fn secret_header(mut self, name: &'static str, value: Option<&Uri>) -> Self {
        if let Some(value) = value {
            match HeaderValue::try_from(value.to_string()) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    self.request = self.request.header(HeaderName::from_static(name), value);
                }
                Err(error) => {
                    let operation = self.operation.id;
                    self.error.get_or_insert(BuildError::Http {
                        operation,
                        source: error.into(),
                    });
                }
            }
        }
        self
    }

    /// A body of JSON.
    pub(super) fn json(mut self, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(text) => self.body = text.into(),
            Err(source) => {
                let operation = self.operation.id;
                self.error
                    .get_or_insert(BuildError::Json { operation, source });
            }
        }
        self.request = self.request.header(CONTENT_TYPE, "application/json");
        self
    }

    /// A body of bytes as they are.
    pub(super) fn bytes(mut self, body: Bytes) -> Self {
        self.body = body;
        self.request = self
            .request
            .header(CONTENT_TYPE, "application/octet-stream");
        self
    }

    /// The finished call, or the first mistake.
    pub(super) fn build(self) -> Result<Call, BuildError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        // hyper leaves the length out where a body is empty; Azure refuses such a request (411).
        let with_length = matches!(self.method, Method::PUT | Method::POST | Method::PATCH);
        let mut request = self.request.method(self.method).uri(self.address);
        if with_length {
            request = request.header(CONTENT_LENGTH, self.body.len());
        }
        match request.body(self.body) {
            Ok(request) => Ok(Call {
                operation: self.operation,
                request,
            }),
            Err(source) => Err(BuildError::Http {
                operation: self.operation.id,
                source,
            }),
        }
    }
}
