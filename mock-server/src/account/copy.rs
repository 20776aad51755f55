//! Copy Blob, the asynchronous one: from a managed disk's or snapshot's signature, or from a blob of an account here.
use super::{Target, authorization, blobs, metadata, stamped};
use crate::{
    blob::{self, page::Refusal},
    faults::Action,
    message::{Request, Response},
    state::{
        World,
        content::Content,
        storage::{Blob, BlobCopy, CopySource, CopyStatus},
    },
};
use bytes::Bytes;
use http::{HeaderMap, Method};
use url::Position;

pub(super) fn start(
    world: &mut World,
    request: &Request,
    target: &Target,
    fault: Option<&Action>,
) -> Result<Response, Refusal> {
    let container = target.container(world)?;
    blobs::refuse_pending(container.blobs.get(&target.blob))?;
    let url = request.header("x-ms-copy-source").unwrap_or_default();
    let (from, total) = source(world, target, url)?;
    let shown = url.split_once('?').map_or(url, |(shown, _signature)| shown);
    let copy = BlobCopy::new(shown.to_owned(), from, total, world.now, fault);
    let id = copy.id.clone();
    let mut made = Blob::new(total, metadata(request), world.now);
    made.copy = Some(copy);
    target
        .container_mut(world)?
        .blobs
        .insert(target.blob.clone(), made);
    // A copy that nothing delays is done before its answer.
    world.arrive(world.now);
    let blob = target.blob(world)?;
    let status = blob
        .copy
        .as_ref()
        .map_or(CopyStatus::Failed, |copy| copy.status);
    Ok(stamped(Response::empty(202), &blob.etag, blob.modified)
        .header("x-ms-copy-id", id)
        .header("x-ms-copy-status", status.name()))
}

/// What a copy reads, if its address opens it, and how long it is.
fn source(world: &World, target: &Target, url: &str) -> Result<(CopySource, u64), Refusal> {
    let unverified = |status, why: &str| {
        Refusal::new(
            status,
            "CannotVerifyCopySource",
            format!("Could not verify the copy source within the specified time. {why}"),
        )
    };
    let parsed = url::Url::parse(url)
        .map_err(|error| Refusal::bad_header(format_args!("x-ms-copy-source ({error})")))?;
    if parsed.path().starts_with("/md-") {
        let image = blob::open(world, &parsed)
            .ok_or_else(|| unverified(403, "The source refuses the signature."))?;
        return Ok((CopySource::Grant(parsed.path().to_owned()), image.len()));
    }
    let request = Request::new(
        Method::GET,
        parsed.origin().ascii_serialization(),
        &parsed[Position::BeforePath..],
        HeaderMap::new(),
        Bytes::new(),
    );
    let from = Target::of(&request);
    let own =
        from.account == target.account && !request.query.iter().any(|(name, _)| name == "sig");
    if !own {
        authorization::admit(world, &request, &from, "StorageBlob_Get")
            .map_err(|_refused| unverified(403, "The source refuses the signature."))?;
    }
    let content: &Content = &from
        .blob(world)
        .map_err(|_missing| unverified(404, "The source does not exist."))?
        .content;
    Ok((CopySource::Blob(content.clone()), content.len()))
}

pub(super) fn abort(
    world: &mut World,
    request: &Request,
    target: &Target,
) -> Result<Response, Refusal> {
    if request.header("x-ms-copy-action") != Some("abort") {
        return Err(Refusal::missing_header("x-ms-copy-action"));
    }
    let now = world.now;
    let blob = target.blob_mut(world)?;
    let pending = blob
        .copy
        .as_ref()
        .filter(|copy| copy.status == CopyStatus::Pending);
    match (pending, request.query("copyid")) {
        (_, None) => Err(Refusal::bad_query("copyid", "")),
        (Some(copy), Some(id)) if copy.id == id => {
            blob.end_copy(CopyStatus::Aborted, "499 the client aborted it", now);
            Ok(Response::empty(204))
        }
        (Some(_), Some(_)) => Err(Refusal::new(
            409,
            "CopyIdMismatch",
            "The specified copy ID did not match the copy ID for the pending copy operation.",
        )),
        (None, Some(_)) => Err(Refusal::new(
            409,
            "NoPendingCopyOperation",
            "There is currently no pending copy operation.",
        )),
    }
}
