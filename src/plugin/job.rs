//! The state machine of one job.

use tokio_util::sync::CancellationToken;

use super::backup::BackupJob;
use super::encryption::{self, Encryption};
use super::error::Error;
use super::estimate::{Estimate, strip_listing};
use super::host::{
    CreateStatus, Event, Host, Io, IoDone, IoFailed, MessageClass, PluginLine, RestoreFile,
    SaveFile, Status,
};
use super::joblog;
use super::options::RestoreOptions;
use super::outcome::Outcome;
use super::query;
use super::restore::RestoreJob;
use super::session::{Session, Surroundings};
use crate::config::Settings;

/// What the plugin command begins with; a bare name is a command without parameters.
const COMMAND_NAME: &str = "azure-vm";

/// One job, or one console command. Used by the job's own thread alone.
#[derive(Debug, Default)]
pub(super) struct Job {
    session: Session,
    level: Option<char>,
    /// The Plugin lines that are ours; read with the first backup command.
    commands: Vec<PluginLine<'static>>,
    /// The same with what they say.
    lines: Vec<(PluginLine<'static>, Settings)>,
    options: RestoreOptions,
    work: Work,
    /// Something fatal has been reported.
    failed: bool,
    /// That the job was cancelled has been reported.
    cancel_told: bool,
}

/// What the job does; known with the first command.
#[derive(Debug, Default)]
enum Work {
    #[default]
    Nothing,
    Backup(Box<BackupJob>),
    Estimate(Estimate),
    Restore(Box<RestoreJob>),
}

impl Job {
    /// A job that ends with `cancel`.
    pub(super) fn new(cancel: CancellationToken) -> Self {
        Self {
            session: Session::new(cancel),
            ..Self::default()
        }
    }

    /// See [`Session::surroundings`].
    pub(super) fn surroundings(&self) -> Surroundings {
        self.session.surroundings()
    }

    /// Sends what the core has left.
    pub(super) fn drain(&self, host: &dyn Host) {
        joblog::drain(host, &self.session.notices);
    }

    /// Something happens in the job.
    pub(super) fn event(&mut self, host: &dyn Host, event: Event<'_>) -> Status {
        let result = match event {
            Event::JobStart | Event::JobEnd | Event::StartRestoreJob | Event::Other(_) => Ok(()),
            Event::Level(level) => {
                self.level = Some(level);
                Ok(())
            }
            Event::PluginCommand(command) => {
                if is_ours(command.expose()) {
                    self.commands.push(command.into_owned());
                }
                Ok(())
            }
            Event::BackupCommand(command) => self.backup_command(host, &command),
            Event::EndBackupJob => self.end_backup(host),
            Event::EstimateCommand(command) => self.estimate_command(host, command.expose()),
            Event::RestoreObject(Some(object)) if is_ours(object.command.expose()) => {
                self.options.add(&object)
            }
            Event::RestoreObject(_) => Ok(()),
            Event::RestoreCommand(command) => {
                // Other than OK, the host would write the files to its own disk; the files are rejected instead.
                self.restore_work().set_command(command.into_owned());
                Ok(())
            }
            Event::EndRestoreJob => self.end_restore(host),
        };
        match result {
            Ok(()) => Status::Ok,
            Err(error) => self.fail(host, &error).status,
        }
    }

    /// Checks what can be checked before anything is done for the first Plugin line, and reads all of them.
    ///
    /// Not earlier than the first backup command: after a fatal message before it, the daemon claims in a second one
    /// that the plugin is not loaded.
    fn start_backup(&mut self, host: &dyn Host) -> Result<(), Error> {
        self.work = Work::Backup(Box::default());
        for command in std::mem::take(&mut self.commands) {
            let settings = self.session.settings(host, command.expose())?;
            self.lines.push((command, settings));
        }
        match encryption::of_this_daemon(self.session.bridge()?) {
            Encryption::Off => {}
            Encryption::On(file) => {
                return Err(Error::Encryption {
                    file: file.display().to_string(),
                });
            }
            Encryption::Unknown(file, reason) => self.session.notices.warning(format!(
                "read {}: {reason}; whether it sets PKI Encryption is not known, and images are not encrypted by it",
                file.display()
            )),
        }
        Ok(())
    }

    fn backup_command(&mut self, host: &dyn Host, command: &PluginLine<'_>) -> Result<(), Error> {
        self.check_alive()?;
        if !matches!(self.work, Work::Backup(_)) {
            self.start_backup(host)?;
        }
        let known = self.lines.iter().position(|(line, _)| line == command);
        let settings = match known {
            Some(index) => self.lines.swap_remove(index).1,
            None => self.session.settings(host, command.expose())?,
        };
        let level = self.level.ok_or(Error::HostValue("the level"))?;
        let Work::Backup(backup) = &mut self.work else {
            return Err(Error::Sequence("start a backup"));
        };
        backup.begin_line(&mut self.session, host, level, &settings)
    }

    fn estimate_command(&mut self, host: &dyn Host, command: &str) -> Result<(), Error> {
        self.check_alive()?;
        let settings = self.session.settings(host, strip_listing(command))?;
        // A listing outside of a job has none.
        let level = self.level.filter(|level| level.is_ascii_uppercase());
        let estimate = Estimate::begin(&mut self.session, host, level.unwrap_or('F'), &settings)?;
        self.work = Work::Estimate(estimate);
        Ok(())
    }

    fn end_backup(&mut self, host: &dyn Host) -> Result<(), Error> {
        match &mut self.work {
            Work::Backup(backup) => backup.finish(&mut self.session, host, self.failed),
            Work::Nothing | Work::Estimate(_) | Work::Restore(_) => Ok(()),
        }
    }

    fn restore_work(&mut self) -> &mut RestoreJob {
        if !matches!(self.work, Work::Restore(_)) {
            self.work = Work::Restore(Box::default());
        }
        match &mut self.work {
            Work::Restore(restore) => restore,
            Work::Nothing | Work::Backup(_) | Work::Estimate(_) => {
                unreachable!("it was made a restore just now")
            }
        }
    }

    fn end_restore(&mut self, host: &dyn Host) -> Result<(), Error> {
        match &mut self.work {
            Work::Restore(restore) => restore.finish(&mut self.session, host, self.failed),
            Work::Nothing | Work::Backup(_) | Work::Estimate(_) => Ok(()),
        }
    }

    /// The next file of a backup or estimate.
    pub(super) fn start_backup_file(&mut self, host: &dyn Host) -> Result<SaveFile, Status> {
        let result = self.check_alive().and_then(|()| match &mut self.work {
            Work::Backup(backup) => backup.start_file(&mut self.session, host),
            Work::Estimate(estimate) => Ok(estimate.start_file()),
            Work::Nothing | Work::Restore(_) => Err(Error::Sequence("start a file to save")),
        });
        match result {
            Ok(file) => file.ok_or(Status::Stop),
            Err(error) => Err(self.fail(host, &error).status),
        }
    }

    /// Ends the current file; says whether more follows.
    pub(super) fn end_backup_file(&mut self, host: &dyn Host) -> Status {
        let result = self.check_alive().and_then(|()| match &mut self.work {
            Work::Backup(backup) => backup.end_file(&mut self.session, host),
            Work::Estimate(estimate) => Ok(estimate.has_more()),
            Work::Nothing | Work::Restore(_) => Err(Error::Sequence("end a file to save")),
        });
        match result {
            Ok(true) => Status::More,
            Ok(false) => Status::Ok,
            Err(error) => self.fail(host, &error).status,
        }
    }

    /// A file comes back. What cannot be restored has failed the job by then, and is skipped.
    pub(super) fn create_file(&mut self, host: &dyn Host, file: &RestoreFile<'_>) -> CreateStatus {
        let result = self.check_alive().and_then(|()| match &mut self.work {
            Work::Restore(restore) => {
                restore.create_file(&mut self.session, host, &self.options, file)
            }
            Work::Nothing | Work::Backup(_) | Work::Estimate(_) => {
                Err(Error::Sequence("create a file without a restore command"))
            }
        });
        result.unwrap_or_else(|error| {
            self.fail(host, &error);
            CreateStatus::Skip
        })
    }

    /// One step of reading or writing the current file.
    pub(super) fn io(&mut self, host: &dyn Host, io: Io<'_>) -> Result<IoDone, IoFailed> {
        let result = self.check_alive().and_then(|()| match &mut self.work {
            Work::Backup(backup) => backup.io(&mut self.session, host, io),
            Work::Restore(restore) => restore.io(&mut self.session, host, io),
            Work::Nothing | Work::Estimate(_) => Err(Error::Sequence("read or write a file")),
        });
        result.map_err(|error| IoFailed(self.fail(host, &error).errno))
    }

    /// Answers a console's question.
    pub(super) fn query(&mut self, host: &dyn Host, parameter: &str, command: &str) -> String {
        query::text(&mut self.session, host, parameter, command)
    }

    /// At the end of every call: if nothing can succeed any more, gives back whatever the job holds.
    ///
    /// Its end event would be too late for that: of a cancelled backup the daemon sends it when it has waited ten seconds for a
    /// heartbeat thread that ended before (`stop_heartbeat_monitor`, 9.6 and 15.0).
    pub(super) fn settle(&mut self) {
        if self.check_alive().is_err() {
            self.give_back();
        }
    }

    /// The job is gone: whatever it still holds is given back. No message can be sent any more.
    pub(super) fn close(&mut self) {
        self.give_back();
        self.work = Work::Nothing;
    }

    fn give_back(&mut self) {
        match &mut self.work {
            Work::Backup(backup) => backup.abandon(&mut self.session),
            Work::Restore(restore) => restore.abandon(&mut self.session),
            Work::Nothing | Work::Estimate(_) => {}
        }
    }

    /// After a failure or a cancel nothing is done any more, except to end.
    fn check_alive(&self) -> Result<(), Error> {
        if self.failed {
            Err(Error::Failed)
        } else if self.session.is_cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    /// Reports `error`, once, after what led to it.
    fn fail(&mut self, host: &dyn Host, error: &Error) -> Outcome {
        self.drain(host);
        // Only an image of a job that really was cancelled may be left half read without failing the job.
        let given_up = matches!(error, Error::Cancelled) && !self.session.is_cancelled();
        let error = if given_up { &Error::GivenUp } else { error };
        let outcome = Outcome::of(error);
        let is_new =
            !(matches!(error, Error::Cancelled) && std::mem::replace(&mut self.cancel_told, true));
        if let Some(class) = outcome.message.filter(|_| is_new) {
            let text = error.chain();
            tracing::error!("{text}");
            joblog::send(host, class, &text);
            self.failed |= class == MessageClass::Fatal;
        }
        outcome
    }
}

/// Whether a plugin command names this plugin.
fn is_ours(command: &str) -> bool {
    command.split(':').next() == Some(COMMAND_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::host::{DataStream, TextVariable};
    use crate::plugin::testing::FakeHost;

    const BAD: &str = "azure-vm: colour=blue";

    fn image() -> RestoreFile<'static> {
        RestoreFile {
            path: "/@azure-vm/3d1f0c52-7a44-4e0e-9a53-8b1d6c2f9e10/1735689600_osdisk".into(),
            size: 512,
            data: DataStream::Offsets,
        }
    }

    fn fatal(host: &FakeHost) -> Vec<String> {
        host.messages()
            .into_iter()
            .filter(|(class, _)| *class == MessageClass::Fatal)
            .map(|(_, text)| text)
            .collect()
    }

    #[test]
    fn a_bad_plugin_line_fails_the_backup_once() {
        let host = FakeHost::default();
        host.set_text(TextVariable::WorkingDir, "/nonexistent");
        let mut job = Job::default();
        assert_eq!(job.event(&host, Event::Level('F')), Status::Ok);
        assert_eq!(
            job.event(&host, Event::PluginCommand(BAD.into())),
            Status::Ok
        );
        assert!(
            host.messages().is_empty(),
            "nothing is judged before the backup command"
        );
        assert_eq!(
            job.event(&host, Event::BackupCommand(BAD.into())),
            Status::Error
        );
        let messages = fatal(&host);
        assert!(messages[0].contains("colour"), "{messages:?}");
        assert_eq!(job.start_backup_file(&host), Err(Status::Error));
        assert_eq!(
            job.io(&host, Io::Read(&mut [0; 8])),
            Err(IoFailed(libc::EIO))
        );
        assert_eq!(job.end_backup_file(&host), Status::Error);
        host.set_status('f');
        assert_eq!(job.event(&host, Event::EndBackupJob), Status::Ok);
        assert!(host.messages().is_empty(), "said once");
    }

    #[test]
    fn giving_up_without_a_cancel_is_fatal() {
        let host = FakeHost::default();
        let mut job = Job::default();
        assert_eq!(job.fail(&host, &Error::Cancelled).errno, libc::EIO);
        assert!(fatal(&host)[0].contains("nobody cancelled"));

        let mut job = Job::default();
        job.session.cancel.cancel();
        assert_eq!(job.fail(&host, &Error::Cancelled).errno, libc::ECANCELED);
        assert!(fatal(&host).is_empty());
    }

    /// One wrong line is found before anything is done for the good one in front of it.
    #[test]
    fn all_plugin_lines_are_read_first() {
        let host = FakeHost::default();
        let mut job = Job::default();
        let good = "azure-vm: tenant_id=t subscription_id=s application_id=a application_secret=x";
        job.event(&host, Event::Level('F'));
        job.event(&host, Event::PluginCommand(good.into()));
        job.event(&host, Event::PluginCommand("bpipe:x:y:z".into()));
        job.event(&host, Event::PluginCommand(BAD.into()));
        assert_eq!(
            job.event(&host, Event::BackupCommand(good.into())),
            Status::Error
        );
        assert!(fatal(&host)[0].contains("colour"));
    }

    #[test]
    fn the_highest_debug_of_all_plugin_lines_counts() {
        let dir = tempfile::tempdir().expect("folder");
        let host = FakeHost::default();
        host.set_text(TextVariable::WorkingDir, &dir.path().display().to_string());
        let mut job = Job::default();
        let good =
            "azure-vm: tenant_id=t subscription_id=s application_id=a application_secret=x debug=1";
        job.event(&host, Event::Level('F'));
        job.event(&host, Event::PluginCommand(good.into()));
        job.event(
            &host,
            Event::PluginCommand("azure-vm: colour=blue debug=2".into()),
        );
        job.event(&host, Event::BackupCommand(good.into()));
        job.surroundings().enter(|| tracing::trace!("of level 2"));
        let file = format!("azure-vm/azure-vm_7_{}.log", std::process::id());
        let text = std::fs::read_to_string(dir.path().join(file)).expect("read");
        for part in [
            "stands in the Plugin line",
            "parameter colour",
            "of level 2",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_bad_plugin_line_skips_every_file_of_a_restore() {
        let host = FakeHost::default();
        let mut job = Job::default();
        for expected in [1, 0] {
            assert_eq!(
                job.event(&host, Event::RestoreCommand(BAD.into())),
                Status::Ok
            );
            assert_eq!(job.create_file(&host, &image()), CreateStatus::Skip);
            assert_eq!(fatal(&host).len(), expected);
        }
        host.set_status('f');
        assert_eq!(job.event(&host, Event::EndRestoreJob), Status::Ok);
        assert!(host.messages().is_empty());
    }

    #[test]
    fn a_cancel_is_told_once_and_quietly() {
        let host = FakeHost::default();
        let cancel = CancellationToken::new();
        let mut job = Job::new(cancel.clone());
        cancel.cancel();
        for _ in 0..2 {
            assert_eq!(
                job.io(&host, Io::Read(&mut [0; 8])),
                Err(IoFailed(libc::ECANCELED))
            );
        }
        let told = host.messages();
        assert_eq!(
            told,
            [(MessageClass::Info, "azure-vm: cancelled\n".to_owned())]
        );
    }

    #[test]
    fn no_plugin_line_is_printed() {
        let host = FakeHost::default();
        let secret = "azure-vm: application_secret=hunter2";
        let mut job = Job::default();
        let event = Event::PluginCommand(secret.into());
        let mut printed = format!("{event:?}");
        job.event(&host, event);
        printed += &format!("{job:?}");
        let mut job = Job::default();
        job.event(&host, Event::RestoreCommand(secret.into()));
        printed += &format!("{job:?}");
        assert!(!printed.contains("hunter2"), "{printed}");
        assert_eq!(printed.matches("PluginLine").count(), 3, "{printed}");
    }

    #[test]
    fn commands_of_other_plugins_are_not_ours() {
        assert!(is_ours("azure-vm:") && is_ours("azure-vm") && is_ours("azure-vm: vm=a:b"));
        assert!(!is_ours("azure-vmware: x") && !is_ours("bpipe:azure-vm:x"));
    }
}
