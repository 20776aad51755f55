//! Why a restore failed.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

use crate::{azure, backup, pipeline};

/// A failed restore. Display prints one level; the cause, if any, is the `source`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not one of ours, or not one of this restore.
    #[error("restore {path}: {reason}")]
    Entry {
        /// Catalog name.
        path: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },

    /// Files of two VMs came in one restore.
    #[error(
        "restore files of two virtual machines in one job: {first} and {second}; mark the files of one UUID only"
    )]
    TwoVms {
        /// UUID of the VM that came first.
        first: String,
        /// UUID of the other one.
        second: String,
    },

    /// The configuration document cannot be used.
    #[error("read configuration document {path}: {reason}")]
    Document {
        /// Catalog name.
        path: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },

    /// Files that the configuration document names did not come, or not completely.
    #[error("restore virtual machine {vm}: {reason}")]
    Incomplete {
        /// The saved VM's name.
        vm: String,
        /// Which files, and what to do.
        reason: String,
    },

    /// Bytes are not those that were saved, or it cannot be told whether they are.
    #[error("restore virtual machine {vm}: {reason}")]
    Damaged {
        /// The saved VM's name.
        vm: String,
        /// Which ranges of which images of which disks, and what to do.
        reason: String,
    },

    /// The saved VM cannot be built, by what is in its configuration.
    #[error("restore {what}: {reason}")]
    Unsupported {
        /// Kind and name of the resource.
        what: String,
        /// What is not supported, and what to do.
        reason: String,
    },

    /// The saved VM was in a subscription in which this restore does not work.
    #[error(
        "restore virtual machine {vm}: it was saved in subscription {saved}, this restore works on {subscription}; its networks are \
         there: set subscription_id to it"
    )]
    Elsewhere {
        /// The saved VM's name.
        vm: String,
        /// Where it was.
        saved: String,
        /// That of the restore.
        subscription: String,
    },

    /// The local folder is too small.
    #[error(
        "stage images in {}: {needed} bytes needed, {available} free; make room or point the File Daemon's working directory elsewhere",
        dir.display()
    )]
    Space {
        /// The folder.
        dir: PathBuf,
        /// Bytes that are still to come.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },

    /// A VM of the new name exists.
    #[error(
        "create virtual machine {name} in resource group {resource_group}: the name is taken; choose another with new_hostname"
    )]
    NameTaken {
        /// The new VM's name.
        name: String,
        /// Where it should have gone.
        resource_group: String,
    },

    /// Local storage failed.
    #[error("{action} {}", path.display())]
    Local {
        /// What was tried, e.g. `write staging file`.
        action: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },

    /// A request to Azure failed for good.
    #[error("{action}")]
    Azure {
        /// Verb, object and its name.
        action: String,
        /// What Azure, or the way to it, said.
        #[source]
        source: azure::Error,
    },

    /// The bytes of a disk could not be uploaded.
    #[error("upload {disk}")]
    Upload {
        /// Name and place of the new disk.
        disk: String,
        /// Which range, and why.
        #[source]
        source: pipeline::Error,
    },

    /// A disk could not be read back after its upload.
    #[error("read back {disk}")]
    ReadBack {
        /// Name and place of the new disk.
        disk: String,
        /// Which range, and why.
        #[source]
        source: pipeline::BoxError,
    },

    /// What Azure made is not what was asked for.
    #[error("check {what}: {reason}")]
    Mismatch {
        /// Kind and name of the resource.
        what: String,
        /// Expected and found.
        reason: String,
    },

    /// The job was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    pub(super) fn azure(action: impl Into<String>, source: azure::Error) -> Self {
        if source.is_cancelled() {
            return Self::Cancelled;
        }
        Self::Azure {
            action: action.into(),
            source,
        }
    }

    pub(super) fn local(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Local {
            action,
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn upload(disk: String, source: pipeline::Error) -> Self {
        if is_cancelled(&source) {
            return Self::Cancelled;
        }
        Self::Upload { disk, source }
    }

    /// The image of an uploaded disk could not be opened.
    pub(super) fn reopened(disk: String, source: backup::Error) -> Self {
        if source.is_cancelled() {
            return Self::Cancelled;
        }
        let source = source.into();
        Self::ReadBack { disk, source }
    }

    /// A range of an uploaded disk could not be read.
    pub(super) fn read_back(disk: String, source: pipeline::Error) -> Self {
        if is_cancelled(&source) {
            return Self::Cancelled;
        }
        let source = source.into();
        Self::ReadBack { disk, source }
    }

    /// Whether the job was cancelled: an outcome to be reported once and quietly, not a fault.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Cancelled => true,
            Self::Azure { source, .. } => source.is_cancelled(),
            Self::Upload { source, .. } => source.is_cancelled(),
            Self::Entry { .. }
            | Self::TwoVms { .. }
            | Self::Document { .. }
            | Self::Incomplete { .. }
            | Self::Damaged { .. }
            | Self::Unsupported { .. }
            | Self::Elsewhere { .. }
            | Self::Space { .. }
            | Self::NameTaken { .. }
            | Self::Local { .. }
            | Self::ReadBack { .. }
            | Self::Mismatch { .. } => false,
        }
    }
}

/// A request that was cancelled under way comes back as a failed range.
fn is_cancelled(error: &pipeline::Error) -> bool {
    error.is_cancelled()
        || StdError::source(error)
            .and_then(|cause| cause.downcast_ref::<azure::Error>())
            .is_some_and(azure::Error::is_cancelled)
}
