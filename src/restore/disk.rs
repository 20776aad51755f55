//! One disk of the new VM: made empty, filled through a grant, closed, checked.

use std::fs::File;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::plan::NewDisk;
use super::upload::{RawImage, upload_image};
use crate::azure::{Access, Azure, MAX_DURATION, PageBlob};
use crate::document::{ImageRecord, Slot};
use crate::json;
use crate::notice::{Notices, with_causes};
use crate::pipeline::Limits;
use crate::quantity::{ByteSize, Rate};
use crate::vhd;

/// As long as Azure allows: access for writing cannot be renewed, since giving it back ends the upload. (Disks of many TiB on
/// a slow line take days.)
pub(super) const ACCESS_DURATION: Duration = MAX_DURATION;

const PROGRESS_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// Members of a saved disk's `properties` that are settings, not read-backs, and can be given at creation. The new disk
/// is made in another way than the saved one, so this is a list of what to take, not of what to leave.
const SETTINGS: [&str; 9] = [
    "osType",
    "hyperVGeneration",
    "purchasePlan",
    "supportedCapabilities",
    "encryption",
    "encryptionSettingsCollection",
    "maxShares",
    "supportsHibernation",
    "optimizedForFrequentAttach",
];

/// `<vm>-osdisk-<suffix>` or `<vm>-data<lun>-<suffix>`: at most 80 characters, as a VM's name has at most 64.
pub(super) fn name(vm: &str, slot: Slot, suffix: &str) -> String {
    match slot {
        Slot::Os => format!("{vm}-os-{suffix}"),
        Slot::Data(lun) => format!("{vm}-d{lun}-{suffix}"),
    }
}

/// The body of an empty disk like the saved one, ready to be uploaded.
///
/// # Errors
///
/// A disk that cannot be made by upload.
pub(super) fn body(record: &ImageRecord, notes: &mut Vec<String>) -> Result<Value, Error> {
    let saved = &record.disk;
    let what = || {
        format!(
            "disk {} ({})",
            json::text(saved, "/name").unwrap_or("(unnamed)"),
            record.slot
        )
    };
    let mut properties = Map::new();
    properties.insert(
        "creationData".into(),
        json!({
            "createOption": "Upload",
            "uploadSizeBytes": record.size_bytes + vhd::FOOTER_LEN,
        }),
    );
    for member in SETTINGS {
        if let Some(value) = saved.pointer(&format!("/properties/{member}"))
            && !value.is_null()
        {
            properties.insert(member.into(), value.clone());
        }
    }
    network_access(saved, &what(), &mut properties, notes);
    match json::text(saved, "/properties/securityProfile/securityType") {
        None | Some("Standard") => {}
        Some("TrustedLaunch") => {
            properties.insert(
                "securityProfile".into(),
                json!({ "securityType": "TrustedLaunch" }),
            );
            notes.push(format!(
                "{}: the state of the virtual TPM is not saved; the new machine starts with a fresh one",
                what()
            ));
        }
        Some(other) => {
            return Err(Error::Unsupported {
                what: what(),
                reason: format!("its security type {other} needs guest state that is not saved"),
            });
        }
    }
    // Only these kinds are provisioned; of the others the figures follow from size and tier.
    let sku = json::text(saved, "/sku/name").unwrap_or_default();
    if matches!(sku, "UltraSSD_LRS" | "PremiumV2_LRS") {
        for member in [
            "diskIOPSReadWrite",
            "diskMBpsReadWrite",
            "diskIOPSReadOnly",
            "diskMBpsReadOnly",
        ] {
            if let Some(value) = saved.pointer(&format!("/properties/{member}")) {
                properties.insert(member.into(), value.clone());
            }
        }
        properties["creationData"]["logicalSectorSize"] = record.sector_size.into();
    } else if sku.starts_with("Premium_") {
        if let Some(tier) = saved.pointer("/properties/tier") {
            properties.insert("tier".into(), tier.clone());
        }
        if json::is_true(saved, "/properties/burstingEnabled") {
            properties.insert("burstingEnabled".into(), true.into());
        }
    }
    let mut body = json!({ "properties": properties });
    for member in ["location", "extendedLocation", "zones", "tags"] {
        if let Some(value) = saved.get(member) {
            body[member] = value.clone();
        }
    }
    if !sku.is_empty() {
        body["sku"] = json!({ "name": sku });
    }
    Ok(body)
}

/// Who may reach the disk's bytes. A disk that nobody may reach could not be uploaded either ("Restrict managed disks
/// from being imported or exported"), nor one that asks for more than a SAS, so these settings are left to the user;
/// private endpoints are kept.
fn network_access(
    saved: &Value,
    what: &str,
    properties: &mut Map<String, Value>,
    notes: &mut Vec<String>,
) {
    let setting = |member: &str| saved.pointer(&format!("/properties/{member}"));
    let policy = setting("networkAccessPolicy").and_then(Value::as_str);
    let is_private = policy == Some("AllowPrivate");
    for member in ["networkAccessPolicy", "diskAccessId", "publicNetworkAccess"] {
        let Some(value) = setting(member).filter(|value| !value.is_null()) else {
            continue;
        };
        let closes = matches!(value.as_str(), Some("DenyAll" | "Disabled"));
        if is_private || !closes {
            properties.insert(member.into(), value.clone());
        } else {
            notes.push(format!(
                "{what}: {member} is not set to {} on the new disk, which could not be uploaded then; set it yourself",
                value.as_str().unwrap_or_default()
            ));
        }
    }
    if json::text(saved, "/properties/dataAccessAuthMode") == Some("AzureActiveDirectory") {
        notes.push(format!(
            "{what}: dataAccessAuthMode is not set to AzureActiveDirectory on the new disk, which is uploaded by its SAS \
             alone; set it yourself"
        ));
    }
}

/// Makes the disk and fills it with `image`; `stop` ends the transfer early. Access is given back in every outcome; the
/// disk itself is the caller's to delete after a failure.
///
/// # Errors
///
/// Azure's refusal, a local file that cannot be read, a disk that is not what it should be.
pub(super) async fn upload(
    azure: &Azure,
    disk: &NewDisk,
    image: File,
    limits: Limits,
    stop: &CancellationToken,
    notices: &Notices,
) -> Result<(), Error> {
    azure
        .create_upload_disk(&disk.id, &disk.body)
        .await
        .map_err(|source| Error::azure(format!("create {}", disk.label()), source))?;
    let grant = azure
        .grant(&disk.id, Access::Write, ACCESS_DURATION)
        .await
        .map_err(|source| Error::azure(format!("open {} for upload", disk.label()), source))?;
    let written = fill(disk, image, grant.page_blob(), limits, stop, notices).await;
    let revoked = grant.revoke().await;
    if written.is_err()
        && let Err(error) = &revoked
    {
        // Azure may refuse to close a disk that was written half. The caller deletes it, and reports if that fails.
        tracing::debug!(
            "close {} after a failed upload: {}",
            disk.label(),
            with_causes(error)
        );
    }
    written?;
    revoked
        .map_err(|source| Error::azure(format!("close {} after upload", disk.label()), source))?;
    check(azure, disk).await
}

async fn fill(
    disk: &NewDisk,
    image: File,
    blob: PageBlob,
    limits: Limits,
    stop: &CancellationToken,
    notices: &Notices,
) -> Result<(), Error> {
    let label = disk.label();
    let image = RawImage {
        file: image,
        path: disk.id.name().into(),
        size: disk.size,
    };
    let started = Instant::now();
    let mut reported = started;
    let stats = upload_image(blob, &label, image, limits, stop, |progress| {
        if reported.elapsed() >= PROGRESS_INTERVAL {
            reported = Instant::now();
            notices.info(format!(
                "{label}: {} uploaded, at {} of {}, {}",
                ByteSize(progress.sent),
                ByteSize(progress.position),
                ByteSize(disk.size),
                Rate::new(progress.sent, started.elapsed())
            ));
        }
    })
    .await?;
    let elapsed = started.elapsed();
    notices.info(format!(
        "{label}: size {}, uploaded {} in {} requests; {:.1} s, {}",
        ByteSize(disk.size),
        ByteSize(stats.bytes),
        stats.requests,
        elapsed.as_secs_f64(),
        Rate::new(stats.bytes, elapsed)
    ));
    Ok(())
}

/// A closed disk has a size of its own and can be attached.
async fn check(azure: &Azure, disk: &NewDisk) -> Result<(), Error> {
    let made = azure
        .disk(&disk.id)
        .await
        .map_err(|source| Error::azure(format!("read {}", disk.label()), source))?;
    let size = json::integer(&made, "/properties/diskSizeBytes");
    let state = json::text(&made, "/properties/diskState").unwrap_or("(none)");
    if size == Some(disk.size) && state.eq_ignore_ascii_case("Unattached") {
        return Ok(());
    }
    let size = size.map_or_else(|| "no size".to_owned(), |size| format!("{size} bytes"));
    Err(Error::Mismatch {
        what: disk.label(),
        reason: format!(
            "after the upload it has {size} and state {state} instead of {} bytes and Unattached",
            disk.size
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::ImageContent;

    fn record(disk: Value) -> ImageRecord {
        ImageRecord {
            file: "7_osdisk".into(),
            slot: Slot::Os,
            disk_unique_id: "u".into(),
            size_bytes: 30 << 30,
            sector_size: 512,
            data_bytes: 0,
            content: ImageContent::Full,
            snapshot: "s".into(),
            snapshot_time: "t".into(),
            disk,
        }
    }

    #[test]
    fn settings_come_back_and_readings_do_not() {
        let saved = json!({
            "id": "i", "name": "old", "location": "westeurope", "zones": ["1"], "tags": { "a": "b" },
            "managedBy": "vm", "sku": { "name": "Premium_LRS", "tier": "Premium" },
            "properties": {
                "osType": "Linux", "hyperVGeneration": "V2", "diskSizeGB": 30, "diskSizeBytes": 30u64 << 30,
                "uniqueId": "u", "diskState": "Attached", "timeCreated": "t", "provisioningState": "Succeeded",
                "creationData": { "createOption": "FromImage", "imageReference": { "id": "x" } },
                "encryption": { "type": "EncryptionAtRestWithCustomerKey", "diskEncryptionSetId": "d" },
                "diskIOPSReadWrite": 120, "diskMBpsReadWrite": 25, "tier": "P4", "burstingEnabled": "true",
                "supportedCapabilities": { "architecture": "x64" }, "networkAccessPolicy": "AllowAll",
            },
        });
        assert_eq!(
            body(&record(saved), &mut Vec::new()).unwrap(),
            json!({
                "location": "westeurope", "zones": ["1"], "tags": { "a": "b" }, "sku": { "name": "Premium_LRS" },
                "properties": {
                    "creationData": { "createOption": "Upload", "uploadSizeBytes": (30u64 << 30) + 512 },
                    "osType": "Linux", "hyperVGeneration": "V2", "supportedCapabilities": { "architecture": "x64" },
                    "encryption": { "type": "EncryptionAtRestWithCustomerKey", "diskEncryptionSetId": "d" },
                    "networkAccessPolicy": "AllowAll", "tier": "P4", "burstingEnabled": true,
                },
            })
        );
    }

    #[test]
    fn provisioned_speed_and_sector_size_are_asked_for_where_they_are_settings() {
        let saved = json!({ "sku": { "name": "PremiumV2_LRS" }, "properties": { "diskIOPSReadWrite": 4000 } });
        let body = body(&record(saved), &mut Vec::new()).unwrap();
        assert_eq!(body["properties"]["diskIOPSReadWrite"], 4000);
        assert_eq!(body["properties"]["creationData"]["logicalSectorSize"], 512);
    }

    #[test]
    fn security_types_are_kept_or_refused() {
        let typed =
            |kind: &str| json!({ "properties": { "securityProfile": { "securityType": kind } } });
        let mut notes = Vec::new();
        let trusted = body(&record(typed("TrustedLaunch")), &mut notes).unwrap();
        assert_eq!(
            trusted["properties"]["securityProfile"]["securityType"],
            "TrustedLaunch"
        );
        assert_eq!(notes.len(), 1);
        assert!(body(&record(typed("ConfidentialVM_NonPersistedTPM")), &mut notes).is_err());
    }

    #[test]
    fn a_disk_that_is_closed_to_everybody_is_opened_for_its_upload() {
        let restored = |properties: Value| {
            let mut notes = Vec::new();
            let body = body(&record(json!({ "properties": properties })), &mut notes).unwrap();
            let set = |member: &str| body["properties"].get(member).is_some();
            (
                set("networkAccessPolicy"),
                set("publicNetworkAccess"),
                notes.len(),
            )
        };
        let access = |policy: &str, public: &str| {
            restored(json!({ "networkAccessPolicy": policy, "publicNetworkAccess": public }))
        };
        assert_eq!(access("DenyAll", "Disabled"), (false, false, 2));
        assert_eq!(access("AllowAll", "Disabled"), (true, false, 1));
        assert_eq!(access("AllowAll", "Enabled"), (true, true, 0));
        assert_eq!(access("AllowPrivate", "Disabled"), (true, true, 0));
    }

    #[test]
    fn names_fit_for_the_longest_vm() {
        assert!(name(&"v".repeat(64), Slot::Data(63), "0123abcd").len() <= 80);
    }
}
