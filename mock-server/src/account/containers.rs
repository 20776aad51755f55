//! Containers: made, looked at, listed, deleted.
use super::{Target, metadata, stamped, with_metadata};
use crate::{
    blob::page::Refusal,
    clock,
    message::{Request, Response},
    state::{
        World,
        storage::{Blob, Container},
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE};
use quick_xml::escape::escape;

/// Blobs of one page of a list ("List Blobs").
const MAX_RESULTS: usize = 5000;

pub(super) fn create(
    world: &mut World,
    request: &Request,
    target: &Target,
) -> Result<Response, Refusal> {
    let name = &target.container;
    let valid = (3..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if !valid {
        return Err(Refusal::new(
            400,
            "InvalidResourceName",
            "The specified resource name contains invalid characters.",
        ));
    }
    let now = world.now;
    if world.container(&target.account, name).is_some() {
        return Err(Refusal::new(
            409,
            "ContainerAlreadyExists",
            "The specified container already exists.",
        ));
    }
    let container = Container::new(metadata(request), now);
    let response = stamped(Response::empty(201), &container.etag, now);
    if let Some(account) = world.accounts.get_mut(&target.account) {
        account.containers.insert(name.clone(), container);
    }
    Ok(response)
}

pub(super) fn properties(world: &World, target: &Target) -> Result<Response, Refusal> {
    let container = target.container(world)?;
    let response = stamped(Response::empty(200), &container.etag, container.modified)
        .header("x-ms-lease-status", "unlocked")
        .header("x-ms-lease-state", "available");
    Ok(with_metadata(response, &container.metadata))
}

pub(super) fn delete(world: &mut World, target: &Target) -> Result<Response, Refusal> {
    target.container(world)?;
    if let Some(account) = world.accounts.get_mut(&target.account) {
        account.containers.remove(&target.container);
    }
    Ok(Response::empty(202))
}

pub(super) fn list(world: &World, request: &Request, target: &Target) -> Result<Response, Refusal> {
    let container = target.container(world)?;
    let prefix = request.query("prefix").unwrap_or_default();
    let include: Vec<&str> = request
        .query("include")
        .map(|text| text.split(',').collect())
        .unwrap_or_default();
    if let Some(unknown) = include
        .iter()
        .find(|what| !["metadata", "copy"].contains(what))
    {
        return Err(Refusal::unmodelled(format!("include={unknown}")));
    }
    let mut limit = world.settings.arm_page_size.min(MAX_RESULTS);
    if let Some(text) = request.query("maxresults") {
        let asked = text.parse::<usize>().ok().filter(|asked| *asked > 0);
        limit = limit.min(asked.ok_or_else(|| Refusal::bad_query("maxresults", text))?);
    }
    let first = match request.query("marker").filter(|text| !text.is_empty()) {
        None => String::new(),
        Some(text) => URL_SAFE
            .decode(text)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| Refusal::bad_query("marker", text))?,
    };
    let mut blobs = container
        .blobs
        .range(first..)
        .filter(|(name, _)| name.starts_with(prefix));
    let mut body = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"{}/\" ContainerName=\"{}\"><Prefix>{}</Prefix><Blobs>",
        escape(&request.base),
        target.container,
        escape(prefix)
    );
    for (name, blob) in blobs.by_ref().take(limit) {
        body.push_str(&listed(name, blob, &include));
    }
    body.push_str("</Blobs>");
    match blobs.next() {
        Some((next, _)) => {
            body.push_str(&format!(
                "<NextMarker>{}</NextMarker>",
                URL_SAFE.encode(next)
            ));
        }
        None => body.push_str("<NextMarker />"),
    }
    body.push_str("</EnumerationResults>");
    Ok(Response::xml(200, body))
}

fn listed(name: &str, blob: &Blob, include: &[&str]) -> String {
    let mut out = format!(
        "<Blob><Name>{}</Name><Properties><Creation-Time>{}</Creation-Time><Last-Modified>{}</Last-Modified><Etag>{}</Etag><Content-Length>{}</Content-Length><Content-Type>application/octet-stream</Content-Type><x-ms-blob-sequence-number>0</x-ms-blob-sequence-number><BlobType>PageBlob</BlobType><LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState>",
        escape(name),
        clock::http_date(blob.created),
        clock::http_date(blob.modified),
        escape(blob.etag.trim_matches('"')),
        blob.content.len(),
    );
    if let Some(copy) = blob.copy.as_ref().filter(|_| include.contains(&"copy")) {
        out.push_str(&format!(
            "<CopyId>{}</CopyId><CopyStatus>{}</CopyStatus><CopySource>{}</CopySource><CopyProgress>{}/{}</CopyProgress>",
            copy.id,
            copy.status.name(),
            escape(&copy.source),
            copy.copied,
            copy.total,
        ));
    }
    out.push_str("</Properties>");
    if include.contains(&"metadata") {
        out.push_str("<Metadata>");
        for (name, value) in &blob.metadata {
            out.push_str(&format!("<{name}>{}</{name}>", escape(value)));
        }
        out.push_str("</Metadata>");
    }
    out.push_str("<OrMetadata /></Blob>");
    out
}
