//! What a restore has made in Azure, to be removed again if it fails.

use std::io;
use std::sync::{Mutex, PoisonError};

use futures_util::future::join_all;

use super::stale::Mark;
use crate::azure::{Azure, Error as AzureError, ResourceId};
use crate::json;
use crate::notice::{Notices, with_causes};

/// What becomes of a thing that could not be removed. The command line has no next job that knows of it.
const NEXT_JOB: &str =
    "the next job of this File Daemon tries again; what azure-vm restore has left, delete yourself";
const YOURSELF: &str = "delete it yourself if it is there";

/// Resources are noted before the request that makes them, since an answer may be lost. Their names are made up for this
/// restore, so none of them can be anybody else's; for the VM, whose name is the user's choice, its OS disk tells.
///
/// Ends with [`Undo::run`] or [`Undo::forget`]; dropped before, it names what may be left. The mark of the local folder names it
/// to the next job, also if the process dies.
#[derive(Debug)]
pub(super) struct Undo<'a> {
    made: Mutex<Made>,
    mark: Option<&'a Mark>,
    notices: Notices,
}

#[derive(Clone, Debug, Default)]
struct Made {
    disks: Vec<ResourceId>,
    nics: Vec<ResourceId>,
    /// The VM and its OS disk.
    vm: Option<(ResourceId, ResourceId)>,
}

impl<'a> Undo<'a> {
    pub(super) fn new(mark: Option<&'a Mark>, notices: Notices) -> Self {
        Self {
            made: Mutex::default(),
            mark,
            notices,
        }
    }

    pub(super) fn note_disk(&self, id: &ResourceId) {
        self.mark(|mark| mark.note(id), id.name());
        self.with(|made| made.disks.push(id.clone()));
    }

    pub(super) fn note_nic(&self, id: &ResourceId) {
        self.mark(|mark| mark.note(id), id.name());
        self.with(|made| made.nics.push(id.clone()));
    }

    pub(super) fn note_vm(&self, id: &ResourceId, os_disk: &ResourceId) {
        self.mark(|mark| mark.note(id), id.name());
        self.with(|made| made.vm = Some((id.clone(), os_disk.clone())));
    }

    /// That it cannot be noted harms only if something is left, so the restore goes on.
    fn mark(&self, change: impl FnOnce(&Mark) -> io::Result<()>, name: &str) {
        if let Some(Err(error)) = self.mark.map(change) {
            self.notices.warning(format!(
                "note {name} in the local folder: {error}; the next job may not know what this restore leaves"
            ));
        }
    }

    /// The restore is good: everything stays.
    pub(super) fn forget(self) {
        self.mark(Mark::clear, "the end of the restore");
        self.with(|made| *made = Made::default());
    }

    /// Removes everything that was noted: the VM first, since it holds the others. What cannot be removed is an error
    /// notice that names it, and stays in the mark. `azure` must be a view for clean-up: the job's own may be cancelled.
    pub(super) async fn run(self, azure: &Azure) {
        let Made { disks, nics, vm } = self.with(|made| made.clone());
        let mut hope = NEXT_JOB;
        if let Some((id, os_disk)) = &vm {
            let deleted = delete_vm(azure, id, os_disk).await;
            if !self.settle("virtual machine", id, deleted, YOURSELF) {
                hope = YOURSELF;
            }
            self.with(|made| made.vm = None);
        }
        let this = &self;
        join_all(nics.iter().map(|id| async move {
            let deleted = azure.delete_network_interface(id).await;
            this.settle("network interface", id, deleted, hope);
        }))
        .await;
        self.with(|made| made.nics.clear());
        join_all(disks.iter().map(|id| async move {
            this.settle("disk", id, delete_disk(azure, id).await, hope);
        }))
        .await;
        self.with(|made| made.disks.clear());
    }

    /// Strikes out what is gone, says what is not; whether it is.
    fn settle(
        &self,
        kind: &str,
        id: &ResourceId,
        deleted: Result<(), AzureError>,
        hope: &str,
    ) -> bool {
        match deleted {
            Err(error) if !error.is_not_found() => {
                self.notices.error(format!(
                    "remove {kind} {} of the failed restore from resource group {}: {}; {hope}",
                    id.name(),
                    id.resource_group(),
                    with_causes(&error)
                ));
                false
            }
            Ok(()) | Err(_) => {
                self.mark(|mark| mark.strike(id), id.name());
                true
            }
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Made) -> T) -> T {
        change(&mut self.made.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let Made { disks, nics, vm } = self.with(std::mem::take);
        // Once a machine was asked for, the next job touches nothing.
        let hope = if vm.is_some() { YOURSELF } else { NEXT_JOB };
        let vms = vm.iter().map(|(id, _)| ("virtual machine", id));
        let nics = nics.iter().map(|id| ("network interface", id));
        let disks = disks.iter().map(|id| ("disk", id));
        for (kind, id) in vms.chain(nics).chain(disks) {
            self.notices.error(format!(
                "remove {kind} {} of the failed restore from resource group {}: gave up waiting; {hope}",
                id.name(),
                id.resource_group(),
            ));
        }
    }
}

/// Deletes the VM if it is the one that was made: it has the OS disk. Where the VM is not found, the disk is asked, too: what
/// holds it must go before anything else can.
async fn delete_vm(azure: &Azure, id: &ResourceId, os_disk: &ResourceId) -> Result<(), AzureError> {
    let is = |found: Option<&str>, id: &ResourceId| {
        found.is_some_and(|found| found.eq_ignore_ascii_case(id.as_str()))
    };
    let is_made = match azure.virtual_machine(id).await {
        Ok(vm) => {
            let disk = json::text(&vm, "/properties/storageProfile/osDisk/managedDisk/id");
            is(disk, os_disk)
        }
        Err(error) if error.is_not_found() => {
            is(json::text(&azure.disk(os_disk).await?, "/managedBy"), id)
        }
        Err(error) => return Err(error),
    };
    match is_made {
        true => azure.delete_virtual_machine(id).await,
        false => Ok(()),
    }
}

/// Closes and deletes the disk. Closing may be refused for a disk that was written half, so only the deletion counts.
pub(super) async fn delete_disk(azure: &Azure, id: &ResourceId) -> Result<(), AzureError> {
    if let Err(error) = azure.revoke(id).await {
        tracing::debug!("close disk {} before its deletion: {error}", id.name());
    }
    azure.delete_disk(id).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_removed_is_named() {
        let id = |name: &str| ResourceId::new("s", "g", "Microsoft.Compute/disks", name);
        let notices = Notices::default();
        let kept = Undo::new(None, notices.clone());
        kept.note_disk(&id("kept"));
        kept.forget();
        let interrupted = Undo::new(None, notices.clone());
        interrupted.note_disk(&id("left"));
        drop(interrupted);
        assert!(
            notices
                .pop()
                .is_some_and(|notice| notice.text.contains("disk left"))
        );
        assert_eq!(notices.pop(), None);
    }
}
