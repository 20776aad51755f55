//! What can go wrong on the emulator's own side, as opposed to the errors that it plays.
use std::{io, net::SocketAddr, path::PathBuf};

/// Why the emulator could not do what its owner asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A port is taken or not allowed.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Its threads cannot be started.
    #[error("start the emulator's threads")]
    Runtime(#[source] io::Error),
    /// The CA or the server certificate could not be made.
    #[error("make the certificate of the HTTPS listener: {0}")]
    Certificate(String),
    /// The scenario contradicts itself.
    #[error("load scenario: {at}: {problem}")]
    Scenario {
        /// Which member, e.g. `virtualMachines[web-01].dataDisks[1].lun`.
        at: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A file that a scenario names cannot be used.
    #[error("read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No disk or snapshot has this id or name.
    #[error(
        "find disk or snapshot {0}: there is none of this id or name, or the name is not unique"
    )]
    NoSuchDisk(String),
    /// No VM has this id or name.
    #[error(
        "find virtual machine {0}: there is none of this id or name, or the name is not unique"
    )]
    NoSuchVm(String),
    /// A change that the service's rules forbid.
    #[error("{what}: {reason}")]
    Change {
        /// What was to be done.
        what: String,
        /// Why it was not.
        reason: String,
    },
    /// Generated content is written in whole pages.
    #[error("write {offset}+{len}: offset and length must be multiples of 512 bytes")]
    Unaligned {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Stored content cannot be read or written.
    #[error("access the content of a disk")]
    Content(#[source] io::Error),
    /// The range leaves the disk.
    #[error("access {offset}+{len} of {disk}: its size is {size} bytes")]
    OutOfRange {
        /// Id.
        disk: String,
        /// First byte asked for.
        offset: u64,
        /// Bytes asked for.
        len: u64,
        /// Size of the disk in bytes.
        size: u64,
    },
}
