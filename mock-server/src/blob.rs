//! The data endpoint: the page blob behind a shared access signature.
use crate::{
    clock,
    message::{Body, Request, Response},
    state::{
        World,
        content::{Content, PAGE, Source, Spool},
        grant::{Access, Grant},
        volume::{DiffRefusal, element},
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::ops::Range;

/// Longest Put Page ("Put Page").
const MAX_WRITE: u64 = 4 << 20;
/// First version with `x-ms-previous-snapshot-url`.
const DIFF_VERSION: &str = "2019-07-07";
/// First version with `maxresults` and `marker` of Get Page Ranges.
const PAGING_VERSION: &str = "2020-10-02";
/// What is known of a signature's query, and of the operations'.
const QUERY: [&str; 9] = [
    "sv",
    "sr",
    "si",
    "sig",
    "comp",
    "maxresults",
    "marker",
    "prevsnapshot",
    "timeout",
];
const CONDITIONS: [&str; 4] = [
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
];

/// A refusal of the Blob service.
struct Refusal {
    status: u16,
    code: &'static str,
    message: String,
    headers: Vec<(&'static str, String)>,
}

impl Refusal {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            headers: Vec::new(),
        }
    }
}

/// The operation that a request to the data endpoint asks for.
pub(crate) fn operation(request: &Request) -> Option<&'static str> {
    if request
        .query
        .iter()
        .any(|(name, _)| !QUERY.contains(&name.as_str()))
    {
        return None;
    }
    match (request.method.as_str(), request.query("comp")) {
        ("HEAD", None) => Some("Blob_GetProperties"),
        ("GET", None) => Some("Blob_Get"),
        ("GET", Some("pagelist")) => {
            let diff = request.headers.contains_key("x-ms-previous-snapshot-url")
                || request.query("prevsnapshot").is_some();
            Some(if diff {
                "Blob_GetPageRangesDiff"
            } else {
                "Blob_GetPageRanges"
            })
        }
        ("PUT", Some("page")) => match request.header("x-ms-page-write") {
            Some(kind) if kind.eq_ignore_ascii_case("clear") => Some("Blob_ClearPages"),
            Some(_) | None => Some("Blob_PutPage"),
        },
        _ => None,
    }
}

pub(crate) fn respond(
    world: &mut World,
    spool: &Spool,
    request: &Request,
    operation: &str,
) -> Response {
    let answer = admit(world, request).and_then(|()| match operation {
        "Blob_GetProperties" => properties(world, request),
        "Blob_Get" => read(world, request),
        "Blob_GetPageRanges" | "Blob_GetPageRangesDiff" => page_ranges(world, request),
        _ => write(world, spool, request, operation == "Blob_ClearPages"),
    });
    answer.unwrap_or_else(|refusal| {
        let mut response = error(
            world,
            request,
            refusal.status,
            refusal.code,
            &refusal.message,
        );
        response.headers.extend(refusal.headers);
        response
    })
}

/// An error in the service's shape.
pub(crate) fn error(
    world: &World,
    request: &Request,
    status: u16,
    code: &str,
    message: &str,
) -> Response {
    let time = clock::iso(world.now);
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

fn grant<'a>(world: &'a World, request: &Request) -> Result<&'a Grant, Refusal> {
    world.grants.get(&request.path).ok_or_else(unauthenticated)
}

fn unauthenticated() -> Refusal {
    Refusal::new(
        403,
        "AuthenticationFailed",
        "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature.",
    )
}

/// Whether a signature's query opens this grant now.
fn opens(world: &World, grant: &Grant, query: impl Fn(&str) -> Option<String>) -> bool {
    query("sr").as_deref() == Some("b")
        && query("si").as_deref() == Some(grant.policy.as_str())
        && query("sig").as_deref() == Some(grant.signature.as_str())
        && grant.is_active(world.now)
}

/// What applies to every request: signature, headers that these hosts refuse, version.
fn admit(world: &World, request: &Request) -> Result<(), Refusal> {
    let grant = grant(world, request)?;
    if request.headers.contains_key("authorization")
        || !opens(world, grant, |name| request.query(name).map(str::to_owned))
    {
        return Err(unauthenticated());
    }
    for name in CONDITIONS.iter().chain(&["content-md5"]) {
        if request.headers.contains_key(*name) {
            return Err(Refusal::new(
                400,
                "UnsupportedHeader",
                format!(
                    "One of the HTTP headers specified in the request is not supported: {name}."
                ),
            ));
        }
    }
    let version = version(request);
    let valid = version.len() == 10
        && version
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'-');
    if !valid || !("2009-09-19".."2028").contains(&version) {
        return Err(Refusal::new(
            400,
            "InvalidHeaderValue",
            "The value for one of the HTTP headers is not in the correct format: x-ms-version.",
        ));
    }
    Ok(())
}

/// The behaviour asked for; without the header the signature's own version decides.
fn version(request: &Request) -> &str {
    request
        .header("x-ms-version")
        .or_else(|| request.query("sv"))
        .unwrap_or_default()
}

/// What the signature shows: a finished image, or a disk in the middle of its upload.
fn content<'a>(world: &'a World, grant: &'a Grant) -> Result<&'a Content, Refusal> {
    grant
        .image
        .as_ref()
        .or_else(|| {
            world
                .volumes
                .get(&grant.volume)
                .map(|volume| &volume.content)
        })
        .ok_or_else(|| Refusal::new(404, "BlobNotFound", "The specified blob does not exist."))
}

fn described(response: Response, world: &World) -> Response {
    response
        .header("accept-ranges", "bytes")
        .header("etag", "\"0x8DEMULATOR\"")
        .header("last-modified", clock::http_date(world.now))
        .header("x-ms-blob-type", "PageBlob")
        .header("x-ms-blob-sequence-number", "0")
        .header("x-ms-lease-status", "unlocked")
        .header("x-ms-lease-state", "available")
}

fn properties(world: &World, request: &Request) -> Result<Response, Refusal> {
    let len = content(world, grant(world, request)?)?.len();
    let mut response = Response::empty(200).header("content-type", "application/octet-stream");
    response.body = Body::Head(len);
    Ok(described(response, world))
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
    parsed.map(Some).ok_or_else(|| {
        Refusal::new(
            400,
            "InvalidHeaderValue",
            format!("The value for one of the HTTP headers is not in the correct format: range '{text}'."),
        )
    })
}

fn read(world: &World, request: &Request) -> Result<Response, Refusal> {
    let content = content(world, grant(world, request)?)?;
    let len = content.len();
    let asked = asked_range(request)?;
    let range = match asked {
        None => 0..len,
        Some((start, end)) => start..end.unwrap_or(len).min(len),
    };
    if asked.is_some() && range.start >= len {
        let mut refusal = Refusal::new(
            416,
            "InvalidRange",
            "The range specified is invalid for the current size of the resource.",
        );
        refusal
            .headers
            .push(("content-range", format!("bytes */{len}")));
        return Err(refusal);
    }
    if request
        .header("x-ms-range-get-content-md5")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    {
        return Err(Refusal::new(
            501,
            "EmulatorDoesNotModel",
            "x-ms-range-get-content-md5",
        ));
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
    Ok(described(response, world))
}

fn page_ranges(world: &World, request: &Request) -> Result<Response, Refusal> {
    let grant = grant(world, request)?;
    let content = content(world, grant)?;
    let len = content.len();
    let base = diff_base(world, request, grant)?;
    let paged = version(request) >= PAGING_VERSION;
    let mut window = match asked_range(request)? {
        None => 0..len,
        Some((start, end)) => start..end.unwrap_or(len).min(len),
    };
    if window.start >= len {
        return Err(Refusal::new(
            416,
            "InvalidRange",
            "The range specified is invalid for the current size of the resource.",
        ));
    }
    let mut limit = usize::MAX;
    if paged {
        limit = world.settings.page_range_limit;
        if let Some(text) = request.query("maxresults") {
            let asked = text.parse::<usize>().ok().filter(|asked| *asked > 0);
            let asked = asked.ok_or_else(|| bad_query("maxresults", text))?;
            limit = limit.min(asked);
        }
        if let Some(text) = request.query("marker").filter(|text| !text.is_empty()) {
            let at = parse_marker(text).filter(|at| window.contains(at));
            window.start = at.ok_or_else(|| bad_query("marker", text))?;
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
    let response = Response::xml(200, body)
        .header("x-ms-blob-content-length", len.to_string())
        .header("etag", "\"0x8DEMULATOR\"")
        .header("last-modified", clock::http_date(world.now));
    Ok(response)
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

fn bad_query(name: &str, value: &str) -> Refusal {
    Refusal::new(
        400,
        "InvalidQueryParameterValue",
        format!(
            "Value for one of the query parameters specified in the request URI is invalid: {name}={value}."
        ),
    )
}

/// The image that a difference starts from.
fn diff_base<'a>(
    world: &'a World,
    request: &Request,
    target: &Grant,
) -> Result<Option<&'a Content>, Refusal> {
    if let Some(value) = request.query("prevsnapshot") {
        return Err(bad_query("prevsnapshot", value));
    }
    let Some(text) = request.header("x-ms-previous-snapshot-url") else {
        return Ok(None);
    };
    if version(request) < DIFF_VERSION {
        return Err(Refusal::new(
            409,
            "FeatureVersionMismatch",
            format!(
                "The operation for x-ms-previous-snapshot-url requires x-ms-version {DIFF_VERSION} or later."
            ),
        ));
    }
    let not_found = || {
        Refusal::new(
            409,
            "PreviousSnapshotNotFound",
            "The previous snapshot is not found.",
        )
    };
    let url = url::Url::parse(text).map_err(|error| {
        Refusal::new(
            400,
            "InvalidHeaderValue",
            format!(
                "The value for one of the HTTP headers is not in the correct format: x-ms-previous-snapshot-url ({error})."
            ),
        )
    })?;
    let base = world.grants.get(url.path()).ok_or_else(not_found)?;
    let query = |name: &str| {
        url.query_pairs()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.into_owned())
    };
    if !opens(world, base, query) {
        return Err(unauthenticated());
    }
    world.diff_allowed(&target.volume, &base.volume).map_err(|refusal| match refusal {
        DiffRefusal::NotFound => not_found(),
        DiffRefusal::NotSupported => Refusal::new(
            409,
            "PreviousSnapshotOperationNotSupported",
            "Differential Get Page Ranges is not supported on the previous snapshot.",
        ),
        DiffRefusal::Newer => Refusal::new(
            400,
            "PreviousSnapshotCannotBeNewer",
            "The prevsnapshot query parameter value cannot be newer than snapshot query parameter value.",
        ),
    })?;
    base.image.as_ref().map(Some).ok_or_else(not_found)
}

fn write(
    world: &mut World,
    spool: &Spool,
    request: &Request,
    clear: bool,
) -> Result<Response, Refusal> {
    let grant = grant(world, request)?;
    if grant.access != Access::Write {
        return Err(Refusal::new(
            403,
            "AuthorizationPermissionMismatch",
            "This request is not authorized to perform this operation using this permission.",
        ));
    }
    let kind = request.header("x-ms-page-write").unwrap_or_default();
    if !clear && !kind.eq_ignore_ascii_case("update") {
        return Err(Refusal::new(
            400,
            "MissingRequiredHeader",
            "An HTTP header that's mandatory for this request is not specified: x-ms-page-write.",
        ));
    }
    if request.headers.contains_key("x-ms-content-crc64") {
        return Err(Refusal::new(
            501,
            "EmulatorDoesNotModel",
            "x-ms-content-crc64 on Put Page",
        ));
    }
    let Some((start, Some(end))) = asked_range(request)? else {
        return Err(Refusal::new(
            400,
            "MissingRequiredHeader",
            "An HTTP header that's mandatory for this request is not specified: x-ms-range.",
        ));
    };
    let key = grant.volume.clone();
    let body_len = u64::try_from(request.body.len()).unwrap_or(u64::MAX);
    let len = world
        .volumes
        .get(&key)
        .map_or(0, |volume| volume.content.len());
    if !start.is_multiple_of(PAGE) || !end.is_multiple_of(PAGE) || end > len {
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
        return Err(Refusal::new(
            400,
            "InvalidHeaderValue",
            format!(
                "The value for one of the HTTP headers is not in the correct format: Content-Length {body_len} of range {start}-{}.",
                end - 1
            ),
        ));
    }
    let source = if clear {
        Ok(Source::Zeros)
    } else {
        spool.keep(request.body.clone())
    };
    let source = source.map_err(|error| Refusal::new(500, "InternalError", error.to_string()))?;
    if let Some(volume) = world.volumes.get_mut(&key) {
        if clear {
            volume.content.clear(start..end);
        } else {
            volume.content.write(start..end, source);
        }
    }
    let response = Response::empty(201)
        .header("etag", "\"0x8DEMULATOR\"")
        .header("last-modified", clock::http_date(world.now))
        .header("x-ms-blob-sequence-number", "0")
        .header("x-ms-request-server-encrypted", "true");
    Ok(response)
}
