//! One Bacula job: events, files in and out, messages. Knows the File Daemon's habits, but none of its memory.
//!
//! ```text
//! ffi ──> PluginContext ──> job (state machine) ──> backup | estimate | restore | query
//!                              │                       └─ bridge (blocks) ──> crate::backup, crate::restore
//!                              └─ outcome (error -> return code, message, errno), joblog
//! ```
//!
//! A context exists for every job of the client, used or not, and costs nothing until a command comes. All calls come
//! on the job's own thread, except `PluginContext::cancel`.

mod backup;
mod bridge;
mod encryption;
mod error;
mod estimate;
pub(crate) mod host;
mod job;
mod joblog;
mod options;
mod outcome;
mod query;
mod restore;
mod session;
#[cfg(test)]
mod testing;

use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use self::host::{CreateStatus, Event, Host, Io, IoDone, IoFailed, RestoreFile, SaveFile, Status};
use self::job::Job;
use crate::catalog;

/// One job, as the host's calls see it.
#[derive(Debug)]
pub(crate) struct PluginContext {
    /// All that another thread may touch.
    cancel: CancellationToken,
    /// Locked by the job's thread only, never by [`PluginContext::cancel`].
    job: Mutex<Job>,
}

impl Default for PluginContext {
    fn default() -> Self {
        let cancel = CancellationToken::new();
        Self {
            job: Mutex::new(Job::new(cancel.clone())),
            cancel,
        }
    }
}

impl PluginContext {
    /// The job is cancelled: every wait ends. From any thread, at any time; takes no lock and sends no message.
    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Something happens in the job.
    pub(crate) fn event(&self, host: &dyn Host, event: Event<'_>) -> Status {
        self.with_job(host, |job| job.event(host, event))
    }

    /// The next file of a backup or estimate; a status if there is none.
    pub(crate) fn start_backup_file(&self, host: &dyn Host) -> Result<SaveFile, Status> {
        self.with_job(host, |job| job.start_backup_file(host))
    }

    /// Ends the current file: [`Status::More`] if another one follows.
    pub(crate) fn end_backup_file(&self, host: &dyn Host) -> Status {
        self.with_job(host, |job| job.end_backup_file(host))
    }

    /// A file comes back: whether its data is wanted.
    pub(crate) fn create_file(&self, host: &dyn Host, file: &RestoreFile<'_>) -> CreateStatus {
        self.with_job(host, |job| job.create_file(host, file))
    }

    /// One step of reading or writing the current file.
    pub(crate) fn io(&self, host: &dyn Host, io: Io<'_>) -> Result<IoDone, IoFailed> {
        self.with_job(host, |job| job.io(host, io))
    }

    /// Whether a file of an earlier job still exists. Images of earlier runs always do: in Accurate mode the restore of
    /// a chain would miss them otherwise.
    pub(crate) fn check_file(&self, name: &str) -> Status {
        if name.starts_with(catalog::ROOT) {
            Status::Seen
        } else {
            Status::Ok
        }
    }

    /// Answers a console's question.
    pub(crate) fn query(&self, host: &dyn Host, parameter: &str, command: &str) -> String {
        self.with_job(host, |job| job.query(host, parameter, command))
    }

    /// The job is gone. Gives back what it still holds, and ends its threads.
    pub(crate) fn close(self) {
        let mut job = self
            .job
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        job.surroundings().enter(|| job.close());
    }

    /// Runs `body` on the job; afterwards everything that the core had to say has been sent.
    fn with_job<T>(&self, host: &dyn Host, body: impl FnOnce(&mut Job) -> T) -> T {
        // A panic has failed the job already; what it left is only given back.
        let mut job = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        job.surroundings().enter(|| {
            let result = body(&mut job);
            job.settle();
            job.drain(host);
            result
        })
    }
}
