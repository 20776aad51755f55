//! How a command ends: the exit codes, and errors as text for people.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use azure_vm_fd::azure::ErrorKind;
use azure_vm_fd::notice::with_causes;
use azure_vm_fd::{azure, backup, config, pipeline, restore};
use serde::Serialize;

/// The outcomes of a command; documented in `docs/CLI.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Everything asked for was done.
    Ok,
    /// It failed, and what it had made was removed.
    Failed,
    /// Arguments or configuration are wrong; nothing was tried.
    Usage,
    /// Some VMs were saved, others not.
    Partial,
    /// Login refused, or rights missing.
    Refused,
    /// Stopped by a signal, and what it had made was removed.
    Cancelled,
}

impl Status {
    /// The number that the process ends with.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Partial => 3,
            Self::Refused => 4,
            Self::Cancelled => 130,
        }
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status.code())
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How it counts.
    pub(crate) status: Status,
    /// What, where, why, what to do; no secret.
    pub(crate) text: String,
}

impl Failure {
    /// Wrong arguments or configuration.
    pub(crate) fn usage(text: impl fmt::Display) -> Self {
        Self {
            status: Status::Usage,
            text: text.to_string(),
        }
    }

    /// Anything else that went wrong.
    pub(crate) fn failed(text: impl fmt::Display) -> Self {
        Self {
            status: Status::Failed,
            text: text.to_string(),
        }
    }

    /// A file or folder of this machine; `action` is verb and object, such as `create folder`.
    pub(crate) fn local(action: &str, path: &Path, error: &io::Error) -> Self {
        Self::failed(format!("{action} {}: {error}", path.display()))
    }

    /// Stopped by a signal.
    pub(crate) fn cancelled() -> Self {
        Self {
            status: Status::Cancelled,
            text: "cancelled".to_owned(),
        }
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Self::usage(with_causes(&error))
    }
}

impl From<azure::Error> for Failure {
    fn from(error: azure::Error) -> Self {
        if error.is_cancelled() {
            return Self::cancelled();
        }
        Self::of(azure_status(error.kind()), &error)
    }
}

impl From<backup::Error> for Failure {
    fn from(error: backup::Error) -> Self {
        if error.is_cancelled() {
            return Self::cancelled();
        }
        let status = match &error {
            backup::Error::Azure { source, .. } => azure_status(source.kind()),
            backup::Error::Selection(_)
            | backup::Error::Unsavable { .. }
            | backup::Error::Image { .. }
            | backup::Error::Tracker { .. }
            | backup::Error::NoChanges { .. }
            | backup::Error::NothingSaved { .. }
            | backup::Error::Unmarked { .. }
            | backup::Error::Cancelled => Status::Failed,
        };
        Self::of(status, &error)
    }
}

impl From<restore::Error> for Failure {
    fn from(error: restore::Error) -> Self {
        if error.is_cancelled() {
            return Self::cancelled();
        }
        let status = match &error {
            restore::Error::Azure { source, .. } => azure_status(source.kind()),
            restore::Error::Entry { .. }
            | restore::Error::TwoVms { .. }
            | restore::Error::Document { .. }
            | restore::Error::Incomplete { .. }
            | restore::Error::Damaged { .. }
            | restore::Error::Unsupported { .. }
            | restore::Error::Elsewhere { .. }
            | restore::Error::Space { .. }
            | restore::Error::NameTaken { .. }
            | restore::Error::Local { .. }
            | restore::Error::Upload { .. }
            | restore::Error::ReadBack { .. }
            | restore::Error::Mismatch { .. }
            | restore::Error::Cancelled => Status::Failed,
        };
        Self::of(status, &error)
    }
}

impl From<pipeline::Error> for Failure {
    fn from(error: pipeline::Error) -> Self {
        match error {
            pipeline::Error::Cancelled => Self::cancelled(),
            pipeline::Error::Read { .. }
            | pipeline::Error::Write { .. }
            | pipeline::Error::WrongLength { .. }
            | pipeline::Error::Incomplete { .. }
            | pipeline::Error::EmptyBuffer
            | pipeline::Error::Unaligned { .. }
            | pipeline::Error::Failed => Self::failed(with_causes(&error)),
        }
    }
}

impl Failure {
    fn of(status: Status, error: &dyn StdError) -> Self {
        Self {
            status,
            text: with_causes(error),
        }
    }
}

/// Login and rights have a code of their own, and so have bad settings; the rest of what Azure says is a failure.
pub(crate) fn azure_status(kind: ErrorKind) -> Status {
    match kind {
        ErrorKind::Unauthorized | ErrorKind::Forbidden => Status::Refused,
        ErrorKind::Configuration => Status::Usage,
        ErrorKind::Cancelled => Status::Cancelled,
        ErrorKind::NotFound
        | ErrorKind::Conflict
        | ErrorKind::Throttled
        | ErrorKind::Timeout
        | ErrorKind::Network
        | ErrorKind::Certificate
        | ErrorKind::Unreadable
        | ErrorKind::InvalidAnswer
        | ErrorKind::Refused
        | ErrorKind::OperationFailed
        | ErrorKind::Service
        | ErrorKind::DiffUnavailable => Status::Failed,
    }
}
