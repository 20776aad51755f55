//! Page blobs of an account: made, read, written, deleted.
use super::{Target, metadata, stamped, with_metadata};
use crate::{
    blob::page::{self, Refusal},
    clock,
    message::{Request, Response},
    state::{
        World,
        content::{PAGE, Spool},
        storage::Blob,
    },
};

/// Largest page blob, 8 TiB ("Put Blob").
const MAX_LEN: u64 = 8 << 40;

pub(super) fn create(
    world: &mut World,
    request: &Request,
    target: &Target,
) -> Result<Response, Refusal> {
    let container = target.container(world)?;
    refuse_pending(container.blobs.get(&target.blob))?;
    match request.header("x-ms-blob-type") {
        Some("PageBlob") => {}
        Some(other) => return Err(Refusal::unmodelled(format!("blobs of type {other}"))),
        None => return Err(Refusal::missing_header("x-ms-blob-type")),
    }
    if !request.body.is_empty() {
        return Err(Refusal::bad_header("Content-Length of a new page blob"));
    }
    let text = request
        .header("x-ms-blob-content-length")
        .ok_or_else(|| Refusal::missing_header("x-ms-blob-content-length"))?;
    let len = text
        .parse()
        .ok()
        .filter(|len: &u64| len.is_multiple_of(PAGE) && *len <= MAX_LEN)
        .ok_or_else(|| Refusal::bad_header("x-ms-blob-content-length"))?;
    let blob = Blob::new(len, metadata(request), world.now);
    let response = stamped(Response::empty(201), &blob.etag, blob.modified);
    target
        .container_mut(world)?
        .blobs
        .insert(target.blob.clone(), blob);
    Ok(response)
}

/// While a copy is under way, nothing else may change the blob.
pub(super) fn refuse_pending(blob: Option<&Blob>) -> Result<(), Refusal> {
    if blob.is_some_and(Blob::is_being_copied) {
        return Err(Refusal::new(
            409,
            "PendingCopyOperation",
            "There is currently a pending copy operation.",
        ));
    }
    Ok(())
}

pub(super) fn delete(world: &mut World, target: &Target) -> Result<Response, Refusal> {
    refuse_pending(Some(target.blob(world)?))?;
    target.container_mut(world)?.blobs.remove(&target.blob);
    Ok(Response::empty(202).header("x-ms-delete-type-permanent", "true"))
}

pub(super) fn properties(world: &mut World, target: &Target) -> Result<Response, Refusal> {
    let blob = target.blob(world)?;
    let mut response = stamped(page::properties(&blob.content), &blob.etag, blob.modified)
        .header("x-ms-creation-time", clock::http_date(blob.created));
    if let Some(copy) = &blob.copy {
        response = response
            .header("x-ms-copy-id", &copy.id)
            .header("x-ms-copy-source", &copy.source)
            .header("x-ms-copy-status", copy.status.name())
            .header(
                "x-ms-copy-progress",
                format!("{}/{}", copy.copied, copy.total),
            );
        if let Some(description) = &copy.description {
            response = response.header("x-ms-copy-status-description", description);
        }
        if let Some(ended) = copy.ended {
            response = response.header("x-ms-copy-completion-time", clock::http_date(ended));
        }
    }
    let response = with_metadata(response, &blob.metadata);
    world.poll_copy(&target.account, &target.container, &target.blob);
    Ok(response)
}

pub(super) fn read(world: &World, request: &Request, target: &Target) -> Result<Response, Refusal> {
    let blob = target.blob(world)?;
    let response = page::read(&blob.content, request)?;
    Ok(stamped(response, &blob.etag, blob.modified))
}

pub(super) fn page_ranges(
    world: &World,
    request: &Request,
    version: &str,
    target: &Target,
) -> Result<Response, Refusal> {
    let blob = target.blob(world)?;
    let most = world.settings.page_range_limit;
    let response = page::page_ranges(&blob.content, None, request, version, most)?;
    Ok(stamped(response, &blob.etag, blob.modified))
}

pub(super) fn write(
    world: &mut World,
    spool: &Spool,
    request: &Request,
    target: &Target,
    clear: bool,
) -> Result<Response, Refusal> {
    refuse_pending(Some(target.blob(world)?))?;
    let now = world.now;
    let blob = target.blob_mut(world)?;
    let response = page::write(&mut blob.content, spool, request, clear)?;
    blob.touch(now);
    Ok(stamped(response, &blob.etag, blob.modified))
}
