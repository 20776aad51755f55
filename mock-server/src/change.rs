//! What an administrator, or anybody else with rights in the subscription, does between two backups.
use crate::{
    scenario::{Disk, Snapshot, Vm},
    size::ByteSize,
};
use serde::{Deserialize, Serialize};

/// One change to what exists. It keeps the service's rules and takes effect at once, or not at all.
///
/// A VM is named by its id or by a name that only one VM has; so are disks and snapshots.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Change {
    /// Makes a disk larger, attached or not. What is added reads as zeros.
    GrowDisk {
        /// The disk.
        disk: String,
        /// Its new size; Azure knows whole GiB only, the emulator any multiple of 1 MiB.
        size: ByteSize,
    },
    /// Makes a disk that belongs to no VM.
    CreateDisk(Box<Disk>),
    /// Deletes a disk that belongs to no VM.
    DeleteDisk {
        /// The disk.
        disk: String,
    },
    /// Puts a free disk into a free LUN, without host caching.
    AttachDisk {
        /// The VM.
        vm: String,
        /// 0 to 63.
        lun: u32,
        /// The disk.
        disk: String,
    },
    /// Takes the disk out of a LUN.
    DetachDisk {
        /// The VM.
        vm: String,
        /// The LUN.
        lun: u32,
    },
    /// Makes a VM with its disks and interfaces.
    CreateVm(Box<Vm>),
    /// Deletes a VM.
    DeleteVm {
        /// The VM.
        vm: String,
        /// Its disks and interfaces go as well; else only those whose `deleteOption` says so.
        #[serde(default)]
        with_resources: bool,
    },
    /// Gives a VM another name; its id (`vmId`) stays. Azure itself cannot do this.
    RenameVm {
        /// The VM.
        vm: String,
        /// The new name.
        name: String,
    },
    /// Takes an incremental snapshot.
    CreateSnapshot(Snapshot),
    /// Gives a service principal another secret. Tokens that it has stay good.
    SetSecret {
        /// Its client id.
        client_id: String,
        /// The new secret.
        secret: String,
    },
    /// Deletes a snapshot that nobody has access to.
    DeleteSnapshot {
        /// The snapshot.
        snapshot: String,
    },
}
