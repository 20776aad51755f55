//! `pull SAS --to FILE`: one image, whole or as the changes since an earlier snapshot.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use azure_vm_fd::backup::{Changes, ExportedImage, FullPlan, MOST_CLEARED};
use azure_vm_fd::notice::Severity;
use azure_vm_fd::pipeline::{ImageReader, Limits, ReadPlan, ReadQueue, ZeroBlocks, is_zero};
use azure_vm_fd::range::ByteRange;
use azure_vm_fd::restore::SparseReader;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::args::{Parameters, PullArgs};
use crate::failure::{Failure, Status};
use crate::folder::{Incoming, IncomingFiles};
use crate::output::{Output, Report, human};
use crate::sas;

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
        file: File,
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
    let mut files = IncomingFiles::new();
    let (image, plan, zeros, target) = match base {
        None => {
            let (image, FullPlan { plan, .. }) = ExportedImage::open_full(blob, what, None).await?;
            let target = if to_stdout {
                Target::stdout()?
            } else {
                Target::File(files.create(args.to.clone(), image.size())?)
            };
            (image, plan, ZeroBlocks::Skip, target)
        }
        Some((base, base_what, older)) => {
            let opened =
                ExportedImage::open_changed((blob, what), (base, base_what), MOST_CLEARED).await?;
            let (image, base, Changes { cleared, plan, .. }) = opened;
            let target = files.create(args.to.clone(), image.size())?;
            copy_older(&older, &base, &image, &cleared, &target, &cancel).await?;
            // A changed block of zeros must cover what the older image has there.
            (image, plan, ZeroBlocks::Keep, Target::File(target))
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
    let queue = ReadQueue::new(limits, cancel);
    let mut reader = ImageReader::new(queue.push(plan), size, zeros);
    while let Some(chunk) = reader.next_chunk().await? {
        let mut offset = chunk.range().start();
        for frame in chunk.frames() {
            if zeros == ZeroBlocks::Keep || !is_zero(frame) {
                target.write(offset, frame)?;
                written_bytes += frame.len() as u64;
            }
            offset += frame.len() as u64;
        }
        output.progress(offset);
    }
    target.finish(size)?;
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
    /// Standard output itself: what comes is large, and the buffer of the standard library looks for line ends in it.
    fn stdout() -> Result<Self, Failure> {
        let file = io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Failure::failed(format!("open standard output: {error}")))?;
        Ok(Self::Stdout {
            file: file.into(),
            position: 0,
        })
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Failure> {
        match self {
            Self::File(file) => file.write(offset, data),
            Self::Stdout { file, position } => {
                write_zeros(file, offset - *position)
                    .and_then(|()| file.write_all(data))
                    .map_err(|error| Failure::failed(format!("write standard output: {error}")))?;
                *position = offset + data.len() as u64;
                Ok(())
            }
        }
    }

    /// Everything up to `size` that was not written reads as zeros.
    fn finish(&mut self, size: u64) -> Result<(), Failure> {
        match self {
            Self::File(_) => Ok(()),
            Self::Stdout { file, position } => write_zeros(file, size - *position)
                .map_err(|error| Failure::failed(format!("write standard output: {error}"))),
        }
    }
}

fn write_zeros(file: &mut File, mut len: u64) -> io::Result<()> {
    const ZEROS: &[u8] = &[0; 1 << 20];
    while len > 0 {
        let piece = &ZEROS[..ZEROS.len().min(usize::try_from(len).unwrap_or(usize::MAX))];
        file.write_all(piece)?;
        len -= piece.len() as u64;
    }
    Ok(())
}
