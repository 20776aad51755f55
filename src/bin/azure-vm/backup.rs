//! `backup --to DIR`: VMs into a folder, with the names that the catalog would have.

use std::env::temp_dir;
use std::path::{Path, PathBuf};

use azure_vm_fd::azure::Azure;
use azure_vm_fd::backup::{
    Backup, Content, DiskImage, Error, Level, Options, Outcome, Run, VmBackup,
};
use azure_vm_fd::config::Settings;
use azure_vm_fd::notice::{Severity, with_causes};
use azure_vm_fd::private_folder::PrivateFolder;
use nix::unistd::gethostname;
use serde::Serialize;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::args::{BackupArgs, Parameters};
use crate::failure::{Failure, Status};
use crate::folder::{Incoming, IncomingFiles};
use crate::output::{Output, Report, human};

/// Bytes of a block buffer: what the pipeline hands over at a time never exceeds it.
const BLOCK_BYTES: usize = 1 << 20;

/// The JSON document.
#[derive(Default, Serialize)]
struct Saved {
    vms: Vec<SavedVm>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SavedVm {
    name: String,
    resource_group: String,
    files: Vec<PathBuf>,
    /// Bytes of the images that were written; the rest of the files is sparse.
    written_bytes: u64,
}

/// Why a VM was not saved.
enum VmFailure {
    /// Its data could not be read; the next VM may fare better.
    Read(Error),
    /// The folder cannot take it, nor any other.
    Write(Failure),
}

pub(crate) async fn run(
    parameters: &Parameters,
    args: BackupArgs,
    cancel: CancellationToken,
    output: &mut Output,
) -> Result<Report, Failure> {
    let settings = parameters.settings(args.pairs(), output)?;
    let state = state()?;
    let folder = PrivateFolder::open(state.path())
        .map_err(|error| Failure::local("open folder", state.path(), &error))?;
    let options = options(&settings, folder);
    let abort_on_error = options.abort_on_error;
    let azure = Azure::new(settings.azure, cancel)?;
    let mut backup = Backup::begin(azure, this_run(), options, output.notices()).await?;
    let mut saved = Saved::default();
    let result = save_all(&mut backup, &args.to, abort_on_error, &mut saved, output).await;
    // Nothing of this run is a base of a later one, so what was saved stays good whatever came after it.
    let outcome = match &result {
        Ok(()) if !output.has_errors() => Outcome::Good,
        Ok(()) | Err(_) => Outcome::Bad,
    };
    let finished = backup.finish(outcome).await;
    output.drain();
    match result.and(finished.map_err(Failure::from)) {
        Err(failure) if saved.vms.is_empty() || failure.status == Status::Cancelled => {
            return Err(failure);
        }
        Err(failure) => output.message(Severity::Error, failure.text),
        Ok(()) => {}
    }
    for vm in &saved.vms {
        output.line(format!(
            "saved {} ({} written) to {}",
            vm.name,
            human(vm.written_bytes),
            args.to.display()
        ));
    }
    let status = match (saved.vms.is_empty(), output.has_errors()) {
        (true, _) => Status::Failed,
        (false, true) => Status::Partial,
        (false, false) => Status::Ok,
    };
    Report::new(status, &saved)
}

/// What the settings say to the core.
fn options(settings: &Settings, state: PrivateFolder) -> Options {
    Options {
        selection: settings.selection.clone(),
        abort_on_error: settings.abort_on_error,
        fallback: settings.fallback,
        limits: settings.limits,
        transfer: settings.transfer.clone(),
        state,
    }
}

/// A folder for the tracker of a run that no later one builds on: it goes when the command ends.
fn state() -> Result<TempDir, Failure> {
    tempfile::tempdir().map_err(|error| Failure::local("create a folder in", &temp_dir(), &error))
}

/// A run of its own: always full, and nothing of it stays in Azure.
pub(crate) fn this_run() -> Run {
    Run {
        job: format!("azure-vm.{}", Uuid::new_v4().simple()),
        line: 0,
        client: gethostname().map_or_else(
            |_| "azure-vm".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        ),
        level: Level::Full,
        previous: None,
        keep_snapshots: false,
    }
}

async fn save_all(
    backup: &mut Backup,
    folder: &Path,
    abort_on_error: bool,
    saved: &mut Saved,
    output: &mut Output,
) -> Result<(), Failure> {
    loop {
        let next = backup.next_vm().await;
        output.drain();
        let Some(mut vm) = next? else {
            return Ok(());
        };
        let result = save_vm(&mut vm, folder, output).await;
        output.end_progress();
        let name = vm.name().to_owned();
        vm.close().await;
        output.drain();
        match result {
            Ok(vm) => saved.vms.push(vm),
            Err(VmFailure::Read(error)) if !abort_on_error && !error.is_cancelled() => {
                output.message(
                    Severity::Error,
                    format!("save virtual machine {name}: {}", with_causes(&error)),
                );
            }
            Err(VmFailure::Read(error)) => return Err(error.into()),
            Err(VmFailure::Write(failure)) => return Err(failure),
        }
    }
}

/// Saves one VM; its files appear when all are complete.
async fn save_vm(
    vm: &mut VmBackup,
    folder: &Path,
    output: &mut Output,
) -> Result<SavedVm, VmFailure> {
    let mut incoming = IncomingFiles::new();
    let mut written_bytes = 0;
    while let Some(entry) = vm.next_entry() {
        let path = folder.join(entry.path.trim_start_matches('/'));
        match entry.content {
            // The file that only names the VM is the same in every run.
            Content::Empty if path.is_file() => {}
            Content::Empty => {
                incoming.create(path, 0)?;
            }
            Content::Bytes(bytes) => incoming.create(path, entry.size)?.write(0, &bytes)?,
            Content::Image(image) => {
                let name = format!("{} {}", vm.name(), file_name(&entry.path));
                output.begin_progress(&name, entry.size);
                let file = incoming.create(path, entry.size)?;
                written_bytes += save_image(*image, &file, output).await?;
                output.end_progress();
                output.drain();
            }
        }
    }
    Ok(SavedVm {
        name: vm.name().to_owned(),
        resource_group: vm.resource_group().to_owned(),
        files: incoming.commit()?,
        written_bytes,
    })
}

async fn save_image(
    mut image: DiskImage,
    file: &Incoming<'_>,
    output: &mut Output,
) -> Result<u64, VmFailure> {
    let mut buffer = vec![0; BLOCK_BYTES];
    let mut written_bytes = 0;
    while let Some(block) = image.read_block(&mut buffer).await? {
        file.write(block.offset, &buffer[..block.len])?;
        written_bytes += block.len as u64;
        output.progress(block.offset + block.len as u64);
    }
    image.finish().await?;
    Ok(written_bytes)
}

fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

impl From<Error> for VmFailure {
    fn from(error: Error) -> Self {
        Self::Read(error)
    }
}

impl From<Failure> for VmFailure {
    fn from(failure: Failure) -> Self {
        Self::Write(failure)
    }
}
