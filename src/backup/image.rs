//! One disk of a run: what to read of its snapshot, and the blocks that go out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::Error;
use super::snapshot_set::{self, OpenSnapshot};
use crate::azure::{AccessGrant, PageBlob, PageRange, PageRangeKind, ResourceId};
use crate::notice::Notices;
use crate::pipeline::{
    Block, BoxError, ChunkReader, ImageReader, RangeSource, ReadPlan, ZeroBlocks,
};
use crate::quantity::{ByteSize, Rate};
use crate::range::ByteRange;
use crate::vhd;

/// Long enough not to fill a job log, short enough to see that a long disk moves.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The bytes of a snapshot, as the pipeline sees them.
#[derive(Debug)]
struct SnapshotSource(PageBlob);

impl RangeSource for SnapshotSource {
    fn read(&self, range: ByteRange) -> BoxFuture<'_, Result<Vec<Bytes>, BoxError>> {
        async move { self.0.read(range).await.map_err(BoxError::from) }.boxed()
    }
}

/// What a run holds of one disk between the snapshot and the end of the run; shared by [`DiskImage`] and the run.
#[derive(Debug)]
pub(super) struct HeldDisk {
    /// `disk data-01 (LUN 3)`.
    pub(super) label: String,
    pub(super) disk_name: String,
    pub(super) disk_unique_id: String,
    pub(super) snapshot: ResourceId,
    /// `None` once it was given back.
    grant: Mutex<Option<AccessGrant>>,
    /// Whether the whole image was delivered.
    complete: AtomicBool,
}

impl HeldDisk {
    pub(super) fn new(snapshot: OpenSnapshot) -> Self {
        Self {
            label: snapshot.disk.label(),
            disk_name: snapshot.disk.name().to_owned(),
            disk_unique_id: snapshot.disk.unique_id,
            snapshot: snapshot.id,
            grant: Mutex::new(Some(snapshot.grant)),
            complete: AtomicBool::new(false),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Gives access back, if it is still held.
    pub(super) async fn revoke(&self, notices: &Notices) {
        let grant = self
            .grant
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(grant) = grant {
            snapshot_set::revoke(grant, &self.snapshot, notices).await;
        }
    }
}

/// Facts for the disk's line in the job log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    /// Bytes of the disk.
    pub(super) size: u64,
    /// Bytes of the read plan.
    planned: u64,
    ranges: usize,
}

/// Checks that the snapshot is served as a fixed VHD of the disk's size, and lists what is allocated in it.
///
/// # Errors
///
/// Azure's refusal, or an image that is not what it should be.
pub(super) async fn plan(snapshot: &OpenSnapshot) -> Result<(ReadPlan, Account), Error> {
    let disk = &snapshot.disk;
    let blob = snapshot.grant.page_blob();
    let failed = |what: &str, source| {
        Error::azure(
            format!(
                "{what} of {} (snapshot {})",
                disk.label(),
                snapshot.id.name()
            ),
            source,
        )
    };
    let refuse = |reason: String| Error::Unsavable {
        what: disk.label(),
        reason,
    };

    let length = blob
        .content_length()
        .await
        .map_err(|source| failed("read image length", source))?;
    if is_vhdx(&blob)
        .await
        .map_err(|source| failed("read image head", source))?
    {
        return Err(refuse(
            "Azure serves it as VHDX, as it does for disks with 4096-byte sectors; only fixed VHDs can be saved".into(),
        ));
    }
    let expected = disk.size + vhd::FOOTER_LEN;
    if length != expected {
        return Err(refuse(format!(
            "its image has {length} bytes instead of {expected} (the disk's {} and a VHD footer)",
            disk.size
        )));
    }
    let footer = read_footer(&blob, disk.size)
        .await
        .map_err(|source| failed("read image footer", source))?;
    match vhd::parse_fixed_footer(&footer) {
        Ok(size) if size == disk.size => {}
        Ok(size) => {
            return Err(refuse(format!(
                "its image says that it holds {size} bytes, the disk has {}",
                disk.size
            )));
        }
        Err(error) => return Err(refuse(format!("its image is no fixed VHD: {error}"))),
    }

    let listed = blob
        .page_ranges()
        .await
        .map_err(|source| failed("list allocated ranges", source))?;
    let ranges = full_ranges(listed, disk.size);
    let count = ranges.len();
    let plan = ReadPlan::new(Arc::new(SnapshotSource(blob)), ranges)
        .map_err(|error| refuse(format!("its list of ranges cannot be trusted: {error}")))?;
    let account = Account {
        size: disk.size,
        planned: plan.bytes(),
        ranges: count,
    };
    Ok((plan, account))
}

/// The ranges of a full image: what is allocated, without the footer, and always the disk's last 512 bytes, so that the
/// image ends where the disk does.
fn full_ranges(listed: Vec<PageRange>, size: u64) -> Vec<ByteRange> {
    let mut ranges: Vec<ByteRange> = listed
        .into_iter()
        .filter(|page| match page.kind {
            PageRangeKind::Written => true,
            PageRangeKind::Cleared => false,
        })
        .filter_map(|page| ByteRange::new(page.range.start(), page.range.end().min(size)))
        .collect();
    if ranges.last().is_none_or(|last| last.end() < size) {
        ranges.extend(ByteRange::new(size - 512, size));
    }
    ranges
}

async fn read_footer(blob: &PageBlob, size: u64) -> Result<[u8; 512], crate::azure::Error> {
    // The size is that of a disk, far from the end of 64 bits.
    let mut footer = [0; 512];
    if let Some(range) = ByteRange::with_len(size, vhd::FOOTER_LEN) {
        copy_frames(&blob.read(range).await?, &mut footer);
    }
    Ok(footer)
}

/// Whether the image begins like a VHDX.
async fn is_vhdx(blob: &PageBlob) -> Result<bool, crate::azure::Error> {
    let mut head = [0; 512];
    if let Some(range) = ByteRange::with_len(0, 512) {
        copy_frames(&blob.read(range).await?, &mut head);
    }
    Ok(head.starts_with(vhd::VHDX_SIGNATURE))
}

fn copy_frames(frames: &[Bytes], target: &mut [u8; 512]) {
    let bytes = frames.iter().flat_map(|frame| frame.iter());
    for (to, from) in target.iter_mut().zip(bytes) {
        *to = *from;
    }
}

/// A disk being read.
#[derive(Debug)]
pub struct DiskImage {
    held: Arc<HeldDisk>,
    reader: ImageReader,
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
        notices: Notices,
    ) -> Self {
        Self {
            reader: ImageReader::new(chunks, account.size, ZeroBlocks::Skip),
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
        let now = Instant::now();
        let started = *self.started.get_or_insert(now);
        let block = self
            .reader
            .read_block(buffer)
            .await
            .map_err(|source| self.failed(source))?;
        self.ended = block.is_none();
        if let Some(block) = block
            && self.reported.max(started).elapsed() >= PROGRESS_INTERVAL
        {
            self.reported = Instant::now();
            self.report_progress(block, started.elapsed());
        }
        Ok(block)
    }

    /// After the last block: checks that all was delivered, gives the access back, leaves the account as a notice.
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
        self.held.complete.store(true, Ordering::Release);
        self.held.revoke(&self.notices).await;
        let stats = self.reader.stats();
        self.notices.info(format!(
            "{}: size {}, allocated {} in {} ranges, read {}, sent {}, zeros left out {}; {:.1} s, {}, waited {:.1} s \
             for Azure",
            self.held.label,
            ByteSize(self.account.size),
            ByteSize(self.account.planned),
            self.account.ranges,
            ByteSize(stats.read),
            ByteSize(stats.delivered),
            ByteSize(stats.zeros),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(start: u64, end: u64, kind: PageRangeKind) -> PageRange {
        PageRange {
            range: ByteRange::new(start, end).unwrap(),
            kind,
        }
    }

    fn planned(listed: Vec<PageRange>, size: u64) -> Vec<(u64, u64)> {
        full_ranges(listed, size)
            .into_iter()
            .map(|range| (range.start(), range.end()))
            .collect()
    }

    #[test]
    fn the_footer_is_cut_off_and_the_last_sector_is_always_read() {
        use PageRangeKind::{Cleared, Written};
        let size = 8192;
        assert_eq!(planned(vec![], size), [(7680, 8192)]);
        assert_eq!(
            planned(vec![page(8192, 8704, Written)], size),
            [(7680, 8192)]
        );
        assert_eq!(
            planned(vec![page(7168, 8704, Written)], size),
            [(7168, 8192)]
        );
        assert_eq!(
            planned(vec![page(0, 512, Written), page(512, 1024, Cleared)], size),
            [(0, 512), (7680, 8192)]
        );
    }

    proptest! {
        #[test]
        fn a_plan_covers_what_is_written_and_nothing_beyond_the_disk(
            mut edges in proptest::collection::btree_set(0u64..=65, 0..20),
            size in 1u64..=64,
        ) {
            if edges.len() % 2 == 1 {
                edges.pop_last();
            }
            let edges: Vec<u64> = edges.into_iter().map(|page| page * 512).collect();
            let size = size * 512;
            let listed: Vec<_> = edges.chunks(2).map(|e| page(e[0], e[1], PageRangeKind::Written)).collect();
            let plan = full_ranges(listed.clone(), size);
            prop_assert_eq!(plan.last().unwrap().end(), size);
            let mut position = 0;
            for range in &plan {
                prop_assert!(range.start() >= position);
                position = range.end();
            }
            for sector in (0..size).step_by(512) {
                let written = listed.iter().any(|p| p.range.start() <= sector && sector < p.range.end());
                let read = plan.iter().any(|r| r.start() <= sector && sector < r.end());
                prop_assert_eq!(read, written || sector == size - 512);
            }
        }
    }
}
