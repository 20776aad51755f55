//! What restores left that died, or could not remove what they had made when they failed: local images, and what is in Azure.
//!
//! Once a virtual machine was asked for, it may have been made, and whatever became of it since is its owner's business: then
//! nothing is touched, unless the restore itself has removed it. What there is without a machine is of no use to anybody.

use std::io;
use std::path::Path;

use futures_util::future::join_all;

use super::stale::{DeadFolder, Noted, dead_folders};
use super::undo::delete_disk;
use crate::azure::{Azure, Error as AzureError, ErrorKind, ResourceId};
use crate::json;
use crate::notice::{Notices, some_of, with_causes};

const DISKS: &str = "Microsoft.Compute/disks";
const INTERFACES: &str = "Microsoft.Network/networkInterfaces";
const MACHINES: &str = "Microsoft.Compute/virtualMachines";

/// Clears what is left of restores whose folders are below `parent`. What is in another subscription waits for a job that works
/// there, and what cannot be read for somebody who removes the folder: a job names each once. What cannot be removed is a
/// warning, and is tried again by the next job: it does not keep this one from going on.
pub async fn clear_debris(azure: &Azure, parent: &Path, notices: &Notices) {
    // With the patience of a clean-up: a deletion that does not end shall not keep a job from its work for long.
    let hasty = azure.for_cleanup();
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
        if let Some(damage) = &folder.noted.damage {
            notices.warning_once(format!(
                "read {}, in which a restore that ended without a clean-up noted what it made: {damage}; see \
                 whether disks or network interfaces of it are left in Azure, then remove the folder",
                folder.mark().display()
            ));
        }
        let clearing = clear_azure(&hasty, &folder, notices);
        let cleared = azure.cancellation().run_until_cancelled(clearing).await;
        if cleared == Some(true)
            && folder.noted.damage.is_none()
            && let Err(error) = folder.remove()
        {
            failed(&error);
        }
    }
}

/// Whether nothing of the dead restore is left in Azure that is of no use, or all that is left was named for the last time.
async fn clear_azure(azure: &Azure, folder: &DeadFolder, notices: &Notices) -> bool {
    let Noted { made, gone, .. } = &folder.noted;
    let of = |kind: &'static str| made.iter().filter(move |id| id.is_type(kind));
    let subscription = azure.subscription_id();
    let is_here = |id: &ResourceId| id.subscription().eq_ignore_ascii_case(subscription);
    let elsewhere: Vec<_> = made.iter().filter(|id| !is_here(id)).collect();
    if let Some(first) = elsewhere.first() {
        let names = elsewhere.iter().map(|id| id.name().to_owned());
        notices.warning_once(format!(
            "a restore that ended without a clean-up may have left something in subscription {}, in which this job does not work: \
             {}; a job that works there removes it; if there is none, delete it yourself and remove {}",
            first.subscription(),
            some_of(names),
            folder.path.display()
        ));
        return false;
    }
    if let Some(machine) = of(MACHINES).next() {
        let parts = made.iter().filter(|id| *id != machine);
        let parts: Vec<_> = parts.map(|id| id.name().to_owned()).collect();
        let parts = match parts.is_empty() {
            true => String::new(),
            false => format!(" ({})", some_of(parts.into_iter())),
        };
        notices.warning(format!(
            "a restore ended without a clean-up when it made virtual machine {} in resource group {}: the machine, if it was \
             made, and its parts stay{parts}; see whether it is good, or delete them",
            machine.name(),
            machine.resource_group(),
        ));
        return true;
    }
    let interfaces = of(INTERFACES).map(|id| async move {
        let cleared = clear_interface(azure, id).await;
        is_clear("remove network interface", id, cleared, notices)
    });
    // Their machine was removed by the restore that made it: they were attached to that one.
    let had_machine = gone.iter().any(|id| id.is_type(MACHINES));
    let disks = of(DISKS).map(|id| async move {
        let cleared = clear_disk(azure, id, had_machine, notices).await;
        is_clear("remove disk", id, cleared, notices)
    });
    let (interfaces, disks) = tokio::join!(join_all(interfaces), join_all(disks));
    interfaces.into_iter().chain(disks).all(|clear| clear)
}

/// Says what could not be done.
fn is_clear(
    action: &str,
    id: &ResourceId,
    cleared: Result<(), AzureError>,
    notices: &Notices,
) -> bool {
    let Err(error) = cleared else { return true };
    if !error.is_cancelled() {
        notices.warning(format!(
            "{action} {} in resource group {}, left by a restore that ended without a clean-up: {}; the next job tries again",
            id.name(),
            id.resource_group(),
            with_causes(&error)
        ));
    }
    false
}

async fn clear_interface(azure: &Azure, id: &ResourceId) -> Result<(), AzureError> {
    match azure.network_interface(id).await {
        Ok(found) if found.pointer("/properties/virtualMachine/id").is_some() => Ok(()),
        Ok(_) => azure.delete_network_interface(id).await,
        Err(error) if error.is_not_found() => believed(azure.delete_network_interface(id).await),
        Err(error) => Err(error),
    }
}

/// What was not found is deleted nevertheless, since nobody will look for it again. Who may not delete must believe it.
fn believed(deleted: Result<(), AzureError>) -> Result<(), AzureError> {
    match deleted {
        Err(error) if error.is_not_found() || error.kind() == ErrorKind::Forbidden => Ok(()),
        deleted => deleted,
    }
}

/// Deletes the disk unless it belongs to a machine, or did without having had one of its own: then somebody found a use for it.
async fn clear_disk(
    azure: &Azure,
    id: &ResourceId,
    had_machine: bool,
    notices: &Notices,
) -> Result<(), AzureError> {
    let disk = match azure.disk(id).await {
        Ok(disk) => disk,
        Err(error) if error.is_not_found() => return believed(delete_disk(azure, id).await),
        Err(error) => return Err(error),
    };
    let text = |pointer| json::text(&disk, pointer);
    let is_used = text("/managedBy").is_some() || disk.pointer("/managedByExtended/0").is_some();
    // Not there before the disk is attached for the first time ("Disks - Get").
    let was_used = text("/properties/LastOwnershipUpdateTime").is_some() && !had_machine;
    let is_upload = text("/properties/creationData/createOption") == Some("Upload");
    if is_used || was_used || !is_upload {
        return Ok(());
    }
    delete_disk(azure, id).await?;
    notices.info(format!(
        "disk {} of a restore that ended without a clean-up is deleted",
        id.name()
    ));
    Ok(())
}
