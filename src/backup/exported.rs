//! What Azure exports of a snapshot or disk: a fixed VHD behind a SAS.
//!
//! [`ExportedImage::open`] proves that it is one; the plans that it makes know nothing of the VHD's footer any more, and
//! end where the disk does. Used for the disks of a run and for single images of the command line.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Error;
use crate::azure::{self, PageBlob, PageRange, PageRangeKind};
use crate::pipeline::{BoxError, RangeSource, ReadPlan};
use crate::range::ByteRange;
use crate::vhd;

/// Images are made of sectors of this many bytes.
const SECTOR: u64 = 512;

/// A fixed VHD behind a SAS, its footer checked.
#[derive(Clone, Debug)]
pub struct ExportedImage {
    blob: PageBlob,
    /// For messages: `disk data-01 (LUN 3), snapshot s`.
    what: String,
    size: u64,
}

/// What to do to an older image to make it the newer one: first clear, then write what is read.
#[derive(Debug)]
pub struct Changes {
    /// Ranges that read as zeros now; ascending and disjoint.
    pub cleared: Vec<ByteRange>,
    /// What to read.
    pub plan: ReadPlan,
}

/// The bytes of an image, as the pipeline sees them.
#[derive(Debug)]
struct ImageSource(PageBlob);

impl RangeSource for ImageSource {
    fn read(&self, range: ByteRange) -> BoxFuture<'_, Result<Vec<Bytes>, BoxError>> {
        async move { self.0.read(range).await.map_err(BoxError::from) }.boxed()
    }
}

impl ExportedImage {
    /// Checks that the blob is a fixed VHD: length, no VHDX, footer. `what` names it in messages.
    ///
    /// # Errors
    ///
    /// Azure's refusal; [`Error::Unsavable`] if it is something else.
    pub async fn open(blob: PageBlob, what: String) -> Result<Self, Error> {
        let failed = |action: &str, source| Error::azure(format!("{action} of {what}"), source);
        let refuse = |reason: String| Error::Unsavable {
            what: what.clone(),
            reason,
        };
        let length = blob
            .content_length()
            .await
            .map_err(|source| failed("read image length", source))?;
        let (Some(head), Some(foot)) = (
            ByteRange::new(0, length.min(SECTOR)),
            length
                .checked_sub(vhd::FOOTER_LEN)
                .and_then(|size| ByteRange::new(size, length)),
        ) else {
            return Err(refuse(format!("its image has {length} bytes only")));
        };
        let head = read_sector(&blob, head)
            .await
            .map_err(|source| failed("read image head", source))?;
        if head.starts_with(vhd::VHDX_SIGNATURE) {
            return Err(refuse(
                "Azure serves it as VHDX, as it does for disks with 4096-byte sectors; only fixed VHDs can be read"
                    .into(),
            ));
        }
        let footer = read_sector(&blob, foot)
            .await
            .map_err(|source| failed("read image footer", source))?;
        match vhd::parse_fixed_footer(&footer) {
            Ok(size) if size == foot.start() && size > 0 => Ok(Self { blob, what, size }),
            Ok(size) => Err(refuse(format!(
                "its image says that it holds {size} bytes, and has {length} with the footer"
            ))),
            Err(error) => Err(refuse(format!("its image is no fixed VHD: {error}"))),
        }
    }

    /// Size of the disk in bytes, without the footer.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What to read for the whole image: what is allocated, and always the last 512 bytes, so that the data ends where the
    /// disk does.
    ///
    /// # Errors
    ///
    /// Azure's refusal; a list that cannot be trusted.
    pub async fn full_plan(&self) -> Result<ReadPlan, Error> {
        let listed = self.blob.page_ranges().await.map_err(|source| {
            Error::azure(format!("list allocated ranges of {}", self.what), source)
        })?;
        self.plan(of_kind(&listed, PageRangeKind::Written, self.size))
    }

    /// What to do to the image of `base`, an earlier snapshot of the same disk.
    ///
    /// # Errors
    ///
    /// Azure's refusal, also where no difference is to be had; a list that cannot be trusted.
    pub async fn changes_since(&self, base: &Self) -> Result<Changes, Error> {
        let listed = self
            .blob
            .page_ranges_diff(&base.blob)
            .await
            .map_err(|source| {
                Error::azure(
                    format!("list changes of {} since {}", self.what, base.what),
                    source,
                )
            })?;
        Ok(Changes {
            cleared: of_kind(&listed, PageRangeKind::Cleared, self.size),
            plan: self.plan(of_kind(&listed, PageRangeKind::Written, self.size))?,
        })
    }

    fn plan(&self, ranges: Vec<ByteRange>) -> Result<ReadPlan, Error> {
        let ranges = up_to_the_end(ranges, self.size);
        ReadPlan::new(Arc::new(ImageSource(self.blob.clone())), ranges).map_err(|error| {
            Error::Unsavable {
                what: self.what.clone(),
                reason: format!("its list of ranges cannot be trusted: {error}"),
            }
        })
    }
}

/// The ranges of one kind, without the footer.
fn of_kind(listed: &[PageRange], kind: PageRangeKind, size: u64) -> Vec<ByteRange> {
    listed
        .iter()
        .filter(|page| page.kind == kind)
        .filter_map(|page| ByteRange::new(page.range.start(), page.range.end().min(size)))
        .collect()
}

/// Adds the last sector, if it is not among `ranges` already.
fn up_to_the_end(mut ranges: Vec<ByteRange>, size: u64) -> Vec<ByteRange> {
    if ranges.last().is_none_or(|last| last.end() < size) {
        // Smaller than a sector only if the footer lies; then the plan is the whole image.
        ranges.extend(ByteRange::new(size.saturating_sub(SECTOR), size));
    }
    ranges
}

async fn read_sector(blob: &PageBlob, range: ByteRange) -> Result<[u8; 512], azure::Error> {
    let frames = blob.read(range).await?;
    let mut sector = [0; 512];
    let bytes = frames.iter().flat_map(|frame| frame.iter());
    for (to, from) in sector.iter_mut().zip(bytes) {
        *to = *from;
    }
    Ok(sector)
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
        up_to_the_end(of_kind(&listed, PageRangeKind::Written, size), size)
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
            let plan = up_to_the_end(of_kind(&listed, PageRangeKind::Written, size), size);
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
