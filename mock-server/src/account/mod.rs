//! Ordinary storage accounts: containers and page blobs, opened by the account's key or a shared access signature.
//!
//! An account is reached as `/<account>/...` on both listeners, or under a host name `<account>.blob.<anything>`.
pub(crate) mod authorization;
mod blobs;
mod containers;
mod copy;

use crate::{
    blob::page::{self, Refusal},
    clock,
    faults::Action,
    message::{Request, Response},
    state::{
        World,
        content::Spool,
        storage::{Account, Blob, Container, Metadata},
    },
};

/// What is known of a signature's query, and of the operations'.
const QUERY: [&str; 24] = [
    "sv",
    "ss",
    "srt",
    "sr",
    "sp",
    "st",
    "se",
    "spr",
    "sig",
    "rscc",
    "rscd",
    "rsce",
    "rscl",
    "rsct",
    "comp",
    "restype",
    "copyid",
    "maxresults",
    "marker",
    "prefix",
    "include",
    "timeout",
    "ses",
    "sip",
];

/// Headers that change what a request means, and that no operation here heeds.
const UNMODELLED_HEADERS: [&str; 9] = [
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "content-md5",
    "x-ms-lease-id",
    "x-ms-if-tags",
    "x-ms-access-tier",
    "x-ms-blob-public-access",
];

/// What a request is aimed at.
#[derive(Debug)]
struct Target {
    account: String,
    container: String,
    /// Empty for a container.
    blob: String,
}

impl Target {
    fn of(request: &Request) -> Self {
        let mut segments = request.segments.iter();
        let account = match request.account_of_host() {
            Some(account) => account.to_owned(),
            None => segments.next().cloned().unwrap_or_default(),
        };
        Self {
            account,
            container: segments.next().cloned().unwrap_or_default(),
            blob: segments.cloned().collect::<Vec<_>>().join("/"),
        }
    }

    fn account<'a>(&self, world: &'a World) -> Result<&'a Account, Refusal> {
        world.accounts.get(&self.account).ok_or_else(|| {
            Refusal::new(
                404,
                "ResourceNotFound",
                "The specified resource does not exist.",
            )
        })
    }

    fn container<'a>(&self, world: &'a World) -> Result<&'a Container, Refusal> {
        world
            .container(&self.account, &self.container)
            .ok_or_else(no_container)
    }

    fn container_mut<'a>(&self, world: &'a mut World) -> Result<&'a mut Container, Refusal> {
        world
            .container_mut(&self.account, &self.container)
            .ok_or_else(no_container)
    }

    fn blob<'a>(&self, world: &'a World) -> Result<&'a Blob, Refusal> {
        self.container(world)?
            .blobs
            .get(&self.blob)
            .ok_or_else(Refusal::blob_not_found)
    }

    fn blob_mut<'a>(&self, world: &'a mut World) -> Result<&'a mut Blob, Refusal> {
        self.container_mut(world)?
            .blobs
            .get_mut(&self.blob)
            .ok_or_else(Refusal::blob_not_found)
    }
}

fn no_container() -> Refusal {
    Refusal::new(
        404,
        "ContainerNotFound",
        "The specified container does not exist.",
    )
}

/// The operation that a request to an account asks for.
pub(crate) fn operation(request: &Request) -> Option<&'static str> {
    if request
        .query
        .iter()
        .any(|(name, _)| !QUERY.contains(&name.as_str()))
    {
        return None;
    }
    let target = Target::of(request);
    let method = request.method.as_str();
    let comp = request.query("comp");
    if target.container.is_empty() {
        return None;
    }
    if target.blob.is_empty() {
        return match (method, request.query("restype"), comp) {
            ("PUT", Some("container"), None) => Some("Container_Create"),
            ("GET" | "HEAD", Some("container"), None) => Some("Container_GetProperties"),
            ("DELETE", Some("container"), None) => Some("Container_Delete"),
            ("GET", Some("container"), Some("list")) => Some("Container_ListBlobs"),
            _ => None,
        };
    }
    match (method, comp) {
        ("HEAD", None) => Some("StorageBlob_GetProperties"),
        ("GET", None) => Some("StorageBlob_Get"),
        ("GET", Some("pagelist"))
            if !request.headers.contains_key("x-ms-previous-snapshot-url") =>
        {
            Some("StorageBlob_GetPageRanges")
        }
        ("PUT", Some("page")) => match request.header("x-ms-page-write") {
            Some(kind) if kind.eq_ignore_ascii_case("clear") => Some("StorageBlob_ClearPages"),
            Some(_) | None => Some("StorageBlob_PutPage"),
        },
        ("PUT", Some("copy")) => Some("StorageBlob_AbortCopy"),
        ("PUT", None) if request.headers.contains_key("x-ms-copy-source") => {
            // With it the copy is made before the answer, which is for block blobs.
            let synchronous = request.headers.contains_key("x-ms-requires-sync");
            (!synchronous).then_some("StorageBlob_StartCopy")
        }
        ("PUT", None) => Some("StorageBlob_Create"),
        ("DELETE", None) => Some("StorageBlob_Delete"),
        _ => None,
    }
}

pub(crate) fn respond(
    world: &mut World,
    spool: &Spool,
    request: &Request,
    operation: &'static str,
    fault: Option<&Action>,
) -> Response {
    let target = Target::of(request);
    answer(world, spool, request, &target, operation, fault)
        .unwrap_or_else(|refusal| refusal.into_response(request, world.now))
}

fn answer(
    world: &mut World,
    spool: &Spool,
    request: &Request,
    target: &Target,
    operation: &'static str,
    fault: Option<&Action>,
) -> Result<Response, Refusal> {
    let version = request
        .header("x-ms-version")
        .ok_or_else(|| Refusal::missing_header("x-ms-version"))?;
    page::check_version(version)?;
    authorization::admit(world, request, target, operation)?;
    if let Some(name) = UNMODELLED_HEADERS
        .iter()
        .find(|name| request.headers.contains_key(**name))
    {
        return Err(Refusal::unmodelled(*name));
    }
    match operation {
        "Container_Create" => containers::create(world, request, target),
        "Container_GetProperties" => containers::properties(world, target),
        "Container_Delete" => containers::delete(world, target),
        "Container_ListBlobs" => containers::list(world, request, target),
        "StorageBlob_Create" => blobs::create(world, request, target),
        "StorageBlob_Delete" => blobs::delete(world, target),
        "StorageBlob_StartCopy" => copy::start(world, request, target, fault),
        "StorageBlob_AbortCopy" => copy::abort(world, request, target),
        "StorageBlob_PutPage" => blobs::write(world, spool, request, target, false),
        "StorageBlob_ClearPages" => blobs::write(world, spool, request, target, true),
        "StorageBlob_GetProperties" => blobs::properties(world, target),
        "StorageBlob_GetPageRanges" => blobs::page_ranges(world, request, version, target),
        _ => blobs::read(world, request, target),
    }
}

/// `x-ms-meta-*`
fn metadata(request: &Request) -> Metadata {
    request
        .headers
        .iter()
        .filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix("x-ms-meta-")?;
            Some((name.to_owned(), value.to_str().ok()?.to_owned()))
        })
        .collect()
}

fn with_metadata(mut response: Response, metadata: &Metadata) -> Response {
    response.named.extend(
        metadata
            .iter()
            .map(|(name, value)| (format!("x-ms-meta-{name}"), value.clone())),
    );
    response
}

fn stamped(response: Response, etag: &str, modified: clock::Instant) -> Response {
    response
        .header("etag", etag)
        .header("last-modified", clock::http_date(modified))
}
