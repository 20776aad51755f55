//! What a fault does to a request and to its answer.
use crate::{
    arm::{self, error::ArmError},
    blob, clock,
    faults::{Action, RetryAfter},
    message::{Body, Request, Response},
    service::{Area, Reply, Wire},
    state::World,
    token,
};
use std::{ops::Range, time::Duration};

/// What a fault does before the request reaches the state; an answer means that it never does.
pub(crate) fn before(
    world: &mut World,
    area: Area,
    request: &Request,
    fault: Option<&Action>,
) -> Option<Response> {
    match fault? {
        Action::Status {
            status,
            code,
            body,
            retry_after,
        } => {
            let response = match body {
                Some(body) => Response {
                    body: Body::Bytes(body.clone().into()),
                    ..Response::empty(*status)
                },
                None => plain_error(world, area, request, *status, code.as_deref()),
            };
            Some(with_retry_after(response, *retry_after, world))
        }
        Action::Throttle { retry_after } => {
            let response = if matches!(area, Area::Blob | Area::Account) {
                blob::page::error(world.now, request, 503, "ServerBusy", "The server is busy.")
            } else {
                let (start, end) = (world.now, world.now + Duration::from_secs(1200));
                arm::error::throttled("HighCostGet30Min", &clock::iso(start), &clock::iso(end))
            };
            Some(with_retry_after(response, *retry_after, world))
        }
        Action::Reset
        | Action::Refuse { .. }
        | Action::UntrustedCertificate { .. }
        | Action::ForgetNames { .. } => Some(Response::empty(500)),
        Action::ExpireToken => {
            token::expire(world, request);
            None
        }
        Action::RotateSecret { to } => {
            token::rotate_secret(world, request, to);
            token::expire(world, request);
            None
        }
        ended @ (Action::RevokeSas | Action::ExpireSas | Action::RevokeBaseSas) => {
            end_sas(world, request, ended);
            None
        }
        Action::Delay { .. }
        | Action::Ignore { .. }
        | Action::LostAnswer
        | Action::CutBody { .. }
        | Action::Stall { .. }
        | Action::ShortBody { .. }
        | Action::WrongContentRange { .. }
        | Action::OtherRange { .. }
        | Action::SkewClock { .. }
        | Action::FailOperation { .. }
        | Action::NeverEnding => None,
    }
}

/// A signature that a request came with.
enum Sas {
    /// Of a disk or snapshot, under this path.
    Grant(String),
    /// Of a storage account.
    Account(String),
}

/// The signature that a fault ends: of the base of a difference, or of the request's address, else of what it copies.
fn sas(world: &World, request: &Request, fault: &Action) -> Option<Sas> {
    let in_header = |name| {
        let url = url::Url::parse(request.header(name)?).ok()?;
        let path = url.path().to_owned();
        world.grants.contains_key(&path).then_some(Sas::Grant(path))
    };
    if matches!(fault, Action::RevokeBaseSas) {
        return in_header("x-ms-previous-snapshot-url");
    }
    if world.grants.contains_key(&request.path) {
        return Some(Sas::Grant(request.path.clone()));
    }
    if let Some(signature) = request.query("sig") {
        return Some(Sas::Account(signature.to_owned()));
    }
    in_header("x-ms-copy-source")
}

fn end_sas(world: &mut World, request: &Request, fault: &Action) {
    match sas(world, request, fault) {
        Some(Sas::Grant(path)) => {
            if let Some(grant) = world.grants.get_mut(&path) {
                if matches!(fault, Action::ExpireSas) {
                    grant.expires = world.now;
                } else {
                    grant.revoked = true;
                }
            }
        }
        Some(Sas::Account(signature)) => {
            world.ended_signatures.insert(signature);
        }
        None => {}
    }
}

pub(crate) fn is_over_tls(request: &Request) -> bool {
    request.base.starts_with("https:")
}

/// Whether a request feels a fault; `response` is its answer as [`before`] or the state made it.
pub(crate) fn is_felt(
    world: &World,
    request: &Request,
    response: &Response,
    fault: &Action,
) -> bool {
    let has = |wanted: &str| response.headers.iter().any(|(name, _)| *name == wanted);
    let sent = match response.body {
        Body::Head(_) => 0,
        Body::Empty | Body::Bytes(_) | Body::Content(..) => response.body.len(),
    };
    match fault {
        Action::CutBody { after } | Action::Stall { after } => sent > after.0,
        Action::ShortBody { by } => sent.min(by.0) > 0,
        Action::WrongContentRange { .. } => has("content-range"),
        Action::OtherRange { by } => other_range(&response.body, by.0).is_some(),
        Action::UntrustedCertificate { .. } => is_over_tls(request),
        Action::ExpireToken | Action::RotateSecret { .. } => response.status == 401,
        Action::Ignore { name } => {
            request.query(name).is_some() || request.headers.contains_key(name)
        }
        Action::RevokeSas | Action::ExpireSas | Action::RevokeBaseSas => {
            sas(world, request, fault).is_some()
        }
        Action::FailOperation { .. } | Action::NeverEnding => {
            has("azure-asyncoperation") || has("x-ms-copy-id")
        }
        Action::Status { .. }
        | Action::Throttle { .. }
        | Action::Delay { .. }
        | Action::Reset
        | Action::LostAnswer
        | Action::Refuse { .. }
        | Action::ForgetNames { .. }
        | Action::SkewClock { .. } => true,
    }
}

/// An error in the shape of the area.
fn plain_error(
    world: &World,
    area: Area,
    request: &Request,
    status: u16,
    code: Option<&str>,
) -> Response {
    const MESSAGE: &str = "The emulator was told to answer so.";
    let usual = match status {
        401 => "InvalidAuthenticationToken",
        403 => "AuthorizationFailed",
        404 => "ResourceNotFound",
        408 | 504 => "GatewayTimeout",
        409 => "Conflict",
        429 => "TooManyRequests",
        503 if matches!(area, Area::Blob | Area::Account) => "ServerBusy",
        503 => "ServiceUnavailable",
        500 if matches!(area, Area::Blob | Area::Account) => "InternalError",
        _ => "InternalServerError",
    };
    let code = code.unwrap_or(usual);
    match area {
        Area::Blob | Area::Account => blob::page::error(world.now, request, status, code, MESSAGE),
        Area::Token => Response::json(
            status,
            &serde_json::json!({ "error": code, "error_description": MESSAGE, "error_codes": [] }),
        ),
        Area::Arm | Area::Control | Area::Unknown => {
            let response = ArmError::new(status, code, MESSAGE).into_response();
            match status {
                500.. => response.header("x-ms-failure-cause", "service"),
                _ => response,
            }
        }
    }
}

fn with_retry_after(
    response: Response,
    retry_after: Option<RetryAfter>,
    world: &World,
) -> Response {
    match retry_after {
        None => response,
        Some(RetryAfter::Seconds(seconds)) => response.header("retry-after", seconds.to_string()),
        Some(RetryAfter::DateInSeconds(seconds)) => {
            let at = world.now + Duration::from_secs(seconds.into());
            response.header("retry-after", clock::http_date(at))
        }
    }
}

/// What a fault does to the answer.
pub(crate) fn after(reply: &mut Reply, fault: Option<&Action>) {
    match fault {
        Some(
            Action::Reset
            | Action::LostAnswer
            | Action::Refuse { .. }
            | Action::UntrustedCertificate { .. }
            | Action::ForgetNames { .. },
        ) => reply.wire = Wire::Reset,
        Some(Action::CutBody { after }) => reply.wire = Wire::Cut(after.0),
        Some(Action::Stall { after }) => reply.wire = Wire::Stall(after.0),
        Some(Action::Delay { milliseconds }) => reply.delay = Duration::from_millis(*milliseconds),
        Some(Action::ShortBody { by }) => shorten(&mut reply.response.body, by.0),
        Some(Action::WrongContentRange { by }) => displace(&mut reply.response, 0, by.0),
        Some(Action::OtherRange { by }) => {
            let other = other_range(&reply.response.body, by.0);
            if let (Some(other), Body::Content(_, range)) = (other, &mut reply.response.body) {
                let (from, to) = (range.start, other.start);
                *range = other;
                displace(&mut reply.response, from, to);
            }
        }
        Some(
            Action::Status { .. }
            | Action::Throttle { .. }
            | Action::Ignore { .. }
            | Action::RevokeSas
            | Action::ExpireSas
            | Action::RevokeBaseSas
            | Action::ExpireToken
            | Action::RotateSecret { .. }
            | Action::SkewClock { .. }
            | Action::FailOperation { .. }
            | Action::NeverEnding,
        )
        | None => {}
    }
}

fn shorten(body: &mut Body, by: u64) {
    match body {
        Body::Content(_, range) => range.end = range.end.saturating_sub(by).max(range.start),
        Body::Bytes(bytes) => {
            let by = usize::try_from(by).unwrap_or(usize::MAX);
            bytes.truncate(bytes.len().saturating_sub(by));
        }
        Body::Empty | Body::Head(_) => {}
    }
}

/// So much further in the content, or before it where the content ends.
fn other_range(body: &Body, by: u64) -> Option<Range<u64>> {
    let Body::Content(content, range) = body else {
        return None;
    };
    let further = range.start + by..range.end + by;
    if further.end <= content.len() {
        return Some(further);
    }
    Some(range.start.checked_sub(by)?..range.end - by)
}

/// Moves `Content-Range` as far as it is between the two.
fn displace(response: &mut Response, from: u64, to: u64) {
    for (name, value) in &mut response.headers {
        let parts = value.strip_prefix("bytes ").and_then(|rest| {
            let (range, len) = rest.split_once('/')?;
            let (start, end) = range.split_once('-')?;
            Some((
                start.parse::<u64>().ok()?,
                end.parse::<u64>().ok()?,
                len.to_owned(),
            ))
        });
        if let ("content-range", Some((start, end, len))) = (*name, parts) {
            *value = format!("bytes {}-{}/{len}", start + to - from, end + to - from);
        }
    }
}
