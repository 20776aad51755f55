//! Creating, changing and deleting managed disks.
use super::{
    World,
    content::Content,
    resource_id::{Kind, ResourceId},
    volume::{Form, Role, Upload, Volume, accepted},
};
use crate::{
    arm::{body::Body, error::ArmError},
    footer,
    size::{GIB, MIB},
};
use serde_json::{Map, Value, json};

/// Smallest upload: 20 MiB of data and the footer ("Upload a VHD to Azure or copy a managed disk to another region").
const MIN_UPLOAD: u64 = 20 * MIB + footer::LEN;
/// Largest upload: 32 TiB of data and the footer.
const MAX_UPLOAD: u64 = 32 * 1024 * GIB + footer::LEN;
/// Largest disk in GiB.
const MAX_SIZE_GIB: u64 = 65_536;

/// Members of `properties` that a client may set and that GET shows again.
const KEPT: [&str; 16] = [
    "osType",
    "hyperVGeneration",
    "purchasePlan",
    "supportedCapabilities",
    "encryption",
    "encryptionSettingsCollection",
    "securityProfile",
    "networkAccessPolicy",
    "diskAccessId",
    "publicNetworkAccess",
    "dataAccessAuthMode",
    "burstingEnabled",
    "maxShares",
    "tier",
    "optimizedForFrequentAttach",
    "diskIOPSReadWrite",
];

impl World {
    /// PUT of a disk: the disk in its new form, and whether it is new.
    pub(crate) fn put_disk(&mut self, id: ResourceId, body: &Body<'_>) -> Result<Value, ArmError> {
        check_name(&id.name, &['.'])?;
        let location = body.location()?;
        if let Some(existing) = self.volumes.get(&id.key()) {
            return self.replace_disk(existing.id.key(), &location, body);
        }
        let creation = body.object("properties.creationData")?.clone();
        let option = body.text("properties.creationData.createOption")?;
        let asked = body.number("properties.diskSizeGB")?;
        let asked = match asked {
            Some(size) if (1..=MAX_SIZE_GIB).contains(&size) => Some(size * GIB),
            Some(size) => {
                return Err(ArmError::invalid(
                    "disk.diskSizeGB",
                    format!(
                        "The value {size} of parameter disk.diskSizeGB is out of range: 1..={MAX_SIZE_GIB}."
                    ),
                ));
            }
            None => None,
        };
        let mut creation_out = creation.clone();
        let mut inherited = Map::new();
        let (content, upload) = match option {
            "Empty" => {
                let size = asked.ok_or_else(|| missing("disk.diskSizeGB"))?;
                (Content::new(size), Upload::None)
            }
            "Upload" => {
                let size = body
                    .number("properties.creationData.uploadSizeBytes")?
                    .ok_or_else(|| missing("disk.creationData.uploadSizeBytes"))?;
                if asked.is_some() {
                    return Err(ArmError::invalid(
                        "disk.diskSizeGB",
                        "Parameter disk.diskSizeGB is not allowed with createOption Upload.",
                    ));
                }
                if !(MIN_UPLOAD..=MAX_UPLOAD).contains(&size)
                    || !(size - footer::LEN).is_multiple_of(MIB)
                {
                    return Err(ArmError::invalid(
                        "disk.creationData.uploadSizeBytes",
                        format!(
                            "The value {size} of parameter disk.creationData.uploadSizeBytes is invalid: it must be a multiple of 1 MiB plus the 512 bytes of the VHD footer, in {MIN_UPLOAD}..={MAX_UPLOAD}."
                        ),
                    ));
                }
                match body.number("properties.creationData.logicalSectorSize")? {
                    None | Some(512) => {}
                    Some(sector) => {
                        return Err(ArmError::unmodelled(format!(
                            "upload to a disk with logicalSectorSize {sector}"
                        )));
                    }
                }
                (Content::new(size), Upload::Ready)
            }
            "Copy" => {
                let source = body.text("properties.creationData.sourceResourceId")?;
                let source = self.source(source)?;
                if source.owner().is_some() && !source.is_snapshot() {
                    return Err(ArmError::not_allowed(format!(
                        "Disk '{}' is attached; copy a snapshot of it.",
                        source.id.name
                    )));
                }
                let size = asked.unwrap_or(source.size());
                if size < source.size() {
                    return Err(ArmError::invalid(
                        "disk.diskSizeGB",
                        "Disks or snapshot cannot be resized down.",
                    ));
                }
                creation_out.insert("sourceUniqueId".to_owned(), json!(source.unique_id));
                inherited = source.extra.clone();
                let mut content = source.content.clone();
                content.resize(size);
                (content, Upload::None)
            }
            other => {
                return Err(ArmError::unmodelled(format!(
                    "disk with createOption {other}"
                )));
            }
        };
        let mut extra = inherited;
        extra.retain(|name, _| KEPT.contains(&name.as_str()) && name != "networkAccessPolicy");
        extra.extend(kept(body)?);
        let key = id.key();
        let volume = Volume {
            id,
            location,
            tags: body.tags()?,
            zones: body.zones()?,
            sku: body
                .optional_text("sku.name")?
                .unwrap_or("Standard_LRS")
                .to_owned(),
            creation: creation_out,
            extra,
            unique_id: uuid::Uuid::new_v4().to_string(),
            created: self.now,
            provisioning: "Updating",
            content,
            role: Role::Disk {
                owner: None,
                upload,
            },
            grant: None,
            uploaded_footer: None,
        };
        let shown = accepted(&volume.id, body)?;
        self.volumes.insert(key, volume);
        Ok(shown)
    }

    /// PUT of a disk that exists: the same again, or a larger size, or other tags.
    fn replace_disk(
        &mut self,
        key: String,
        location: &str,
        body: &Body<'_>,
    ) -> Result<Value, ArmError> {
        let asked = body.number("properties.diskSizeGB")?.map(|size| size * GIB);
        let option = body.text("properties.creationData.createOption")?;
        let upload_size = body.number("properties.creationData.uploadSizeBytes")?;
        let (tags, extra) = (body.tags()?, kept(body)?);
        let Some(volume) = self.volumes.get_mut(&key) else {
            return Err(ArmError::unmodelled("disk vanished while it was replaced"));
        };
        let same = |name: &str, wanted: Option<Value>| {
            wanted.is_none_or(|wanted| volume.creation.get(name) == Some(&wanted))
        };
        if !volume.location.eq_ignore_ascii_case(location) {
            return Err(ArmError::new(
                409,
                "InvalidResourceLocation",
                format!(
                    "The resource '{}' already exists in location '{}'. A resource with the same name cannot be created in location '{location}'.",
                    volume.id.name, volume.location
                ),
            ));
        }
        if !same("createOption", Some(json!(option)))
            || !same("uploadSizeBytes", upload_size.map(|size| json!(size)))
        {
            return Err(ArmError::new(
                409,
                "PropertyChangeNotAllowed",
                "Changing property 'creationData' is not allowed for existing disk.",
            ));
        }
        if let Some(size) = asked {
            grow(volume, size)?;
        }
        volume.tags = tags;
        volume.extra.extend(extra);
        volume.provisioning = "Updating";
        accepted(&volume.id, body)
    }

    /// PATCH of a disk or snapshot: tags, SKU, size and what is kept.
    pub(crate) fn patch_volume(&mut self, key: &str, body: &Body<'_>) -> Result<Value, ArmError> {
        let size = body.number("properties.diskSizeGB")?.map(|size| size * GIB);
        let sku = body.optional_text("sku.name")?.map(str::to_owned);
        let tags = body.has("tags").then(|| body.tags()).transpose()?;
        let extra = kept(body)?;
        let Some(volume) = self.volumes.get_mut(key) else {
            return Err(ArmError::unmodelled("PATCH of a resource that vanished"));
        };
        if let Some(size) = size {
            if volume.is_snapshot() {
                return Err(ArmError::unmodelled("PATCH diskSizeGB of a snapshot"));
            }
            grow(volume, size)?;
        }
        if let Some(sku) = sku {
            volume.sku = sku;
        }
        if let Some(tags) = tags {
            volume.tags = tags;
        }
        volume.extra.extend(extra);
        volume.provisioning = "Updating";
        let volume = &self.volumes[key];
        Ok(self.show_volume(volume, Form::Accepted))
    }

    /// Whether a disk or snapshot may be deleted now.
    pub(crate) fn check_delete(&self, key: &str) -> Result<(), ArmError> {
        let Some(volume) = self.volumes.get(key) else {
            return Ok(());
        };
        let name = &volume.id.name;
        if let Some(vm) = volume.owner().and_then(|vm| self.vms.get(vm)) {
            return Err(ArmError::not_allowed(format!(
                "Disk {name} is attached to VM {}.",
                vm.id
            )));
        }
        let state = self.disk_state(volume);
        if matches!(state, "ActiveSAS" | "ActiveUpload") {
            return Err(ArmError::not_allowed(format!(
                "'{name}' cannot be deleted in state {state}: call EndGetAccess first."
            )));
        }
        if let Some(operation) = self.running_on(key) {
            return Err(ArmError::new(
                409,
                "AnotherOperationInProgress",
                format!(
                    "'{name}' cannot be deleted while {} is in progress.",
                    operation.name
                ),
            ));
        }
        Ok(())
    }

    /// The disk or snapshot that `sourceResourceId` names.
    pub(crate) fn source(&self, text: &str) -> Result<&Volume, ArmError> {
        let id = ResourceId::parse(text)
            .filter(|id| matches!(id.kind, Kind::Disk | Kind::Snapshot))
            .ok_or_else(|| {
                ArmError::invalid(
                    "creationData.sourceResourceId",
                    format!("The value '{text}' of parameter sourceResourceId is invalid."),
                )
            })?;
        let volume = self.volumes.get(&id.key()).ok_or_else(|| {
            ArmError::new(404, "NotFound", format!("Resource '{text}' was not found."))
        })?;
        let uploading = matches!(
            volume.role,
            Role::Disk {
                upload: Upload::Ready | Upload::Active,
                ..
            }
        );
        if uploading || volume.provisioning == "Failed" {
            return Err(ArmError::not_allowed(format!(
                "'{}' cannot be copied in state {}.",
                volume.id.name,
                self.disk_state(volume)
            )));
        }
        Ok(volume)
    }
}

pub(super) fn grow(volume: &mut Volume, size: u64) -> Result<(), ArmError> {
    if size < volume.size() {
        return Err(ArmError::invalid(
            "disk.diskSizeGB",
            "Disks or snapshot cannot be resized down.",
        ));
    }
    if size > volume.size() {
        volume.content.resize(size);
    }
    Ok(())
}

/// The members of `properties` that are shown again as given.
pub(super) fn kept(body: &Body<'_>) -> Result<Map<String, Value>, ArmError> {
    let mut out = Map::new();
    if body.has("properties") {
        for (name, value) in body.object("properties")? {
            if KEPT.contains(&name.as_str()) || name == "diskMBpsReadWrite" {
                out.insert(name.clone(), value.clone());
            }
        }
    }
    Ok(out)
}

/// Names of disks and snapshots: up to 80 letters, digits, underscores, hyphens, and for disks periods.
pub(super) fn check_name(name: &str, also: &[char]) -> Result<(), ArmError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-' || also.contains(&c);
    if (1..=80).contains(&name.len()) && name.chars().all(valid) {
        return Ok(());
    }
    Err(ArmError::invalid(
        "name",
        format!(
            "The name '{name}' is invalid: it must have 1 to 80 characters out of letters, digits, '_' and '-'."
        ),
    ))
}

fn missing(parameter: &'static str) -> ArmError {
    ArmError::invalid(
        parameter,
        format!("Required parameter '{parameter}' is missing (null)."),
    )
}
