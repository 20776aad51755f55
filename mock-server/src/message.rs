//! Requests and answers as the state sees them: no sockets, no frames.
use crate::state::content::Content;
use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;
use std::ops::Range;

/// A request with everything a handler may look at.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Scheme and authority as the client knows them, without a slash at the end.
    pub(crate) base: String,
    /// Path as sent.
    pub(crate) path: String,
    /// Path segments, percent-decoded.
    pub(crate) segments: Vec<String>,
    /// Query parameters, decoded, in order.
    pub(crate) query: Vec<(String, String)>,
    /// Path and query as sent.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    pub(crate) fn new(
        method: Method,
        base: String,
        target: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self {
            method,
            base,
            path: path.to_owned(),
            segments: path
                .split('/')
                .filter(|part| !part.is_empty())
                .map(percent_decode)
                .collect(),
            query: url::form_urlencoded::parse(query.as_bytes())
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
            target: target.to_owned(),
            headers,
            body,
        }
    }

    /// The first query parameter of this name; names differ in case only.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// As a service sees it that does not heed this query parameter or header.
    pub(crate) fn without(&self, name: &str) -> Self {
        let mut rest = self.clone();
        rest.query
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        rest.headers.remove(name);
        rest
    }

    /// The storage account of a host name `<account>.blob.<anything>`.
    pub(crate) fn account_of_host(&self) -> Option<&str> {
        let (_, host) = self.base.split_once("://")?;
        let (account, rest) = host.split_once('.')?;
        rest.starts_with("blob.").then_some(account)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Decodes `%xx`; what is no escape stays as it is.
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escape.unwrap_or(bytes[at]));
        at += if escape.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Headers whose names are given by clients.
    pub(crate) named: Vec<(String, String)>,
    pub(crate) body: Body,
}

/// An answer's body.
#[derive(Debug)]
pub(crate) enum Body {
    Empty,
    Bytes(Bytes),
    /// Of a HEAD request: only its length is told.
    Head(u64),
    /// A piece of a disk.
    Content(Content, Range<u64>),
}

impl Body {
    /// What `Content-Length` says.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Self::Head(len) => *len,
            Self::Content(_, range) => range.end - range.start,
        }
    }
}

impl Response {
    pub(crate) fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            named: Vec::new(),
            body: Body::Empty,
        }
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        // Resource Manager indents with CRLF; clients must not care, and people read this.
        let text = serde_json::to_string_pretty(body)
            .unwrap_or_default()
            .replace('\n', "\r\n");
        Self {
            status,
            headers: vec![("content-type", "application/json; charset=utf-8".to_owned())],
            named: Vec::new(),
            body: Body::Bytes(text.into()),
        }
    }

    pub(crate) fn xml(status: u16, body: String) -> Self {
        Self {
            status,
            headers: vec![("content-type", "application/xml".to_owned())],
            named: Vec::new(),
            body: Body::Bytes(body.into()),
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}
