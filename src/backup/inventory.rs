//! Which snapshots of ours there are, by the tracker. Reads only.

use std::path::Path;

use super::tracker::State;
use super::{Error, Level};
use crate::azure::ResourceId;
use crate::document::Slot;

/// A snapshot that the tracker knows.
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

/// The snapshots that the tracker in `state_dir` knows, oldest run first within a job; none if there is no tracker file.
/// Takes no lock and changes nothing.
///
/// # Errors
///
/// A file that cannot be read, is damaged, or was written by a newer release.
pub fn known_snapshots(state_dir: &Path) -> Result<Vec<KnownSnapshot>, Error> {
    let state = State::peek(state_dir)?;
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
