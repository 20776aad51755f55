//! What a restore has made in Azure, to be removed again if it fails.

use std::io;
use std::sync::{Mutex, PoisonError};

use futures_util::future::join_all;

use super::stale::Mark;
use crate::azure::{Azure, Error as AzureError, ResourceId};
use crate::json;
use crate::notice::{Notices, with_causes};

/// What becomes of a thing that could not be removed.
const NEXT_JOB: &str = "the next job of this File Daemon tries again";
/// The same where no job would remove it: none knows of it, or it may be part of a machine.
const YOURSELF: &str = "delete it yourself if it is there";

/// Resources are noted before the request that makes them, since an answer may be lost. Their names are made up for this
/// restore, so none of them can be anybody else's; for the VM, whose name is the user's choice, its OS disk tells.
///
/// Ends with [`Undo::run`] or [`Undo::forget`]. Dropped, also in the midst of [`Undo::run`], it names what is left, in error
/// notices. The mark of the local folder names it to the next job, also if the process dies.
#[derive(Debug)]
pub(super) struct Undo<'a> {
    /// In the order in which it was made.
    made: Mutex<Vec<Made>>,
    mark: Option<&'a Mark>,
    /// A later job will read the mark.
    has_next_job: bool,
    notices: Notices,
}

#[derive(Clone, Debug)]
struct Made {
    kind: Kind,
    id: ResourceId,
    /// Why it could not be removed.
    failure: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Disk,
    Interface,
    Machine { os_disk: ResourceId },
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Interface => "network interface",
            Self::Machine { .. } => "virtual machine",
        }
    }
}

impl<'a> Undo<'a> {
    pub(super) fn new(mark: Option<&'a Mark>, has_next_job: bool, notices: Notices) -> Self {
        Self {
            made: Mutex::default(),
            mark,
            has_next_job: has_next_job && mark.is_some(),
            notices,
        }
    }

    pub(super) fn note_disk(&self, id: &ResourceId) {
        self.note(Kind::Disk, id);
    }

    pub(super) fn note_nic(&self, id: &ResourceId) {
        self.note(Kind::Interface, id);
    }

    pub(super) fn note_vm(&self, id: &ResourceId, os_disk: &ResourceId) {
        let os_disk = os_disk.clone();
        self.note(Kind::Machine { os_disk }, id);
    }

    fn note(&self, kind: Kind, id: &ResourceId) {
        self.mark(|mark| mark.note(id), id.name());
        self.with(|made| {
            made.push(Made {
                kind,
                id: id.clone(),
                failure: None,
            });
        });
    }

    /// It was not made, is gone, or is somebody else's.
    pub(super) fn strike(&self, id: &ResourceId) {
        self.mark(|mark| mark.strike(id), id.name());
        self.with(|made| made.retain(|one| one.id != *id));
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
        self.with(Vec::clear);
    }

    /// Removes everything that was noted: the VM first, since it holds the others. What cannot be removed is an error
    /// notice that names it, and stays in the mark. `azure` must be a view for clean-up: the job's own may be cancelled.
    pub(super) async fn run(self, azure: &Azure) {
        let made = self.with(|made| made.clone());
        let of = |kind: Kind| {
            let ids = made.iter().filter(move |one| one.kind == kind);
            ids.map(|one| &one.id)
        };
        let machine = made.iter().find_map(|one| match &one.kind {
            Kind::Machine { os_disk } => Some((&one.id, os_disk)),
            Kind::Disk | Kind::Interface => None,
        });
        if let Some((id, os_disk)) = machine {
            let disks: Vec<_> = of(Kind::Disk).collect();
            self.remove_vm(azure, id, os_disk, &disks).await;
        }
        let this = &self;
        join_all(of(Kind::Interface).map(|id| async move {
            this.settle(id, azure.delete_network_interface(id).await);
        }))
        .await;
        join_all(of(Kind::Disk).map(|id| async move {
            this.settle(id, delete_disk(azure, id).await);
        }))
        .await;
        // Without its OS disk it cannot be there, nor come yet.
        if let Some((id, os_disk)) = machine
            && self.with(|made| made.iter().all(|one| one.id != *os_disk))
        {
            self.strike(id);
        }
    }

    /// Removes the VM. It stays noted unless it is known that there is none and none will come: the next job must not take for
    /// debris what has become part of a machine.
    async fn remove_vm(
        &self,
        azure: &Azure,
        id: &ResourceId,
        os_disk: &ResourceId,
        disks: &[&ResourceId],
    ) {
        match delete_vm(azure, id, os_disk).await {
            Ok(Found::Deleted) => {
                let noted = join_all(disks.iter().map(|disk| self.note_freed(azure, disk))).await;
                // Else the next job could not tell whether somebody has used them since.
                match noted.into_iter().collect::<Result<(), _>>() {
                    Ok(()) => self.strike(id),
                    Err(error) => self.fail(id, with_causes(&error)),
                }
            }
            Ok(Found::Foreign) => self.strike(id),
            Ok(Found::Nothing) => {
                self.fail(id, "it is not there, but was asked for and may come".into());
            }
            Err(error) => self.fail(id, with_causes(&error)),
        }
    }

    /// Notes when the disk was freed from the VM that is deleted.
    async fn note_freed(&self, azure: &Azure, id: &ResourceId) -> Result<(), AzureError> {
        let disk = match azure.disk(id).await {
            Ok(disk) => disk,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        if let Some(at) = changed_hands(&disk) {
            self.mark(|mark| mark.note_freed(id, at), id.name());
        }
        Ok(())
    }

    fn settle(&self, id: &ResourceId, deleted: Result<(), AzureError>) {
        match deleted {
            Err(error) if !error.is_not_found() => self.fail(id, with_causes(&error)),
            Ok(()) | Err(_) => self.strike(id),
        }
    }

    fn fail(&self, id: &ResourceId, reason: String) {
        self.with(|made| {
            if let Some(one) = made.iter_mut().find(|one| one.id == *id) {
                one.failure = Some(reason);
            }
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut Vec<Made>) -> T) -> T {
        change(&mut self.made.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let left = self.with(std::mem::take);
        // As long as a machine is noted, the next job touches nothing.
        let has_machine = left
            .iter()
            .any(|one| matches!(one.kind, Kind::Machine { .. }));
        let hope = match self.has_next_job && !has_machine {
            true => NEXT_JOB,
            false => YOURSELF,
        };
        for Made { kind, id, failure } in left.iter().rev() {
            self.notices.error(format!(
                "remove {} {} of the failed restore from resource group {}: {}; {hope}",
                kind.name(),
                id.name(),
                id.resource_group(),
                failure.as_deref().unwrap_or("gave up waiting"),
            ));
        }
    }
}

/// What was found of a VM.
enum Found {
    /// It is deleted.
    Deleted,
    /// Neither it nor that the OS disk belongs to it.
    Nothing,
    /// Another one of its name: so it was refused.
    Foreign,
}

/// Deletes the VM if it is the one that was made: it has the OS disk. Where the VM is not found, the disk is asked, too: what
/// holds it must go before anything else can.
async fn delete_vm(
    azure: &Azure,
    id: &ResourceId,
    os_disk: &ResourceId,
) -> Result<Found, AzureError> {
    let is = |found: Option<&str>, id: &ResourceId| {
        found.is_some_and(|found| found.eq_ignore_ascii_case(id.as_str()))
    };
    match azure.virtual_machine(id).await {
        Ok(vm) => {
            let disk = json::text(&vm, "/properties/storageProfile/osDisk/managedDisk/id");
            if !is(disk, os_disk) {
                return Ok(Found::Foreign);
            }
        }
        Err(error) if error.is_not_found() => match azure.disk(os_disk).await {
            Ok(disk) if is(json::text(&disk, "/managedBy"), id) => {}
            Ok(_) => return Ok(Found::Nothing),
            Err(error) if error.is_not_found() => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        },
        Err(error) => return Err(error),
    }
    azure.delete_virtual_machine(id).await?;
    Ok(Found::Deleted)
}

/// When the disk was attached or detached last, as Azure writes it; `None` before it is attached for the first time ("Disks -
/// Get").
pub(super) fn changed_hands(disk: &serde_json::Value) -> Option<&str> {
    json::text(disk, "/properties/LastOwnershipUpdateTime")
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
    use crate::private_folder::PrivateFolder;

    fn id(name: &str) -> ResourceId {
        ResourceId::new("s", "g", "t/things", name)
    }

    fn told(notices: &Notices) -> Vec<String> {
        let told = std::iter::from_fn(|| notices.pop());
        told.map(|notice| notice.text).collect()
    }

    #[test]
    fn what_nobody_removed_is_named() {
        let notices = Notices::default();
        let kept = Undo::new(None, false, notices.clone());
        kept.note_disk(&id("kept"));
        kept.forget();
        assert_eq!(told(&notices), Vec::<String>::new());
        let interrupted = Undo::new(None, false, notices.clone());
        interrupted.note_disk(&id("left"));
        drop(interrupted);
        let told = told(&notices);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("disk left"), "{told:?}");
    }

    /// The next job works only where there is one, and not as long as a machine is noted.
    #[test]
    fn nobody_is_promised_what_no_job_does() {
        let folder = tempfile::tempdir().unwrap();
        let mark = Mark::set(&PrivateFolder::open(folder.path()).unwrap()).unwrap();
        let notices = Notices::default();
        for (mark, has_next_job, vm, struck, hope) in [
            (None, true, false, false, YOURSELF),
            (Some(&mark), false, false, false, YOURSELF),
            (Some(&mark), true, false, false, NEXT_JOB),
            (Some(&mark), true, true, false, YOURSELF),
            (Some(&mark), true, true, true, NEXT_JOB),
        ] {
            let undo = Undo::new(mark, has_next_job, notices.clone());
            undo.note_disk(&id("disk"));
            if vm {
                undo.note_vm(&id("vm"), &id("disk"));
            }
            if struck {
                undo.strike(&id("vm"));
            }
            drop(undo);
            let told = told(&notices);
            assert_eq!(told.len(), 1 + usize::from(vm && !struck), "{told:?}");
            assert!(told.iter().all(|text| text.ends_with(hope)), "{told:?}");
        }
    }
}
