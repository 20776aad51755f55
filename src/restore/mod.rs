//! From files back to a VM. Knows nothing of Bacula.
//!
//! A driver (the plugin on the job's thread, the command line) calls, inside one tokio runtime, for every file in any
//! order: `begin_entry`, and if it is to be received `write` as often as there are blocks, then `end_entry`. At the end
//! `complete` builds the VM, or `abandon` leaves nothing behind. After an error of any of them the driver calls
//! `abandon`; `complete` cleans up after itself.
//!
//! Nothing is created in Azure before `complete`. Names are matched there too, so the configuration document may come
//! after its images; it only helps to find out early what cannot work.

mod error;

use std::path::PathBuf;

pub use self::error::Error;

use crate::azure::Azure;
use crate::notice::Notices;
use crate::pipeline::Limits;

/// What a restore is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the new VM; the saved name without it.
    pub new_hostname: Option<String>,
    /// Folder for local images, of this restore alone; removed at the end.
    pub staging_dir: PathBuf,
    /// Leave the local images (debug=9).
    pub keep_staging: bool,
    /// Memory and parallelism.
    pub limits: Limits,
}

/// What the driver shall do with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Not needed; send no data.
    Skip,
    /// Send its data.
    Receive,
}

/// A running restore.
#[derive(Debug)]
pub struct Restore {}

impl Restore {
    /// Nothing is created yet, neither in Azure nor on disk.
    #[must_use]
    pub fn new(azure: Azure, options: Options, notices: Notices) -> Self {
        let _ = (azure, options, notices);
        unimplemented!()
    }

    /// A file comes: catalog name (any prefix before `/@azure-vm/` ignored) and its size in bytes as in the catalog.
    ///
    /// # Errors
    ///
    /// A file that does not belong to this restore; too little space; local storage that fails.
    pub async fn begin_entry(&mut self, path: &str, size: u64) -> Result<Disposition, Error> {
        let _ = (path, size);
        unimplemented!()
    }

    /// Data of the current file at its offset in bytes, in any order; blocks the caller on local disk I/O.
    ///
    /// # Errors
    ///
    /// No current file; beyond its end; disk full.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let _ = (offset, data);
        unimplemented!()
    }

    /// The current file is complete. After the configuration document: checks that the VM can be built, that its new
    /// name is free and that the local folder has room for its images.
    ///
    /// # Errors
    ///
    /// It is not what it should be; one of the checks failed.
    pub async fn end_entry(&mut self) -> Result<(), Error> {
        unimplemented!()
    }

    /// All files came: disks, NICs, VM. Whatever was created is removed again on failure, the local files in any case
    /// (unless `keep_staging`). What could not be removed, and what the new VM could not be given, are notices.
    ///
    /// # Errors
    ///
    /// Anything missing or refused.
    pub async fn complete(self) -> Result<RestoredVm, Error> {
        unimplemented!()
    }

    /// The job failed or was cancelled: local files go (unless `keep_staging`).
    pub async fn abandon(self) {
        unimplemented!()
    }
}

/// What a restore made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredVm {
    /// Resource id.
    pub id: String,
    /// Name.
    pub name: String,
}
