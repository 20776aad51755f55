//! `restore --from DIR`: a VM from the files of a folder.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use azure_vm_fd::azure::Azure;
use azure_vm_fd::notice::Severity;
use azure_vm_fd::private_folder::PrivateFolder;
use azure_vm_fd::restore::{Disposition, Options, Restore, RestoredVm, SparseReader};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::args::{Parameters, RestoreArgs};
use crate::failure::{Failure, Status};
use crate::output::{Output, Report};
use crate::saved::{SavedImage, SavedVm};

/// Images are made of sectors of this many bytes. Azure lists ranges in them as well: a coarser grain would hand over more
/// than was saved.
const SECTOR: u32 = 512;

/// Where staging files go by default: kept over restarts and not in memory, unlike `/tmp` on many systems
/// (Filesystem Hierarchy Standard 3.0, section 5.15).
const STAGING: &str = "/var/tmp";

/// The JSON document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Restored {
    name: String,
    id: String,
    /// UUID of the saved VM; the new one has its own.
    saved_uuid: String,
    epoch: u64,
}

pub(crate) async fn run(
    parameters: &Parameters,
    args: RestoreArgs,
    cancel: CancellationToken,
    output: &mut Output,
) -> Result<Report, Failure> {
    let settings = parameters.settings(args.pairs(), output)?;
    let saved = SavedVm::find(&args.from, args.vm.as_deref(), args.epoch)?;
    output.message(
        Severity::Info,
        format!(
            "restoring {} ({}), saved as {}",
            saved.document.vm_name, saved.document.vm_uuid, saved.document.epoch
        ),
    );
    let staging = args.staging.as_deref().unwrap_or(Path::new(STAGING));
    // Removed with all that is in it when the command ends, however it ends.
    let staging = tempfile::Builder::new()
        .prefix("azure-vm-restore-")
        .tempdir_in(staging)
        .map_err(|error| Failure::local("create a folder in", staging, &error))?;
    let options = Options {
        new_hostname: settings.new_hostname,
        restores: PrivateFolder::open(staging.path())
            .map_err(|error| Failure::local("open folder", staging.path(), &error))?,
        staging_name: "images".to_owned(),
        has_next_job: false,
        keep_staging: false,
        one_run: true,
        verify: settings.verify,
        limits: settings.limits,
    };
    let azure = Azure::new(settings.azure, cancel.clone())?;
    let mut restore = Restore::new(azure, options, output.notices());
    let staged = stage(&mut restore, &saved, &cancel, output).await;
    output.end_progress();
    output.drain();
    if let Err(failure) = staged {
        restore.abandon().await;
        return Err(failure);
    }
    let restored = restore.complete().await;
    output.drain();
    let RestoredVm { id, name } = restored?;
    output.line(format!("restored {name}: {id}"));
    Report::new(
        Status::Ok,
        &Restored {
            name,
            id,
            saved_uuid: saved.document.vm_uuid,
            epoch: saved.document.epoch,
        },
    )
}

/// Hands over the documents, then the images.
async fn stage(
    restore: &mut Restore,
    saved: &SavedVm,
    cancel: &CancellationToken,
    output: &mut Output,
) -> Result<(), Failure> {
    let conf = (&saved.document_path, &saved.document_name);
    let digests = saved.digests.as_ref().map(|(path, name)| (path, name));
    for (path, name) in [conf].into_iter().chain(digests) {
        let document =
            fs::read(path).map_err(|error| Failure::local("read document", path, &error))?;
        if restore.begin_entry(name, document.len() as u64).await? == Disposition::Receive {
            restore.write(0, &document)?;
            restore.end_entry().await?;
        }
    }
    output.drain();
    for image in &saved.images {
        match restore.begin_entry(&image.name, image.size).await? {
            Disposition::Skip => {}
            Disposition::Receive => {
                output.begin_progress(&image.name, image.size);
                stage_image(restore, image, cancel, output).await?;
                restore.end_entry().await?;
                output.end_progress();
            }
        }
        output.drain();
    }
    Ok(())
}

/// Hands over what is not zero, and the last sector in any case: it carries the size.
async fn stage_image(
    restore: &mut Restore,
    image: &SavedImage,
    cancel: &CancellationToken,
    output: &mut Output,
) -> Result<(), Failure> {
    let failed = |error| Failure::local("read image", &image.path, &error);
    let file = File::open(&image.path).map_err(failed)?;
    let last = file.try_clone().map_err(failed)?;
    let mut pieces = SparseReader::new(file, image.size, SECTOR);
    let mut end = 0;
    while let Some((offset, bytes)) = pieces.next().await.map_err(failed)? {
        if cancel.is_cancelled() {
            return Err(Failure::cancelled());
        }
        restore.write(offset, bytes)?;
        end = offset + bytes.len() as u64;
        output.progress(end);
    }
    if end < image.size {
        let mut sector = [0; SECTOR as usize];
        let offset = image.size - u64::from(SECTOR);
        last.read_exact_at(&mut sector, offset).map_err(failed)?;
        restore.write(offset, &sector)?;
    }
    Ok(())
}
