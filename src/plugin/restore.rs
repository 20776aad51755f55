//! A restore: files come back in any order; the VM is built at the end, and only if the job is good.

use super::error::Error;
use super::host::{
    CreateStatus, DataStream, Host, Io, IoDone, PluginLine, RestoreFile, TextVariable,
};
use super::options::RestoreOptions;
use super::session::{RESTORES, Session, job_id, job_status};
use crate::catalog::CatalogName;
use crate::restore::{Disposition, Options, Restore};

/// `debug` from which local images are kept.
const KEEP_STAGING: u8 = 9;

/// What a restore knows so far.
#[derive(Debug, Default)]
pub(super) struct RestoreJob {
    /// The Plugin line under which the next files were saved.
    command: PluginLine<'static>,
    /// Made with the first file.
    restore: Option<Restore>,
    /// Where the next block goes, while a file is being received.
    position: Option<u64>,
}

impl RestoreJob {
    /// Which Plugin line the next files belong to.
    pub(super) fn set_command(&mut self, command: PluginLine<'static>) {
        self.command = command;
    }

    /// A file comes: whether its data is wanted.
    pub(super) fn create_file(
        &mut self,
        session: &mut Session,
        host: &dyn Host,
        options: &RestoreOptions,
        file: &RestoreFile<'_>,
    ) -> Result<CreateStatus, Error> {
        let restore = match &mut self.restore {
            Some(restore) => restore,
            None => {
                let restore = begin(session, host, self.command.expose(), options)?;
                self.restore.insert(restore)
            }
        };
        self.position = None;
        if is_image(&file.path) && file.data == DataStream::Plain {
            return Err(Error::DataStream {
                path: file.path.clone().into_owned(),
            });
        }
        let begin_entry = restore.begin_entry(&file.path, file.size);
        let disposition = session.run(host, begin_entry)?;
        Ok(match disposition {
            Disposition::Skip => CreateStatus::Skip,
            Disposition::Receive => {
                self.position = Some(0);
                CreateStatus::Extract
            }
        })
    }

    /// One step of writing the current file.
    pub(super) fn io(
        &mut self,
        session: &mut Session,
        host: &dyn Host,
        io: Io<'_>,
    ) -> Result<IoDone, Error> {
        let (Some(position), Some(restore)) = (&mut self.position, &mut self.restore) else {
            return Err(Error::Sequence("write to a file that was not created"));
        };
        match io {
            // As if to truncate, but there is nothing to truncate: a piece never starts over.
            Io::Open => Ok(IoDone::Done),
            Io::Seek(offset) => {
                *position = offset;
                Ok(IoDone::Done)
            }
            Io::Write(data) => {
                restore.write(*position, data)?;
                *position = position
                    .checked_add(data.len() as u64)
                    .ok_or(Error::Sequence("write beyond the largest offset"))?;
                Ok(IoDone::Written(data.len()))
            }
            Io::Close => {
                self.position = None;
                session.run(host, restore.end_entry())?;
                Ok(IoDone::Done)
            }
            Io::Read(_) => Err(Error::Sequence("read a file during a restore")),
        }
    }

    /// All files came: builds the VM if the job is good, else leaves nothing behind.
    pub(super) fn finish(
        &mut self,
        session: &mut Session,
        host: &dyn Host,
        failed: bool,
    ) -> Result<(), Error> {
        let status = job_status(host);
        if failed || session.is_cancelled() || status != Some('T') {
            if self.restore.is_some() {
                session.notices.warning(format!(
                    "no virtual machine is created, since the job has not gone well (status {})",
                    status.unwrap_or('?')
                ));
            }
            self.abandon(session);
            return Ok(());
        }
        let Some(restore) = self.restore.take() else {
            return Ok(());
        };
        let vm = session.run(host, restore.complete())?;
        tracing::debug!(vm.id, vm.name, "restored");
        Ok(())
    }

    /// The restore ends without a VM.
    pub(super) fn abandon(&mut self, session: &mut Session) {
        self.position = None;
        if let Some(restore) = self.restore.take() {
            session.clean_up("remove the local images", restore.abandon());
        }
    }
}

fn begin(
    session: &mut Session,
    host: &dyn Host,
    command: &str,
    options: &RestoreOptions,
) -> Result<Restore, Error> {
    let settings = session.restore_settings(host, command, options).inspect_err(|_| {
        session.notices.info(
            "what counts is the Plugin line that was stored with the files, and the configuration file of this File \
             Daemon; another group or file can be entered with the restore options (mod, Plugin Options)",
        );
    })?;
    if let Some(place) = host.text(TextVariable::Where).filter(|place| place != "/") {
        session.notices.info(format!(
            "where={place} is ignored: a virtual machine is restored to Azure"
        ));
    }
    let state = session.state_folder(host)?;
    let restores = state
        .make_child(RESTORES)
        .map_err(|source| Error::StateFolder {
            path: state.path().join(RESTORES),
            source,
        })?;
    let restore_options = Options {
        new_hostname: settings.new_hostname.clone(),
        restores,
        staging_name: job_id(host)?.to_string(),
        has_next_job: true,
        keep_staging: settings.debug >= KEEP_STAGING,
        one_run: false,
        verify: settings.verify,
        limits: settings.limits,
    };
    let azure = session.connect(&settings)?;
    Ok(Restore::new(
        azure,
        restore_options,
        session.notices.clone(),
    ))
}

/// Whether a file of ours holds blocks with offsets.
fn is_image(path: &str) -> bool {
    match CatalogName::parse(path) {
        Some(CatalogName::Image { .. }) => true,
        Some(
            CatalogName::Label { .. } | CatalogName::Document { .. } | CatalogName::Digests { .. },
        )
        | None => false,
    }
}
