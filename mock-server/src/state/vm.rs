//! Virtual machines: built from disks that exist, changed, started, stopped, deleted.
use super::{
    World,
    resource_id::{Kind, ResourceId},
    vm_show::nic_options,
    volume::{Role, Upload},
};
use crate::{
    arm::{body::Body, error::ArmError},
    clock::{self, Instant},
    scenario::PowerState,
};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// When a disk was last attached or detached; one that never was has no such member.
const OWNERSHIP: &str = "LastOwnershipUpdateTime";

/// A virtual machine.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) id: ResourceId,
    pub(crate) location: String,
    pub(crate) tags: Map<String, Value>,
    pub(crate) zones: Vec<String>,
    /// `identity`, `plan`, `extendedLocation`, as given.
    pub(crate) top: Map<String, Value>,
    /// Members of `properties` as given, without disks and what is computed.
    pub(crate) properties: Map<String, Value>,
    pub(crate) vm_id: String,
    pub(crate) created: Instant,
    pub(crate) os_disk: Slot,
    pub(crate) data_disks: BTreeMap<u64, Slot>,
    /// Keys of its interfaces, in order.
    pub(crate) nics: Vec<String>,
    pub(crate) power: PowerState,
    pub(crate) provisioning: &'static str,
}

/// A disk in a VM.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// Key of the disk.
    pub(crate) disk: String,
    pub(crate) caching: String,
    pub(crate) delete_option: String,
    pub(crate) create_option: String,
    /// Other members, as given.
    pub(crate) extra: Map<String, Value>,
}

impl Slot {
    /// A data disk that exists, attached with the service's defaults.
    pub(super) fn attached(disk: String) -> Self {
        Self {
            disk,
            caching: "None".to_owned(),
            delete_option: "Detach".to_owned(),
            create_option: "Attach".to_owned(),
            extra: Map::new(),
        }
    }
}

impl World {
    /// PUT of a VM: its new form, and whether it is new.
    pub(crate) fn put_vm(
        &mut self,
        id: ResourceId,
        body: &Body<'_>,
    ) -> Result<(Value, bool), ArmError> {
        let key = id.key();
        let location = body.location()?;
        let zones = match self.vms.get(&key) {
            Some(vm) if !body.has("zones") => vm.zones.clone(),
            Some(_) | None => body.zones()?,
        };
        if let Some(zone) = zones
            .iter()
            .find(|zone| !matches!(zone.as_str(), "1" | "2" | "3"))
        {
            return Err(ArmError::new(
                400,
                "InvalidAvailabilityZone",
                format!(
                    "The zone '{zone}' for resource '{id}' is not supported. The supported zones for location '{location}' are '1,2,3'."
                ),
            ));
        }
        let attach = body.optional_text("properties.storageProfile.osDisk.createOption")?;
        let existing = self.vms.get(&key);
        if existing.is_none() {
            match attach {
                Some("Attach") => {}
                Some(other) => {
                    return Err(ArmError::unmodelled(format!(
                        "VM with osDisk.createOption {other}"
                    )));
                }
                None => {
                    return Err(ArmError::invalid(
                        "osDisk",
                        "Required parameter 'osDisk' is missing (null).",
                    ));
                }
            }
            if body.has("properties.osProfile") {
                return Err(ArmError::invalid(
                    "osProfile",
                    "Parameter 'osProfile' is not allowed.",
                ));
            }
            if body.has("properties.storageProfile.imageReference") {
                return Err(ArmError::invalid(
                    "imageReference",
                    "Parameter 'imageReference' is not allowed.",
                ));
            }
        } else if let Some(vm) = existing {
            if !vm.location.eq_ignore_ascii_case(&location) {
                return Err(ArmError::new(
                    409,
                    "InvalidResourceLocation",
                    format!(
                        "The resource '{}' already exists in location '{}'.",
                        vm.id.name, vm.location
                    ),
                ));
            }
            let asked_plan = body.value("plan");
            if vm.zones != zones || asked_plan.is_some_and(|plan| vm.top.get("plan") != Some(plan))
            {
                return Err(ArmError::new(
                    409,
                    "PropertyChangeNotAllowed",
                    "Changing property 'zones' or 'plan' is not allowed.",
                ));
            }
        }
        let size = body.text("properties.hardwareProfile.vmSize")?;
        if !size.contains('_') {
            return Err(ArmError::invalid(
                "vmSize",
                format!("The value {size} provided for the VM size is not valid."),
            ));
        }
        let os_disk = match body.value("properties.storageProfile.osDisk") {
            Some(value) => self.slot(&id, value, "properties.storageProfile.osDisk")?,
            None => existing.map(|vm| vm.os_disk.clone()).ok_or_else(|| {
                ArmError::invalid("osDisk", "Required parameter 'osDisk' is missing (null).")
            })?,
        };
        let mut data_disks = BTreeMap::new();
        let mut used = BTreeSet::from([os_disk.disk.clone()]);
        for value in body.array("properties.storageProfile.dataDisks")? {
            let entry = Body::new(value)?;
            let lun = entry
                .number("lun")?
                .filter(|lun| *lun < 64)
                .ok_or_else(|| {
                    ArmError::invalid(
                        "dataDisk.lun",
                        "The value of parameter dataDisk.lun is invalid: it must be in 0..=63.",
                    )
                })?;
            let slot = self.slot(&id, value, "dataDisk")?;
            if !used.insert(slot.disk.clone()) {
                return Err(ArmError::invalid(
                    "dataDisk",
                    format!("Disk {} is named twice.", slot.disk),
                ));
            }
            if data_disks.insert(lun, slot).is_some() {
                return Err(ArmError::invalid(
                    "dataDisk.lun",
                    format!("A disk at LUN {lun} already exists."),
                ));
            }
        }
        if let Some(vm) = existing
            && vm.os_disk.disk != os_disk.disk
        {
            return Err(ArmError::new(
                409,
                "PropertyChangeNotAllowed",
                "Changing property 'osDisk.managedDisk.id' is not allowed.",
            ));
        }
        for slot in std::iter::once(&os_disk).chain(data_disks.values()) {
            self.check_attach(&id, &location, &zones, slot)?;
        }
        let os_volume = &self.volumes[&os_disk.disk];
        if existing.is_none()
            && !os_volume.extra.contains_key("osType")
            && !body.has("properties.storageProfile.osDisk.osType")
        {
            return Err(ArmError::invalid(
                "osDisk.osType",
                "Required parameter 'osDisk.osType' is missing (null).",
            ));
        }
        let nics = self.nics_of(&id, &location, body)?;
        self.store_vm(id, key, location, zones, os_disk, data_disks, nics, body)
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the checked parts of one request, used once"
    )]
    fn store_vm(
        &mut self,
        id: ResourceId,
        key: String,
        location: String,
        zones: Vec<String>,
        os_disk: Slot,
        data_disks: BTreeMap<u64, Slot>,
        nics: Vec<String>,
        body: &Body<'_>,
    ) -> Result<(Value, bool), ArmError> {
        let mut properties = body.object("properties")?.clone();
        for computed in ["vmId", "provisioningState", "instanceView", "timeCreated"] {
            properties.remove(computed);
        }
        let mut top = Map::new();
        for name in ["identity", "plan", "extendedLocation"] {
            if let Some(value) = body.value(name) {
                top.insert(name.to_owned(), value.clone());
            }
        }
        complete_identity(&mut top);
        let tags = body.tags()?;
        let old = self.vms.remove(&key);
        let is_new = old.is_none();
        if let Some(old) = &old {
            self.release(&key, old, &os_disk, &data_disks, &nics);
        }
        let vm = Vm {
            id: old.as_ref().map_or(id, |old| old.id.clone()),
            location,
            tags,
            zones,
            top,
            properties,
            vm_id: old
                .as_ref()
                .map_or_else(|| uuid::Uuid::new_v4().to_string(), |old| old.vm_id.clone()),
            created: old.as_ref().map_or(self.now, |old| old.created),
            os_disk,
            data_disks,
            nics,
            power: old.as_ref().map_or(PowerState::Running, |old| old.power),
            provisioning: if is_new { "Creating" } else { "Updating" },
        };
        self.insert_vm(key.clone(), vm);
        Ok((self.show_vm(&self.vms[&key], false), is_new))
    }

    /// Puts a VM into the world and marks its disks and interfaces as used.
    pub(crate) fn insert_vm(&mut self, key: String, vm: Vm) {
        let now = clock::iso(self.now);
        for slot in std::iter::once(&vm.os_disk).chain(vm.data_disks.values()) {
            if let Some(volume) = self.volumes.get_mut(&slot.disk)
                && let Role::Disk { owner, .. } = &mut volume.role
                && owner.as_ref() != Some(&key)
            {
                *owner = Some(key.clone());
                volume.extra.insert(OWNERSHIP.into(), now.clone().into());
            }
        }
        for (at, nic) in vm.nics.iter().enumerate() {
            if let Some(nic) = self.network.nics.get_mut(nic) {
                nic.vm = Some(key.clone());
                nic.primary = at == 0;
                nic.mac.get_or_insert_with(|| {
                    let id = uuid::Uuid::new_v4();
                    let bytes = id.as_bytes();
                    format!(
                        "00-0D-3A-{:02X}-{:02X}-{:02X}",
                        bytes[0], bytes[1], bytes[2]
                    )
                });
            }
        }
        self.vms.insert(key, vm);
    }

    /// Frees what an update no longer names.
    fn release(
        &mut self,
        key: &str,
        old: &Vm,
        os_disk: &Slot,
        data_disks: &BTreeMap<u64, Slot>,
        nics: &[String],
    ) {
        let keeps =
            |disk: &str| os_disk.disk == disk || data_disks.values().any(|slot| slot.disk == disk);
        for slot in old.data_disks.values().filter(|slot| !keeps(&slot.disk)) {
            self.free_disk(key, &slot.disk);
        }
        for nic in old.nics.iter().filter(|nic| !nics.contains(nic)) {
            if let Some(nic) = self.network.nics.get_mut(nic) {
                nic.vm = None;
            }
        }
    }

    pub(super) fn free_disk(&mut self, vm: &str, disk: &str) {
        let now = clock::iso(self.now);
        if let Some(volume) = self.volumes.get_mut(disk)
            && let Role::Disk { owner, .. } = &mut volume.role
            && owner.as_deref() == Some(vm)
        {
            *owner = None;
            volume.extra.insert(OWNERSHIP.into(), now.into());
        }
    }

    /// Deletes a VM; its disks and interfaces go with it where `deleteOption` says so.
    pub(crate) fn delete_vm(&mut self, key: &str) {
        let Some(vm) = self.vms.remove(key) else {
            return;
        };
        for slot in std::iter::once(&vm.os_disk).chain(vm.data_disks.values()) {
            self.free_disk(key, &slot.disk);
            if slot.delete_option == "Delete" {
                self.volumes.remove(&slot.disk);
            }
        }
        let options = nic_options(&vm.properties);
        for nic in &vm.nics {
            if options.get(nic).is_some_and(|option| option == "Delete") {
                self.network.nics.remove(nic);
            } else if let Some(nic) = self.network.nics.get_mut(nic) {
                nic.vm = None;
            }
        }
    }

    fn slot(&self, vm: &ResourceId, value: &Value, what: &'static str) -> Result<Slot, ArmError> {
        let body = Body::new(value)?;
        let create_option = body.text("createOption")?;
        let text = body.optional_text("managedDisk.id")?;
        let Some(text) = text else {
            return Err(ArmError::unmodelled(format!(
                "VM with {what} that is not an existing managed disk"
            )));
        };
        let id = ResourceId::parse(text)
            .filter(|id| id.kind == Kind::Disk)
            .ok_or_else(|| {
                ArmError::invalid(
                    "managedDisk.id",
                    format!("The value '{text}' of parameter managedDisk.id is invalid."),
                )
            })?;
        let key = id.key();
        let attached = self.vms.get(&vm.key()).is_some_and(|vm| {
            vm.os_disk.disk == key || vm.data_disks.values().any(|slot| slot.disk == key)
        });
        if create_option != "Attach" && !attached {
            return Err(ArmError::unmodelled(format!(
                "VM with {what}.createOption {create_option}"
            )));
        }
        if body.flag("toBeDetached")?.unwrap_or(false) {
            return Err(ArmError::unmodelled(
                "VM with toBeDetached instead of leaving the disk out",
            ));
        }
        let default = if what == "dataDisk" {
            "None"
        } else {
            "ReadWrite"
        };
        let caching = body.optional_text("caching")?.unwrap_or(default);
        if !matches!(caching, "None" | "ReadOnly" | "ReadWrite") {
            return Err(ArmError::invalid(
                "caching",
                format!("The value '{caching}' of parameter caching is invalid."),
            ));
        }
        let delete_option = body.optional_text("deleteOption")?.unwrap_or("Detach");
        if !matches!(delete_option, "Detach" | "Delete") {
            return Err(ArmError::invalid(
                "deleteOption",
                format!("The value '{delete_option}' of parameter deleteOption is invalid."),
            ));
        }
        let volume = self.volumes.get(&key).ok_or_else(|| {
            ArmError::new(404, "NotFound", format!("Disk {} is not found.", id.name))
        })?;
        if let Some(name) = body.optional_text("name")?
            && !name.eq_ignore_ascii_case(&volume.id.name)
        {
            return Err(ArmError::invalid(
                "disk.name",
                format!(
                    "Disk name '{name}' does not match the managed disk '{}'.",
                    volume.id.name
                ),
            ));
        }
        let mut extra = value.as_object().cloned().unwrap_or_default();
        for known in [
            "lun",
            "name",
            "createOption",
            "caching",
            "managedDisk",
            "diskSizeGB",
            "deleteOption",
            "toBeDetached",
        ] {
            extra.remove(known);
        }
        Ok(Slot {
            disk: key,
            caching: caching.to_owned(),
            delete_option: delete_option.to_owned(),
            create_option: create_option.to_owned(),
            extra,
        })
    }

    /// Whether a disk may be in a VM of this place.
    pub(super) fn check_attach(
        &self,
        vm: &ResourceId,
        location: &str,
        zones: &[String],
        slot: &Slot,
    ) -> Result<(), ArmError> {
        let volume = &self.volumes[&slot.disk];
        let name = &volume.id.name;
        match &volume.role {
            Role::Disk {
                owner: Some(owner), ..
            } if *owner == vm.key() => return Ok(()),
            Role::Disk {
                owner: Some(owner), ..
            } => {
                let owner = self
                    .vms
                    .get(owner)
                    .map(|vm| vm.id.to_string())
                    .unwrap_or_default();
                return Err(ArmError::new(
                    409,
                    "ConflictingUserInput",
                    format!(
                        "Disk '{name}' cannot be attached as the disk is already owned by VM '{owner}'."
                    ),
                ));
            }
            Role::Disk {
                upload: Upload::Ready | Upload::Active,
                ..
            } => {
                return Err(ArmError::not_allowed(format!(
                    "Disk '{name}' cannot be attached in state {}: its upload is not finished.",
                    self.disk_state(volume)
                )));
            }
            Role::Disk { .. } | Role::Snapshot { .. } => {}
        }
        let state = self.disk_state(volume);
        if state != "Unattached" || volume.provisioning != "Succeeded" {
            return Err(ArmError::not_allowed(format!(
                "Disk '{name}' cannot be attached in state {state} with provisioning state {}.",
                volume.provisioning
            )));
        }
        if !volume.location.eq_ignore_ascii_case(location) {
            return Err(ArmError::new(
                400,
                "BadRequest",
                format!(
                    "Disk '{name}' is in location '{}', the VM in '{location}'.",
                    volume.location
                ),
            ));
        }
        let zonal = !volume.sku.ends_with("_ZRS");
        if zonal && volume.zones != zones {
            return Err(ArmError::new(
                400,
                "BadRequest",
                format!(
                    "Disk {} cannot be attached to the VM because it is not in zone '{}'.",
                    volume.id,
                    zones.join(",")
                ),
            ));
        }
        Ok(())
    }

    fn nics_of(
        &self,
        vm: &ResourceId,
        location: &str,
        body: &Body<'_>,
    ) -> Result<Vec<String>, ArmError> {
        let mut nics = Vec::new();
        let entries = body.array("properties.networkProfile.networkInterfaces")?;
        for value in entries {
            let text = Body::new(value)?.text("id")?;
            let key = text.to_ascii_lowercase();
            let nic = self.network.nics.get(&key).ok_or_else(|| {
                ArmError::new(
                    400,
                    "InvalidResourceReference",
                    format!("Resource {text} referenced by resource {vm} was not found. Please make sure that the referenced resource exists, and that both resources are in the same region."),
                )
            })?;
            if let Some(owner) = nic.vm.as_ref().filter(|owner| **owner != vm.key()) {
                let owner = self
                    .vms
                    .get(owner)
                    .map(|vm| vm.id.to_string())
                    .unwrap_or_default();
                return Err(ArmError::new(
                    400,
                    "NicInUse",
                    format!("Network Interface {text} is used by existing VM {owner}."),
                ));
            }
            if !nic.location.eq_ignore_ascii_case(location) {
                return Err(ArmError::new(
                    400,
                    "InvalidResourceReference",
                    format!(
                        "Network interface {text} is in location '{}', the VM in '{location}'.",
                        nic.location
                    ),
                ));
            }
            if nics.contains(&key) {
                return Err(ArmError::invalid(
                    "networkProfile",
                    format!("Network interface {text} is named twice."),
                ));
            }
            nics.push(key);
        }
        if nics.is_empty() {
            return Err(ArmError::invalid(
                "networkProfile",
                "Virtual machine must have at least one network interface.",
            ));
        }
        let primary = |value: &&Value| {
            value
                .get("properties")
                .and_then(|p| p.get("primary"))
                .and_then(Value::as_bool)
                .unwrap_or(false)
        };
        match entries.iter().filter(primary).count() {
            1 => {
                let at = entries
                    .iter()
                    .position(|value| primary(&value))
                    .unwrap_or(0);
                nics.swap(0, at);
            }
            0 if nics.len() == 1 => {}
            _ => {
                return Err(ArmError::new(
                    400,
                    "VirtualMachineMustHaveOneNetworkInterfaceAsPrimary",
                    format!(
                        "Virtual machine {vm} must have one network interface set as the primary."
                    ),
                ));
            }
        }
        Ok(nics)
    }
}

/// Gives managed identities the members that the service computes.
fn complete_identity(top: &mut Map<String, Value>) {
    let Some(identity) = top.get_mut("identity").and_then(Value::as_object_mut) else {
        return;
    };
    let kind = identity
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if kind.contains("SystemAssigned") {
        for member in ["principalId", "tenantId"] {
            identity
                .entry(member)
                .or_insert_with(|| json!(uuid::Uuid::new_v4().to_string()));
        }
    }
    if let Some(users) = identity
        .get_mut("userAssignedIdentities")
        .and_then(Value::as_object_mut)
    {
        for user in users.values_mut() {
            if user.as_object().is_none_or(Map::is_empty) {
                *user = json!({
                    "principalId": uuid::Uuid::new_v4().to_string(),
                    "clientId": uuid::Uuid::new_v4().to_string(),
                });
            }
        }
    }
}
