//! What a restore has made in Azure, to be removed again if it fails.

use std::sync::{Mutex, PoisonError};

use futures_util::future::join_all;

use crate::azure::{Azure, Error as AzureError, ResourceId};
use crate::json;
use crate::notice::{Notices, with_causes};

/// Resources are noted before the request that makes them, since an answer may be lost. Their names are made up for this
/// restore, so none of them can be anybody else's; for the VM, whose name is the user's choice, its OS disk tells.
#[derive(Debug, Default)]
pub(super) struct Undo {
    made: Mutex<Made>,
}

#[derive(Debug, Default)]
struct Made {
    disks: Vec<ResourceId>,
    nics: Vec<ResourceId>,
    /// The VM and its OS disk.
    vm: Option<(ResourceId, ResourceId)>,
}

impl Undo {
    pub(super) fn note_disk(&self, id: &ResourceId) {
        self.with(|made| made.disks.push(id.clone()));
    }

    pub(super) fn note_nic(&self, id: &ResourceId) {
        self.with(|made| made.nics.push(id.clone()));
    }

    pub(super) fn note_vm(&self, id: &ResourceId, os_disk: &ResourceId) {
        self.with(|made| made.vm = Some((id.clone(), os_disk.clone())));
    }

    /// Removes everything that was noted: the VM first, since it holds the others. What cannot be removed is an error
    /// notice that names it. `azure` must be a view for clean-up: the job's own may be cancelled.
    pub(super) async fn run(self, azure: &Azure, notices: &Notices) {
        let made = self
            .made
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((id, os_disk)) = &made.vm {
            report(
                "virtual machine",
                id,
                delete_vm(azure, id, os_disk).await,
                notices,
            );
        }
        join_all(made.nics.iter().map(|id| async move {
            report(
                "network interface",
                id,
                azure.delete_network_interface(id).await,
                notices,
            );
        }))
        .await;
        join_all(made.disks.iter().map(|id| async move {
            report("disk", id, delete_disk(azure, id).await, notices);
        }))
        .await;
    }

    fn with(&self, change: impl FnOnce(&mut Made)) {
        change(&mut self.made.lock().unwrap_or_else(PoisonError::into_inner));
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
async fn delete_disk(azure: &Azure, id: &ResourceId) -> Result<(), AzureError> {
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
