//! Managed disks and snapshots: what they share, and how Azure shows them.
use super::{
    World,
    content::{Change, Content, Source},
    grant::{Access, Grant},
    operation::Outcome,
    resource_id::ResourceId,
};
use crate::{
    arm::{body::Body, error::ArmError},
    clock,
    clock::Instant,
    footer,
    size::GIB,
};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Longest access, 60 days ("Download a VHD from Azure", since 15 February 2025).
const MAX_ACCESS_SECONDS: u64 = 5_184_000;

/// Snapshots of one family that may have access at the same time ("Create an incremental snapshot for managed disks").
const MAX_FAMILY_GRANTS: usize = 5;

/// A managed disk or a snapshot.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) id: ResourceId,
    pub(crate) location: String,
    pub(crate) tags: Map<String, Value>,
    pub(crate) zones: Vec<String>,
    pub(crate) sku: String,
    /// As requested; the service adds `sourceUniqueId`.
    pub(crate) creation: Map<String, Value>,
    /// Members of `properties` that are kept as they were given.
    pub(crate) extra: Map<String, Value>,
    pub(crate) unique_id: String,
    pub(crate) created: Instant,
    pub(crate) provisioning: &'static str,
    /// Data without footer; while uploading, the whole blob with it.
    pub(crate) content: Content,
    pub(crate) role: Role,
    /// Path of the current grant on the data endpoint.
    pub(crate) grant: Option<String>,
    /// The footer that a client uploaded. Only the emulator's owner gets to see it: readers get one of our own.
    pub(crate) uploaded_footer: Option<Box<[u8; 512]>>,
}

/// Whether it is a disk or a snapshot, with what only that has.
#[derive(Debug)]
pub(crate) enum Role {
    Disk {
        /// Key of the VM it is attached to.
        owner: Option<String>,
        upload: Upload,
    },
    Snapshot {
        incremental: bool,
        family: String,
        /// Progress of the background copy; absent where there is none.
        completion: Option<f64>,
    },
}

/// Where a disk stands that is made by uploading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upload {
    /// It never was, or it is done.
    None,
    /// Waiting for access to be granted.
    Ready,
    /// Access has been granted, and not yet been ended.
    Active,
}

/// How complete a resource is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// First answer to PATCH: nothing computed yet.
    Accepted,
    /// Result of an operation: without `completionPercent`.
    Output,
    /// GET.
    Full,
}

impl Volume {
    pub(crate) fn is_snapshot(&self) -> bool {
        matches!(self.role, Role::Snapshot { .. })
    }

    /// Size of the data in bytes.
    pub(crate) fn size(&self) -> u64 {
        match self.role {
            Role::Disk {
                upload: Upload::Ready | Upload::Active,
                ..
            } => self.content.len() - footer::LEN,
            Role::Disk { .. } | Role::Snapshot { .. } => self.content.len(),
        }
    }

    pub(crate) fn owner(&self) -> Option<&str> {
        match &self.role {
            Role::Disk { owner, .. } => owner.as_deref(),
            Role::Snapshot { .. } => None,
        }
    }

    /// The blob that a reader sees: the data and its VHD footer.
    pub(crate) fn image(&self) -> Content {
        let size = self.content.len();
        let mut image = self.content.clone();
        image.resize(size + footer::LEN);
        let bytes = footer::build(size).to_vec();
        image.write_constant(size..size + footer::LEN, Source::Memory(bytes.into()));
        image
    }
}

impl World {
    /// `diskState`, which follows from attachment, upload and access.
    pub(crate) fn disk_state(&self, volume: &Volume) -> &'static str {
        let granted = volume
            .grant
            .as_ref()
            .and_then(|path| self.grants.get(path))
            .is_some_and(|grant| grant.is_active(self.now));
        match &volume.role {
            Role::Disk {
                upload: Upload::Active,
                ..
            } => "ActiveUpload",
            Role::Disk {
                upload: Upload::Ready,
                ..
            } => "ReadyToUpload",
            Role::Disk { .. } | Role::Snapshot { .. } if granted => "ActiveSAS",
            Role::Disk {
                owner: Some(vm), ..
            } => {
                use crate::scenario::PowerState::{Deallocated, Running, Stopped};
                match self.vms.get(vm).map(|vm| vm.power) {
                    Some(Deallocated) => "Reserved",
                    Some(Running | Stopped) | None => "Attached",
                }
            }
            Role::Disk { owner: None, .. } | Role::Snapshot { .. } => "Unattached",
        }
    }

    /// The resource as Azure shows it.
    pub(crate) fn show_volume(&self, volume: &Volume, form: Form) -> Value {
        let accepted = form == Form::Accepted;
        let mut top = Map::new();
        let mut put = |name: &str, value: Value| {
            top.insert(name.to_owned(), value);
        };
        put("name", json!(volume.id.name));
        put("id", json!(volume.id.to_string()));
        put("type", json!(volume.id.kind.resource_type()));
        put("location", json!(volume.location));
        put("tags", Value::Object(volume.tags.clone()));
        if let Some(vm) = volume.owner().and_then(|key| self.vms.get(key)) {
            put("managedBy", json!(vm.id.to_string()));
        }
        if !volume.zones.is_empty() {
            put("zones", json!(volume.zones));
        }
        let tier = volume.sku.split('_').next().unwrap_or_default();
        put(
            "sku",
            if accepted {
                json!({ "name": volume.sku })
            } else {
                json!({ "name": volume.sku, "tier": tier })
            },
        );
        put(
            "properties",
            Value::Object(self.volume_properties(volume, form)),
        );
        Value::Object(top)
    }

    fn volume_properties(&self, volume: &Volume, form: Form) -> Map<String, Value> {
        let mut out = Map::new();
        let mut put = |name: &str, value: Value| {
            out.insert(name.to_owned(), value);
        };
        for (name, value) in &volume.extra {
            put(name, value.clone());
        }
        put("creationData", Value::Object(volume.creation.clone()));
        let uploading = matches!(
            volume.role,
            Role::Disk {
                upload: Upload::Ready | Upload::Active,
                ..
            }
        );
        let size = volume.size();
        if !uploading {
            put("diskSizeGB", json!(size.div_ceil(GIB)));
        }
        if let Role::Snapshot { incremental, .. } = volume.role {
            put("incremental", json!(incremental));
        }
        if form == Form::Accepted {
            put("provisioningState", json!("Updating"));
            return out;
        }
        if let Role::Disk { .. } = volume.role {
            let (operations, megabytes) = if volume.sku.starts_with("Premium") {
                (
                    (size / GIB * 3).clamp(120, 20_000),
                    (size / GIB / 2).clamp(25, 900),
                )
            } else {
                (500, 60)
            };
            for (name, value) in [
                ("diskIOPSReadWrite", operations),
                ("diskMBpsReadWrite", megabytes),
            ] {
                put(
                    name,
                    volume
                        .extra
                        .get(name)
                        .cloned()
                        .unwrap_or_else(|| json!(value)),
                );
            }
        }
        for (name, value) in [
            (
                "encryption",
                json!({ "type": "EncryptionAtRestWithPlatformKey" }),
            ),
            ("networkAccessPolicy", json!("AllowAll")),
            ("publicNetworkAccess", json!("Enabled")),
        ] {
            put(name, volume.extra.get(name).cloned().unwrap_or(value));
        }
        let premium =
            matches!(volume.role, Role::Disk { .. }) && volume.sku.starts_with("Premium_");
        if premium && !volume.extra.contains_key("tier") {
            put("tier", json!(premium_tier(size)));
        }
        put("timeCreated", json!(clock::iso(volume.created)));
        put("provisioningState", json!(volume.provisioning));
        put("diskState", json!(self.disk_state(volume)));
        if !uploading {
            put("diskSizeBytes", json!(size));
        }
        put("uniqueId", json!(volume.unique_id));
        match &volume.role {
            Role::Disk { .. } => {}
            Role::Snapshot {
                family,
                completion,
                incremental,
            } => {
                if let (Some(completion), Form::Full) = (completion, form) {
                    put("completionPercent", json!(completion));
                }
                if *incremental {
                    put("incrementalSnapshotFamilyId", json!(family));
                }
            }
        }
        out
    }

    /// End of a PUT or PATCH.
    pub(crate) fn volume_ready(&mut self, key: &str) -> Outcome {
        if let Some(volume) = self.volumes.get_mut(key) {
            volume.provisioning = "Succeeded";
        }
        match self.volumes.get(key) {
            Some(volume) => Outcome::Resource(self.show_volume(volume, Form::Output)),
            None => Outcome::Done,
        }
    }

    /// Whether access may be granted; checked before the operation begins.
    pub(crate) fn check_grant(
        &self,
        key: &str,
        access: Access,
        seconds: u64,
    ) -> Result<(), ArmError> {
        let Some(volume) = self.volumes.get(key) else {
            return Ok(());
        };
        let name = &volume.id.name;
        if seconds == 0 || seconds > MAX_ACCESS_SECONDS {
            return Err(ArmError::invalid(
                "durationInSeconds",
                format!(
                    "The value of parameter durationInSeconds is invalid: {seconds} is not in 1..={MAX_ACCESS_SECONDS}."
                ),
            ));
        }
        if volume
            .extra
            .get("networkAccessPolicy")
            .and_then(Value::as_str)
            == Some("DenyAll")
        {
            return Err(ArmError::not_allowed(format!(
                "Access to '{name}' cannot be granted while its networkAccessPolicy is DenyAll."
            )));
        }
        let state = self.disk_state(volume);
        let active = volume.grant.as_ref().and_then(|path| self.grants.get(path));
        let active = active.filter(|grant| grant.is_active(self.now));
        let allowed = match (&volume.role, access) {
            (
                Role::Disk {
                    upload: Upload::Ready | Upload::Active,
                    ..
                },
                Access::Write,
            ) => true,
            (
                Role::Disk {
                    upload: Upload::None,
                    ..
                },
                Access::Write,
            ) => false,
            (Role::Disk { .. }, Access::Read) => {
                matches!(state, "Unattached" | "Reserved" | "ActiveSAS")
            }
            (Role::Snapshot { .. }, Access::Read) => true,
            (Role::Snapshot { .. }, Access::Write) => false,
        };
        if !allowed {
            return Err(ArmError::not_allowed(format!(
                "{} access to '{name}' cannot be granted in state {state}.",
                access.name()
            )));
        }
        if volume.provisioning == "Failed" {
            return Err(ArmError::not_allowed(format!(
                "Access to '{name}' cannot be granted: its provisioning state is Failed."
            )));
        }
        if let Role::Snapshot {
            completion: Some(completion),
            ..
        } = volume.role
            && completion < 100.0
        {
            return Err(ArmError::not_allowed(format!(
                "Access to snapshot '{name}' cannot be granted before its background copy is complete ({completion} %)."
            )));
        }
        if let (Role::Snapshot { family, .. }, None) = (&volume.role, active) {
            let others = self.volumes.values().filter(|other| {
                matches!(&other.role, Role::Snapshot { family: same, .. } if same == family)
                    && self.disk_state(other) == "ActiveSAS"
            });
            if others.count() >= MAX_FAMILY_GRANTS {
                return Err(ArmError::not_allowed(format!(
                    "Access to snapshot '{name}' cannot be granted: {MAX_FAMILY_GRANTS} snapshots of family {family} already have an active shared access signature."
                )));
            }
        }
        Ok(())
    }

    /// Grants access. While access of the same kind is active, its signature is given again and lasts at least as long.
    pub(crate) fn grant_access(&mut self, key: &str, access: Access, seconds: u64) -> Outcome {
        let expires = self.now + Duration::from_secs(seconds);
        let now = self.now;
        let Some(volume) = self.volumes.get_mut(key) else {
            return Outcome::Failed {
                code: "ResourceNotFound".to_owned(),
                message: "The resource was deleted.".to_owned(),
            };
        };
        if let Some(grant) = volume
            .grant
            .as_ref()
            .and_then(|path| self.grants.get_mut(path))
            && grant.is_active(now)
            && grant.access == access
        {
            grant.expires = grant.expires.max(expires);
            return Outcome::Access(grant.path.clone());
        }
        if let Role::Disk { upload, .. } = &mut volume.role
            && access == Access::Write
        {
            *upload = Upload::Active;
        }
        let image = (access == Access::Read).then(|| volume.image());
        let grant = Grant::new(&self.key, key.to_owned(), access, expires, image);
        let path = grant.path.clone();
        volume.grant = Some(path.clone());
        self.grants.insert(path.clone(), grant);
        Outcome::Access(path)
    }

    /// Ends access. For an upload this is where the footer must be right.
    pub(crate) fn revoke_access(&mut self, key: &str) -> Outcome {
        let Some(volume) = self.volumes.get_mut(key) else {
            return Outcome::Done;
        };
        if let Some(grant) = volume
            .grant
            .take()
            .and_then(|path| self.grants.get_mut(&path))
        {
            grant.revoked = true;
            grant.image = None;
        }
        let size = volume.size();
        let Role::Disk { upload, .. } = &mut volume.role else {
            return Outcome::Done;
        };
        if *upload != Upload::Active {
            return Outcome::Done;
        }
        let mut footer = [0; 512];
        let checked = match volume.content.read(size, &mut footer) {
            Ok(()) => footer::check(&footer, size),
            Err(error) => Err(format!("it cannot be read: {error}")),
        };
        match checked {
            Ok(()) => {
                *upload = Upload::None;
                volume.content.resize(size);
                volume.uploaded_footer = Some(Box::new(footer));
                Outcome::Done
            }
            Err(problem) => {
                *upload = Upload::Ready;
                volume.provisioning = "Failed";
                Outcome::Failed {
                    code: "InvalidParameter".to_owned(),
                    message: format!(
                        "The VHD uploaded to disk '{}' is not valid. Its footer is refused: {problem}.",
                        volume.id.name
                    ),
                }
            }
        }
    }

    /// What a GET of a snapshot does to its background copy: it proceeds with each look.
    pub(crate) fn advance_copy(&mut self, key: &str) {
        let step = self.settings.background_copy_step.unwrap_or(100.0);
        if let Some(Volume {
            role:
                Role::Snapshot {
                    completion: Some(completion),
                    ..
                },
            ..
        }) = self.volumes.get_mut(key)
        {
            *completion = (*completion + step).min(100.0);
        }
    }

    /// The changes between two images, if both are snapshots of the same disk in the right order.
    pub(crate) fn diff_allowed(&self, target: &str, base: &str) -> Result<(), DiffRefusal> {
        let (Some(target), Some(base)) = (self.volumes.get(target), self.volumes.get(base)) else {
            return Err(DiffRefusal::NotFound);
        };
        let (
            Role::Snapshot {
                family,
                incremental: true,
                ..
            },
            Role::Snapshot {
                family: base_family,
                incremental: true,
                ..
            },
        ) = (&target.role, &base.role)
        else {
            return Err(DiffRefusal::NotSupported);
        };
        if family != base_family {
            return Err(DiffRefusal::NotFound);
        }
        if base.created > target.created {
            return Err(DiffRefusal::Newer);
        }
        let crosses = |size: u64| size > 4 * crate::size::TIB;
        if crosses(target.size()) != crosses(base.size()) {
            return Err(DiffRefusal::NotSupported);
        }
        Ok(())
    }
}

/// Why two snapshots have no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiffRefusal {
    NotFound,
    NotSupported,
    Newer,
}

/// The wire name of a kind of change.
pub(crate) fn element(change: Change) -> &'static str {
    match change {
        Change::Written => "PageRange",
        Change::Cleared => "ClearRange",
    }
}

/// The performance tier of a Premium SSD of this size, unless a higher one was chosen ("Premium SSD size").
fn premium_tier(size: u64) -> &'static str {
    const TIERS: [(u64, &str); 13] = [
        (4, "P1"),
        (8, "P2"),
        (16, "P3"),
        (32, "P4"),
        (64, "P6"),
        (128, "P10"),
        (256, "P15"),
        (512, "P20"),
        (1024, "P30"),
        (2048, "P40"),
        (4096, "P50"),
        (8192, "P60"),
        (16_384, "P70"),
    ];
    TIERS
        .iter()
        .find(|(most, _)| size <= most * GIB)
        .map_or("P80", |(_, tier)| tier)
}

/// The first answer to a PUT: what was asked for, and that it is under way.
pub(crate) fn accepted(id: &ResourceId, body: &Body<'_>) -> Result<Value, ArmError> {
    let mut properties = match body.has("properties") {
        true => body.object("properties")?.clone(),
        false => Map::new(),
    };
    properties.insert("provisioningState".to_owned(), json!("Updating"));
    let mut out = json!({
        "name": id.name,
        "id": id.to_string(),
        "type": id.kind.resource_type(),
        "location": body.location()?,
        "tags": body.tags()?,
    });
    for name in ["zones", "sku"] {
        if let Some(value) = body.value(name) {
            out[name] = value.clone();
        }
    }
    out["properties"] = Value::Object(properties);
    Ok(out)
}
