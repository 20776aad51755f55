//! The seam to the File Daemon in safe types.
//!
//! [`ffi`](crate) implements [`Host`] over the C interface and turns packets into the types below; the tests implement
//! it over vectors. Nothing here knows a layout, a number or a pointer.

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

/// How a job message counts for the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageClass {
    /// The job fails.
    Fatal,
    /// The job ends "with warnings" (backup), or with errors (restore).
    Error,
    /// Shown; leaves the status alone.
    Warning,
    /// Shown.
    Info,
}

/// Numbers that the host tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IntVariable {
    /// 0 for console commands.
    JobId,
    /// A letter: `T` good, `E` errors, `f` fatal, `A` cancelled, `R` running, `I` incomplete.
    JobStatus,
}

/// Texts that the host tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextVariable {
    /// Name of the File Daemon.
    FdName,
    /// The job's unique name.
    JobName,
    /// The daemon's working directory.
    WorkingDir,
    /// `where` of a restore; set from the start event to the end event.
    Where,
    /// Unique name of the run that the Director builds on.
    PrevJobName,
}

/// The File Daemon during one call on the job's own thread.
///
/// Never kept beyond the call and never handed to another thread: messages from a second thread have killed jobs on 9.6.
pub(crate) trait Host {
    /// One line for the job log. `text` carries the plugin's prefix and ends with a line end.
    fn message(&self, class: MessageClass, text: &str);
    /// `None` if the host does not tell.
    fn int(&self, variable: IntVariable) -> Option<i32>;
    /// `None` if it is not set, empty or not UTF-8.
    fn text(&self, variable: TextVariable) -> Option<String>;
}

/// A Plugin line. It may hold a secret, so Debug shows nothing of it.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct PluginLine<'a>(Cow<'a, str>);

impl PluginLine<'_> {
    /// The line itself.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// The same for longer than a call.
    pub(crate) fn into_owned(self) -> PluginLine<'static> {
        PluginLine(Cow::Owned(self.0.into_owned()))
    }
}

impl<'a> From<Cow<'a, str>> for PluginLine<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Self(text)
    }
}

impl<'a> From<&'a str> for PluginLine<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for PluginLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PluginLine(***)")
    }
}

/// What happens in a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    JobStart,
    JobEnd,
    /// The letter of the level.
    Level(char),
    /// A Plugin line.
    PluginCommand(PluginLine<'a>),
    /// A Plugin line whose files are wanted now.
    BackupCommand(PluginLine<'a>),
    EndBackupJob,
    /// A Plugin line whose files are to be listed.
    EstimateCommand(PluginLine<'a>),
    /// An object that some job stored; `None` after the last.
    RestoreObject(Option<RestoreObject<'a>>),
    StartRestoreJob,
    /// The Plugin line under which the next files were saved.
    RestoreCommand(PluginLine<'a>),
    EndRestoreJob,
    /// Nothing to do with us.
    Other(u32),
}

/// An object that comes before the files of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RestoreObject<'a> {
    /// Whether it carries the options that the user has entered.
    pub(crate) is_filled_options: bool,
    /// As given at backup.
    pub(crate) name: Cow<'a, str>,
    /// The Plugin line of the job that stored it.
    pub(crate) command: PluginLine<'a>,
    /// What arrived; may be empty although `len` is not 0.
    pub(crate) content: Cow<'a, str>,
    /// Bytes that should have arrived.
    pub(crate) len: usize,
}

/// What a call that only has a return code returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Done.
    Ok,
    /// Done, and more follows.
    More,
    /// Nothing more follows.
    Stop,
    /// Failed; a job message has been sent.
    Error,
    /// The file still exists.
    Seen,
}

/// The next thing to save.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SaveFile {
    /// A file.
    File {
        /// Catalog name.
        path: String,
        /// In bytes.
        size: u64,
        /// Time of the backup.
        modified: SystemTime,
        /// Whether its blocks carry their offsets (an image).
        offsets: bool,
    },
    /// The template of the options that a user can enter at restore.
    Options {
        /// Name of the object.
        name: &'static str,
        /// The template.
        template: String,
    },
}

/// A file that comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RestoreFile<'a> {
    /// `where` and the catalog name.
    pub(crate) path: Cow<'a, str>,
    /// In bytes, as in the catalog.
    pub(crate) size: u64,
    /// How its data was stored.
    pub(crate) data: DataStream,
}

/// How the data of a file was stored on the volume, as the host decodes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataStream {
    /// Blocks with offsets.
    Offsets,
    /// Bytes from the beginning to the end, for certain.
    Plain,
    /// Not to be told from the number of the stream.
    Other(i32),
}

/// What to do with a file that comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CreateStatus {
    /// Data is wanted.
    Extract,
    /// No data is wanted, and that is no error.
    Skip,
}

/// One step of reading or writing the current file.
#[derive(Debug)]
pub(crate) enum Io<'a> {
    Open,
    /// Fill the buffer from its beginning.
    Read(&'a mut [u8]),
    Write(&'a [u8]),
    /// To this absolute offset, in bytes.
    Seek(u64),
    Close,
}

/// What a good step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IoDone {
    /// Opened, sought or closed.
    Done,
    /// Bytes in the buffer, and the offset in the file of the first one.
    Read {
        /// 0 at the end.
        len: usize,
        /// Bytes from the beginning of the file.
        offset: u64,
    },
    /// Bytes taken.
    Written(usize),
}

/// A failed step: the `errno` for the host. A job message has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IoFailed(pub(crate) i32);
