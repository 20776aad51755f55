//! A raw image into an upload disk: what is not zero, then the footer. Used for the disks of a restore and for single
//! images of the command line.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryFutureExt};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Error;
use super::local_part::LocalFile;
use super::sparse::DataRuns;
use crate::azure::PageBlob;
use crate::intake::Intake;
use crate::payload::Payload;
use crate::pipeline::{self, BoxError, Limits, PageWriter, RangeSink, WriteStats};
use crate::vhd;

/// Zeros are left out in pieces of this size, in bytes: small enough to skip most of them, large enough that data with
/// gaps does not fall apart into tiny requests.
const GRAIN: u32 = 64 * 1024;

/// Runs of data that are found ahead of those that are sent.
const RUNS: usize = 64;

/// A raw disk in a local file.
#[derive(Debug)]
pub struct RawImage {
    /// Its bytes; the file's position does not matter.
    pub file: File,
    /// For messages.
    pub path: PathBuf,
    /// Size of the disk in bytes, a multiple of 512.
    pub size: u64,
}

/// How far an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadProgress {
    /// Everything before this place of the disk was read and handed to the writer.
    pub position: u64,
    /// Bytes handed to the writer.
    pub sent: u64,
}

/// The blob of an upload disk, as the pipeline sees it.
#[derive(Debug)]
struct DiskSink(PageBlob);

impl RangeSink for DiskSink {
    fn write<'a>(
        &'a self,
        offset: u64,
        data: Payload,
        intake: &'a dyn Intake,
    ) -> BoxFuture<'a, Result<(), BoxError>> {
        let write = self.0.write_from(offset, data, intake);
        write.map_err(BoxError::from).boxed()
    }
}

/// Writes `image` to the blob behind an upload disk that nothing was written to before; zeros are left out. `what` names
/// the disk in messages, `stop` ends the transfer early.
///
/// # Errors
///
/// A disk of another size, found before anything is written; Azure's refusal; a local file that cannot be read.
pub async fn upload_image(
    blob: PageBlob,
    what: &str,
    image: RawImage,
    limits: Limits,
    stop: &CancellationToken,
    mut progress: impl FnMut(UploadProgress) + Send,
) -> Result<WriteStats, Error> {
    let RawImage { file, path, size } = image;
    let length = blob
        .content_length()
        .await
        .map_err(|source| Error::azure(format!("read length of {what}"), source))?;
    let expected = size + vhd::FOOTER_LEN;
    if length != expected {
        return Err(Error::Mismatch {
            what: what.to_owned(),
            reason: format!(
                "it takes {length} bytes, the image of {size} bytes and its footer are {expected}"
            ),
        });
    }
    let failed = |source| Error::upload(what.to_owned(), source);
    let file = Arc::new(file);
    let unreadable = |source| Error::Local {
        action: "read image",
        path: path.clone(),
        source,
    };
    let runs = DataRuns::new(Arc::clone(&file), size, GRAIN, limits.chunk);
    let (found, mut to_send) = mpsc::channel(RUNS);
    let scan = spawn_blocking(move || {
        for run in runs {
            // Nobody waits for them any more after a failure.
            if found.blocking_send(run?).is_err() {
                break;
            }
        }
        io::Result::Ok(())
    });
    let file = LocalFile::new(file, limits.memory);
    let mut writer = PageWriter::new(Arc::new(DiskSink(blob)), limits.concurrency, stop);
    let mut sent = 0;
    while let Some(run) = stop
        .run_until_cancelled(to_send.recv())
        .await
        .ok_or_else(|| failed(pipeline::Error::Cancelled))?
    {
        writer
            .write(run.start(), file.part(run))
            .await
            .map_err(failed)?;
        sent += run.len();
        progress(UploadProgress {
            position: run.end(),
            sent,
        });
    }
    scan.await
        .map_err(io::Error::other)
        .flatten()
        .map_err(unreadable)?;
    // The footer makes the image valid, so it goes last, when everything before it is acknowledged.
    writer.barrier().await.map_err(failed)?;
    let footer = vhd::fixed_footer(size, Uuid::new_v4(), SystemTime::now());
    writer.write(size, footer.to_vec()).await.map_err(failed)?;
    writer.finish().await.map_err(failed)
}
