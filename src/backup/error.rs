//! Why a backup, or one VM of it, failed.

use std::io;
use std::path::{Path, PathBuf};

use crate::{azure, pipeline};

/// A failed backup. Display prints one level; the cause, if any, is the `source`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The selection names a VM that is not there, or nothing at all passes it.
    #[error("select virtual machines: {0}")]
    Selection(String),

    /// A request to Azure failed for good.
    #[error("{action}")]
    Azure {
        /// Verb, object and its name.
        action: String,
        /// What Azure, or the way to it, said.
        #[source]
        source: azure::Error,
    },

    /// A VM, disk or snapshot is in a state that cannot be saved.
    #[error("save {what}: {reason}")]
    Unsavable {
        /// Kind and name of the resource.
        what: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },

    /// The bytes of a disk could not be read to their end: the job must end as failed, whatever `abort_on_error` says.
    #[error("read disk {disk} (snapshot {snapshot})")]
    Image {
        /// Name of the disk.
        disk: String,
        /// Name of its snapshot.
        snapshot: String,
        /// Which range, and why.
        #[source]
        source: pipeline::Error,
    },

    /// The changes of a disk cannot be had, and a full image is not wanted instead.
    #[error(
        "save changes of {disk}: {reason}; fallback=no, so it is not saved as a full image instead"
    )]
    NoChanges {
        /// Which disk.
        disk: String,
        /// Why there are none.
        reason: String,
    },

    /// The tracker file cannot be used.
    #[error("{action} {}", path.display())]
    Tracker {
        /// What was tried, e.g. `replace tracker file`.
        action: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },

    /// The run ended without a single saved VM.
    #[error(
        "save virtual machines: none of the {selected} selected could be saved; the messages above say why"
    )]
    NothingSaved {
        /// How many were selected.
        selected: usize,
    },

    /// Snapshots whose images are not saved can be neither deleted nor marked as such.
    #[error(
        "mark as not saved what could not be deleted: {snapshots}; the messages above say why this failed, too, and the run \
         fails, since a later one might build on what it did not save"
    )]
    Unmarked {
        /// Their names.
        snapshots: String,
    },

    /// The run was cancelled.
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

    pub(super) fn tracker(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Tracker {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether the run was cancelled: an outcome to be reported once and quietly, not a fault.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Cancelled => true,
            Self::Azure { source, .. } => source.is_cancelled(),
            Self::Image { source, .. } => source.is_cancelled(),
            Self::Selection(_)
            | Self::Unsavable { .. }
            | Self::NoChanges { .. }
            | Self::Tracker { .. }
            | Self::NothingSaved { .. }
            | Self::Unmarked { .. } => false,
        }
    }
}
