//! A backup: Plugin lines become the core's runs, VMs become files, blocks go into the host's buffer.

use std::fmt;

use super::error::Error;
use super::host::{Host, Io, IoDone, SaveFile, TextVariable};
use super::options;
use super::session::{RESTORES, Session, job_status};
use crate::backup::{Backup, Content, DiskImage, Entry, Level, Options, Outcome, Run, VmBackup};
use crate::config::Settings;
use crate::private_folder::PrivateFolder;
use crate::restore::clear_debris;

/// All Plugin lines of one backup.
#[derive(Debug, Default)]
pub(super) struct BackupJob {
    /// Lines whose files have been delivered. They end with the job, for until then it can still fail.
    delivered: Vec<Backup>,
    /// VMs and files of theirs that have been delivered.
    vms: usize,
    files: usize,
    line: Option<LineBackup>,
    file: Option<OpenFile>,
}

/// The Plugin line whose files are being saved.
#[derive(Debug)]
struct LineBackup {
    backup: Backup,
    vm: Option<VmBackup>,
    /// The template of the restore options goes first.
    options: Option<SaveFile>,
    /// Found while the entry before it ended, since the host wants to know then whether more follows.
    next: Option<Entry>,
    /// VMs whose files were begun.
    vms: usize,
}

/// The file between its start and its end.
struct OpenFile {
    path: String,
    source: Source,
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

enum Source {
    /// Read by nobody: empty files, objects.
    Nothing,
    Bytes {
        content: Vec<u8>,
        position: usize,
    },
    Image(Box<DiskImage>),
}

/// One run as the Director names it.
///
/// # Errors
///
/// A level that does not exist, a name that the host does not tell.
pub(super) fn run(host: &dyn Host, level: char, keep_snapshots: bool) -> Result<Run, Error> {
    Ok(Run {
        job: host
            .text(TextVariable::JobName)
            .ok_or(Error::HostValue("the job's name"))?,
        line: 0,
        client: host
            .text(TextVariable::FdName)
            .ok_or(Error::HostValue("its name"))?,
        level: match level {
            'F' => Level::Full,
            'I' => Level::Incremental,
            'D' => Level::Differential,
            other => return Err(Error::Level(other)),
        },
        previous: host.text(TextVariable::PrevJobName),
        keep_snapshots,
    })
}

/// What a run of `settings` is told.
fn run_options(settings: &Settings, state: PrivateFolder) -> Options {
    Options {
        selection: settings.selection.clone(),
        abort_on_error: settings.abort_on_error,
        fallback: settings.fallback,
        limits: settings.limits,
        transfer: settings.transfer.clone(),
        state,
    }
}

impl BackupJob {
    /// Begins the next Plugin line: its VMs are selected when this returns.
    pub(super) fn begin_line(
        &mut self,
        session: &mut Session,
        host: &dyn Host,
        level: char,
        settings: &Settings,
    ) -> Result<(), Error> {
        self.end_line(session);
        let run = Run {
            line: self.delivered.len(),
            ..run(host, level, true)?
        };
        let state = session.state_folder(host)?;
        let restores = state.open_child(RESTORES);
        let run_options = run_options(settings, state);
        let azure = session.connect(settings)?;
        let notices = session.notices.clone();
        let begin = async {
            // There is none before the first restore; one that is not ours is the business of restores.
            if let Ok(restores) = &restores {
                clear_debris(&azure, restores, &notices).await;
            }
            Backup::begin(azure.clone(), run, run_options, notices.clone()).await
        };
        let backup = session.run(host, begin)?;
        self.line = Some(LineBackup {
            backup,
            vm: None,
            options: Some(options::template()),
            next: None,
            vms: 0,
        });
        Ok(())
    }

    /// The next file of the line; `None` if there is none.
    pub(super) fn start_file(
        &mut self,
        session: &mut Session,
        host: &dyn Host,
    ) -> Result<Option<SaveFile>, Error> {
        let line = self
            .line
            .as_mut()
            .ok_or(Error::Sequence("start a file without a backup command"))?;
        if self.file.is_some() {
            return Err(Error::Sequence("start a file inside another"));
        }
        if let Some(options) = line.options.take() {
            self.file = Some(OpenFile {
                path: "restore options".to_owned(),
                source: Source::Nothing,
            });
            return Ok(Some(options));
        }
        line.look_ahead(session, host)?;
        let Some(entry) = line.next.take() else {
            return Ok(None);
        };
        let file = SaveFile::File {
            path: entry.path.clone(),
            size: entry.size,
            modified: entry.modified,
            offsets: matches!(entry.content, Content::Image(_)),
        };
        self.file = Some(OpenFile {
            path: entry.path,
            source: match entry.content {
                Content::Empty => Source::Nothing,
                Content::Bytes(content) => Source::Bytes {
                    content,
                    position: 0,
                },
                Content::Image(image) => Source::Image(image),
            },
        });
        self.files += 1;
        Ok(Some(file))
    }

    /// Ends the current file; whether another one follows.
    pub(super) fn end_file(
        &mut self,
        session: &mut Session,
        host: &dyn Host,
    ) -> Result<bool, Error> {
        let file = self
            .file
            .take()
            .ok_or(Error::Sequence("end a file that was not started"))?;
        // In a job that ends well it would stand in the catalog, and the job would be a base.
        if !matches!(file.source, Source::Nothing) {
            return Err(Error::Sequence("end a file that was not closed"));
        }
        let line = self
            .line
            .as_mut()
            .ok_or(Error::Sequence("end a file without a backup command"))?;
        line.look_ahead(session, host)?;
        Ok(line.next.is_some())
    }

    /// One step of reading the current file.
    pub(super) fn io(
        &mut self,
        session: &mut Session,
        host: &dyn Host,
        io: Io<'_>,
    ) -> Result<IoDone, Error> {
        let file = self
            .file
            .as_mut()
            .ok_or(Error::Sequence("read a file that was not started"))?;
        match io {
            Io::Open => Ok(IoDone::Done),
            Io::Read(buffer) => file.read(session, buffer),
            Io::Close => file.close(session, host),
            Io::Write(_) | Io::Seek(_) => Err(Error::Sequence("write to a file during a backup")),
        }
    }

    /// Ends all runs. They are good if the job is, as far as it can be known now.
    ///
    /// # Errors
    ///
    /// A run could not be ended well, or saved nothing. What was held is given back in any case.
    pub(super) fn finish(
        &mut self,
        session: &mut Session,
        host: &dyn Host,
        failed: bool,
    ) -> Result<(), Error> {
        let is_bad = failed
            || session.is_cancelled()
            || job_status(host).is_some_and(|letter| matches!(letter, 'f' | 'E' | 'A' | 'I'));
        if is_bad {
            self.abandon(session);
            return Ok(());
        }
        self.file = None;
        self.end_line(session);
        self.end_runs(session, Outcome::Good)?;
        if session.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let plural = if self.vms == 1 { "" } else { "s" };
        session.notices.info(format!(
            "backup ended: {} files of {} virtual machine{plural} handed over",
            self.files, self.vms
        ));
        Ok(())
    }

    /// The job is gone, or cannot end well: all that is held is given back, and nothing more can be saved.
    pub(super) fn abandon(&mut self, session: &mut Session) {
        // Of an image that was not closed: stops its reads before its access goes.
        self.file = None;
        self.end_line(session);
        if let Err(error) = self.end_runs(session, Outcome::Bad) {
            session.notices.error(error.chain());
        }
    }

    fn end_runs(&mut self, session: &mut Session, outcome: Outcome) -> Result<(), Error> {
        let mut result = Ok(());
        let mut note = |ended: Result<(), Error>| {
            if let Err(error) = ended {
                if result.is_ok() {
                    result = Err(error);
                } else {
                    session.notices.error(error.chain());
                }
            }
        };
        let mut outcome = outcome;
        if outcome == Outcome::Good {
            for backup in &mut self.delivered {
                let recorded = session.clean_up("record the backup", backup.record());
                // A job of which not all is recorded must not be built on; what is given back later may wait for the next one.
                let recorded = match recorded {
                    Some(recorded) => recorded.map_err(Error::from),
                    None if session.is_cancelled() => Err(Error::Cancelled),
                    None => Err(Error::GivenUp),
                };
                if recorded.is_err() {
                    outcome = Outcome::Bad;
                }
                note(recorded);
            }
        }
        for backup in self.delivered.drain(..) {
            if let Some(ended) = session.clean_up("end the backup", backup.finish(outcome)) {
                note(ended.map_err(Error::from));
            }
        }
        result
    }

    fn end_line(&mut self, session: &mut Session) {
        if let Some(mut line) = self.line.take() {
            line.next = None;
            line.close_vm(session);
            self.vms += line.vms;
            self.delivered.push(line.backup);
        }
    }
}

impl LineBackup {
    /// Makes `next` the next entry, of this VM or of one after it; leaves it empty if there is none.
    fn look_ahead(&mut self, session: &mut Session, host: &dyn Host) -> Result<(), Error> {
        while self.next.is_none() {
            if let Some(vm) = &mut self.vm {
                self.next = vm.next_entry();
                if self.next.is_none() {
                    self.close_vm(session);
                }
                continue;
            }
            let Some(vm) = session.run(host, self.backup.next_vm())? else {
                break;
            };
            session.notices.info(format!(
                "saving virtual machine {} (resource group {})",
                vm.name(),
                vm.resource_group()
            ));
            self.vms += 1;
            self.vm = Some(vm);
        }
        Ok(())
    }

    fn close_vm(&mut self, session: &Session) {
        if let Some(vm) = self.vm.take() {
            session.clean_up("give back what a virtual machine's backup held", vm.close());
        }
    }
}

impl OpenFile {
    fn read(&mut self, session: &mut Session, buffer: &mut [u8]) -> Result<IoDone, Error> {
        const END: IoDone = IoDone::Read { len: 0, offset: 0 };
        match &mut self.source {
            Source::Nothing => Ok(END),
            Source::Bytes { content, position } => {
                let rest = &content[*position..];
                let len = rest.len().min(buffer.len());
                buffer[..len].copy_from_slice(&rest[..len]);
                let offset = *position as u64;
                *position += len;
                Ok(IoDone::Read { len, offset })
            }
            Source::Image(image) => {
                let block = session
                    .bridge()?
                    .race(image.read_block(buffer))
                    .ok_or(Error::Cancelled)??;
                Ok(block.map_or(END, |block| IoDone::Read {
                    len: block.len,
                    offset: block.offset,
                }))
            }
        }
    }

    /// The host ignores the answer to a close; an image that is not complete is an error all the same, and its message
    /// ends the job.
    fn close(&mut self, session: &mut Session, host: &dyn Host) -> Result<IoDone, Error> {
        match std::mem::replace(&mut self.source, Source::Nothing) {
            Source::Nothing => {}
            Source::Bytes { content, position } => {
                if position < content.len() {
                    return Err(Error::Sequence("close a file that was not read to its end"));
                }
            }
            Source::Image(image) => session.run(host, image.finish())?,
        }
        tracing::debug!(path = self.path, "file closed");
        Ok(IoDone::Done)
    }
}
