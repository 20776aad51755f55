//! The view of everything that exists.
use super::{
    World,
    vm::{Slot, Vm},
    volume::{Form, Role, Volume},
};
use crate::{
    clock,
    view::{AttachedDiskView, DiskView, GrantView, NicView, SnapshotView, StateView, VmView},
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

impl World {
    pub(crate) fn view(&self) -> StateView {
        let mut view = StateView {
            resource_groups: self.groups.values().map(super::Group::id).collect(),
            virtual_machines: self.vms.values().map(|vm| self.view_vm(vm)).collect(),
            public_ip_addresses: self
                .network
                .public_ips
                .values()
                .map(|ip| self.show_public_ip(ip))
                .collect(),
            running_operations: self.running_operations(),
            storage_accounts: self.view_accounts(),
            ..StateView::default()
        };
        for volume in self.volumes.values() {
            match &volume.role {
                Role::Disk { .. } => view.disks.push(self.view_disk(volume)),
                Role::Snapshot { .. } => view.snapshots.push(self.view_snapshot(volume)),
            }
        }
        for nic in self.network.nics.values() {
            view.network_interfaces.push(NicView {
                id: nic.id.to_string(),
                name: nic.id.name.clone(),
                resource_group: nic.id.group.clone(),
                virtual_machine: nic
                    .vm
                    .as_ref()
                    .and_then(|vm| self.vms.get(vm))
                    .map(|vm| vm.id.to_string()),
                resource: self.show_nic(nic),
            });
        }
        for grant in self
            .grants
            .values()
            .filter(|grant| grant.is_active(self.now))
        {
            if let Some(volume) = self.volumes.get(&grant.volume) {
                view.grants.push(GrantView {
                    resource: volume.id.to_string(),
                    access: grant.access.name().to_owned(),
                    expires: clock::iso(grant.expires),
                });
            }
        }
        view.grants.sort_by(|a, b| a.resource.cmp(&b.resource));
        view
    }

    fn view_vm(&self, vm: &Vm) -> VmView {
        let size = vm
            .properties
            .get("hardwareProfile")
            .and_then(|profile| profile.get("vmSize"));
        VmView {
            id: vm.id.to_string(),
            name: vm.id.name.clone(),
            resource_group: vm.id.group.clone(),
            location: vm.location.clone(),
            zones: vm.zones.clone(),
            tags: texts(&vm.tags),
            vm_id: vm.vm_id.clone(),
            vm_size: size.and_then(Value::as_str).unwrap_or_default().to_owned(),
            power_state: vm.power,
            os_disk: self.view_slot(&vm.os_disk),
            data_disks: vm
                .data_disks
                .iter()
                .map(|(lun, slot)| {
                    (
                        u32::try_from(*lun).unwrap_or(u32::MAX),
                        self.view_slot(slot),
                    )
                })
                .collect(),
            network_interfaces: vm
                .nics
                .iter()
                .filter_map(|nic| self.network.nics.get(nic))
                .map(|nic| nic.id.to_string())
                .collect(),
            resource: self.show_vm(vm, false),
        }
    }

    fn view_slot(&self, slot: &Slot) -> AttachedDiskView {
        let id = self.volumes.get(&slot.disk).map(|volume| &volume.id);
        AttachedDiskView {
            id: id.map(ToString::to_string).unwrap_or_default(),
            name: id.map(|id| id.name.clone()).unwrap_or_default(),
            caching: slot.caching.clone(),
        }
    }

    fn view_disk(&self, disk: &Volume) -> DiskView {
        DiskView {
            id: disk.id.to_string(),
            name: disk.id.name.clone(),
            resource_group: disk.id.group.clone(),
            size_bytes: disk.size(),
            allocated_bytes: disk.content.allocated(),
            disk_state: self.disk_state(disk).to_owned(),
            provisioning_state: disk.provisioning.to_owned(),
            unique_id: disk.unique_id.clone(),
            sku: disk.sku.clone(),
            zones: disk.zones.clone(),
            tags: texts(&disk.tags),
            managed_by: disk
                .owner()
                .and_then(|vm| self.vms.get(vm))
                .map(|vm| vm.id.to_string()),
            resource: self.show_volume(disk, Form::Full),
        }
    }

    fn view_snapshot(&self, snapshot: &Volume) -> SnapshotView {
        let source = snapshot
            .creation
            .get("sourceResourceId")
            .and_then(Value::as_str);
        SnapshotView {
            id: snapshot.id.to_string(),
            name: snapshot.id.name.clone(),
            resource_group: snapshot.id.group.clone(),
            source: source.unwrap_or_default().to_owned(),
            size_bytes: snapshot.size(),
            allocated_bytes: snapshot.content.allocated(),
            disk_state: self.disk_state(snapshot).to_owned(),
            tags: texts(&snapshot.tags),
            resource: self.show_volume(snapshot, Form::Full),
        }
    }
}

fn texts(tags: &Map<String, Value>) -> BTreeMap<String, String> {
    tags.iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}
