//! Changes by others than the client, under the rules that hold for the client's requests.
use super::{
    World,
    disk::grow,
    resource_id::{Kind, ResourceId},
    vm::Slot,
};
use crate::{Change, Error, arm::error::ArmError, scenario, size::MIB};
use std::collections::BTreeSet;

impl World {
    /// Makes one change.
    pub(crate) fn change(&mut self, change: &Change) -> Result<(), Error> {
        match change {
            Change::GrowDisk { disk, size } => self.grow_disk(disk, size.0),
            Change::CreateDisk(disk) => self.create_disk(disk),
            Change::DeleteDisk { disk } => self.delete_volume(disk, Kind::Disk),
            Change::AttachDisk { vm, lun, disk } => self.attach_disk(vm, *lun, disk),
            Change::DetachDisk { vm, lun } => self.detach_disk(vm, *lun),
            Change::CreateVm(vm) => self.create_vm(vm),
            Change::DeleteVm { vm, with_resources } => self.remove_vm(vm, *with_resources),
            Change::RenameVm { vm, name } => self.rename_vm(vm, name),
            Change::CreateSnapshot(snapshot) => self.seed_snapshot(snapshot).map_err(made),
            Change::SetSecret { client_id, secret } => match self.set_secret(client_id, secret) {
                true => Ok(()),
                false => Err(refused(
                    format!("set the secret of {client_id}"),
                    "no such principal".to_owned(),
                )),
            },
            Change::DeleteSnapshot { snapshot } => self.delete_volume(snapshot, Kind::Snapshot),
        }
    }

    /// Gives a principal another secret; `false` if there is none of this client id.
    pub(crate) fn set_secret(&mut self, client_id: &str, secret: &str) -> bool {
        let principals = self
            .tenants
            .iter_mut()
            .flat_map(|tenant| &mut tenant.principals);
        let mut found = false;
        for principal in principals.filter(|known| known.client_id.eq_ignore_ascii_case(client_id))
        {
            principal.client_secret = secret.to_owned();
            found = true;
        }
        found
    }

    /// Lets the clock be ahead of the client's, or behind, until the next request.
    pub(crate) fn skew_clock(&mut self, seconds: i64) {
        self.skew = seconds;
        let by = std::time::Duration::from_secs(seconds.unsigned_abs());
        self.now = match seconds {
            0.. => self.now + by,
            _ => self.now.saturating_sub(by),
        };
    }

    fn grow_disk(&mut self, disk: &str, size: u64) -> Result<(), Error> {
        let what = || format!("grow disk {disk}");
        let key = self.volume_of(disk, Kind::Disk)?;
        if !size.is_multiple_of(MIB) {
            return Err(refused(
                what(),
                format!("{size} bytes are not a multiple of 1 MiB"),
            ));
        }
        let volume = &self.volumes[&key];
        let state = self.disk_state(volume);
        if matches!(state, "ActiveSAS" | "ReadyToUpload" | "ActiveUpload") {
            return Err(refused(what(), format!("its state is {state}")));
        }
        match self.volumes.get_mut(&key) {
            Some(volume) => grow(volume, size).map_err(|error| by_rule(what(), &error)),
            None => Ok(()),
        }
    }

    fn create_disk(&mut self, disk: &scenario::Disk) -> Result<(), Error> {
        let at = format!("disk {}", disk.name);
        self.seed_free_disk(&at, disk).map_err(made)
    }

    fn delete_volume(&mut self, volume: &str, kind: Kind) -> Result<(), Error> {
        let key = self.volume_of(volume, kind)?;
        self.check_delete(&key)
            .map_err(|error| by_rule(format!("delete {volume}"), &error))?;
        self.volumes.remove(&key);
        Ok(())
    }

    fn attach_disk(&mut self, vm: &str, lun: u32, disk: &str) -> Result<(), Error> {
        let what = || format!("attach disk {disk} to {vm} as LUN {lun}");
        let vm_key = self.vm_key(vm)?;
        let disk_key = self.volume_of(disk, Kind::Disk)?;
        let machine = &self.vms[&vm_key];
        if lun > 63 || machine.data_disks.contains_key(&u64::from(lun)) {
            return Err(refused(what(), "the LUN is in use or not in 0..=63"));
        }
        if self.volumes[&disk_key].owner().is_some() {
            return Err(refused(what(), "it is attached already"));
        }
        let slot = Slot::attached(disk_key.clone());
        self.check_attach(&machine.id, &machine.location, &machine.zones, &slot)
            .map_err(|error| by_rule(what(), &error))?;
        if let Some(mut machine) = self.vms.remove(&vm_key) {
            machine.data_disks.insert(lun.into(), slot);
            self.insert_vm(vm_key, machine);
        }
        Ok(())
    }

    fn detach_disk(&mut self, vm: &str, lun: u32) -> Result<(), Error> {
        let key = self.vm_key(vm)?;
        let slot = self
            .vms
            .get_mut(&key)
            .and_then(|vm| vm.data_disks.remove(&lun.into()));
        let Some(slot) = slot else {
            return Err(refused(
                format!("detach LUN {lun} of {vm}"),
                "there is no disk",
            ));
        };
        self.free_disk(&key, &slot.disk);
        Ok(())
    }

    fn create_vm(&mut self, vm: &scenario::Vm) -> Result<(), Error> {
        let volumes: BTreeSet<String> = self.volumes.keys().cloned().collect();
        let nics: BTreeSet<String> = self.network.nics.keys().cloned().collect();
        self.seed_vm(vm).map_err(|error| {
            // Not at all, if not as a whole.
            self.volumes.retain(|key, _| volumes.contains(key));
            self.network.nics.retain(|key, _| nics.contains(key));
            made(error)
        })
    }

    fn remove_vm(&mut self, vm: &str, with_resources: bool) -> Result<(), Error> {
        let key = self.vm_key(vm)?;
        let machine = &self.vms[&key];
        let slots = std::iter::once(&machine.os_disk).chain(machine.data_disks.values());
        let disks: Vec<String> = slots.map(|slot| slot.disk.clone()).collect();
        let nics = machine.nics.clone();
        self.delete_vm(&key);
        if with_resources {
            self.volumes.retain(|key, _| !disks.contains(key));
            self.network.nics.retain(|key, _| !nics.contains(key));
        }
        Ok(())
    }

    fn rename_vm(&mut self, vm: &str, name: &str) -> Result<(), Error> {
        let old = self.vm_key(vm)?;
        let id = &self.vms[&old].id;
        let id = ResourceId::new(&id.subscription, &id.group, Kind::VirtualMachine, name);
        let new = id.key();
        if self.vms.contains_key(&new) {
            return Err(refused(
                format!("rename {vm}"),
                format!("there is a virtual machine {name} already"),
            ));
        }
        if let Some(mut machine) = self.vms.remove(&old) {
            machine.id = id;
            self.insert_vm(new, machine);
        }
        Ok(())
    }

    /// The VM of this id or of this unambiguous name.
    fn vm_key(&self, vm: &str) -> Result<String, Error> {
        let key = vm.to_ascii_lowercase();
        if self.vms.contains_key(&key) {
            return Ok(key);
        }
        let mut named = self
            .vms
            .iter()
            .filter(|(_, known)| known.id.name.eq_ignore_ascii_case(vm));
        match (named.next(), named.next()) {
            (Some((key, _)), None) => Ok(key.clone()),
            (None, _) | (Some(_), Some(_)) => Err(Error::NoSuchVm(vm.to_owned())),
        }
    }

    fn volume_of(&self, name: &str, kind: Kind) -> Result<String, Error> {
        let key = self.volume_key(name)?;
        if self.volumes[&key].id.kind == kind {
            return Ok(key);
        }
        Err(Error::NoSuchDisk(name.to_owned()))
    }
}

fn refused(what: String, reason: impl Into<String>) -> Error {
    Error::Change {
        what,
        reason: reason.into(),
    }
}

fn by_rule(what: String, error: &ArmError) -> Error {
    refused(what, error.message())
}

/// The scenario's refusals are about a place in a file; here there is none.
fn made(error: Error) -> Error {
    if let Error::Scenario { at, problem } = error {
        return refused(format!("make {at}"), problem);
    }
    error
}
