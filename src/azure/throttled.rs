//! A subscription of many virtual machines that throttles as Azure says it does, in virtual time.
//!
//! The figures are those of "Understand how Azure Resource Manager throttles requests" (one principal in one region),
//! "Compute throttling limits" (virtual machines) and, for disks and snapshots, the ceilings that Compute's
//! `x-ms-ratelimit-remaining-resource` told in recordings: so many in 3 minutes and so many in 30.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Azure;
use super::testing::{ARM, Outcome, Script, answer, asks_for_token, json, token_answer};
use crate::payload::Payload;
use crate::vhd;

/// Bytes of each disk.
pub(crate) const DISK: u64 = 32 << 20;
/// Bytes at the beginning of each disk that changed.
const CHANGED: u64 = 64 << 10;
/// From request to answer.
const LATENCY: Duration = Duration::from_millis(100);
/// For the one read of what changed: as if it were more.
const READING: Duration = Duration::from_secs(5);
/// Of a grant, its end and a deletion, as recorded.
const OPERATION: Duration = Duration::from_millis(200);
/// Of a new snapshot; Azure asks to look after two seconds.
const SNAPSHOT: Duration = Duration::from_millis(1500);
/// Resources on one page of a list.
const PAGE: usize = 500;

/// Which snapshot ceilings hold: Azure has raised them over the years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ceiling {
    /// Recorded in 2019.
    Low,
    /// Recorded in 2023.
    High,
}

/// What the service has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    /// Accepted requests to Resource Manager, by kind.
    pub(crate) accepted: BTreeMap<&'static str, u64>,
    /// Answers 429, by the limit that was reached.
    pub(crate) throttled: BTreeMap<&'static str, u64>,
    /// Longest time from the first refusal of a request to its acceptance.
    pub(crate) longest_wait: Duration,
    /// Most refusals within one second.
    pub(crate) worst_second: u64,
    second: (u64, u64),
}

/// The subscription; clones of its clients share its limits.
pub(crate) struct Subscription {
    script: Arc<Script>,
    service: Arc<Mutex<Service>>,
}

impl Subscription {
    /// Of virtual machines as [`virtual_machine`] makes them, and snapshots as they are listed.
    pub(crate) fn new(ceiling: Ceiling, virtual_machines: &[Value], snapshots: Vec<Value>) -> Self {
        let by_id = |vm: &Value| (vm["id"].as_str().unwrap_or_default().to_owned(), vm.clone());
        let service = Arc::new(Mutex::new(Service {
            limits: limits(ceiling),
            machine_pages: pages("virtualMachines", virtual_machines),
            snapshot_pages: pages("snapshots", &snapshots),
            machines: virtual_machines.iter().map(by_id).collect(),
            snapshots: snapshots.iter().map(by_id).collect(),
            operations: Vec::new(),
            waiting: HashMap::new(),
            began: Instant::now(),
            account: Account::default(),
        }));
        let handler = Arc::clone(&service);
        let script = Script::paced(
            move |request, _| handler.lock().expect("no panic").handle(request),
            |request| match range_of(request) {
                Some((0, _)) => READING,
                _ => LATENCY,
            },
        );
        Self { script, service }
    }

    /// A client of its own, as each job has one.
    pub(crate) fn azure(&self) -> Azure {
        self.script.azure(&CancellationToken::new())
    }

    pub(crate) fn account(&self) -> Account {
        self.service.lock().expect("no panic").account.clone()
    }
}

/// A virtual machine with an OS disk, a data disk and a network interface.
pub(crate) fn virtual_machine(group: &str, number: usize) -> Value {
    let name = format!("vm-{number:04}");
    let id = |kind: &str, name: &str| resource_id(group, kind, name);
    let disk =
        |role: &str| json!({ "id": id("Microsoft.Compute/disks", &format!("{name}-{role}")) });
    json!({
        "id": id("Microsoft.Compute/virtualMachines", &name), "name": name, "location": "westeurope",
        "properties": {
            "vmId": format!("00000000-0000-4000-8000-{number:012}"),
            "storageProfile": {
                "osDisk": { "managedDisk": disk("os") },
                "dataDisks": [{ "lun": 0, "managedDisk": disk("data") }],
            },
            "networkProfile": { "networkInterfaces": [{ "id": id("Microsoft.Network/networkInterfaces", &name) }] },
        },
    })
}

/// A snapshot of a disk of it.
pub(crate) fn snapshot(disk: &str, id: &str, tags: &Value, created: &str) -> Value {
    json!({
        "id": id, "tags": tags,
        "properties": {
            "provisioningState": "Succeeded", "diskState": "Unattached", "incremental": true,
            "diskSizeBytes": DISK, "timeCreated": created,
            "creationData": { "sourceResourceId": disk, "sourceUniqueId": unique_id(disk) },
        },
    })
}

pub(crate) fn resource_id(group: &str, kind: &str, name: &str) -> String {
    format!("/subscriptions/sub-1/resourceGroups/{group}/providers/{kind}/{name}")
}

/// `properties.uniqueId` of a disk.
pub(crate) fn unique_id(disk: &str) -> String {
    format!("unique-{}", disk.rsplit('/').next().unwrap_or_default())
}

struct Service {
    limits: Vec<(&'static str, Limit)>,
    machine_pages: Vec<Bytes>,
    snapshot_pages: Vec<Bytes>,
    machines: HashMap<String, Value>,
    snapshots: HashMap<String, Value>,
    /// When each ends, and what its status has as output then.
    operations: Vec<(Instant, Value)>,
    /// Since when refused requests are being repeated.
    waiting: HashMap<String, Instant>,
    began: Instant,
    account: Account,
}

impl Service {
    fn handle(&mut self, request: &Request<Payload>) -> Outcome {
        if asks_for_token(request) {
            return token_answer("t", 3599);
        }
        if request.uri().host() == Some("md-1.blob.example") {
            return blob(request);
        }
        let (kind, limits) = kind_of(request);
        let identity = format!("{} {}", request.method(), request.uri());
        let now = Instant::now();
        for limit in limits {
            let reached = self.limits.iter_mut().find(|(name, _)| name == limit);
            let (name, limit) = reached.expect("a limit of that name");
            if let Err(wait) = limit.take(now) {
                *self.account.throttled.entry(name).or_default() += 1;
                let second = self.began.elapsed().as_secs();
                if self.account.second.0 != second {
                    self.account.second = (second, 0);
                }
                self.account.second.1 += 1;
                self.account.worst_second = self.account.worst_second.max(self.account.second.1);
                self.waiting.entry(identity).or_insert(now);
                let seconds = wait.as_secs_f64().ceil().max(1.0).to_string();
                return answer(
                    429,
                    &[("Retry-After", &seconds)],
                    "{\"code\":\"OperationNotAllowed\",\"message\":\"too many requests\"}",
                );
            }
        }
        if let Some(since) = self.waiting.remove(&identity) {
            self.account.longest_wait = self.account.longest_wait.max(now - since);
        }
        *self.account.accepted.entry(kind).or_default() += 1;
        self.answer(kind, request)
    }

    fn answer(&mut self, kind: &str, request: &Request<Payload>) -> Outcome {
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default();
        let page = |pages: &[Bytes]| {
            let number = query.split('&').find_map(|part| part.strip_prefix("page="));
            let number: usize = number.map_or(0, |text| text.parse().expect("a number"));
            answer(200, &[], pages[number].clone())
        };
        match kind {
            "list virtual machines" => page(&self.machine_pages),
            "list snapshots" => page(&self.snapshot_pages),
            "read virtual machine" => json(200, &self.machines[path]),
            "read network interface" => json(200, &json!({ "id": path })),
            "read disk" => json(
                200,
                &json!({
                    "id": path, "location": "westeurope",
                    "properties": { "uniqueId": unique_id(path), "diskSizeBytes": DISK },
                }),
            ),
            "read snapshot" => match self.snapshots.get(path) {
                Some(snapshot) => json(200, snapshot),
                None => answer(404, &[], ""),
            },
            "take snapshot" => {
                let body: Value =
                    serde_json::from_slice(request.body().whole().expect("in memory"))
                        .expect("JSON");
                let disk = body["properties"]["creationData"]["sourceResourceId"].as_str();
                let created = "2026-11-24T09:00:00+00:00";
                let taken = snapshot(disk.expect("a source"), path, &body["tags"], created);
                self.snapshots.insert(path.to_owned(), taken);
                self.accept(SNAPSHOT, Value::Null, Some("2"))
            }
            "open snapshot" => {
                let name = path.rsplit('/').nth(1).unwrap_or_default();
                let sas = format!("https://md-1.blob.example/c/{name}?sv=1&sig=s");
                self.accept(OPERATION, json!({ "accessSAS": sas }), None)
            }
            "close snapshot" => self.accept(OPERATION, Value::Null, None),
            "delete snapshot" => {
                self.snapshots.remove(path);
                self.accept(OPERATION, Value::Null, None)
            }
            "look at operation" => {
                let number = path.rsplit('/').next().unwrap_or_default();
                let number: usize = number.parse().expect("a number");
                let (end, output) = &self.operations[number];
                match *end <= Instant::now() {
                    false => json(200, &json!({ "status": "InProgress" })),
                    true => json(
                        200,
                        &json!({ "status": "Succeeded", "properties": { "output": output } }),
                    ),
                }
            }
            other => panic!("{other}: {path}"),
        }
    }

    fn accept(&mut self, takes: Duration, output: Value, retry_after: Option<&str>) -> Outcome {
        let number = self.operations.len();
        self.operations.push((Instant::now() + takes, output));
        let address = format!("{ARM}/subscriptions/sub-1/DiskOperations/{number}");
        let mut headers = vec![("Azure-AsyncOperation", &*address)];
        headers.extend(retry_after.map(|seconds| ("Retry-After", seconds)));
        answer(202, &headers, "")
    }
}

/// What a request is, and the limits that it counts for.
fn kind_of(request: &Request<Payload>) -> (&'static str, &'static [&'static str]) {
    const SNAPSHOT: &[&str] = &[
        "writes",
        "HighCostSnapshotCreateHydrate3Min",
        "HighCostSnapshotCreateHydrate30Min",
    ];
    const DISK_GET: &[&str] = &["reads", "LowCostGet3Min", "LowCostGet30Min"];
    let path = request.uri().path();
    let has = |part: &str| path.contains(part);
    match *request.method() {
        Method::PUT => ("take snapshot", SNAPSHOT),
        Method::POST if path.ends_with("/beginGetAccess") => ("open snapshot", SNAPSHOT),
        Method::POST => ("close snapshot", SNAPSHOT),
        Method::DELETE => (
            "delete snapshot",
            &["deletes", "DeleteDisks3Min", "DeleteDisks30Min"],
        ),
        _ if has("/DiskOperations/") => (
            "look at operation",
            &["reads", "GetOperation3Min", "GetOperation30Min"],
        ),
        _ if has("/virtualMachines/") => ("read virtual machine", &["reads", "GetVM"]),
        _ if has("/virtualMachines") => ("list virtual machines", &["reads", "ListVM"]),
        _ if has("/networkInterfaces/") => ("read network interface", &["reads", "Network"]),
        _ if has("/disks/") => ("read disk", DISK_GET),
        _ if has("/snapshots/") => ("read snapshot", DISK_GET),
        _ => ("list snapshots", DISK_GET),
    }
}

fn limits(ceiling: Ceiling) -> Vec<(&'static str, Limit)> {
    let (three, thirty) = (Duration::from_secs(180), Duration::from_secs(1800));
    let (snapshots_3, snapshots_30) = match ceiling {
        Ceiling::Low => (240, 1920),
        Ceiling::High => (1000, 8000),
    };
    vec![
        ("reads", Limit::bucket(250.0, 25.0)),
        ("writes", Limit::bucket(200.0, 10.0)),
        ("deletes", Limit::bucket(200.0, 10.0)),
        ("GetVM", Limit::bucket(24_000.0, 8000.0 / 60.0)),
        ("ListVM", Limit::bucket(900.0, 300.0 / 60.0)),
        (
            "HighCostSnapshotCreateHydrate3Min",
            Limit::window(three, snapshots_3),
        ),
        (
            "HighCostSnapshotCreateHydrate30Min",
            Limit::window(thirty, snapshots_30),
        ),
        ("DeleteDisks3Min", Limit::window(three, 1000)),
        ("DeleteDisks30Min", Limit::window(thirty, 8000)),
        ("LowCostGet3Min", Limit::window(three, 15_000)),
        ("LowCostGet30Min", Limit::window(thirty, 120_000)),
        ("GetOperation3Min", Limit::window(three, 50_000)),
        ("GetOperation30Min", Limit::window(thirty, 400_000)),
        ("Network", Limit::window(Duration::from_secs(300), 10_000)),
    ]
}

enum Limit {
    /// Refilled all the time.
    Bucket {
        capacity: f64,
        per_second: f64,
        left: f64,
        at: Option<Instant>,
    },
    /// Full again when its time is over, which is when all come back that were refused.
    Window {
        length: Duration,
        allowed: u64,
        used: u64,
        began: Option<Instant>,
    },
}

impl Limit {
    fn bucket(capacity: f64, per_second: f64) -> Self {
        Self::Bucket {
            capacity,
            per_second,
            left: capacity,
            at: None,
        }
    }

    fn window(length: Duration, allowed: u64) -> Self {
        Self::Window {
            length,
            allowed,
            used: 0,
            began: None,
        }
    }

    /// Counts a request, or tells how long to wait.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        match self {
            Self::Bucket {
                capacity,
                per_second,
                left,
                at,
            } => {
                let passed = at.map_or(Duration::ZERO, |at| now - at).as_secs_f64();
                *left = capacity.min(*left + passed * *per_second);
                *at = Some(now);
                if *left < 1.0 {
                    return Err(Duration::from_secs_f64((1.0 - *left) / *per_second));
                }
                *left -= 1.0;
                Ok(())
            }
            Self::Window {
                length,
                allowed,
                used,
                began,
            } => {
                let start = began.filter(|&start| now < start + *length);
                if start.is_none() {
                    *used = 0;
                }
                let start = *began.insert(start.unwrap_or(now));
                if *used == *allowed {
                    return Err(start + *length - now);
                }
                *used += 1;
                Ok(())
            }
        }
    }
}

fn pages(collection: &str, resources: &[Value]) -> Vec<Bytes> {
    let pages = resources.chunks(PAGE);
    let count = pages.len();
    pages
        .enumerate()
        .map(|(number, resources)| {
            let mut page = json!({ "value": resources });
            if number + 1 < count {
                let next = number + 1;
                page["nextLink"] = format!(
                    "{ARM}/subscriptions/sub-1/providers/Microsoft.Compute/{collection}?page={next}"
                )
                .into();
            }
            Bytes::from(page.to_string())
        })
        .collect()
}

/// First and last byte that a request to a blob is about.
fn range_of(request: &Request<Payload>) -> Option<(u64, u64)> {
    let text = request.headers().get("x-ms-range")?.to_str().ok()?;
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

fn blob(request: &Request<Payload>) -> Outcome {
    let total = DISK + vhd::FOOTER_LEN;
    let range = range_of(request);
    let is_list = |query: &str| query.contains("comp=pagelist");
    if request.uri().query().is_some_and(is_list) {
        // All is allocated, so of a part all is listed.
        let (first, last) = range.unwrap_or((0, CHANGED - 1));
        let list = format!(
            "<PageList><PageRange><Start>{first}</Start><End>{last}</End></PageRange></PageList>"
        );
        return answer(
            200,
            &[("x-ms-blob-content-length", &total.to_string())],
            list,
        );
    }
    let Some((first, last)) = range else {
        return answer(400, &[], "");
    };
    let body = match first == DISK {
        true => vhd::fixed_footer(DISK, Uuid::nil(), SystemTime::UNIX_EPOCH).to_vec(),
        false => vec![7; usize::try_from(last - first + 1).expect("small")],
    };
    let range = format!("bytes {first}-{last}/{total}");
    answer(206, &[("content-range", &range)], body)
}
