//! Which VMs, what to snapshot, which base, what to stream, what to delete afterwards. Knows nothing of Bacula.
use crate::azure::Azure;
use crate::config::Selection;
use crate::notice::Notices;
use crate::pipeline::{Block, Limits};
use std::path::PathBuf;
use std::time::SystemTime;

/// Level of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Everything.
    Full,
    /// Changes since the previous run.
    Incremental,
    /// Changes since the last Full.
    Differential,
}

/// One run of one job, as the Director names it.
#[derive(Clone, Debug)]
pub struct Run {
    /// Unique name (`Name.yyyy-mm-dd_hh.mm.ss_nn`).
    pub job: String,
    /// The File Daemon's name.
    pub client: String,
    /// What is asked for.
    pub level: Level,
    /// Unique name of the run that the Director builds on.
    pub previous: Option<String>,
    /// Whether the run's snapshots stay as bases of later runs (a Bacula job) or go with it.
    pub keep_snapshots: bool,
}

/// What a backup is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which VMs.
    pub selection: Selection,
    /// Stop at the first failed VM.
    pub abort_on_error: bool,
    /// Memory and parallelism.
    pub limits: Limits,
    /// Folder of the tracker file.
    pub state_dir: PathBuf,
}

/// How a run ended, as far as the driver knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All entries were delivered.
    Good,
    /// Failed or cancelled.
    Bad,
}

/// A failed backup.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// A running backup.
#[derive(Debug)]
pub struct Backup {}

impl Backup {
    /// Clears debris of dead predecessors, lists and selects the VMs.
    /// # Errors
    /// Nothing selected, a named VM missing, Azure's refusal.
    pub async fn begin(
        azure: Azure,
        run: Run,
        options: Options,
        notices: Notices,
    ) -> Result<Self, Error> {
        let _ = (azure, run, options, notices);
        unimplemented!()
    }
    /// Prepares the next VM: configuration, snapshots, access, page lists. A VM that fails here is reported and skipped, unless `abort_on_error`.
    /// # Errors
    /// The run must stop.
    pub async fn next_vm(&mut self) -> Result<Option<VmBackup>, Error> {
        unimplemented!()
    }
    /// Records the snapshots of a good run, removes those of a bad one.
    /// # Errors
    /// No VM could be saved; something could not be given back.
    pub async fn finish(self, outcome: Outcome) -> Result<(), Error> {
        let _ = outcome;
        unimplemented!()
    }
}

/// The entries of one VM, in the order name, conf, osdisk, 0, 1, ...
#[derive(Debug)]
pub struct VmBackup {}

/// One file for the catalog.
#[derive(Debug)]
pub struct Entry {
    /// Catalog name, `/@azure-vm/...`.
    pub path: String,
    /// Time of the run.
    pub modified: SystemTime,
    /// Bytes.
    pub size: u64,
    /// What is in it.
    pub content: Content,
}

/// What is in an entry.
#[derive(Debug)]
pub enum Content {
    /// Nothing.
    Empty,
    /// These bytes.
    Bytes(Vec<u8>),
    /// A disk.
    Image(Box<DiskImage>),
}

impl VmBackup {
    /// The next entry.
    pub fn next_entry(&mut self) -> Option<Entry> {
        unimplemented!()
    }
    /// Gives back what is still held (access).
    pub async fn close(self) {
        unimplemented!()
    }
}

/// A disk being read.
#[derive(Debug)]
pub struct DiskImage {}

impl DiskImage {
    /// Fills `buffer` with the next block; `None` at the end of a complete image.
    /// # Errors
    /// The image cannot be completed: the job must fail.
    pub async fn read_block(&mut self, buffer: &mut [u8]) -> Result<Option<Block>, Error> {
        let _ = buffer;
        unimplemented!()
    }
    /// After the last block: checks that all was delivered, gives the access back, leaves the account as a notice.
    /// # Errors
    /// The image is not complete.
    pub async fn finish(self) -> Result<(), Error> {
        unimplemented!()
    }
}
