//! What all kinds of jobs need: cancelling, notices, debug file, runtime, a client for Azure.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;
use tracing::Dispatch;
use tracing::dispatcher::{DefaultGuard, set_default};

use super::bridge::Bridge;
use super::error::Error;
use super::host::{Host, IntVariable, TextVariable};
use super::joblog;
use super::options::RestoreOptions;
use crate::azure::Azure;
use crate::config::{self, DEFAULT_CONFIG_FILE, Settings};
use crate::debug_log;
use crate::notice::Notices;
use crate::private_folder::PrivateFolder;

/// The folder in our own where the images of restores are staged, each restore in a folder of its own.
pub(super) const RESTORES: &str = "restore";

/// The means of one job. Nothing is opened or started before it is asked for.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// Tripped by the cancel event, perhaps on another thread.
    pub(super) cancel: CancellationToken,
    /// What the core has to say; drained before every return to the host.
    pub(super) notices: Notices,
    /// Our folder in the working directory, once somebody has asked for it.
    state_folder: Option<PrivateFolder>,
    debug_log: Option<Dispatch>,
    /// The level of the debug file.
    debug: u8,
    bridge: Option<Bridge>,
}

impl Session {
    /// Means that end with `cancel`.
    pub(super) fn new(cancel: CancellationToken) -> Self {
        Self {
            cancel,
            ..Self::default()
        }
    }

    /// Reads a Plugin line, tells what the user should hear about it, and opens the debug file if it asks for one.
    pub(super) fn settings(&mut self, host: &dyn Host, command: &str) -> Result<Settings, Error> {
        let read = Settings::from_command(command, Path::new(DEFAULT_CONFIG_FILE));
        self.adopt(host, read)
    }

    /// The same for the Plugin line that was stored with files, and what the user has entered for their restore.
    pub(super) fn restore_settings(
        &mut self,
        host: &dyn Host,
        command: &str,
        options: &RestoreOptions,
    ) -> Result<Settings, Error> {
        let file = Path::new(DEFAULT_CONFIG_FILE);
        let read = Settings::from_stored_command(command, options.pairs(), file);
        self.adopt(host, read)
    }

    fn adopt(
        &mut self,
        host: &dyn Host,
        read: Result<Settings, config::Error>,
    ) -> Result<Settings, Error> {
        let settings = match read {
            Ok(settings) => settings,
            Err(error) => {
                // What is wrong with the settings is said in any case.
                drop(self.open_debug_log(host, error.debug()));
                return Err(error.into());
            }
        };
        self.open_debug_log(host, settings.debug)?;
        for warning in &settings.warnings {
            self.notices.warning(warning.clone());
        }
        Ok(settings)
    }

    /// Of several Plugin lines, which are read before anything else is done, the highest level counts.
    fn open_debug_log(&mut self, host: &dyn Host, level: u8) -> Result<(), Error> {
        if level <= self.debug {
            return Ok(());
        }
        let job_id = job_id(host)?;
        let opened = match self.state_folder(host) {
            Ok(folder) => debug_log::open(&folder, job_id, level),
            Err(Error::StateFolder { path, source }) => Err((path, source)),
            Err(error) => return Err(error),
        };
        match opened {
            Ok(dispatch) => {
                // In this order: the end of the one before would end this one, too.
                drop(OPENED.take());
                OPENED.set(Some(set_default(&dispatch)));
                self.debug_log = Some(dispatch);
                self.debug = level;
            }
            Err((path, error)) => self.notices.warning(format!(
                "open debug file {}: {error}; the job goes on without it",
                path.display()
            )),
        }
        Ok(())
    }

    /// Where the plugin keeps its state: tracker, debug files, staging. Made if it does not exist, and opened once: what takes its
    /// place in the midst of a job leads nowhere.
    pub(super) fn state_folder(&mut self, host: &dyn Host) -> Result<PrivateFolder, Error> {
        if let Some(folder) = &self.state_folder {
            return Ok(folder.clone());
        }
        let path = state_dir(host)?;
        match PrivateFolder::make(&path) {
            Ok(folder) => Ok(self.state_folder.insert(folder).clone()),
            Err(source) => Err(Error::StateFolder { path, source }),
        }
    }

    /// The same for somebody who only reads; `None` if it does not exist.
    pub(super) fn find_state_folder(
        &mut self,
        host: &dyn Host,
    ) -> Result<Option<PrivateFolder>, Error> {
        if self.state_folder.is_none() {
            let path = state_dir(host)?;
            self.state_folder =
                PrivateFolder::find(&path).map_err(|source| Error::StateFolder { path, source })?;
        }
        Ok(self.state_folder.clone())
    }

    /// A client for Azure as `settings` say; no request is made.
    pub(super) fn connect(&mut self, settings: &Settings) -> Result<Azure, Error> {
        let cancel = self.cancel.clone();
        let azure = settings.azure.clone();
        let azure = self
            .bridge()?
            .race(async { Azure::new(azure, cancel) })
            .ok_or(Error::Cancelled)??;
        Ok(azure.with_notices(self.notices.clone()))
    }

    /// The job's runtime, started by the first who asks.
    pub(super) fn bridge(&mut self) -> Result<&Bridge, Error> {
        if self.bridge.is_none() {
            let bridge = Bridge::start(self.cancel.clone(), self.debug_log.clone())
                .map_err(Error::Runtime)?;
            self.bridge = Some(bridge);
        }
        self.bridge.as_ref().ok_or(Error::Sequence("start threads"))
    }

    /// Waits for `work` that holds something and ends by itself when the job is cancelled; what it has to say meanwhile
    /// is sent.
    pub(super) fn run<T, E>(
        &mut self,
        host: &dyn Host,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error>
    where
        Error: From<E>,
    {
        let notices = self.notices.clone();
        let result = self.bridge()?.run(work, || joblog::drain(host, &notices));
        Ok(result.ok_or(Error::Cancelled)??)
    }

    /// Ends `work` that holds something, if there is a runtime in which it can have begun.
    pub(super) fn clean_up<T>(&self, what: &str, work: impl Future<Output = T>) -> Option<T> {
        let result = self.bridge.as_ref()?.clean_up(work);
        if result.is_none() {
            self.notices.error(format!(
                "{what}: gave up waiting; the next run of this job looks after what is left"
            ));
        }
        result
    }

    /// Whether the job was cancelled.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Runs `body` with the debug file and the runtime in reach of what it drops and traces.
    pub(super) fn surroundings(&self) -> Surroundings {
        Surroundings {
            debug_log: self.debug_log.clone(),
            runtime: self.bridge.as_ref().map(Bridge::handle),
        }
    }
}

thread_local! {
    /// Makes the debug file the default for the rest of the call that opened it.
    static OPENED: Cell<Option<DefaultGuard>> = const { Cell::new(None) };
}

/// Ends what a call has set for its thread, also when it panics.
struct EndOfCall;

impl Drop for EndOfCall {
    fn drop(&mut self) {
        drop(OPENED.take());
    }
}

/// The job's debug file and runtime, for the present thread.
#[derive(Debug)]
pub(super) struct Surroundings {
    debug_log: Option<Dispatch>,
    runtime: Option<tokio::runtime::Handle>,
}

impl Surroundings {
    /// Runs `body` inside.
    pub(super) fn enter<T>(self, body: impl FnOnce() -> T) -> T {
        let _log = self.debug_log.as_ref().map(set_default);
        let _runtime = self.runtime.as_ref().map(tokio::runtime::Handle::enter);
        let _end = EndOfCall;
        body()
    }
}

/// The number of the job; 0 for a console command.
pub(super) fn job_id(host: &dyn Host) -> Result<i32, Error> {
    host.int(IntVariable::JobId)
        .ok_or(Error::HostValue("its JobId"))
}

fn state_dir(host: &dyn Host) -> Result<PathBuf, Error> {
    host.text(TextVariable::WorkingDir)
        .map(|dir| Path::new(&dir).join("azure-vm"))
        .ok_or(Error::HostValue("its working directory"))
}

/// The letter of the job's status; `None` if the host does not tell.
pub(super) fn job_status(host: &dyn Host) -> Option<char> {
    let status = host.int(IntVariable::JobStatus)?;
    u32::try_from(status).ok().and_then(char::from_u32)
}
