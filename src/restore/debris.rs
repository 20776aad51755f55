//! What restores left that died: local images, and what they had made in Azure up to then.
//!
//! A virtual machine that was made belongs to whoever finds it, and so do its disks; all else is of no use to anybody.

use std::io;
use std::path::Path;

use super::stale::{DeadFolder, dead_folders};
use super::undo::delete_disk;
use crate::azure::{Azure, Error as AzureError, ResourceId};
use crate::json;
use crate::notice::{Notices, with_causes};

const DISKS: &str = "Microsoft.Compute/disks";
const INTERFACES: &str = "Microsoft.Network/networkInterfaces";
const MACHINES: &str = "Microsoft.Compute/virtualMachines";

/// Clears what is left of restores whose folders are below `parent`. What is in another subscription waits for a job that works
/// there. What cannot be removed is a warning, and is tried again by the next job: it does not keep this one from going on.
pub async fn clear_debris(azure: &Azure, parent: &Path, notices: &Notices) {
    for folder in dead_folders(parent) {
        let shown = folder.path.display().to_string();
        let failed = |error: &io::Error| {
            if error.kind() != io::ErrorKind::NotFound {
                notices.warning(format!(
                    "remove {shown}, which a dead restore has left: {error}"
                ));
            }
        };
        match folder.remove_images() {
            Ok(true) => notices.info(format!(
                "local images of a restore that ended without a clean-up are removed: {shown}"
            )),
            Ok(false) => {}
            Err(error) => failed(&error),
        }
        if clear_azure(azure, &folder, notices).await
            && let Err(error) = folder.remove()
        {
            failed(&error);
        }
    }
}

/// Whether nothing of the dead restore is left in Azure that is of no use.
async fn clear_azure(azure: &Azure, folder: &DeadFolder, notices: &Notices) -> bool {
    let of = |kind: &'static str| folder.made.iter().filter(move |id| id.is_type(kind));
    let subscription = azure.subscription_id();
    let is_here = |id: &ResourceId| id.subscription().eq_ignore_ascii_case(subscription);
    if !folder.made.iter().all(is_here) {
        return false;
    }
    let machine = of(MACHINES).next();
    if let Some(id) = machine {
        match is_made(azure, id, of(DISKS).next()).await {
            Ok(false) => {}
            Ok(true) => {
                notices.warning(format!(
                    "virtual machine {} in resource group {}, made by a restore that ended without a clean-up, stays: see \
                     whether it is good, or delete it",
                    id.name(),
                    id.resource_group()
                ));
                return true;
            }
            Err(error) => return report("look for virtual machine", id, &error, notices),
        }
    }
    let mut is_clear = true;
    for id in of(INTERFACES) {
        if let Err(error) = clear_interface(azure, id).await {
            is_clear = report("remove network interface", id, &error, notices);
        }
    }
    for id in of(DISKS) {
        if let Err(error) = clear_disk(azure, id, machine.is_some(), notices).await {
            is_clear = report("remove disk", id, &error, notices);
        }
    }
    is_clear
}

/// Says what could not be done; not clear.
fn report(action: &str, id: &ResourceId, error: &AzureError, notices: &Notices) -> bool {
    if !error.is_cancelled() {
        notices.warning(format!(
            "{action} {} in resource group {}, left by a restore that ended without a clean-up: {}; the next job tries again",
            id.name(),
            id.resource_group(),
            with_causes(error)
        ));
    }
    false
}

/// Whether this machine has the OS disk of the dead restore.
async fn is_made(
    azure: &Azure,
    machine: &ResourceId,
    os_disk: Option<&ResourceId>,
) -> Result<bool, AzureError> {
    let (group, name) = (machine.resource_group(), machine.name());
    let found = azure.find_virtual_machine(group, name).await?;
    let disk = found.as_ref().and_then(|found| {
        let pointer = "/properties/storageProfile/osDisk/managedDisk/id";
        json::text(found, pointer)
    });
    Ok(disk.is_some_and(|disk| os_disk.is_some_and(|own| disk.eq_ignore_ascii_case(own.as_str()))))
}

async fn clear_interface(azure: &Azure, id: &ResourceId) -> Result<(), AzureError> {
    match azure.network_interface(id).await {
        Ok(found) if found.pointer("/properties/virtualMachine/id").is_some() => Ok(()),
        Ok(_) => azure.delete_network_interface(id).await,
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Deletes the disk unless it belongs to a machine, or did. `tried`: a machine may have been made of it, and be gone by now,
/// while its owner keeps the disk.
async fn clear_disk(
    azure: &Azure,
    id: &ResourceId,
    tried: bool,
    notices: &Notices,
) -> Result<(), AzureError> {
    let disk = match azure.disk(id).await {
        Ok(disk) => disk,
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error),
    };
    let is_used = json::text(&disk, "/managedBy").is_some();
    let was_used = tried && json::text(&disk, "/properties/lastOwnershipUpdateTime").is_some();
    if is_used || was_used {
        return Ok(());
    }
    delete_disk(azure, id).await?;
    notices.info(format!(
        "disk {} of a restore that ended without a clean-up is deleted",
        id.name()
    ));
    Ok(())
}
