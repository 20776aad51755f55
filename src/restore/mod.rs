//! From files back to a VM. Knows nothing of Bacula.
//!
//! A driver (the plugin on the job's thread, the command line) calls, inside one tokio runtime, for every file in any
//! order: `begin_entry`, and if it is to be received `write` as often as there are blocks, then `end_entry`. At the end
//! `complete` builds the VM, or `abandon` leaves nothing behind. After an error of any of them the driver calls
//! `abandon`; `complete` cleans up after itself.
//!
//! Nothing is created in Azure before `complete`, and nothing is decided: runs may come in any order, and files of more
//! runs than are needed. The newest run is restored. Of each of its disks the chain of base links, back to a full image,
//! says which images make it; the others are skipped. A configuration document may even come after its images; it only
//! helps to find out early what cannot work.

mod assemble;
mod blocks;
mod build;
mod chain;
mod debris;
mod disk;
mod documents;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod integrity;
mod local_part;
mod network;
mod plan;
mod receive;
mod saved;
mod sparse;
mod staging;
mod stale;
mod undo;
mod upload;
mod verify;

pub use self::debris::clear_debris;
pub use self::error::Error;
pub use self::receive::Restore;
pub use self::sparse::{SparseReader, clear_range};
pub use self::upload::{RawImage, UploadProgress, upload_image};

use crate::pipeline::Limits;
use crate::private_folder::PrivateFolder;

/// What a restore is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the new VM; the saved name without it.
    pub new_hostname: Option<String>,
    /// Holds the staging folders of all restores.
    pub restores: PrivateFolder,
    /// What the folder for local images is called in it: of this restore alone, removed at the end. If something has that name, it is
    /// made beside it, with a number added.
    pub staging_name: String,
    /// A later job calls [`clear_debris`] for `restores`: what cannot be removed in Azure is left to it. Else a message asks the user
    /// to delete it.
    pub has_next_job: bool,
    /// Leave the local images (debug=9).
    pub keep_staging: bool,
    /// Read each disk back after its upload and compare it with its local image.
    pub verify: bool,
    /// Files of one run come, and of no other: what stands in its way ends the restore at once. Bacula does not tell, so its jobs wait
    /// for the end.
    pub one_run: bool,
    /// Memory and parallelism.
    pub limits: Limits,
}

/// What the driver shall do with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Not needed; send no data (`end_entry` does nothing then).
    Skip,
    /// Send its data.
    Receive,
}

/// What a restore made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredVm {
    /// Resource id.
    pub id: String,
    /// Name.
    pub name: String,
}
