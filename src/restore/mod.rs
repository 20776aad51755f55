//! From files back to a VM. Knows nothing of Bacula.
use crate::azure::Azure;
use crate::notice::Notices;
use crate::pipeline::Limits;
use std::path::PathBuf;

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

/// A failed restore.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

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
    /// A file comes: catalog name (any prefix before `/@azure-vm/` ignored) and its size in bytes.
    /// # Errors
    /// A file that does not belong to this restore; too little space; a name that is taken.
    pub async fn begin_entry(&mut self, path: &str, size: u64) -> Result<Disposition, Error> {
        let _ = (path, size);
        unimplemented!()
    }
    /// Data of the current file at its offset; blocks the caller on local disk I/O.
    /// # Errors
    /// Out of bounds, disk full.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let _ = (offset, data);
        unimplemented!()
    }
    /// The current file is complete.
    /// # Errors
    /// It is not what it should be.
    pub async fn end_entry(&mut self) -> Result<(), Error> {
        unimplemented!()
    }
    /// All files came: disks, NICs, VM. Whatever was created is removed again on failure, the local files in any case.
    /// # Errors
    /// Anything missing or refused.
    pub async fn complete(self) -> Result<RestoredVm, Error> {
        unimplemented!()
    }
    /// The job failed or was cancelled: local files go.
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
