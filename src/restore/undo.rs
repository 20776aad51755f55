//! What a restore has made in Azure, to be removed again if it fails.

use std::sync::{Mutex, PoisonError};

use futures_util::future::join_all;

use super::stale::Mark;
use crate::azure::{Azure, Error as AzureError, ResourceId};
use crate::json;
use crate::notice::{Notices, with_causes};

/// Resources are noted before the request that makes them, since an answer may be lost. Their names are made up for this
/// restore, so none of them can be anybody else's; for the VM, whose name is the user's choice, its OS disk tells.
///
/// Ends with [`Undo::run`] or [`Undo::forget`]; dropped before, it names what may be left. If the process dies, the mark of the
/// local folder names it.
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
        self.mark(id);
        self.with(|made| made.disks.push(id.clone()));
    }

    pub(super) fn note_nic(&self, id: &ResourceId) {
        self.mark(id);
        self.with(|made| made.nics.push(id.clone()));
    }

    pub(super) fn note_vm(&self, id: &ResourceId, os_disk: &ResourceId) {
        self.mark(id);
        self.with(|made| made.vm = Some((id.clone(), os_disk.clone())));
    }

    /// That it cannot be noted harms only if this process dies, so the restore goes on.
    fn mark(&self, id: &ResourceId) {
        if let Some(Err(error)) = self.mark.map(|mark| mark.note(id)) {
            self.notices.warning(format!(
                "note {} in the local folder: {error}; a restore that is killed will leave it",
                id.name()
            ));
        }
    }

    /// The restore is good: everything stays.
    pub(super) fn forget(self) {
        self.with(|made| *made = Made::default());
    }

    /// Removes everything that was noted: the VM first, since it holds the others. What cannot be removed is an error
    /// notice that names it. `azure` must be a view for clean-up: the job's own may be cancelled.
    pub(super) async fn run(self, azure: &Azure) {
        let notices = &self.notices;
        let Made { disks, nics, vm } = self.with(|made| made.clone());
        if let Some((id, os_disk)) = &vm {
            report(
                "virtual machine",
                id,
                delete_vm(azure, id, os_disk).await,
                notices,
            );
            self.with(|made| made.vm = None);
        }
        join_all(nics.iter().map(|id| async move {
            report(
                "network interface",
                id,
                azure.delete_network_interface(id).await,
                notices,
            );
        }))
        .await;
        self.with(|made| made.nics.clear());
        join_all(disks.iter().map(|id| async move {
            report("disk", id, delete_disk(azure, id).await, notices);
        }))
        .await;
        self.with(|made| made.disks.clear());
    }

    fn with<T>(&self, change: impl FnOnce(&mut Made) -> T) -> T {
        change(&mut self.made.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let Made { disks, nics, vm } = self.with(std::mem::take);
        let vms = vm.iter().map(|(id, _)| ("virtual machine", id));
        let nics = nics.iter().map(|id| ("network interface", id));
        let disks = disks.iter().map(|id| ("disk", id));
        for (kind, id) in vms.chain(nics).chain(disks) {
            self.notices.error(format!(
                "remove {kind} {} of the failed restore from resource group {}: gave up waiting; delete it yourself if \
                 it is there",
                id.name(),
                id.resource_group(),
            ));
        }
    }
}

async fn delete_vm(azure: &Azure, id: &ResourceId, os_disk: &ResourceId) -> Result<(), AzureError> {
    let vm = azure.virtual_machine(id).await?;
    let disk = json::text(&vm, "/properties/storageProfile/osDisk/managedDisk/id");
    if disk.is_some_and(|disk| disk.eq_ignore_ascii_case(os_disk.as_str())) {
        azure.delete_virtual_machine(id).await?;
    }
    Ok(())
}

/// Closes and deletes the disk. Closing may be refused for a disk that was written half, so only the deletion counts.
pub(super) async fn delete_disk(azure: &Azure, id: &ResourceId) -> Result<(), AzureError> {
    if let Err(error) = azure.revoke(id).await {
        tracing::debug!("close disk {} before its deletion: {error}", id.name());
    }
    azure.delete_disk(id).await
}

fn report(kind: &str, id: &ResourceId, result: Result<(), AzureError>, notices: &Notices) {
    if let Err(error) = result
        && !error.is_not_found()
    {
        notices.error(format!(
            "remove {kind} {} of the failed restore from resource group {}: {}; delete it yourself",
            id.name(),
            id.resource_group(),
            with_causes(&error)
        ));
    }
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
