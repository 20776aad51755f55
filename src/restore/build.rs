//! The new VM, from staged images to a running machine: disks side by side, then interfaces, then the VM itself.

use std::fs::File;

use futures_util::{StreamExt, stream};

use super::plan::{NewDisk, Plan};
use super::staging::RawDisk;
use super::undo::Undo;
use super::verify::verify;
use super::{Error, RestoredVm, disk, network};
use crate::azure::Azure;
use crate::notice::Notices;
use crate::pipeline::Limits;

/// Disks that are uploaded at the same time. Each runs at the speed of a Standard HDD of its size (60 MiB/s and more),
/// so a few fill the network of most hosts.
const DISKS_AT_ONCE: usize = 4;

/// How disks are filled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) limits: Limits,
    /// Read each back and compare it.
    pub(super) verify: bool,
}

/// Makes everything in `plan`, its disks of `images` in the same order, and notes it in `undo` before. After a failure everything
/// that was made is removed again.
///
/// # Errors
///
/// Anything that Azure refuses, or makes otherwise than asked for.
pub(super) async fn vm(
    azure: &Azure,
    plan: &Plan,
    images: Vec<RawDisk>,
    undo: Undo<'_>,
    terms: Terms,
    notices: &Notices,
) -> Result<RestoredVm, Error> {
    match make(azure, plan, images, terms, notices, &undo).await {
        Ok(()) => {
            undo.forget();
            for note in &plan.notes {
                notices.warning(note);
            }
            notices.info(format!(
                "virtual machine {} is restored in resource group {}",
                plan.vm.name(),
                plan.vm.resource_group()
            ));
            Ok(RestoredVm {
                id: plan.vm.as_str().to_owned(),
                name: plan.vm.name().to_owned(),
            })
        }
        Err(error) => {
            undo.run(&azure.for_cleanup()).await;
            Err(error)
        }
    }
}

/// # Errors
///
/// That the resource group cannot be read: it is gone, for example.
pub(super) async fn check_group(azure: &Azure, plan: &Plan) -> Result<(), Error> {
    let group = plan.vm.resource_group();
    let read = azure.resource_group(group).await.map_err(|source| {
        let action = format!(
            "read resource group {group}, in which the virtual machine was saved and must be restored (make an empty \
             one if it is gone)"
        );
        Error::azure(action, source)
    });
    read.map(drop)
}

/// # Errors
///
/// [`Error::NameTaken`], or that Azure cannot be asked.
pub(super) async fn check_name(azure: &Azure, plan: &Plan) -> Result<(), Error> {
    let (group, name) = (plan.vm.resource_group(), plan.vm.name());
    let existing = azure
        .find_virtual_machine(group, name)
        .await
        .map_err(|source| {
            Error::azure(format!("look for a virtual machine named {name}"), source)
        })?;
    match existing {
        None => Ok(()),
        Some(_) => Err(name_taken(plan)),
    }
}

fn name_taken(plan: &Plan) -> Error {
    Error::NameTaken {
        name: plan.vm.name().to_owned(),
        resource_group: plan.vm.resource_group().to_owned(),
    }
}

async fn make(
    azure: &Azure,
    plan: &Plan,
    images: Vec<RawDisk>,
    terms: Terms,
    notices: &Notices,
    undo: &Undo<'_>,
) -> Result<(), Error> {
    upload_disks(azure, plan, images, terms, notices, undo).await?;
    for nic in &plan.nics {
        undo.note_nic(&nic.id);
        network::create(azure, &nic.id, &nic.body, notices)
            .await
            .map_err(|source| {
                Error::azure(
                    format!("create network interface {}", nic.id.name()),
                    source,
                )
            })?;
    }
    // Hours may have passed since the first look.
    check_name(azure, plan).await?;
    if let Some(os_disk) = plan.disks.first() {
        undo.note_vm(&plan.vm, &os_disk.id);
    }
    let made = azure
        .create_virtual_machine(&plan.vm, &plan.vm_body())
        .await
        .map_err(|source| {
            if !source.may_be_done() {
                undo.strike(&plan.vm);
            }
            match source.status() {
                // Somebody was faster.
                Some(412) => name_taken(plan),
                _ => Error::azure(format!("create virtual machine {}", plan.vm.name()), source),
            }
        })?;
    plan.check_vm(&made)
}

/// Uploads all disks, some at a time. After a failure the others stop, but each comes to its own end, so that nothing is
/// being made while it is removed.
async fn upload_disks(
    azure: &Azure,
    plan: &Plan,
    images: Vec<RawDisk>,
    terms: Terms,
    notices: &Notices,
    undo: &Undo<'_>,
) -> Result<(), Error> {
    let at_once = plan.disks.len().clamp(1, DISKS_AT_ONCE);
    let limits = Limits {
        memory: terms.limits.memory / at_once as u64,
        ..terms.limits
    };
    let stop = azure.cancellation().child_token();
    let uploads = stream::iter(plan.disks.iter().zip(images)).map(|(disk, image)| {
        let stop = &stop;
        async move {
            if stop.is_cancelled() {
                return Err(Error::Cancelled);
            }
            if image.size() != disk.size {
                return Err(Error::Mismatch {
                    what: disk.label(),
                    reason: format!(
                        "its image has {} bytes instead of {}",
                        image.size(),
                        disk.size
                    ),
                });
            }
            let image = image.into_file();
            undo.note_disk(&disk.id);
            let uploaded = async {
                let copy = match terms.verify {
                    true => Some(cloned(&image, disk)?),
                    false => None,
                };
                disk::upload(azure, disk, image, limits, stop, notices).await?;
                match copy {
                    Some(copy) => verify(azure, disk, copy, limits, stop, notices).await,
                    None => Ok(()),
                }
            };
            let uploaded = Box::pin(uploaded).await;
            if uploaded.is_err() {
                stop.cancel();
            }
            uploaded
        }
    });
    let mut uploads = uploads.buffer_unordered(at_once);
    let mut first_failure = Ok(());
    while let Some(uploaded) = uploads.next().await {
        if first_failure.is_ok() {
            first_failure = uploaded;
        }
    }
    first_failure
}

/// The same open file once more.
fn cloned(image: &File, disk: &NewDisk) -> Result<File, Error> {
    image
        .try_clone()
        .map_err(|source| Error::local("open image", disk.id.name().as_ref(), source))
}
