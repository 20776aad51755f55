//! What restores left that died, or could not remove what they had made when they failed: local images, and what is in Azure.
//!
//! Once a virtual machine was asked for, it may have been made, and whatever became of it since is its owner's business: then
//! nothing is touched, unless the restore itself has removed it. What there is without a machine is of no use to anybody. What
//! somebody has found a use for is struck out of the mark as soon as that is seen: it stays, whatever becomes of it later.

use std::io;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::stale::{DeadFolder, dead_folders};
use super::undo::{changed_hands, delete_disk};
use crate::azure::{Azure, Error as AzureError, ErrorKind, ResourceId};
use crate::json;
use crate::notice::{Notices, some_of, with_causes};
use crate::private_folder::PrivateFolder;

const DISKS: &str = "Microsoft.Compute/disks";
const INTERFACES: &str = "Microsoft.Network/networkInterfaces";
const MACHINES: &str = "Microsoft.Compute/virtualMachines";

/// How long all of it may keep a job from its work.
const LIMIT: Duration = Duration::from_secs(5 * 60);

/// Clears what is left of restores whose folders are in `restores`. What is in another subscription waits for a job that works
/// there, and what cannot be read for somebody who removes the folder: a job names each once. What cannot be removed within five
/// minutes is a warning, and is tried again by the next job: it does not keep this one from going on.
pub async fn clear_debris(azure: &Azure, restores: &PrivateFolder, notices: &Notices) {
    let folders = dead_folders(restores);
    for folder in &folders {
        clear_images(folder, notices);
    }
    let hasty = azure.for_cleanup();
    let clearing = folders
        .into_iter()
        .map(|folder| clear_folder(&hasty, folder, notices));
    let clearing = timeout(LIMIT, join_all(clearing));
    let cleared = azure.cancellation().run_until_cancelled(clearing).await;
    if let Some(Err(_elapsed)) = cleared {
        notices.warning_once(format!(
            "clear what restores left that ended without a clean-up: not finished within {} s; the next job goes on ({})",
            LIMIT.as_secs(),
            restores.path().display()
        ));
    }
}

fn clear_images(folder: &DeadFolder, notices: &Notices) {
    match folder.remove_images() {
        Ok(true) => notices.info(format!(
            "local images of a restore that ended without a clean-up are removed: {}",
            folder.path.display()
        )),
        Ok(false) => {}
        Err(error) => not_removed(&folder.path, &error, notices),
    }
    if let Some(damage) = &folder.noted.damage {
        notices.warning_once(format!(
            "read {}, in which a restore that ended without a clean-up noted what it made: {damage}; see whether disks or \
             network interfaces of it are left in Azure, then remove the folder",
            folder.shown_mark().display()
        ));
    }
}

fn not_removed(folder: &Path, error: &io::Error, notices: &Notices) {
    if error.kind() != io::ErrorKind::NotFound {
        notices.warning_once(format!(
            "remove {}, which a dead restore has left: {error}",
            folder.display()
        ));
    }
}

async fn clear_folder(azure: &Azure, folder: DeadFolder, notices: &Notices) {
    let cleared = clear_azure(azure, &folder, notices).await;
    if cleared && folder.noted.damage.is_none() {
        let path = folder.path.clone();
        if let Err(error) = folder.remove() {
            not_removed(&path, &error, notices);
        }
    }
}

/// Whether nothing of the dead restore is left in Azure that is of no use, or all that is left was named for the last time.
async fn clear_azure(azure: &Azure, folder: &DeadFolder, notices: &Notices) -> bool {
    let made = &folder.noted.made;
    let of = |kind: &'static str| made.iter().filter(move |id| id.is_type(kind));
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
        for id in made {
            strike(folder, id, notices);
        }
        return true;
    }
    let subscription = azure.subscription_id();
    let elsewhere: Vec<_> = made.iter().filter(|id| !id.is_in(subscription)).collect();
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
    let interfaces = of(INTERFACES).map(|id| async move {
        let cleared = clear_interface(azure, id).await;
        settle("network interface", id, cleared, folder, notices)
    });
    let disks = of(DISKS).map(|id| async move {
        let cleared = clear_disk(azure, id, folder.noted.freed_at(id), notices).await;
        settle("disk", id, cleared, folder, notices)
    });
    let (interfaces, disks) = tokio::join!(join_all(interfaces), join_all(disks));
    interfaces.into_iter().chain(disks).all(|settled| settled)
}

/// What was done about a thing that is left.
enum Cleared {
    Gone,
    /// Somebody uses it, or did: how that is known.
    Used(String),
}

/// Strikes out what nothing is to be done about any more, and says what stays or could not be removed; whether it was struck out.
fn settle(
    kind: &str,
    id: &ResourceId,
    cleared: Result<Cleared, AzureError>,
    folder: &DeadFolder,
    notices: &Notices,
) -> bool {
    let (name, group) = (id.name(), id.resource_group());
    match cleared {
        Ok(Cleared::Gone) => {}
        Ok(Cleared::Used(how)) => {
            let text = format!(
                "{kind} {name} in resource group {group}, left by a restore that ended without a clean-up, stays: {how}"
            );
            // The restore took its machine for gone: if that is the one, nobody knows of it.
            match folder.noted.gone.iter().any(|id| id.is_type(MACHINES)) {
                true => notices.warning(text),
                false => notices.info(text),
            }
        }
        Err(error) if error.is_cancelled() => return false,
        Err(error) => {
            let action = format!("remove {kind} {name} in resource group {group}");
            let text = format!(
                "{action}, left by a restore that ended without a clean-up: {}; the next job tries again",
                with_causes(&error)
            );
            notices.warning_once_about(action, text);
            return false;
        }
    }
    strike(folder, id, notices);
    true
}

fn strike(folder: &DeadFolder, id: &ResourceId, notices: &Notices) {
    if let Err(error) = folder.strike(id) {
        notices.warning_once(format!(
            "strike {} out of {}: {error}; the next job looks at it again",
            id.name(),
            folder.shown_mark().display()
        ));
    }
}

async fn clear_interface(azure: &Azure, id: &ResourceId) -> Result<Cleared, AzureError> {
    match azure.network_interface(id).await {
        Ok(found) => match json::text(&found, "/properties/virtualMachine/id") {
            Some(owner) => return Ok(Cleared::Used(format!("{owner} uses it"))),
            None => azure.delete_network_interface(id).await?,
        },
        Err(error) if error.is_not_found() => believed(azure.delete_network_interface(id).await)?,
        Err(error) => return Err(error),
    }
    Ok(Cleared::Gone)
}

/// What was not found is deleted nevertheless, since nobody will look for it again. Who may not delete must believe it.
fn believed(deleted: Result<(), AzureError>) -> Result<(), AzureError> {
    match deleted {
        Err(error) if error.is_not_found() || error.kind() == ErrorKind::Forbidden => Ok(()),
        deleted => deleted,
    }
}

/// Deletes the disk unless it belongs to a machine, or did after it was `freed` from that of its restore: then somebody has found
/// a use for it.
async fn clear_disk(
    azure: &Azure,
    id: &ResourceId,
    freed: Option<&str>,
    notices: &Notices,
) -> Result<Cleared, AzureError> {
    let disk = match azure.disk(id).await {
        Ok(disk) => disk,
        Err(error) if error.is_not_found() => {
            believed(delete_disk(azure, id).await)?;
            return Ok(Cleared::Gone);
        }
        Err(error) => return Err(error),
    };
    let text = |pointer| json::text(&disk, pointer);
    if let Some(owner) = text("/managedBy").or_else(|| text("/managedByExtended/0")) {
        return Ok(Cleared::Used(format!("{owner} uses it")));
    }
    if changed_hands(&disk) != freed {
        let how = "a virtual machine has used it since";
        return Ok(Cleared::Used(how.into()));
    }
    if text("/properties/creationData/createOption") != Some("Upload") {
        let how = "no restore has made it as it is";
        return Ok(Cleared::Used(how.into()));
    }
    delete_disk(azure, id).await?;
    notices.info(format!(
        "disk {} of a restore that ended without a clean-up is deleted",
        id.name()
    ));
    Ok(Cleared::Gone)
}
