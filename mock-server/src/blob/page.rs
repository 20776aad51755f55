//! What page blobs have in common, behind a managed disk's signature and in a storage account: refusals, versions, ranges,
//! page lists, and reading and writing of content.
use crate::{
    clock,
    message::{Body, Request, Response},
    state::{
        content::{Content, PAGE, Spool},
        volume::element,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::ops::Range;

/// Longest Put Page ("Put Page").
const MAX_WRITE: u64 = 4 << 20;
/// First version with `maxresults` and `marker` of Get Page Ranges.
const PAGING_VERSION: &str = "2020-10-02";

/// A refusal of the Blob service.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Refusal {
    pub(crate) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            headers: Vec::new(),
        }
    }

    pub(crate) fn unauthenticated() -> Self {
        Self::new(
            403,
            "AuthenticationFailed",
            "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature.",
        )
    }

    pub(crate) fn missing_header(name: &str) -> Self {
        Self::new(
            400,
            "MissingRequiredHeader",
            format!("An HTTP header that's mandatory for this request is not specified: {name}."),
        )
    }

    pub(crate) fn bad_header(what: impl std::fmt::Display) -> Self {
        Self::new(
            400,
            "InvalidHeaderValue",
            format!("The value for one of the HTTP headers is not in the correct format: {what}."),
        )
    }

    pub(crate) fn bad_query(name: &str, value: &str) -> Self {
        Self::new(
            400,
            "InvalidQueryParameterValue",
            format!(
                "Value for one of the query parameters specified in the request URI is invalid: {name}={value}."
            ),
        )
    }

    pub(crate) fn unmodelled(what: impl Into<String>) -> Self {
        Self::new(501, "EmulatorDoesNotModel", what)
    }

    pub(crate) fn blob_not_found() -> Self {
        Self::new(404, "BlobNotFound", "The specified blob does not exist.")
    }

    /// The answer to a request that came at `now`.
    pub(crate) fn into_response(self, request: &Request, now: clock::Instant) -> Response {
        let mut response = error(now, request, self.status, self.code, &self.message);
        response.headers.extend(self.headers);
        response
    }
}

/// An error in the service's shape.
pub(crate) fn error(
    now: clock::Instant,
    request: &Request,
    status: u16,
    code: &str,
    message: &str,
) -> Response {
    let time = clock::iso(now);
    let id = uuid::Uuid::new_v4();
    let body = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{}\nRequestId:{id}\nTime:{time}</Message></Error>",
        quick_xml::escape::escape(message),
    );
    let mut response = Response::xml(status, body);
    if request.method == http::Method::HEAD {
        response = Response::empty(status);
    }
    response
        .header("x-ms-request-id", id.to_string())
        .header("x-ms-error-code", code)
}

/// That the version asked for is one that a service of these years knows.
pub(crate) fn check_version(version: &str) -> Result<(), Refusal> {
    let valid = version.len() == 10
        && version
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'-');
    if valid && ("2009-09-19".."2028").contains(&version) {
        Ok(())
    } else {
        Err(Refusal::bad_header("x-ms-version"))
    }
}

/// The headers of every answer about a page blob.
pub(crate) fn described(response: Response) -> Response {
    response
        .header("accept-ranges", "bytes")
        .header("x-ms-blob-type", "PageBlob")
        .header("x-ms-blob-sequence-number", "0")
        .header("x-ms-lease-status", "unlocked")
        .header("x-ms-lease-state", "available")
}

/// `bytes=a-b` or `bytes=a-` of `x-ms-range`, else of `Range`, as a half-open range.
fn asked_range(request: &Request) -> Result<Option<(u64, Option<u64>)>, Refusal> {
    let Some(text) = request
        .header("x-ms-range")
        .or_else(|| request.header("range"))
    else {
        return Ok(None);
    };
    let parsed = text
        .strip_prefix("bytes=")
        .and_then(|text| text.split_once('-'))
        .and_then(|(start, end)| {
            let start = start.parse().ok()?;
            let end: Option<u64> = if end.is_empty() {
                None
            } else {
                Some(end.parse::<u64>().ok()?.checked_add(1)?)
            };
            end.is_none_or(|end| end > start).then_some((start, end))
        });
    parsed
        .map(Some)
        .ok_or_else(|| Refusal::bad_header(format_args!("range '{text}'")))
}

/// Answers its size.
pub(crate) fn properties(content: &Content) -> Response {
    let mut response = Response::empty(200).header("content-type", "application/octet-stream");
    response.body = Body::Head(content.len());
    described(response)
}

/// Answers the bytes asked for.
pub(crate) fn read(content: &Content, request: &Request) -> Result<Response, Refusal> {
    let len = content.len();
    let asked = asked_range(request)?;
    let range = match asked {
        None => 0..len,
        Some((start, end)) => start..end.unwrap_or(len).min(len),
    };
    if asked.is_some() && range.start >= len {
        let mut refusal = invalid_range();
        refusal
            .headers
            .push(("content-range", format!("bytes */{len}")));
        return Err(refusal);
    }
    if request
        .header("x-ms-range-get-content-md5")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    {
        return Err(Refusal::unmodelled("x-ms-range-get-content-md5"));
    }
    let mut response = Response::empty(if asked.is_some() { 206 } else { 200 })
        .header("content-type", "application/octet-stream");
    if asked.is_some() {
        response = response.header(
            "content-range",
            format!("bytes {}-{}/{len}", range.start, range.end - 1),
        );
    }
    response.body = Body::Content(content.clone(), range);
    Ok(described(response))
}

fn invalid_range() -> Refusal {
    Refusal::new(
        416,
        "InvalidRange",
        "The range specified is invalid for the current size of the resource.",
    )
}

/// Answers a page of the list of ranges: those that differ from `base`, or without one those that are allocated. At most
/// `most` ranges, if `version` knows paging.
pub(crate) fn page_ranges(
    content: &Content,
    base: Option<&Content>,
    request: &Request,
    version: &str,
    most: usize,
) -> Result<Response, Refusal> {
    let len = content.len();
    let paged = version >= PAGING_VERSION;
    let mut window = match asked_range(request)? {
        None => 0..len,
        Some((start, end)) => start..end.unwrap_or(len).min(len),
    };
    if window.start >= len && len > 0 {
        return Err(invalid_range());
    }
    let mut limit = usize::MAX;
    if paged {
        limit = most;
        if let Some(text) = request.query("maxresults") {
            let asked = text.parse::<usize>().ok().filter(|asked| *asked > 0);
            let asked = asked.ok_or_else(|| Refusal::bad_query("maxresults", text))?;
            limit = limit.min(asked);
        }
        if let Some(text) = request.query("marker").filter(|text| !text.is_empty()) {
            let at = parse_marker(text).filter(|at| window.contains(at));
            window.start = at.ok_or_else(|| Refusal::bad_query("marker", text))?;
        }
    }
    let mut changes = content.changes(base, window);
    let mut body = String::from("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><PageList>");
    for (change, Range { start, end }) in changes.by_ref().take(limit) {
        let element = element(change);
        body.push_str(&format!(
            "<{element}><Start>{start}</Start><End>{}</End></{element}>",
            end - 1
        ));
    }
    if paged {
        match changes.next() {
            Some((_, next)) => {
                body.push_str(&format!("<NextMarker>{}</NextMarker>", marker(next.start)));
            }
            None => body.push_str("<NextMarker />"),
        }
    }
    body.push_str("</PageList>");
    Ok(Response::xml(200, body).header("x-ms-blob-content-length", len.to_string()))
}

/// Markers are opaque; this one has characters that must be encoded in a query.
fn marker(offset: u64) -> String {
    format!("{}+/=", STANDARD.encode(format!("page {offset}")))
}

fn parse_marker(text: &str) -> Option<u64> {
    let bytes = STANDARD.decode(text.strip_suffix("+/=")?).ok()?;
    String::from_utf8(bytes)
        .ok()?
        .strip_prefix("page ")?
        .parse()
        .ok()
}

/// Writes or clears the range asked for.
pub(crate) fn write(
    content: &mut Content,
    spool: &Spool,
    request: &Request,
    clear: bool,
) -> Result<Response, Refusal> {
    let kind = request.header("x-ms-page-write").unwrap_or_default();
    if !clear && !kind.eq_ignore_ascii_case("update") {
        return Err(Refusal::missing_header("x-ms-page-write"));
    }
    if request.headers.contains_key("x-ms-content-crc64") {
        return Err(Refusal::unmodelled("x-ms-content-crc64 on Put Page"));
    }
    let Some((start, Some(end))) = asked_range(request)? else {
        return Err(Refusal::missing_header("x-ms-range"));
    };
    let body_len = u64::try_from(request.body.len()).unwrap_or(u64::MAX);
    if !start.is_multiple_of(PAGE) || !end.is_multiple_of(PAGE) || end > content.len() {
        return Err(Refusal::new(
            416,
            "InvalidPageRange",
            "The page range specified is invalid.",
        ));
    }
    if !clear && end - start > MAX_WRITE {
        return Err(Refusal::new(
            413,
            "RequestBodyTooLarge",
            "The request body is too large and exceeds the maximum permissible limit.",
        ));
    }
    if body_len != if clear { 0 } else { end - start } {
        return Err(Refusal::bad_header(format_args!(
            "Content-Length {body_len} of range {start}-{}",
            end - 1
        )));
    }
    if clear {
        content.clear(start..end);
    } else {
        let source = spool
            .keep(request.body.clone())
            .map_err(|error| Refusal::new(500, "InternalError", error.to_string()))?;
        content.write(start..end, source);
    }
    Ok(Response::empty(201)
        .header("x-ms-blob-sequence-number", "0")
        .header("x-ms-request-server-encrypted", "true"))
}
