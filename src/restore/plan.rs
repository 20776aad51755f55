//! From the configuration document to the resources of the new VM: pure, so that what cannot work is known before
//! anything is transferred.

use serde_json::{Value, json};

use super::{Error, disk, network};
use crate::azure::generated::compute::VIRTUAL_MACHINE_READ_ONLY;
use crate::azure::{ResourceId, read_only};
use crate::document::{Document, Slot};
use crate::json;

/// Everything that is to be made.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) vm: ResourceId,
    /// Body of the VM, but for the ids of disks and interfaces, which [`Plan::vm_body`] fills in.
    vm_template: Value,
    /// OS disk first, then data disks in LUN order.
    pub(super) disks: Vec<NewDisk>,
    pub(super) nics: Vec<NewNic>,
    /// What the new VM will not have, for the user.
    pub(super) notes: Vec<String>,
}

/// A disk to be uploaded.
#[derive(Clone, Debug)]
pub(super) struct NewDisk {
    pub(super) id: ResourceId,
    pub(super) body: Value,
    pub(super) slot: Slot,
    /// Bytes of the disk, without the footer.
    pub(super) size: u64,
    /// How the VM held the disk: caching and the like.
    attachment: Value,
}

/// A network interface to be made.
#[derive(Clone, Debug)]
pub(super) struct NewNic {
    pub(super) id: ResourceId,
    pub(super) body: Value,
    /// `properties` of the interface's entry in the VM: primary, delete option.
    attachment: Value,
}

impl NewDisk {
    pub(super) fn label(&self) -> String {
        format!("disk {} ({})", self.id.name(), self.slot)
    }
}

impl Plan {
    /// `suffix` makes the names of disks and interfaces unique: creating one that exists would change it.
    ///
    /// # Errors
    ///
    /// What cannot be restored, and why.
    pub(super) fn new(
        document: &Document,
        new_name: Option<&str>,
        subscription: &str,
        suffix: &str,
    ) -> Result<Self, Error> {
        let saved = &document.virtual_machine;
        let name = new_name.unwrap_or(&document.vm_name);
        check_vm_name(name)?;
        let refuse = |reason: String| Error::Unsupported {
            what: format!("virtual machine {}", document.vm_name),
            reason,
        };
        let saved_id = json::text(saved, "/id")
            .and_then(ResourceId::parse)
            .ok_or_else(|| refuse("its configuration has no resource id".into()))?;
        if !saved_id.is_in(subscription) {
            return Err(Error::Elsewhere {
                vm: document.vm_name.clone(),
                saved: saved_id.subscription().to_owned(),
                subscription: subscription.to_owned(),
            });
        }
        if let Some(kind) = json::text(saved, "/properties/securityProfile/securityType")
            && !matches!(kind, "Standard" | "TrustedLaunch")
        {
            return Err(refuse(format!(
                "its security type {kind} needs guest state that is not saved; only Standard and TrustedLaunch can be \
                 restored"
            )));
        }
        let group = saved_id.resource_group();
        let id = |kind: &str, name: &str| ResourceId::new(subscription, group, kind, name);

        let mut notes = Vec::new();
        let mut disks = Vec::new();
        for record in &document.images {
            let disk_name = disk::name(name, record.slot, suffix);
            disks.push(NewDisk {
                id: id("Microsoft.Compute/disks", &disk_name),
                body: disk::body(record, &mut notes)?,
                slot: record.slot,
                size: record.size_bytes,
                attachment: attachment(saved, record.slot).cloned().unwrap_or_default(),
            });
        }

        let attached = json::elements(saved, "/properties/networkProfile/networkInterfaces");
        if document.network_interfaces.is_empty() {
            return Err(refuse(
                "its configuration names no network interface; Azure makes no virtual machine without".into(),
            ));
        }
        let mut nics = Vec::new();
        for (number, nic) in document.network_interfaces.iter().enumerate() {
            let entry = attached.get(number).cloned().unwrap_or_default();
            nics.push(NewNic {
                id: id(
                    "Microsoft.Network/networkInterfaces",
                    &network::name(name, number, suffix),
                ),
                body: network::body(nic, &mut notes),
                attachment: entry.get("properties").cloned().unwrap_or_default(),
            });
        }
        Ok(Self {
            vm: id("Microsoft.Compute/virtualMachines", name),
            vm_template: vm_template(saved, &mut notes),
            disks,
            nics,
            notes,
        })
    }

    /// The body that makes the VM of its disks and interfaces.
    pub(super) fn vm_body(&self) -> Value {
        let mut body = self.vm_template.clone();
        let storage = &mut body["properties"]["storageProfile"];
        let mut data = Vec::new();
        for disk in &self.disks {
            let mut entry = json!({
                "createOption": "Attach",
                "managedDisk": { "id": disk.id.as_str() },
            });
            for member in ["caching", "writeAcceleratorEnabled", "deleteOption"] {
                if let Some(value) = disk.attachment.get(member) {
                    entry[member] = value.clone();
                }
            }
            match disk.slot {
                Slot::Os => {
                    for member in ["osType", "encryptionSettings"] {
                        if let Some(value) = disk.attachment.get(member) {
                            entry[member] = value.clone();
                        }
                    }
                    storage["osDisk"] = entry;
                }
                Slot::Data(lun) => {
                    entry["lun"] = lun.into();
                    data.push(entry);
                }
            }
        }
        storage["dataDisks"] = data.into();
        let nics = self.nics.iter().map(|nic| {
            let mut entry = json!({ "id": nic.id.as_str() });
            if nic.attachment.is_object() {
                entry["properties"] = nic.attachment.clone();
            }
            entry
        });
        body["properties"]["networkProfile"] =
            json!({ "networkInterfaces": nics.collect::<Vec<_>>() });
        body
    }

    /// Compares the VM that Azure made with what was asked for.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] with the first difference.
    pub(super) fn check_vm(&self, vm: &Value) -> Result<(), Error> {
        let wanted = self.vm_body();
        let differ = |what: &str, expected: &str, found: &str| {
            Err(Error::Mismatch {
                what: format!("virtual machine {}", self.vm.name()),
                reason: format!("its {what} is {found} instead of {expected}"),
            })
        };
        for (what, pointer) in [
            ("size", "/properties/hardwareProfile/vmSize"),
            (
                "OS disk",
                "/properties/storageProfile/osDisk/managedDisk/id",
            ),
            ("location", "/location"),
            ("zone", "/zones/0"),
        ] {
            let expected = json::text(&wanted, pointer).unwrap_or("(none)");
            let found = json::text(vm, pointer).unwrap_or("(none)");
            if !expected.eq_ignore_ascii_case(found) {
                return differ(what, expected, found);
            }
        }
        let state = json::text(vm, "/properties/provisioningState").unwrap_or("(none)");
        if !state.eq_ignore_ascii_case("Succeeded") {
            return differ("provisioning state", "Succeeded", state);
        }
        let attached = json::elements(vm, "/properties/storageProfile/dataDisks");
        let data = json::elements(&wanted, "/properties/storageProfile/dataDisks");
        if attached.len() != data.len() {
            let count = |disks: &[Value]| disks.len().to_string();
            return differ("number of data disks", &count(data), &count(attached));
        }
        for disk in data {
            let lun = json::integer(disk, "/lun");
            let expected = json::text(disk, "/managedDisk/id").unwrap_or("(none)");
            let found = attached
                .iter()
                .find(|other| json::integer(other, "/lun") == lun)
                .and_then(|other| json::text(other, "/managedDisk/id"))
                .unwrap_or("(none)");
            if !expected.eq_ignore_ascii_case(found) {
                let what = format!("disk on LUN {}", lun.unwrap_or_default());
                return differ(&what, expected, found);
            }
        }
        Ok(())
    }
}

/// The entry of a disk in the saved VM.
fn attachment(vm: &Value, slot: Slot) -> Option<&Value> {
    match slot {
        Slot::Os => vm.pointer("/properties/storageProfile/osDisk"),
        Slot::Data(lun) => json::elements(vm, "/properties/storageProfile/dataDisks")
            .iter()
            .find(|disk| json::integer(disk, "/lun") == Some(u64::from(lun))),
    }
}

/// The saved VM without what Azure does not take back: what it reports only, and what belongs to the making of a first
/// VM from an image. Members that this release does not know stay.
fn vm_template(saved: &Value, notes: &mut Vec<String>) -> Value {
    let mut body = saved.clone();
    if let Some(extensions) = saved.get("resources").and_then(Value::as_array) {
        let names: Vec<_> = extensions
            .iter()
            .filter_map(|extension| json::text(extension, "/id"))
            .filter_map(|id| id.rsplit('/').next())
            .collect();
        if !names.is_empty() {
            notes.push(format!(
                "extensions are not registered with the new virtual machine, though what they installed is on its \
                 disks: {}",
                names.join(", ")
            ));
        }
    }
    let identity = json::text(saved, "/identity/type").unwrap_or_default();
    if identity.contains("SystemAssigned") {
        notes.push(
            "the new virtual machine has a system-assigned identity of its own: give it the roles of the old one".into(),
        );
    }
    read_only::remove(&mut body, VIRTUAL_MACHINE_READ_ONLY);
    read_only::remove(
        &mut body,
        &[
            // Not allowed where the OS disk is attached: the computer's name and accounts are on it.
            "/properties/osProfile",
            "/properties/storageProfile/imageReference",
            // Rebuilt by `vm_body`.
            "/properties/storageProfile/osDisk",
            "/properties/storageProfile/dataDisks",
            "/properties/networkProfile",
            // Other members of these name what holds the VM, not what the VM asks for.
            "/properties/virtualMachineScaleSet/name",
            "/properties/instanceView",
        ],
    );
    if !body["properties"]["storageProfile"].is_object() {
        body["properties"]["storageProfile"] = json!({});
    }
    body
}

/// "Naming rules and restrictions for Azure resources": 64 characters for Linux (the 15 of Windows bind the computer's
/// name inside), beginning with a letter or digit, not ending in a period or hyphen.
fn check_vm_name(name: &str) -> Result<(), Error> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let good = (1..=64).contains(&name.len())
        && name.chars().all(inner)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !name.ends_with(['.', '-']);
    if good {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: format!("virtual machine under the name {name:?}"),
        reason: "a name has 1 to 64 letters, digits, '-', '.', '_', begins with a letter or digit and does not end \
                 in '.' or '-'; choose another with new_hostname"
            .into(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::from_value;

    use super::*;

    const SUBSCRIPTION: &str = "5b5b5b5b-0000-4000-8000-00000000000b";

    fn id(kind: &str, name: &str) -> String {
        format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/Group/providers/{kind}/{name}")
    }

    fn image(file: &str, slot: Value) -> Value {
        json!({
            "file": file, "slot": slot, "diskUniqueId": "u", "sizeBytes": 1 << 30, "sectorSize": 512,
            "dataBytes": 1 << 20, "content": "full", "snapshot": "s", "snapshotTime": "t",
            "disk": { "name": "saved", "location": "westeurope", "sku": { "name": "Premium_LRS" } },
        })
    }

    fn saved_vm() -> Value {
        let disk = |name: &str| json!({ "id": id("Microsoft.Compute/disks", name), "storageAccountType": "x" });
        let mut vm = json!({
            "id": id("Microsoft.Compute/virtualMachines", "ledger01"), "name": "ledger01", "type": "t",
            "location": "westeurope", "zones": ["2"], "tags": { "a": "b" },
            "plan": { "name": "p" },
            "identity": { "type": "SystemAssigned, UserAssigned", "principalId": "p", "tenantId": "t",
                "userAssignedIdentities": { "/id": { "principalId": "p", "clientId": "c" } } },
            "resources": [{ "id": id("x", "extension-1") }],
        });
        vm["properties"] = json!({
            "vmId": "v", "provisioningState": "Succeeded", "timeCreated": "t", "instanceView": {},
            "hardwareProfile": { "vmSize": "Standard_D2s_v5" },
            "osProfile": { "computerName": "ledger01" },
            "securityProfile": { "securityType": "TrustedLaunch" },
            "licenseType": "l", "futureMember": 1,
        });
        vm["properties"]["storageProfile"] = json!({
            "imageReference": { "id": "i" }, "diskControllerType": "SCSI",
            "osDisk": { "name": "os", "osType": "Linux", "createOption": "FromImage", "caching": "ReadWrite",
                "managedDisk": disk("os"), "deleteOption": "Delete", "diskSizeGB": 30 },
            "dataDisks": [{ "lun": 5, "name": "d", "createOption": "Attach", "caching": "ReadOnly",
                "writeAcceleratorEnabled": true, "managedDisk": disk("d"), "toBeDetached": false }],
        });
        vm["properties"]["networkProfile"] = json!({ "networkInterfaces": [
            { "id": id("Microsoft.Network/networkInterfaces", "n0"), "properties": { "primary": true } },
            { "id": id("Microsoft.Network/networkInterfaces", "n1") },
        ] });
        vm
    }

    fn document() -> Document {
        from_value(json!({
            "format": 1, "creator": "c", "job": "j", "level": "Full", "epoch": 7,
            "vmUuid": "3d1f0c52-7a44-4e0e-9a53-8b1d6c2f9e10", "vmName": "ledger01",
            "networkInterfaces": [{ "name": "n0" }, { "name": "n1" }],
            "images": [image("7_osdisk", json!("os")), image("7_0", json!({ "data": 5 }))],
            "virtualMachine": saved_vm(),
        }))
        .unwrap()
    }

    fn plan(document: &Document) -> Result<Plan, Error> {
        Plan::new(document, Some("copy"), SUBSCRIPTION, "0a1b2c3d")
    }

    #[test]
    fn the_vm_is_built_of_its_new_parts_and_its_old_settings() {
        let plan = plan(&document()).unwrap();
        assert_eq!(
            plan.vm.as_str(),
            id("Microsoft.Compute/virtualMachines", "copy")
        );
        let disk = |name: &str| json!({ "id": id("Microsoft.Compute/disks", name) });
        let nic = |name: &str| id("Microsoft.Network/networkInterfaces", name);
        let body = plan.vm_body();
        let mut top = body.clone();
        top.as_object_mut().unwrap().remove("properties");
        assert_eq!(
            top,
            json!({
                "location": "westeurope", "zones": ["2"], "tags": { "a": "b" }, "plan": { "name": "p" },
                "identity": { "type": "SystemAssigned, UserAssigned", "userAssignedIdentities": { "/id": {} } },
            })
        );
        assert_eq!(
            body["properties"],
            json!({
                    "hardwareProfile": { "vmSize": "Standard_D2s_v5" },
                    "securityProfile": { "securityType": "TrustedLaunch" },
                    "licenseType": "l", "futureMember": 1,
                    "storageProfile": {
                        "diskControllerType": "SCSI",
                        "osDisk": { "createOption": "Attach", "managedDisk": disk("copy-os-0a1b2c3d"),
                            "caching": "ReadWrite", "deleteOption": "Delete", "osType": "Linux" },
                        "dataDisks": [{ "createOption": "Attach", "managedDisk": disk("copy-d5-0a1b2c3d"),
                            "caching": "ReadOnly", "writeAcceleratorEnabled": true, "lun": 5 }],
                    },
                    "networkProfile": { "networkInterfaces": [
                        { "id": nic("copy-nic0-0a1b2c3d"), "properties": { "primary": true } },
                        { "id": nic("copy-nic1-0a1b2c3d") },
                    ] },
            })
        );
        assert!(
            plan.notes.iter().any(|note| note.contains("extension-1")),
            "{:?}",
            plan.notes
        );
        assert!(plan.notes.iter().any(|note| note.contains("identity")));
    }

    #[test]
    fn a_vm_that_differs_is_noticed() {
        let plan = plan(&document()).unwrap();
        let mut made = plan.vm_body();
        made["properties"]["provisioningState"] = "Succeeded".into();
        plan.check_vm(&made).unwrap();
        for (pointer, value) in [
            ("/properties/provisioningState", json!("Failed")),
            ("/properties/hardwareProfile/vmSize", json!("Standard_B1s")),
            ("/properties/storageProfile/dataDisks/0/lun", json!(4)),
            (
                "/properties/storageProfile/dataDisks/0/managedDisk/id",
                json!("other"),
            ),
            ("/properties/storageProfile/dataDisks", json!([])),
            ("/zones/0", json!("1")),
        ] {
            let mut other = made.clone();
            *other.pointer_mut(pointer).unwrap() = value;
            assert!(plan.check_vm(&other).is_err(), "{pointer}");
        }
    }

    #[test]
    fn what_cannot_be_restored_is_refused() {
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut document = document();
            change(&mut document.virtual_machine);
            plan(&document).unwrap_err().to_string()
        };
        let text = refused(&|vm| {
            vm["properties"]["securityProfile"]["securityType"] = "ConfidentialVM".into()
        });
        assert!(text.contains("ConfidentialVM"), "{text}");
        let text = refused(&|vm| vm["id"] = id("x/y", "z").replace(SUBSCRIPTION, "other").into());
        assert!(text.contains("subscription other"), "{text}");
        let text = refused(&|vm| vm["id"] = "nonsense".into());
        assert!(text.contains("resource id"), "{text}");
        let mut without_nic = document();
        without_nic.network_interfaces.clear();
        assert!(plan(&without_nic).is_err());
    }

    #[test]
    fn names_follow_the_rules_of_azure() {
        for good in ["a", "web-01", "Web_01.x", &"v".repeat(64)] {
            check_vm_name(good).unwrap();
        }
        for bad in [
            "",
            "-a",
            "_a",
            "a-",
            "a.",
            "a b",
            "ü",
            "a/b",
            &"v".repeat(65),
        ] {
            assert!(check_vm_name(bad).is_err(), "{bad}");
        }
    }
}
