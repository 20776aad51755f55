//! The control interface under `/_emulator/`, for people and for tests in other processes.
use crate::{
    Change, Error, Fault, Link, Scenario,
    message::{Body, Request, Response},
    service::Service,
    size::ByteSize,
    state::{check_range, write_bytes, write_pattern},
};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pattern {
    seed: u64,
    offset: ByteSize,
    length: ByteSize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Discard {
    offset: ByteSize,
    length: ByteSize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Advance {
    seconds: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LinkBody {
    #[serde(default)]
    latency_milliseconds: u64,
    #[serde(default)]
    bandwidth: Option<ByteSize>,
}

/// One value or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<T> {
    More(Vec<T>),
    One(Box<T>),
}

impl<T> OneOrMore<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::More(values) => values,
            Self::One(value) => vec![*value],
        }
    }
}

/// What a control request came to.
enum Refusal {
    Unknown,
    Wrong(String),
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

pub(crate) fn respond(service: &Service, request: &Request) -> Response {
    let error = |status, message: String| Response::json(status, &json!({ "error": message }));
    match answer(service, request) {
        Ok(response) => response,
        Err(Refusal::Unknown) => error(
            404,
            format!(
                "{} {} is not part of the control interface; see mock-server/README.md",
                request.method, request.path
            ),
        ),
        Err(Refusal::Wrong(message)) => error(400, message),
        Err(Refusal::Failed(failure)) => {
            let status = if matches!(failure, Error::NoSuchDisk(_) | Error::NoSuchVm(_)) {
                404
            } else {
                400
            };
            error(status, chain(&failure))
        }
    }
}

/// The error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn answer(service: &Service, request: &Request) -> Result<Response, Refusal> {
    let path: Vec<&str> = request
        .segments
        .iter()
        .skip(1)
        .map(String::as_str)
        .collect();
    match (request.method.as_str(), &path[..]) {
        ("GET", ["ready"]) => Ok(Response::json(200, &json!({ "ready": true }))),
        ("GET", ["ca.pem"]) => {
            let mut response =
                Response::empty(200).header("content-type", "application/x-pem-file");
            response.body = Body::Bytes(service.ca_pem.clone().into());
            Ok(response)
        }
        ("PUT", ["scenario"]) => {
            service.load(&parse::<Scenario>(request)?)?;
            done()
        }
        ("POST", ["changes"]) => {
            let mut world = service.world();
            for change in parse::<OneOrMore<Change>>(request)?.into_vec() {
                world.change(&change)?;
            }
            done()
        }
        ("GET", ["state"]) => show(&service.view()),
        ("GET", ["counters"]) => show(&service.counters()),
        ("DELETE", ["counters"]) => {
            service.observer.reset();
            done()
        }
        ("GET", ["faults"]) => show(&service.faults.list()),
        ("POST", ["faults"]) => {
            for fault in parse::<OneOrMore<Fault>>(request)?.into_vec() {
                service.fault(fault);
            }
            done()
        }
        ("DELETE", ["faults"]) => {
            service.clear_faults();
            done()
        }
        ("GET", ["unmodelled"]) => show(&service.observer.unmodelled_requests()),
        ("POST", ["clock"]) => {
            service
                .clock
                .advance(Duration::from_secs(parse::<Advance>(request)?.seconds));
            done()
        }
        ("PUT", ["link"]) => {
            let body = parse::<LinkBody>(request)?;
            service.set_link(Link {
                latency: Duration::from_millis(body.latency_milliseconds),
                bandwidth: body.bandwidth.map(|size| size.0),
            });
            done()
        }
        (method, ["disks", what]) => disk(service, request, method, what),
        _ => Err(Refusal::Unknown),
    }
}

/// `/_emulator/disks/<what>?disk=<id or name>`
fn disk(
    service: &Service,
    request: &Request,
    method: &str,
    what: &str,
) -> Result<Response, Refusal> {
    let disk = request.query("disk").ok_or_else(|| {
        Refusal::Wrong("the query parameter disk=<id or name> is missing".to_owned())
    })?;
    match (method, what) {
        ("PUT", "content") => {
            service.guest_write(disk, number(request, "offset")?.unwrap_or(0), &request.body)?;
            done()
        }
        ("POST", "pattern") => {
            let Pattern {
                seed,
                offset,
                length,
            } = parse(request)?;
            service.guest_pattern(disk, seed, offset.0, length.0)?;
            done()
        }
        ("POST", "discard") => {
            let Discard { offset, length } = parse(request)?;
            service.guest_discard(disk, offset.0, length.0)?;
            done()
        }
        ("GET", "content") => {
            let world = service.world();
            let volume = world.find_volume(disk)?;
            let offset = number(request, "offset")?.unwrap_or(0);
            let len = number(request, "length")?.unwrap_or(volume.size().saturating_sub(offset));
            check_range(volume, offset, len)?;
            let mut response =
                Response::empty(200).header("content-type", "application/octet-stream");
            response.body = Body::Content(volume.content.clone(), offset..offset + len);
            Ok(response)
        }
        ("GET", "extents") => {
            let extents = service.disk_extents(disk)?;
            let shown: Vec<Value> = extents
                .iter()
                .map(|range| json!({ "offset": range.start, "length": range.end - range.start }))
                .collect();
            show(&shown)
        }
        ("GET", "digest") => {
            let (size, digest) = (service.disk_size(disk)?, service.disk_digest(disk)?);
            show(&json!({ "sizeBytes": size, "sha256": digest }))
        }
        _ => Err(Refusal::Unknown),
    }
}

fn number(request: &Request, name: &str) -> Result<Option<u64>, Refusal> {
    request
        .query(name)
        .map(|text| {
            text.parse().map_err(|error| {
                Refusal::Wrong(format!("{name}={text} is no number of bytes: {error}"))
            })
        })
        .transpose()
}

fn parse<T: serde::de::DeserializeOwned>(request: &Request) -> Result<T, Refusal> {
    serde_json::from_slice(&request.body)
        .map_err(|error| Refusal::Wrong(format!("read the request's JSON: {error}")))
}

fn show(value: &impl serde::Serialize) -> Result<Response, Refusal> {
    let value = serde_json::to_value(value).map_err(|error| Refusal::Wrong(error.to_string()))?;
    Ok(Response::json(200, &value))
}

fn done() -> Result<Response, Refusal> {
    Ok(Response::empty(204))
}

impl Service {
    pub(crate) fn guest_write(&self, disk: &str, offset: u64, data: &[u8]) -> Result<(), Error> {
        let mut world = self.world();
        let len = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let volume = world.guest_access(disk, offset, len)?;
        write_bytes(volume, &self.spool, offset, data).map_err(Error::Content)
    }

    pub(crate) fn guest_pattern(
        &self,
        disk: &str,
        seed: u64,
        offset: u64,
        len: u64,
    ) -> Result<(), Error> {
        let mut world = self.world();
        let volume = world.guest_access(disk, offset, len)?;
        if !offset.is_multiple_of(512) || !len.is_multiple_of(512) {
            return Err(Error::Unaligned { offset, len });
        }
        write_pattern(volume, seed, offset..offset + len);
        Ok(())
    }

    pub(crate) fn guest_discard(&self, disk: &str, offset: u64, len: u64) -> Result<(), Error> {
        let mut world = self.world();
        let volume = world.guest_access(disk, offset, len)?;
        let (start, end) = (offset.next_multiple_of(512), (offset + len) / 512 * 512);
        if start < end {
            volume.content.clear(start..end);
        }
        Ok(())
    }

    pub(crate) fn disk_read(&self, disk: &str, offset: u64, len: u64) -> Result<Vec<u8>, Error> {
        let world = self.world();
        let volume = world.find_volume(disk)?;
        check_range(volume, offset, len)?;
        let mut out = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        volume
            .content
            .read(offset, &mut out)
            .map_err(Error::Content)?;
        Ok(out)
    }

    pub(crate) fn disk_size(&self, disk: &str) -> Result<u64, Error> {
        Ok(self.world().find_volume(disk)?.size())
    }

    pub(crate) fn uploaded_footer(&self, disk: &str) -> Result<Option<[u8; 512]>, Error> {
        let footer = self.world().find_volume(disk)?.uploaded_footer.clone();
        Ok(footer.map(|footer| *footer))
    }

    pub(crate) fn disk_extents(&self, disk: &str) -> Result<Vec<std::ops::Range<u64>>, Error> {
        Ok(self.world().find_volume(disk)?.content.ranges().collect())
    }

    /// SHA-256 of all bytes. The world is not locked meanwhile.
    pub(crate) fn disk_digest(&self, disk: &str) -> Result<String, Error> {
        let (content, size) = {
            let world = self.world();
            let volume = world.find_volume(disk)?;
            (volume.content.clone(), volume.size())
        };
        let mut hash = Sha256::new();
        let mut at = 0;
        while at < size {
            let chunk = content.chunk(at..size).map_err(Error::Content)?;
            at += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            hash.update(&chunk);
        }
        Ok(hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect())
    }
}
