//! Which VMs, what to snapshot, which base, what to stream, what to delete afterwards. Knows nothing of Bacula.
//!
//! A driver (the plugin on the job's thread, the command line) calls, inside one tokio runtime:
//!
//! ```text
//! Backup::begin ── next_vm ──> VmBackup ── next_entry ──> Entry { Empty | Bytes | Image(DiskImage) }
//!      ^              |            |                          DiskImage: read_block ... None, finish
//!      |              |            └─ close (in every outcome, also half way)
//!      └─ finish(Good | Bad) (in every outcome after a successful begin; record, the first half of a good one, may come before)
//! ```
//!
//! Errors of one VM before its data starts are notices (or, with `abort_on_error`, errors of `next_vm`). An error of
//! [`DiskImage::read_block`] or [`DiskImage::finish`] must end the job as failed whatever `abort_on_error` says: an
//! image that stopped half way in a good job would become a base. After any error the driver still calls `close` and
//! `finish(Outcome::Bad)`; both use a client of their own, so that a cancelled job gives back what it holds.
//!
//! Nothing here prints or calls the host: what a person should read is left in [`Notices`](crate::notice::Notices).

mod chain;
mod changes;
mod debris;
mod difference;
mod digests;
mod ending;
mod error;
mod export;
mod exported;
mod extensions;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod held;
mod image;
mod inventory;
mod marks;
mod plan;
mod retention;
mod run;
mod select;
#[cfg(test)]
mod simulation;
mod snapshot_set;
mod staging_blob;
mod tags;
#[cfg(test)]
mod throttling;
mod tracker;
mod vm;

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

pub use self::changes::MOST_CLEARED;
pub use self::error::Error;
pub use self::exported::{Changes, ExportedImage, FullPlan};
pub use self::image::DiskImage;
pub use self::inventory::{
    KnownSnapshot, OwnSnapshot, delete_snapshot, known_snapshots, own_snapshots,
};
pub use self::plan::{PlannedDisk, PlannedEntry, VmPlan};
pub use self::run::Backup;
pub use self::staging_blob::STAGING_CONTAINER;
pub use self::vm::VmBackup;

use crate::config::{Selection, Transfer};
use crate::pipeline::Limits;
use crate::private_folder::PrivateFolder;

/// Level of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// Everything.
    Full,
    /// Changes since the previous run.
    Incremental,
    /// Changes since the last Full.
    Differential,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Full => "Full",
            Self::Incremental => "Incremental",
            Self::Differential => "Differential",
        }
    }

    fn from_str(text: &str) -> Option<Self> {
        [Self::Full, Self::Incremental, Self::Differential]
            .into_iter()
            .find(|level| level.as_str() == text)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One run of one job, as the Director names it.
#[derive(Clone, Debug)]
pub struct Run {
    /// Unique name (`Name.yyyy-mm-dd_hh.mm.ss_nn`).
    pub job: String,
    /// Which of the job's Plugin lines, from 0: several save under one name, one after the other.
    pub line: usize,
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
    /// Save a disk in full, with an error notice, when its changes cannot be had; else the run fails.
    pub fallback: bool,
    /// Memory and parallelism.
    pub limits: Limits,
    /// Which way the bytes take.
    pub transfer: Transfer,
    /// The folder of the tracker file.
    pub state: PrivateFolder,
}

/// How a run ended, as far as the driver knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All entries were delivered.
    Good,
    /// Failed or cancelled.
    Bad,
}

/// One file for the catalog.
#[derive(Debug)]
pub struct Entry {
    /// Catalog name, `/@azure-vm/...`.
    pub path: String,
    /// Time of the run; its whole seconds are the epoch of the VM's file names.
    pub modified: SystemTime,
    /// Bytes: of an image the size of the disk.
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
