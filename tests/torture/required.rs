//! What each scene asks of Azure, written down so that the matrix cannot lose a kind of request unnoticed.

use crate::matrix::Kind;
use crate::scene::Scene;

/// Operations of a scene, and how many requests of each there are at least. How often an operation is looked at, and how many
/// connections there are, varies: fewer than usual are demanded of these.
pub(crate) fn requests(scene: Scene) -> &'static [(&'static str, u64)] {
    match scene {
        Scene::Backup => &[
            ("Blob_Get", 33),
            ("Blob_GetPageRanges", 9),
            ("Blob_GetPageRangesDiff", 6),
            ("DiskOperations_Get", 6),
            ("Disks_Get", 4),
            ("LookUp", 5),
            ("NetworkInterfaces_Get", 2),
            ("Snapshots_CreateOrUpdate", 4),
            ("Snapshots_Get", 4),
            ("Snapshots_GrantAccess", 6),
            ("Snapshots_List", 3),
            ("Snapshots_RevokeAccess", 6),
            ("Token", 2),
            ("VirtualMachines_Get", 2),
            ("VirtualMachines_ListAll", 2),
        ],
        Scene::ByBlob => &[
            ("Blob_Get", 4),
            ("Blob_GetPageRanges", 9),
            ("Blob_GetPageRangesDiff", 6),
            ("Container_Create", 2),
            ("Container_ListBlobs", 2),
            ("DiskOperations_Get", 6),
            ("Disks_Get", 4),
            ("LookUp", 5),
            ("NetworkInterfaces_Get", 2),
            ("Snapshots_CreateOrUpdate", 4),
            ("Snapshots_Get", 4),
            ("Snapshots_GrantAccess", 6),
            ("Snapshots_List", 3),
            ("Snapshots_RevokeAccess", 6),
            ("StorageBlob_Delete", 4),
            ("StorageBlob_Get", 33),
            ("StorageBlob_GetProperties", 4),
            ("StorageBlob_StartCopy", 4),
            ("Token", 2),
            ("VirtualMachines_Get", 2),
            ("VirtualMachines_ListAll", 2),
        ],
        Scene::Cancelled => &[
            ("Snapshots_Delete", 2),
            ("Snapshots_RevokeAccess", 2),
            ("StorageBlob_AbortCopy", 2),
            ("StorageBlob_Delete", 4),
        ],
        Scene::Restore => &[
            ("Blob_Get", 26),
            ("Blob_GetPageRanges", 8),
            ("Blob_GetProperties", 2),
            ("Blob_PutPage", 25),
            ("ComputeOperations_Get", 1),
            ("DiskOperations_Get", 5),
            ("Disks_CreateOrUpdate", 2),
            ("Disks_Get", 6),
            ("Disks_GrantAccess", 4),
            ("Disks_RevokeAccess", 4),
            ("LookUp", 5),
            ("NetworkInterfaces_CreateOrUpdate", 1),
            ("NetworkInterfaces_Get", 1),
            ("NetworkOperations_Get", 1),
            ("ResourceGroups_Get", 2),
            ("Token", 1),
            ("VirtualMachines_CreateOrUpdate", 1),
            ("VirtualMachines_Get", 4),
        ],
        Scene::BackupAfterDeath => &[
            ("Blob_GetPageRangesDiff", 6),
            ("Container_ListBlobs", 2),
            ("Snapshots_Delete", 4),
            ("Snapshots_RevokeAccess", 6),
            ("StorageBlob_Delete", 4),
        ],
        Scene::RestoreAfterDeath => &[
            ("DiskOperations_Get", 7),
            ("Disks_Delete", 4),
            ("Disks_Get", 8),
            ("Disks_RevokeAccess", 6),
            ("LookUp", 5),
            ("NetworkInterfaces_Delete", 1),
            ("NetworkInterfaces_Get", 2),
            ("NetworkOperations_Get", 2),
        ],
    }
}

/// # Panics
///
/// Something is missing.
pub(crate) fn assert_all(kinds: &[Kind]) {
    for scene in Scene::ALL {
        for &(operation, least) in requests(scene) {
            let mut of_scene = kinds.iter().filter(|kind| kind.scene == scene);
            let kind = of_scene.find(|kind| kind.operation == operation);
            let counted = kind.map_or(0, |kind| kind.counted.requests);
            assert!(
                counted >= least,
                "{scene:?} asks {counted} times for {operation} instead of {least}"
            );
        }
    }
}
