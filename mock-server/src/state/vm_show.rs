//! Virtual machines as Azure shows them.
use super::{
    World,
    resource_id::Kind,
    vm::{Slot, Vm},
};
use crate::{clock, scenario::PowerState, size::GIB};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

impl World {
    /// The VM as Azure shows it.
    pub(crate) fn show_vm(&self, vm: &Vm, instance_view: bool) -> Value {
        let mut properties = vm.properties.clone();
        properties.insert("vmId".to_owned(), json!(vm.vm_id));
        let mut storage = properties
            .get("storageProfile")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        let mut os_disk = self.show_slot(vm, &vm.os_disk);
        let os_type = self
            .volumes
            .get(&vm.os_disk.disk)
            .and_then(|disk| disk.extra.get("osType"));
        if let Some(os_type) = os_type {
            os_disk.insert("osType".to_owned(), os_type.clone());
        }
        storage.insert("osDisk".to_owned(), Value::Object(os_disk));
        let data_disks: Vec<Value> = vm
            .data_disks
            .iter()
            .map(|(lun, slot)| {
                let mut shown = Map::new();
                shown.insert("lun".to_owned(), json!(lun));
                shown.extend(self.show_slot(vm, slot));
                shown.insert("toBeDetached".to_owned(), json!(false));
                Value::Object(shown)
            })
            .collect();
        storage.insert("dataDisks".to_owned(), json!(data_disks));
        properties.insert("storageProfile".to_owned(), Value::Object(storage));
        let options = nic_options(&vm.properties);
        let nics: Vec<Value> = vm
            .nics
            .iter()
            .enumerate()
            .filter_map(|(at, key)| {
                let nic = self.network.nics.get(key)?;
                let mut shown = Map::new();
                shown.insert("primary".to_owned(), json!(at == 0));
                if let Some(option) = options.get(key) {
                    shown.insert("deleteOption".to_owned(), json!(option));
                }
                Some(json!({ "id": nic.id.to_string(), "properties": shown }))
            })
            .collect();
        properties.insert(
            "networkProfile".to_owned(),
            json!({ "networkInterfaces": nics }),
        );
        properties.insert("provisioningState".to_owned(), json!(vm.provisioning));
        properties.insert("timeCreated".to_owned(), json!(clock::iso(vm.created)));
        if instance_view {
            properties.insert("instanceView".to_owned(), self.instance_view(vm));
        }
        let mut out = Map::new();
        out.insert("name".to_owned(), json!(vm.id.name));
        out.insert("id".to_owned(), json!(vm.id.to_string()));
        out.insert(
            "type".to_owned(),
            json!(Kind::VirtualMachine.resource_type()),
        );
        out.insert("location".to_owned(), json!(vm.location));
        out.insert("tags".to_owned(), Value::Object(vm.tags.clone()));
        out.extend(vm.top.clone());
        out.insert("properties".to_owned(), Value::Object(properties));
        if !vm.zones.is_empty() {
            out.insert("zones".to_owned(), json!(vm.zones));
        }
        Value::Object(out)
    }

    fn show_slot(&self, vm: &Vm, slot: &Slot) -> Map<String, Value> {
        let mut out = Map::new();
        let Some(disk) = self.volumes.get(&slot.disk) else {
            return out;
        };
        // Neither size nor SKU is shown while the VM is deallocated: both may change meanwhile.
        let allocated = vm.power != PowerState::Deallocated;
        let mut managed = Map::new();
        if allocated {
            managed.insert("storageAccountType".to_owned(), json!(disk.sku));
        }
        managed.insert("id".to_owned(), json!(disk.id.to_string()));
        out.insert("name".to_owned(), json!(disk.id.name));
        out.insert("createOption".to_owned(), json!(slot.create_option));
        out.insert("caching".to_owned(), json!(slot.caching));
        out.insert("managedDisk".to_owned(), Value::Object(managed));
        out.insert("deleteOption".to_owned(), json!(slot.delete_option));
        if allocated {
            out.insert("diskSizeGB".to_owned(), json!(disk.size().div_ceil(GIB)));
        }
        out.extend(slot.extra.clone());
        out
    }

    pub(crate) fn instance_view(&self, vm: &Vm) -> Value {
        let time = clock::iso(vm.created);
        let status = |code: &str, display: &str| json!({ "code": code, "level": "Info", "displayStatus": display, "time": time });
        let provisioned = status("ProvisioningState/succeeded", "Provisioning succeeded");
        let power = vm.power.name();
        let disks: Vec<Value> = std::iter::once(&vm.os_disk)
            .chain(vm.data_disks.values())
            .filter_map(|slot| self.volumes.get(&slot.disk))
            .map(|disk| json!({ "name": disk.id.name, "statuses": [provisioned] }))
            .collect();
        let mut view = Map::new();
        view.insert("disks".to_owned(), json!(disks));
        let os_disk = self.volumes.get(&vm.os_disk.disk);
        if let Some(generation) = os_disk.and_then(|disk| disk.extra.get("hyperVGeneration")) {
            view.insert("hyperVGeneration".to_owned(), generation.clone());
        }
        let statuses = json!([
            provisioned,
            { "code": format!("PowerState/{power}"), "level": "Info", "displayStatus": format!("VM {power}") },
        ]);
        view.insert("statuses".to_owned(), statuses);
        Value::Object(view)
    }
}

/// `deleteOption` of each interface, by key.
pub(super) fn nic_options(properties: &Map<String, Value>) -> BTreeMap<String, String> {
    let entries = properties
        .get("networkProfile")
        .and_then(|profile| profile.get("networkInterfaces"))
        .and_then(Value::as_array);
    entries
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let id = entry.get("id")?.as_str()?.to_ascii_lowercase();
            Some((
                id,
                entry
                    .get("properties")?
                    .get("deleteOption")?
                    .as_str()?
                    .to_owned(),
            ))
        })
        .collect()
}
