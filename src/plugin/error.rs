//! Why a call failed.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use crate::{azure, backup, config, restore};

/// A failed call. Display prints one level; [`Error::chain`] all of them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The Plugin line or the configuration file.
    #[error(transparent)]
    Settings(config::Error),

    /// The clients could not be prepared.
    #[error("connect to Azure")]
    Azure(#[source] azure::Error),

    /// The backup.
    #[error(transparent)]
    Backup(backup::Error),

    /// The restore.
    #[error(transparent)]
    Restore(restore::Error),

    /// The daemon would store images in plain text although it says that it encrypts them.
    #[error(
        "save images with data encryption: {file} sets PKI Encryption = yes, but the File Daemon cannot encrypt data \
         with offsets (9.6 stores it readable, later versions fail); use a File Daemon without PKI Encryption, or \
         encrypt the volumes"
    )]
    Encryption {
        /// The daemon's configuration file.
        file: String,
    },

    /// The volume was written by a daemon whose images this daemon cannot read.
    #[error(
        "restore {path}: its blocks come without their offsets, since a File Daemon of version \
         11 or later wrote them and this one is of version 9.6; restore with a File Daemon of the writer's version"
    )]
    DataStream {
        /// Catalog name.
        path: String,
    },

    /// The options that the user entered.
    #[error("read the restore options: {0}")]
    Options(String),

    /// Our folder in the working directory, or one in it.
    #[error("open state folder {}", path.display())]
    StateFolder {
        /// Where it is, or should be.
        path: PathBuf,
        /// Why it cannot be used.
        source: io::Error,
    },

    /// The host does not tell something that every daemon knows.
    #[error("ask the File Daemon for {0}: no answer")]
    HostValue(&'static str),

    /// The host asks for something unknown.
    #[error(
        "start a backup of level {0:?}: known are F (Full), I (Incremental) and D (Differential)"
    )]
    Level(char),

    /// The host calls in an order that makes no sense.
    #[error("{0}: not expected at this point of a job")]
    Sequence(&'static str),

    /// No threads.
    #[error("start the plugin's threads")]
    Runtime(#[source] io::Error),

    /// The job was cancelled.
    #[error("cancelled")]
    Cancelled,

    /// Something gave up as if the job were cancelled, which it is not: nothing of it can be relied on.
    #[error("the work was given up although nobody cancelled the job; run it again")]
    GivenUp,

    /// The job has failed before; that has been reported.
    #[error("the job has failed before")]
    Failed,
}

impl Error {
    /// The text with all causes, for a person.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl From<config::Error> for Error {
    fn from(error: config::Error) -> Self {
        Self::Settings(error)
    }
}

impl From<azure::Error> for Error {
    fn from(error: azure::Error) -> Self {
        if error.is_cancelled() {
            Self::Cancelled
        } else {
            Self::Azure(error)
        }
    }
}

impl From<backup::Error> for Error {
    fn from(error: backup::Error) -> Self {
        if error.is_cancelled() {
            Self::Cancelled
        } else {
            Self::Backup(error)
        }
    }
}

impl From<restore::Error> for Error {
    fn from(error: restore::Error) -> Self {
        if error.is_cancelled() {
            Self::Cancelled
        } else {
            Self::Restore(error)
        }
    }
}
