//! One disk of a run: what to read of its snapshot, and the blocks that go out.

use std::panic;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Error;
use super::chain::Base;
use super::difference::{self, NoDifference};
use super::exported::{Changes, ExportedImage, FullPlan};
use super::held::Held;
use super::run::Context;
use super::snapshot_set::OpenSnapshot;
use crate::azure::ResourceId;
use crate::digests::{ImageHasher, Segments};
use crate::document::ImageContent;
use crate::notice::Notices;
use crate::pipeline::{Block, ChunkReader, ImageReader, ReadPlan, ZeroBlocks};
use crate::quantity::{ByteSize, Rate};

/// Long enough not to fill a job log, short enough to see that a long disk moves.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// What a run holds of one disk between the snapshot and the end of the run; shared by [`DiskImage`] and the run.
#[derive(Debug)]
pub(super) struct HeldDisk {
    /// `disk data-01 (LUN 3)`.
    pub(super) label: String,
    pub(super) disk_name: String,
    pub(super) snapshot: ResourceId,
    held: Held,
    /// Gives it back while the next disk is read.
    giving_back: Mutex<Option<JoinHandle<()>>>,
    /// There once the whole image was delivered.
    delivered: OnceLock<Delivered>,
}

/// What was handed out of an image.
#[derive(Debug)]
pub(super) struct Delivered {
    /// Bytes of the disk.
    pub(super) size: u64,
    pub(super) segments: Segments,
}

impl HeldDisk {
    pub(super) fn new(snapshot: OpenSnapshot) -> Self {
        Self {
            label: snapshot.disk.label(),
            disk_name: snapshot.disk.name().to_owned(),
            snapshot: snapshot.id,
            held: snapshot.held,
            giving_back: Mutex::default(),
            delivered: OnceLock::new(),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.delivered.get().is_some()
    }

    pub(super) fn delivered(&self) -> Option<&Delivered> {
        self.delivered.get()
    }

    /// Begins to give back what is still held for the bytes: access, and a copy. Azure takes a second or so, in which the
    /// next bytes need not wait.
    pub(super) fn begin_giving_back(self: &Arc<Self>, notices: &Notices) {
        let (disk, notices) = (Arc::clone(self), notices.clone());
        self.task().get_or_insert_with(|| {
            tokio::spawn(async move { disk.held.give_back(&disk.snapshot, &notices).await })
        });
    }

    /// Gives back what is still held, and waits for it.
    pub(super) async fn give_back(self: &Arc<Self>, notices: &Notices) {
        self.begin_giving_back(notices);
        let begun = self.task().take();
        if let Some(begun) = begun
            && let Err(failure) = begun.await
            && let Ok(reason) = failure.try_into_panic()
        {
            panic::resume_unwind(reason);
        }
    }

    fn task(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.giving_back
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Facts for the disk's line in the job log.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// Bytes of the disk.
    pub(super) size: u64,
    /// Bytes of the read plan.
    pub(super) planned: u64,
    /// What Azure listed, for people.
    listed: String,
    /// Why the image is a full one although the level asks for changes. Said when its turn comes.
    fallback: Option<String>,
}

/// What to read of a snapshot, and what that makes of the disk's earlier image.
#[derive(Debug)]
pub(super) struct PlannedImage {
    pub(super) plan: ReadPlan,
    pub(super) account: Account,
    pub(super) content: ImageContent,
}

/// What to read of a snapshot, and from where: itself, or its copy in a storage account. Changes name at most
/// `most_cleared` cleared ranges.
///
/// # Errors
///
/// Azure's refusal, an image that is not what it should be, a copy that failed, or no changes to be had where nothing else
/// will do.
pub(super) async fn plan(
    context: &Context,
    vm: &str,
    snapshot: &OpenSnapshot,
    most_cleared: usize,
) -> Result<PlannedImage, Error> {
    let planned = listed(context, vm, snapshot, most_cleared).await?;
    let Some(staging) = &context.staging else {
        return Ok(planned);
    };
    let plan = staging.redirect(context, snapshot, planned.plan).await?;
    Ok(PlannedImage { plan, ..planned })
}

/// Opens the snapshot's image, which must have the disk's size, and lists what changed in it since the base of the
/// disk, or, without one, what is allocated.
async fn listed(
    context: &Context,
    vm: &str,
    snapshot: &OpenSnapshot,
    most_cleared: usize,
) -> Result<PlannedImage, Error> {
    let disk = &snapshot.disk;
    let blob = snapshot.blob.clone();
    let what = format!("{}, snapshot {}", disk.label(), snapshot.id.name());
    let base = match context.base(vm, &disk.unique_id) {
        Ok(Some(base)) => base,
        unusable => {
            let fallback = unusable.err();
            refuse_fallback(context, snapshot, fallback.as_ref())?;
            let (image, full) = ExportedImage::open_full(blob, what, Some(disk.size)).await?;
            return Ok(whole(&image, full, fallback));
        }
    };
    let opening = ExportedImage::open(blob, what, Some(disk.size));
    let (image, changes) = Box::pin(difference::list(
        context,
        snapshot,
        opening,
        &base,
        most_cleared,
    ))
    .await?;
    match changes {
        Ok(changes) => Ok(delta(&image, base, changes)),
        Err(NoDifference::Cancelled) => Err(Error::Cancelled),
        Err(NoDifference::Because(reason)) => {
            let fallback = Some(reason);
            refuse_fallback(context, snapshot, fallback.as_ref())?;
            Ok(whole(&image, image.full_plan().await?, fallback))
        }
    }
}

/// Whether a disk may be saved in full for the reason given, if there is one.
fn refuse_fallback(
    context: &Context,
    snapshot: &OpenSnapshot,
    reason: Option<&String>,
) -> Result<(), Error> {
    match reason {
        Some(reason) if !context.options.fallback => Err(Error::NoChanges {
            disk: snapshot.disk.label(),
            reason: reason.clone(),
        }),
        Some(_) | None => Ok(()),
    }
}

fn whole(image: &ExportedImage, full: FullPlan, fallback: Option<String>) -> PlannedImage {
    PlannedImage {
        account: Account {
            size: image.size(),
            planned: full.plan.bytes(),
            listed: format!("allocated {}", ByteSize(full.allocated_bytes)),
            fallback,
        },
        plan: full.plan,
        content: ImageContent::Full,
    }
}

fn delta(image: &ExportedImage, base: Base, changes: Changes) -> PlannedImage {
    PlannedImage {
        account: Account {
            size: image.size(),
            planned: changes.plan.bytes(),
            listed: format!(
                "changes since {}: written {}, cleared {}",
                base.job,
                ByteSize(changes.written_bytes),
                ByteSize(changes.cleared_bytes)
            ),
            fallback: None,
        },
        plan: changes.plan,
        content: ImageContent::Delta {
            base_epoch: base.epoch,
            base_job: base.job,
            cleared: changes.cleared,
        },
    }
}

/// A disk being read.
#[derive(Debug)]
pub struct DiskImage {
    held: Arc<HeldDisk>,
    reader: ImageReader,
    zeros: ZeroBlocks,
    hasher: ImageHasher,
    account: Account,
    notices: Notices,
    /// When the first block was asked for.
    started: Option<Instant>,
    reported: Instant,
    ended: bool,
}

impl DiskImage {
    pub(super) fn new(
        held: Arc<HeldDisk>,
        chunks: ChunkReader,
        account: Account,
        zeros: ZeroBlocks,
        notices: Notices,
    ) -> Self {
        Self {
            reader: ImageReader::new(chunks, account.size, zeros),
            zeros,
            hasher: ImageHasher::new(account.size),
            held,
            account,
            notices,
            started: None,
            reported: Instant::now(),
            ended: false,
        }
    }

    /// Fills `buffer` with the next block; `None` at the end of a complete image. Blocks come in disk order; what lies
    /// between two of them reads as zeros. The last block ends at the entry's size.
    ///
    /// # Errors
    ///
    /// The image cannot be completed: the job must fail.
    pub async fn read_block(&mut self, buffer: &mut [u8]) -> Result<Option<Block>, Error> {
        if let Some(reason) = self.account.fallback.take() {
            self.notices.error(format!(
                "{} is saved as a full image, because {reason}; the next incremental builds on this image, and at restore \
                 nothing has to be left out",
                self.held.label
            ));
        }
        let now = Instant::now();
        let started = *self.started.get_or_insert(now);
        let block = self
            .reader
            .read_block(buffer)
            .await
            .map_err(|source| self.failed(source))?;
        self.ended = block.is_none();
        if let Some(block) = block {
            // Still in the processor's cache.
            self.hasher.update(block.offset, &buffer[..block.len]);
        }
        if let Some(block) = block
            && self.reported.max(started).elapsed() >= PROGRESS_INTERVAL
        {
            self.reported = Instant::now();
            self.report_progress(block, started.elapsed());
        }
        Ok(block)
    }

    /// After the last block: checks that all was delivered, begins to give the access back, leaves the account as a
    /// notice.
    ///
    /// # Errors
    ///
    /// The image is not complete: the job must fail.
    pub async fn finish(mut self) -> Result<(), Error> {
        let elapsed = self.started.map_or(Duration::ZERO, |start| start.elapsed());
        if !self.ended {
            // Only the reader knows whether all was taken: at the end of a complete image it gives no further block.
            match self.reader.read_block(&mut [0; 512]).await {
                Ok(None) => {}
                Ok(Some(block)) => {
                    return Err(self.failed(crate::pipeline::Error::Incomplete {
                        end: block.offset,
                        size: self.account.size,
                    }));
                }
                Err(source) => return Err(self.failed(source)),
            }
        }
        self.held.delivered.get_or_init(|| Delivered {
            size: self.account.size,
            segments: self.hasher.segments(self.zeros),
        });
        self.held.begin_giving_back(&self.notices);
        let stats = self.reader.stats();
        let zeros = match stats.zeros {
            0 => String::new(),
            zeros => format!(", zeros left out {}", ByteSize(zeros)),
        };
        self.notices.info(format!(
            "{}: size {}, {}, read {}, sent {}{zeros}; {:.1} s, {}, waited {:.1} s for Azure",
            self.held.label,
            ByteSize(self.account.size),
            self.account.listed,
            ByteSize(stats.read),
            ByteSize(stats.delivered),
            elapsed.as_secs_f64(),
            Rate::new(stats.read, elapsed),
            stats.starved.as_secs_f64(),
        ));
        Ok(())
    }

    fn report_progress(&self, block: Block, elapsed: Duration) {
        let read = self.reader.stats().read;
        let percent = read * 100 / self.account.planned.max(1);
        self.notices.info(format!(
            "{}: {} of {} read ({percent} %), at {} of {}, {}",
            self.held.label,
            ByteSize(read),
            ByteSize(self.account.planned),
            ByteSize(block.offset),
            ByteSize(self.account.size),
            Rate::new(read, elapsed),
        ));
    }

    fn failed(&self, source: crate::pipeline::Error) -> Error {
        if is_cancelled(&source) {
            return Error::Cancelled;
        }
        Error::Image {
            disk: self.held.disk_name.clone(),
            snapshot: self.held.snapshot.name().to_owned(),
            source,
        }
    }
}

/// A request that was cancelled under way comes back as a failed range.
fn is_cancelled(error: &crate::pipeline::Error) -> bool {
    error.is_cancelled()
        || std::error::Error::source(error)
            .and_then(|source| source.downcast_ref::<crate::azure::Error>())
            .is_some_and(crate::azure::Error::is_cancelled)
}
