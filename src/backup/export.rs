//! What Azure knows about one VM: read once, checked for what cannot be saved, and kept exactly as it came.

use futures_util::future::try_join_all;
use serde_json::Value;

use super::image::PlannedImage;
use super::select::Candidate;
use super::snapshot_set::OpenSnapshot;
use super::tags::SNAPSHOT_NAME_LEN;
use super::{Error, Run, extensions};
use crate::azure::{Azure, ResourceId};
use crate::document::{Document, FORMAT, ImageContent, ImageRecord, Slot};
use crate::{catalog, json};

/// A VM's configuration, complete and fit to be saved.
#[derive(Clone, Debug)]
pub(super) struct Export {
    pub(super) virtual_machine: Value,
    pub(super) network_interfaces: Vec<Value>,
    /// OS disk first, then the data disks in LUN order.
    pub(super) disks: Vec<Disk>,
}

/// A managed disk of the VM.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) id: ResourceId,
    pub(super) slot: Slot,
    /// `properties.uniqueId`: the identity that a chain follows.
    pub(super) unique_id: String,
    /// `properties.diskSizeBytes`.
    pub(super) size: u64,
    pub(super) sector_size: u32,
    pub(super) resource: Value,
}

impl Disk {
    pub(super) fn name(&self) -> &str {
        self.id.name()
    }

    /// `disk data-01 (LUN 3)`.
    pub(super) fn label(&self) -> String {
        format!("disk {} ({})", self.name(), self.slot)
    }

    pub(super) fn sku(&self) -> &str {
        json::text(&self.resource, "/sku/name").unwrap_or_default()
    }

    /// What the document says about the disk, but for its snapshot: of that only the lengths are right.
    fn record(&self, epoch: u64, position: usize) -> ImageRecord {
        ImageRecord {
            file: catalog::image_file(epoch, position.checked_sub(1)),
            slot: self.slot,
            disk_unique_id: self.unique_id.clone(),
            size_bytes: self.size,
            sector_size: self.sector_size,
            data_bytes: self.size,
            content: ImageContent::Full,
            snapshot: "x".repeat(SNAPSHOT_NAME_LEN),
            snapshot_time: "2026-11-23T09:05:00.0000000+00:00".to_owned(),
            disk: self.resource.clone(),
        }
    }

    fn from_resource(id: ResourceId, slot: Slot, resource: Value) -> Result<Self, Error> {
        let refuse = |reason: String| {
            Err(Error::Unsavable {
                what: format!("disk {} ({slot})", id.name()),
                reason,
            })
        };
        let Some(unique_id) = json::text(&resource, "/properties/uniqueId") else {
            return refuse("Azure gives no properties.uniqueId for it".into());
        };
        let Some(size) = json::integer(&resource, "/properties/diskSizeBytes") else {
            return refuse("Azure gives no properties.diskSizeBytes for it".into());
        };
        if size == 0 || !size.is_multiple_of(512) {
            return refuse(format!("its size of {size} bytes is not a multiple of 512"));
        }
        let sector_size = json::integer(&resource, "/properties/creationData/logicalSectorSize");
        match sector_size {
            None | Some(512) => {}
            Some(other) => {
                return refuse(format!(
                    "it has sectors of {other} bytes; Azure exports such disks as VHDX, which cannot be saved, only \
                     disks with 512-byte sectors can"
                ));
            }
        }
        if let Some(kind) = json::text(&resource, "/properties/securityProfile/securityType")
            && !matches!(kind, "Standard" | "TrustedLaunch")
        {
            return refuse(format!(
                "its security type is {kind}; the guest state of confidential machines cannot be saved"
            ));
        }
        Ok(Self {
            unique_id: unique_id.to_owned(),
            size,
            sector_size: 512,
            id,
            slot,
            resource,
        })
    }
}

/// Reads VM, network interfaces and disks.
///
/// # Errors
///
/// Azure's refusal; [`Error::Unsavable`] with the reason.
pub(super) async fn read(azure: &Azure, candidate: &Candidate) -> Result<Export, Error> {
    let name = &candidate.name;
    let mut virtual_machine = azure
        .virtual_machine_with_instance_view(&candidate.id)
        .await
        .map_err(|source| Error::azure(format!("read virtual machine {name}"), source))?;
    extensions::reduce(&mut virtual_machine);
    let attached = attached_disks(name, &virtual_machine)?;
    let nics = network_interface_ids(name, &virtual_machine)?;
    let (disks, network_interfaces) = futures_util::try_join!(
        try_join_all(attached.into_iter().map(|(slot, id)| async move {
            let resource = azure.disk(&id).await.map_err(|source| {
                Error::azure(format!("read disk {} ({slot})", id.name()), source)
            })?;
            Disk::from_resource(id, slot, resource)
        })),
        try_join_all(nics.into_iter().map(|id| async move {
            azure.network_interface(&id).await.map_err(|source| {
                Error::azure(format!("read network interface {}", id.name()), source)
            })
        })),
    )?;
    Ok(Export {
        virtual_machine,
        network_interfaces,
        disks,
    })
}

impl Export {
    /// The configuration document of the run. `snapshots` are those of [`Export::disks`], in the same order.
    pub(super) fn document(
        &self,
        candidate: &Candidate,
        run: &Run,
        epoch: u64,
        snapshots: &[OpenSnapshot],
        planned: &[PlannedImage],
    ) -> Document {
        let images = snapshots
            .iter()
            .zip(planned)
            .enumerate()
            .map(|(position, (saved, planned))| ImageRecord {
                data_bytes: planned.account.planned,
                content: planned.content.clone(),
                snapshot: saved.id.name().to_owned(),
                snapshot_time: saved.created.clone(),
                ..saved.disk.record(epoch, position)
            })
            .collect();
        self.document_of(candidate, run, epoch, images)
    }

    /// How long the document of a run would be, in bytes, before there are snapshots: the ranges that a disk has cleared
    /// since its base come on top.
    pub(super) fn document_size(&self, candidate: &Candidate, run: &Run, epoch: u64) -> u64 {
        let images = self.disks.iter().enumerate();
        let images = images.map(|(position, disk)| disk.record(epoch, position));
        let document = self.document_of(candidate, run, epoch, images.collect());
        document.to_bytes().map_or(0, |bytes| bytes.len() as u64)
    }

    fn document_of(
        &self,
        candidate: &Candidate,
        run: &Run,
        epoch: u64,
        images: Vec<ImageRecord>,
    ) -> Document {
        Document {
            format: FORMAT,
            creator: format!("azure-vm-fd {}", env!("CARGO_PKG_VERSION")),
            job: run.job.clone(),
            level: run.level.as_str().to_owned(),
            epoch,
            vm_uuid: candidate.uuid.clone(),
            vm_name: candidate.name.clone(),
            virtual_machine: self.virtual_machine.clone(),
            network_interfaces: self.network_interfaces.clone(),
            images,
        }
    }
}

/// The managed disks of a VM, OS disk first, then data disks in LUN order.
fn attached_disks(name: &str, vm: &Value) -> Result<Vec<(Slot, ResourceId)>, Error> {
    let refuse = |reason: String| Error::Unsavable {
        what: format!("virtual machine {name}"),
        reason,
    };
    let os = vm
        .pointer("/properties/storageProfile/osDisk")
        .ok_or_else(|| refuse("Azure gives no OS disk for it".into()))?;
    if json::text(os, "/diffDiskSettings/option").is_some() {
        return Err(refuse(
            "its OS disk is ephemeral: it lives on the host and has no snapshots".into(),
        ));
    }
    let managed = |slot: Slot, disk: &Value| {
        json::text(disk, "/managedDisk/id")
            .and_then(ResourceId::parse)
            .map(|id| (slot, id))
            .ok_or_else(|| {
                let disk_name = json::text(disk, "/name").unwrap_or_default();
                refuse(if json::text(disk, "/vhd/uri").is_some() {
                    format!(
                        "its disk {disk_name} ({slot}) is unmanaged, a page blob in a storage account; convert the \
                         virtual machine to managed disks"
                    )
                } else {
                    format!("Azure names no managed disk behind its disk {disk_name} ({slot})")
                })
            })
    };

    let mut data = Vec::new();
    for disk in json::elements(vm, "/properties/storageProfile/dataDisks") {
        let lun = json::integer(disk, "/lun")
            .and_then(|lun| u32::try_from(lun).ok())
            .ok_or_else(|| refuse("Azure gives a data disk without a LUN".into()))?;
        data.push(managed(Slot::Data(lun), disk)?);
    }
    data.sort_by_key(|&(slot, _)| slot);
    if let Some(pair) = data.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(refuse(format!(
            "Azure gives two data disks on {}",
            pair[0].0
        )));
    }
    let mut disks = vec![managed(Slot::Os, os)?];
    disks.append(&mut data);
    Ok(disks)
}

fn network_interface_ids(name: &str, vm: &Value) -> Result<Vec<ResourceId>, Error> {
    json::elements(vm, "/properties/networkProfile/networkInterfaces")
        .iter()
        .map(|nic| {
            json::text(nic, "/id")
                .and_then(ResourceId::parse)
                .ok_or_else(|| Error::Unsavable {
                    what: format!("virtual machine {name}"),
                    reason: "Azure gives a network interface without a usable id".into(),
                })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn disk_id(name: &str) -> String {
        format!("/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/disks/{name}")
    }

    fn vm(os: Value, data: Value) -> Value {
        json!({ "properties": { "storageProfile": { "osDisk": os, "dataDisks": data } } })
    }

    #[test]
    fn disks_come_in_lun_order() {
        let vm = vm(
            json!({ "managedDisk": { "id": disk_id("os") } }),
            json!([
                { "lun": 5, "managedDisk": { "id": disk_id("five") } },
                { "lun": 0, "managedDisk": { "id": disk_id("zero") } },
            ]),
        );
        let disks: Vec<_> = attached_disks("v", &vm)
            .unwrap()
            .into_iter()
            .map(|(slot, id)| (slot, id.name().to_owned()))
            .collect();
        assert_eq!(
            disks,
            [
                (Slot::Os, "os".to_owned()),
                (Slot::Data(0), "zero".to_owned()),
                (Slot::Data(5), "five".to_owned())
            ]
        );
    }

    #[test]
    fn what_cannot_be_saved_is_refused_with_its_reason() {
        let managed = json!({ "managedDisk": { "id": disk_id("os") } });
        let cases = [
            (
                json!({ "diffDiskSettings": { "option": "Local" }, "managedDisk": { "id": disk_id("os") } }),
                json!([]),
                "ephemeral",
            ),
            (
                json!({ "name": "o", "vhd": { "uri": "https://x/vhds/o.vhd" } }),
                json!([]),
                "unmanaged",
            ),
            (json!({ "name": "o" }), json!([]), "no managed disk"),
            (
                managed.clone(),
                json!([{ "managedDisk": { "id": disk_id("d") } }]),
                "without a LUN",
            ),
            (
                managed,
                json!([{ "lun": 1, "managedDisk": { "id": disk_id("d") } }, { "lun": 1, "managedDisk": { "id": disk_id("e") } }]),
                "two data disks on LUN 1",
            ),
        ];
        for (os, data, reason) in cases {
            let error = attached_disks("v", &vm(os, data)).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn disks_of_unknown_shape_are_refused() {
        let id = || ResourceId::parse(&disk_id("d")).unwrap();
        let good = json!({ "properties": { "uniqueId": "u", "diskSizeBytes": 1_073_741_824u64 } });
        let disk = Disk::from_resource(id(), Slot::Os, good.clone()).unwrap();
        assert_eq!((disk.size, disk.sector_size), (1 << 30, 512));
        for (member, value, reason) in [
            ("uniqueId", Value::Null, "uniqueId"),
            ("diskSizeBytes", Value::Null, "diskSizeBytes"),
            ("diskSizeBytes", json!(1000), "multiple of 512"),
            ("creationData", json!({ "logicalSectorSize": 4096 }), "4096"),
            (
                "securityProfile",
                json!({ "securityType": "ConfidentialVM_VMGuestStateOnlyEncryptedWithPlatformKey" }),
                "confidential",
            ),
        ] {
            let mut bad = good.clone();
            bad["properties"][member] = value;
            let error = Disk::from_resource(id(), Slot::Os, bad)
                .unwrap_err()
                .to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
