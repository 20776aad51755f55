//! The data endpoint: the page blob behind the shared access signature of a managed disk or snapshot.
pub(crate) mod page;

use self::page::Refusal;
use crate::{
    clock,
    message::{Request, Response},
    state::{
        World,
        content::{Content, Spool},
        grant::{Access, Grant},
        volume::DiffRefusal,
    },
};

/// First version with `x-ms-previous-snapshot-url`.
const DIFF_VERSION: &str = "2019-07-07";
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
        "Blob_GetProperties" => Ok(page::properties(content(world, grant(world, request)?)?)),
        "Blob_Get" => page::read(content(world, grant(world, request)?)?, request),
        "Blob_GetPageRanges" | "Blob_GetPageRangesDiff" => page_ranges(world, request),
        _ => write(world, spool, request, operation == "Blob_ClearPages"),
    });
    match answer {
        Ok(response) => response
            .header("etag", "\"0x8DEMULATOR\"")
            .header("last-modified", clock::http_date(world.now)),
        Err(refusal) => refusal.into_response(request, world.now),
    }
}

/// What the address of a managed disk or snapshot shows, if its signature opens it now.
pub(crate) fn open<'a>(world: &'a World, url: &url::Url) -> Option<&'a Content> {
    let grant = world.grants.get(url.path())?;
    let query = |name: &str| {
        url.query_pairs()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.into_owned())
    };
    opens(world, grant, query).then_some(grant.image.as_ref())?
}

fn grant<'a>(world: &'a World, request: &Request) -> Result<&'a Grant, Refusal> {
    world
        .grants
        .get(&request.path)
        .ok_or_else(Refusal::unauthenticated)
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
        return Err(Refusal::unauthenticated());
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
    page::check_version(version(request))
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
        .ok_or_else(Refusal::blob_not_found)
}

fn page_ranges(world: &World, request: &Request) -> Result<Response, Refusal> {
    let grant = grant(world, request)?;
    let base = diff_base(world, request, grant)?;
    page::page_ranges(
        content(world, grant)?,
        base,
        request,
        version(request),
        world.settings.page_range_limit,
    )
}

/// The image that a difference starts from.
fn diff_base<'a>(
    world: &'a World,
    request: &Request,
    target: &Grant,
) -> Result<Option<&'a Content>, Refusal> {
    if let Some(value) = request.query("prevsnapshot") {
        return Err(Refusal::bad_query("prevsnapshot", value));
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
        Refusal::bad_header(format_args!("x-ms-previous-snapshot-url ({error})"))
    })?;
    let base = world.grants.get(url.path()).ok_or_else(not_found)?;
    let query = |name: &str| {
        url.query_pairs()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.into_owned())
    };
    if !opens(world, base, query) {
        return Err(Refusal::unauthenticated());
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
    let key = grant.volume.clone();
    let volume = world
        .volumes
        .get_mut(&key)
        .ok_or_else(Refusal::blob_not_found)?;
    page::write(&mut volume.content, spool, request, clear)
}
