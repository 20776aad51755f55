//! `pull SAS --to FILE`: one image, whole or as the changes since an earlier snapshot.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use azure_vm_fd::backup::{Changes, ExportedImage, MOST_CLEARED};
use azure_vm_fd::notice::Severity;
use azure_vm_fd::pipeline::{ByteBudget, ImageReader, Limits, ReadPlan, ReadQueue, ZeroBlocks};
use azure_vm_fd::range::ByteRange;
use azure_vm_fd::restore::SparseReader;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::args::{Parameters, PullArgs};
use crate::failure::{Failure, Status};
use crate::folder::{Incoming, IncomingFiles};
use crate::output::{Output, Report, human};
use crate::sas;

/// Bytes handed over at a time.
const BLOCK_BYTES: usize = 1 << 20;
/// Zeros of the older image are left out in pieces of this size, in bytes: the smallest hole of the usual file systems.
const HOLE: u32 = 4096;

/// The JSON document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pulled {
    size_bytes: u64,
    /// Bytes that came from Azure and were written; the rest is sparse, or from the older image.
    written_bytes: u64,
}

/// Where an image goes.
enum Target<'a> {
    File(Incoming<'a>),
    /// No offsets: what is not read is written as zeros.
    Stdout {
        position: u64,
    },
}

pub(crate) async fn run(
    parameters: &Parameters,
    args: PullArgs,
    cancel: CancellationToken,
    output: &mut Output,
) -> Result<Report, Failure> {
    let settings = parameters.transfer_settings(output)?;
    let to_stdout = args.to == Path::new("-");
    if to_stdout && output.is_json() {
        return Err(Failure::usage(
            "--json and --to -: standard output can carry the image or the document, not both",
        ));
    }
    if to_stdout && args.base.is_some() {
        return Err(Failure::usage(
            "--base and --to -: changes go into a file, since standard output has no offsets",
        ));
    }
    let transport = sas::transport(&settings)?;
    let (blob, what) = sas::blob(&transport, sas::resolve(&args.sas)?, &cancel);
    let base = match (&args.base, args.base_file) {
        (Some(sas), Some(file)) => {
            let (blob, what) = sas::blob(&transport, sas::resolve(sas)?, &cancel);
            Some((blob, what, file))
        }
        (Some(_), None) | (None, Some(_)) | (None, None) => None,
    };
    let image = ExportedImage::open(blob, what, None).await?;

    let mut files = IncomingFiles::new();
    let (plan, zeros, target) = match base {
        None if to_stdout => {
            let target = Target::Stdout { position: 0 };
            (image.full_plan().await?, ZeroBlocks::Skip, target)
        }
        None => {
            let plan = image.full_plan().await?;
            let target = files.create(args.to.clone(), image.size())?;
            (plan, ZeroBlocks::Skip, Target::File(target))
        }
        Some((blob, what, older)) => {
            let base = ExportedImage::open(blob, what, None).await?;
            let Changes { cleared, plan, .. } = image.changes_since(&base, MOST_CLEARED).await?;
            let target = files.create(args.to.clone(), image.size())?;
            copy_older(&older, &base, &image, &cleared, &target, &cancel).await?;
            // A changed block of zeros must cover what the older image has there.
            (plan, ZeroBlocks::Keep, Target::File(target))
        }
    };
    output.message(
        Severity::Info,
        format!("reading {} of {}", human(plan.bytes()), human(image.size())),
    );
    let written_bytes = transfer(
        plan,
        image.size(),
        zeros,
        target,
        settings.limits,
        &cancel,
        output,
    )
    .await?;
    if !to_stdout {
        files.commit()?;
        output.line(format!(
            "pulled {} ({} read) to {}",
            human(image.size()),
            human(written_bytes),
            args.to.display()
        ));
    }
    Report::new(
        Status::Ok,
        &Pulled {
            size_bytes: image.size(),
            written_bytes,
        },
    )
}

async fn transfer(
    plan: ReadPlan,
    size: u64,
    zeros: ZeroBlocks,
    mut target: Target<'_>,
    limits: Limits,
    cancel: &CancellationToken,
    output: &mut Output,
) -> Result<u64, Failure> {
    let mut written_bytes = 0;
    output.begin_progress("image", size);
    let queue = ReadQueue::new(&ByteBudget::new(limits.memory), limits, cancel);
    let mut reader = ImageReader::new(queue.push(plan), size, zeros);
    let mut buffer = vec![0; BLOCK_BYTES];
    while let Some(block) = reader.read_block(&mut buffer).await? {
        target.write(block.offset, &buffer[..block.len])?;
        written_bytes += block.len as u64;
        output.progress(block.offset + block.len as u64);
    }
    target.flush()?;
    output.end_progress();
    Ok(written_bytes)
}

/// Copies the older image, and clears what reads as zeros now.
async fn copy_older(
    older: &Path,
    base: &ExportedImage,
    image: &ExportedImage,
    cleared: &[ByteRange],
    target: &Incoming<'_>,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    let failed = |error| Failure::local("read image", older, &error);
    let file = File::open(older).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    if len != base.size() || len > image.size() {
        return Err(Failure::failed(format!(
            "read image {}: it has {len} bytes, the snapshot that it should be of has {}, and the newer one {}",
            older.display(),
            base.size(),
            image.size()
        )));
    }
    let mut pieces = SparseReader::new(file, len, HOLE);
    while let Some((offset, bytes)) = pieces.next().await.map_err(failed)? {
        if cancel.is_cancelled() {
            return Err(Failure::cancelled());
        }
        target.write(offset, bytes)?;
    }
    for &range in cleared {
        target.clear(range)?;
    }
    Ok(())
}

impl Target<'_> {
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Failure> {
        match self {
            Self::File(file) => file.write(offset, data),
            Self::Stdout { position } => {
                let mut stdout = io::stdout().lock();
                let gap = io::copy(
                    &mut io::Read::take(io::repeat(0), offset - *position),
                    &mut stdout,
                );
                *position = offset + data.len() as u64;
                gap.and_then(|_| stdout.write_all(data))
                    .map_err(|error| Failure::failed(format!("write standard output: {error}")))
            }
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        match self {
            Self::File(_) => Ok(()),
            Self::Stdout { .. } => io::stdout()
                .lock()
                .flush()
                .map_err(|error| Failure::failed(format!("write standard output: {error}"))),
        }
    }
}
