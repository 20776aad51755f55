//! Creating incremental snapshots.
use super::{
    World,
    disk::{check_name, kept},
    resource_id::ResourceId,
    volume::{Role, Volume, accepted},
};
use crate::arm::{body::Body, error::ArmError};
use serde_json::{Value, json};
use std::time::Duration;

/// Incremental snapshots of one disk at a time ("Create an incremental snapshot for managed disks").
const MAX_PER_DISK: usize = 500;
/// Incremental snapshots of one disk in [`RATE_WINDOW`] (same source).
const MAX_RATE: usize = 7;
const RATE_WINDOW: Duration = Duration::from_secs(300);

impl World {
    /// PUT of a snapshot. It holds what its disk held at this moment.
    pub(crate) fn put_snapshot(
        &mut self,
        id: ResourceId,
        body: &Body<'_>,
    ) -> Result<Value, ArmError> {
        check_name(&id.name, &[])?;
        let location = body.location()?;
        let option = body.text("properties.creationData.createOption")?;
        if option != "Copy" {
            return Err(ArmError::unmodelled(format!(
                "snapshot with createOption {option}"
            )));
        }
        let source_id = body.text("properties.creationData.sourceResourceId")?;
        if !body.flag("properties.incremental")?.unwrap_or(false) {
            return Err(ArmError::unmodelled("snapshot that is not incremental"));
        }
        if body.has("properties.creationData.instantAccessDurationMinutes") {
            return Err(ArmError::unmodelled(
                "snapshot with instantAccessDurationMinutes",
            ));
        }
        let key = id.key();
        if let Some(existing) = self.volumes.get(&key) {
            let of = existing
                .creation
                .get("sourceResourceId")
                .and_then(Value::as_str);
            if !of.is_some_and(|of| of.eq_ignore_ascii_case(source_id)) {
                return Err(ArmError::new(
                    409,
                    "PropertyChangeNotAllowed",
                    "Changing property 'creationData.sourceResourceId' is not allowed for existing snapshot.",
                ));
            }
            let tags = body.tags()?;
            if let Some(existing) = self.volumes.get_mut(&key) {
                existing.tags = tags;
                existing.provisioning = "Updating";
            }
            return accepted(&id, body);
        }
        let source = self.source(source_id)?;
        if source.is_snapshot() {
            return Err(ArmError::unmodelled("snapshot of a snapshot"));
        }
        if !source
            .id
            .subscription
            .eq_ignore_ascii_case(&id.subscription)
        {
            return Err(ArmError::invalid(
                "creationData.sourceResourceId",
                "An incremental snapshot must be in the subscription of its disk.",
            ));
        }
        if !source.location.eq_ignore_ascii_case(&location) {
            return Err(ArmError::invalid(
                "creationData.sourceResourceId",
                format!(
                    "The source is in location '{}', the snapshot in '{location}'; use createOption CopyStart.",
                    source.location
                ),
            ));
        }
        let volume = self.snapshot_of(source, id, &location)?;
        let volume = Volume {
            tags: body.tags()?,
            sku: body
                .optional_text("sku.name")?
                .unwrap_or(&volume.sku)
                .to_owned(),
            extra: volume.extra.into_iter().chain(kept(body)?).collect(),
            ..volume
        };
        let shown = accepted(&volume.id, body)?;
        self.volumes.insert(key, volume);
        Ok(shown)
    }

    /// A snapshot of what `source` holds now.
    pub(crate) fn snapshot_of(
        &self,
        source: &Volume,
        id: ResourceId,
        location: &str,
    ) -> Result<Volume, ArmError> {
        // The disk's unique id names the family well enough: both are opaque, and a re-created disk has another.
        let family = source.unique_id.clone();
        let siblings: Vec<&Volume> = self
            .volumes
            .values()
            .filter(|volume| matches!(&volume.role, Role::Snapshot { family: same, .. } if *same == family))
            .collect();
        if siblings.len() >= MAX_PER_DISK {
            return Err(ArmError::not_allowed(format!(
                "Disk '{}' already has {MAX_PER_DISK} incremental snapshots.",
                source.id.name
            )));
        }
        let recent = siblings
            .iter()
            .filter(|volume| volume.created + RATE_WINDOW > self.now);
        if self.settings.enforce_snapshot_rate && recent.count() >= MAX_RATE {
            return Err(ArmError::new(
                429,
                "TooManyRequests",
                format!(
                    "At most {MAX_RATE} incremental snapshots of a disk can be created within five minutes."
                ),
            ));
        }
        let mut extra = source.extra.clone();
        extra.retain(|name, _| {
            matches!(
                name.as_str(),
                "osType"
                    | "hyperVGeneration"
                    | "purchasePlan"
                    | "supportedCapabilities"
                    | "encryption"
                    | "securityProfile"
            )
        });
        let mut creation = serde_json::Map::new();
        creation.insert("createOption".to_owned(), json!("Copy"));
        creation.insert("sourceResourceId".to_owned(), json!(source.id.to_string()));
        creation.insert("sourceUniqueId".to_owned(), json!(source.unique_id));
        if let Some(sector) = source.creation.get("logicalSectorSize") {
            creation.insert("logicalSectorSize".to_owned(), sector.clone());
        }
        Ok(Volume {
            id,
            location: location.to_owned(),
            tags: serde_json::Map::new(),
            zones: Vec::new(),
            sku: "Standard_ZRS".to_owned(),
            creation,
            extra,
            unique_id: uuid::Uuid::new_v4().to_string(),
            created: self.now,
            provisioning: "Updating",
            content: source.content.clone(),
            role: Role::Snapshot {
                incremental: true,
                family,
                completion: self.settings.background_copy_step.map(|_| 0.0),
            },
            grant: None,
            uploaded_footer: None,
        })
    }
}
