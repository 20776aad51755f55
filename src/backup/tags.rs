//! How our snapshots are recognised: their names and tags.
//!
//! The tags are the truth about a snapshot; the tracker file is a cache of them. Everything begins with [`PREFIX`].
//! Azure reserves tag names that begin with `azure`, `microsoft` or `windows`, and allows names of 512 and values of 256
//! characters, 50 tags a resource ("Use tags to organize your Azure resources", checked 2026-11).

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::Level;
use super::export::Disk;
use super::run::Context;
use super::select::Candidate;
use crate::azure::ResourceId;
use crate::document::{END_OF_DATES, Slot};
use crate::json;

/// What the name of every tag of ours begins with.
pub(super) const PREFIX: &str = "bacula-azure-vm:";

/// Name of the tag, behind [`PREFIX`], of a snapshot whose image is in no backup, and which could not be deleted.
const UNSAVED: &str = "unsaved";

/// Characters of the name of a snapshot.
pub(super) const SNAPSHOT_NAME_LEN: usize = 45;

/// What our tags say about a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SnapshotTags {
    /// The File Daemon's name.
    pub(super) client: String,
    /// The job's name, without the part that makes a run unique: the chain.
    pub(super) chain: String,
    /// The run's unique name.
    pub(super) job: String,
    pub(super) level: Level,
    /// Seconds since 1970 at which the run began.
    pub(super) started: u64,
    /// Unique name of the run that the Director built on.
    pub(super) previous: Option<String>,
    /// Unique name of the Full at the end of its lineage, if that was known.
    pub(super) full: Option<String>,
    /// UUID of the VM.
    pub(super) vm: String,
    /// The VM's name at that time.
    pub(super) vm_name: String,
    /// Seconds since 1970 in the names of the VM's files.
    pub(super) epoch: u64,
    /// `properties.uniqueId` of the disk.
    pub(super) disk: String,
    /// Where the disk sat; `os` or the LUN.
    pub(super) slot: Slot,
}

impl SnapshotTags {
    /// Of a disk of `vm` in the run of `context`.
    pub(super) fn new(context: &Context, vm: &Candidate, epoch: u64, disk: &Disk) -> Self {
        let Context { run, started, .. } = context;
        Self {
            client: run.client.clone(),
            chain: chain_name(&run.job).to_owned(),
            job: run.job.clone(),
            level: run.level,
            started: *started,
            previous: context.previous().map(str::to_owned),
            full: context.full().map(str::to_owned),
            vm: vm.uuid.clone(),
            vm_name: vm.name.clone(),
            epoch,
            disk: disk.unique_id.clone(),
            slot: disk.slot,
        }
    }

    /// The `tags` member of the snapshot.
    pub(super) fn to_json(&self) -> Value {
        let mut tags = Map::new();
        let mut put = |name: &str, value: &str| {
            tags.insert(format!("{PREFIX}{name}"), Value::from(value));
        };
        put("client", &self.client);
        put("chain", &self.chain);
        put("job", &self.job);
        put("level", self.level.as_str());
        put("started", &self.started.to_string());
        if let Some(previous) = &self.previous {
            put("previous", previous);
        }
        if let Some(full) = &self.full {
            put("full", full);
        }
        put("vm", &self.vm);
        put("vm-name", &self.vm_name);
        put("epoch", &self.epoch.to_string());
        put("disk", &self.disk);
        match self.slot {
            Slot::Os => put("slot", "os"),
            Slot::Data(lun) => put("slot", &lun.to_string()),
        }
        Value::Object(tags)
    }

    /// Reads the tags of a snapshot resource; `None` unless all that we write is there. Names of tags are compared
    /// without regard to case, as Azure does.
    pub(super) fn of_snapshot(snapshot: &Value) -> Option<Self> {
        let get = |name: &str| own_tag(snapshot, name).map(str::to_owned);
        let seconds = |name: &str| {
            let seconds = get(name)?.parse::<u64>().ok()?;
            (seconds < END_OF_DATES).then_some(seconds)
        };
        Some(Self {
            client: get("client")?,
            chain: get("chain")?,
            job: get("job")?,
            level: Level::from_str(&get("level")?)?,
            started: seconds("started")?,
            previous: get("previous"),
            full: get("full"),
            vm: get("vm")?,
            vm_name: get("vm-name")?,
            epoch: seconds("epoch")?,
            disk: get("disk")?,
            slot: match &*get("slot")? {
                "os" => Slot::Os,
                lun => Slot::Data(lun.parse().ok()?),
            },
        })
    }

    /// The snapshot's name: the same for the same run, VM and disk, so that a request repeated after a lost answer makes
    /// no second one. Two VMs may share a disk, and two Plugin lines of a job may save one VM, under different epochs.
    /// Azure allows 80 characters.
    pub(super) fn snapshot_name(&self) -> String {
        // The parts cannot contain the separator.
        let epoch = self.epoch.to_string();
        let identity = [&*self.client, &self.job, &self.vm, &epoch, &self.disk].join("\n");
        format!("azvm-{}", short_hash(&identity))
    }
}

/// A snapshot of ours, as a list shows it.
#[derive(Clone, Debug)]
pub(super) struct OurSnapshot {
    pub(super) id: ResourceId,
    pub(super) tags: SnapshotTags,
    /// The disk it was taken of; that may be gone, or be another one of that name.
    pub(super) source: Option<ResourceId>,
    /// Size of the disk in bytes.
    pub(super) size: u64,
    /// Seconds since 1970, by Azure's clock.
    pub(super) created: u64,
    /// Whether somebody holds access to its bytes.
    pub(super) has_access: bool,
    /// Its image is in no backup, so nothing may build on it: see [`as_unsaved`].
    pub(super) is_unsaved: bool,
}

impl OurSnapshot {
    /// `None` if it is not ours. People copy snapshots together with their tags; the source of a copy is no disk.
    pub(super) fn from_listed(snapshot: &Value) -> Option<Self> {
        let tags = SnapshotTags::of_snapshot(snapshot)?;
        let id = ResourceId::parse(json::text(snapshot, "/id")?)?;
        let source = json::text(snapshot, "/properties/creationData/sourceResourceId")
            .and_then(ResourceId::parse);
        let is_copy = source
            .as_ref()
            .is_some_and(|source| source.is_type("Microsoft.Compute/snapshots"));
        if is_copy {
            return None;
        }
        let created = json::text(snapshot, "/properties/timeCreated").unwrap_or_default();
        Some(Self {
            id,
            source,
            size: json::integer(snapshot, "/properties/diskSizeBytes").unwrap_or_default(),
            created: seconds_of(created).unwrap_or(tags.epoch),
            tags,
            has_access: json::text(snapshot, "/properties/diskState")
                .is_some_and(|state| state.starts_with("ActiveSAS")),
            is_unsaved: is_unsaved(snapshot),
        })
    }
}

/// Whether a snapshot resource says that its image is in no backup.
pub(super) fn is_unsaved(snapshot: &Value) -> bool {
    own_tag(snapshot, UNSAVED).is_some()
}

/// The tags of a snapshot resource with the one that says that its image is in no backup.
pub(super) fn as_unsaved(snapshot: &Value) -> BTreeMap<String, String> {
    let tags = snapshot.get("tags").and_then(Value::as_object);
    tags.into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .chain([(format!("{PREFIX}{UNSAVED}"), "yes".to_owned())])
        .collect()
}

/// The value of the tag [`PREFIX`]`name` of a snapshot resource.
fn own_tag<'a>(snapshot: &'a Value, name: &str) -> Option<&'a str> {
    let tags = snapshot.get("tags")?.as_object()?;
    let (_, value) = tags.iter().find(|(key, _)| {
        key.get(..PREFIX.len())
            .is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX))
            && key[PREFIX.len()..].eq_ignore_ascii_case(name)
    })?;
    value.as_str()
}

/// Whole seconds since 1970 of a time as Azure writes it (RFC 3339).
pub(super) fn seconds_of(time: &str) -> Option<u64> {
    let time = chrono::DateTime::parse_from_rfc3339(time).ok()?;
    u64::try_from(time.timestamp()).ok()
}

/// The first 160 bits of the SHA-256 of `text`, in hexadecimal.
pub(super) fn short_hash(text: &str) -> String {
    Sha256::digest(text.as_bytes())[..20]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The job's name in a run's unique name: without `.yyyy-mm-dd_hh.mm.ss_nn`, which the Director appends. A name of
/// another form is its own chain.
pub(super) fn chain_name(job: &str) -> &str {
    const PATTERN: &[u8] = b".dddd-dd-dd_dd.dd.dd_dd";
    let Some((at, tail)) = job
        .len()
        .checked_sub(PATTERN.len())
        .and_then(|at| Some((at, job.get(at..)?)))
    else {
        return job;
    };
    let fits = tail
        .bytes()
        .zip(PATTERN)
        .all(|(byte, &expected)| match expected {
            b'd' => byte.is_ascii_digit(),
            literal => byte == literal,
        });
    if fits && at > 0 { &job[..at] } else { job }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::backup) fn tags() -> SnapshotTags {
        SnapshotTags {
            client: "prod-fd".into(),
            chain: "AzureVMs".into(),
            job: "AzureVMs.2026-11-23_09.05.00_07".into(),
            level: Level::Full,
            started: 1_795_000_000,
            previous: None,
            full: None,
            vm: "3d1f0c52-7a44-4e0e-9a53-8b1d6c2f9e10".into(),
            vm_name: "ledger01".into(),
            epoch: 1_795_000_003,
            disk: "5b5b5b5b-0000-4000-8000-00000000000b".into(),
            slot: Slot::Os,
        }
    }

    #[test]
    fn tags_survive_the_service_in_any_case() {
        for previous in [None, Some("AzureVMs.2026-11-22_09.05.00_03".to_owned())] {
            let tags = SnapshotTags {
                full: previous.clone(),
                previous,
                slot: Slot::Data(63),
                ..tags()
            };
            let mut json = tags.to_json();
            assert_eq!(
                SnapshotTags::of_snapshot(&json!({ "tags": json })),
                Some(tags.clone())
            );
            let upper = json
                .as_object_mut()
                .unwrap()
                .iter()
                .map(|(k, v)| (k.to_uppercase(), v.clone()))
                .collect::<Map<_, _>>();
            assert_eq!(
                SnapshotTags::of_snapshot(&json!({ "tags": upper })),
                Some(tags)
            );
        }
    }

    #[test]
    fn tags_keep_to_the_limits_of_azure() {
        let most = SnapshotTags {
            previous: Some("i".into()),
            full: Some("f".into()),
            ..tags()
        };
        let unsaved = as_unsaved(&json!({ "tags": most.to_json() }));
        assert_eq!(unsaved.len(), 13);
        for (name, value) in &unsaved {
            assert!(name.len() <= 512 && value.len() <= 256, "{name}: {value}");
            assert!(
                !name.contains(['<', '>', '%', '&', '\\', '?', '/']),
                "{name}"
            );
            for reserved in ["azure", "microsoft", "windows"] {
                assert!(!name.starts_with(reserved), "{name}");
            }
        }
    }

    #[test]
    fn foreign_and_half_tagged_snapshots_are_not_ours() {
        assert_eq!(SnapshotTags::of_snapshot(&json!({})), None);
        assert_eq!(
            SnapshotTags::of_snapshot(&json!({ "tags": { "job": "x" } })),
            None
        );
        let mut half = tags().to_json();
        half.as_object_mut()
            .unwrap()
            .remove(&format!("{PREFIX}disk"));
        assert_eq!(SnapshotTags::of_snapshot(&json!({ "tags": half })), None);
    }

    #[test]
    fn a_name_belongs_to_one_run_one_vm_and_one_disk() {
        let name = tags().snapshot_name();
        assert_eq!(name, tags().snapshot_name());
        assert_eq!(name.len(), SNAPSHOT_NAME_LEN);
        assert!(name.len() <= 80 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        let other_run = SnapshotTags {
            job: "AzureVMs.2026-11-23_09.05.00_08".into(),
            ..tags()
        };
        let other_disk = SnapshotTags {
            disk: "other".into(),
            ..tags()
        };
        let other_client = SnapshotTags {
            client: "other-fd".into(),
            ..tags()
        };
        let other_vm = SnapshotTags {
            vm: "other".into(),
            ..tags()
        };
        let later_line = SnapshotTags {
            epoch: tags().epoch + 1,
            ..tags()
        };
        for other in [other_run, other_disk, other_client, other_vm, later_line] {
            assert_ne!(name, other.snapshot_name());
        }
    }

    #[test]
    fn a_copy_and_a_snapshot_with_other_tags_are_not_ours() {
        let listed = |name: &str, tags: &SnapshotTags, source: &str| {
            let id = |kind, name| ResourceId::new("s", "g", kind, name);
            OurSnapshot::from_listed(&json!({
                "id": id("Microsoft.Compute/snapshots", name).as_str(),
                "tags": tags.to_json(),
                "properties": { "creationData": { "sourceResourceId": id(source, "from").as_str() } },
            }))
        };
        let (disk, snapshot) = ("Microsoft.Compute/disks", "Microsoft.Compute/snapshots");
        let name = tags().snapshot_name();
        let ours = listed(&name.to_uppercase(), &tags(), disk).expect("ours");
        assert_eq!(ours.tags, tags());
        assert_eq!(ours.source.expect("a disk").name(), "from");
        assert!(listed(&name, &tags(), snapshot).is_none());
        let absurd = SnapshotTags {
            epoch: u64::MAX,
            ..tags()
        };
        assert!(listed(&absurd.snapshot_name(), &absurd, disk).is_none());
    }

    #[test]
    fn a_snapshot_that_is_not_saved_says_so_and_loses_no_tag() {
        let mut listed = json!({
            "id": ResourceId::new("s", "g", "Microsoft.Compute/snapshots", "n").as_str(),
            "tags": tags().to_json(),
        });
        listed["tags"]["cost-center"] = "17".into();
        assert!(!OurSnapshot::from_listed(&listed).unwrap().is_unsaved);
        let marked = as_unsaved(&listed);
        assert_eq!(marked["cost-center"], "17");
        let upper = marked
            .iter()
            .map(|(name, value)| (name.to_uppercase(), value));
        listed["tags"] = upper.map(|(name, value)| (name, json!(value))).collect();
        let ours = OurSnapshot::from_listed(&listed).unwrap();
        assert!(ours.is_unsaved);
        assert_eq!(ours.tags, tags());
    }

    #[test]
    fn times_are_read_as_azure_writes_them() {
        let written = "2026-11-23T09:00:00.1234567+00:00";
        assert_eq!(seconds_of(written), Some(1_795_424_400));
        assert_eq!(seconds_of(""), None);
    }

    #[test]
    fn the_chain_is_the_job_without_what_the_director_appends() {
        assert_eq!(chain_name("AzureVMs.2026-11-23_09.05.00_07"), "AzureVMs");
        assert_eq!(chain_name("a.b.2026-11-23_09.05.00_07"), "a.b");
        for odd in [
            "AzureVMs",
            ".2026-11-23_09.05.00_07",
            "x.2026-11-23_09.05.00",
            "ü2026-11-23_09.05.00_07",
        ] {
            assert_eq!(chain_name(odd), odd);
        }
    }
}
