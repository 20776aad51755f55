//! Which snapshots of ours there are: by the tracker of one state folder, and by the tags in Azure. Reads only, but for
//! [`delete_snapshot`].

use super::tags::OurSnapshot;
use super::tracker::State;
use super::{Error, Level, snapshot_set};
use crate::azure::{Azure, ResourceId};
use crate::document::Slot;
use crate::private_folder::PrivateFolder;

/// A snapshot of ours, as the tracker or its tags describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSnapshot {
    /// The snapshot.
    pub id: ResourceId,
    /// The File Daemon's name.
    pub client: String,
    /// The job's name.
    pub chain: String,
    /// Unique name of the run that made it.
    pub job: String,
    /// Level of that run.
    pub level: Level,
    /// Seconds since 1970 at which that run began.
    pub started: u64,
    /// UUID of the VM.
    pub vm: String,
    /// The VM's name at that time.
    pub vm_name: String,
    /// Seconds since 1970 in the names of the VM's files.
    pub epoch: u64,
    /// `properties.uniqueId` of the disk.
    pub disk: String,
    /// The disk's name.
    pub disk_name: String,
    /// Where the disk sat.
    pub slot: Slot,
    /// Size of the disk in bytes.
    pub size: u64,
    /// Seconds since 1970 at which Azure took it.
    pub created: u64,
}

/// A snapshot of ours that is in Azure, whichever job or daemon made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSnapshot {
    /// What it is.
    pub known: KnownSnapshot,
    /// Somebody holds access to its bytes: a run that is under way, or one that was killed.
    pub is_open: bool,
}

/// The snapshots that the tracker in the folder `state` knows, oldest run first within a job; none if there is no tracker file.
/// Takes no lock and changes nothing.
///
/// # Errors
///
/// A file that cannot be read, is damaged, or was written by a newer release.
pub fn known_snapshots(state: &PrivateFolder) -> Result<Vec<KnownSnapshot>, Error> {
    let state = State::peek(state)?;
    let mut known = Vec::new();
    for chain in state.chains() {
        for run in &chain.runs {
            for vm in &run.vms {
                known.extend(vm.snapshots.iter().filter_map(|snapshot| {
                    Some(KnownSnapshot {
                        id: ResourceId::parse(&snapshot.id)?,
                        client: chain.key.client.clone(),
                        chain: chain.key.job.clone(),
                        job: run.job.clone(),
                        level: run.level,
                        started: run.started,
                        vm: vm.uuid.clone(),
                        vm_name: vm.name.clone(),
                        epoch: vm.epoch,
                        disk: snapshot.disk.clone(),
                        disk_name: snapshot.name.clone(),
                        slot: snapshot.slot,
                        size: snapshot.size,
                        created: snapshot.created,
                    })
                }));
            }
        }
    }
    Ok(known)
}

/// The snapshots in the subscription that carry our tags, oldest run first.
///
/// # Errors
///
/// Azure's refusal.
pub async fn own_snapshots(azure: &Azure) -> Result<Vec<OwnSnapshot>, Error> {
    let listed = azure
        .snapshots()
        .await
        .map_err(|source| Error::azure("list snapshots", source))?;
    let mut own: Vec<_> = listed
        .iter()
        .filter_map(OurSnapshot::from_listed)
        .map(OwnSnapshot::from)
        .collect();
    own.sort_by(|a, b| {
        let order = |own: &OwnSnapshot| (own.known.started, own.known.epoch, own.known.slot);
        order(a).cmp(&order(b))
    });
    Ok(own)
}

/// Ends access to a snapshot of ours and deletes it; one that is gone already is no error.
///
/// # Errors
///
/// Azure's refusal.
pub async fn delete_snapshot(azure: &Azure, id: &ResourceId) -> Result<(), Error> {
    match snapshot_set::delete_one(azure, id).await {
        Err(error) if !error.is_not_found() => Err(Error::azure(
            format!("delete snapshot {}", id.name()),
            error,
        )),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl From<OurSnapshot> for OwnSnapshot {
    fn from(snapshot: OurSnapshot) -> Self {
        let tags = snapshot.tags;
        let disk_name = snapshot.source.as_ref().map(ResourceId::name);
        Self {
            is_open: snapshot.has_access,
            known: KnownSnapshot {
                id: snapshot.id,
                client: tags.client,
                chain: tags.chain,
                job: tags.job,
                level: tags.level,
                started: tags.started,
                vm: tags.vm,
                vm_name: tags.vm_name,
                epoch: tags.epoch,
                disk_name: disk_name.unwrap_or(&tags.disk).to_owned(),
                disk: tags.disk,
                slot: tags.slot,
                size: snapshot.size,
                created: snapshot.created,
            },
        }
    }
}
