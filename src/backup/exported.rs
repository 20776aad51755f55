//! What Azure exports of a snapshot or disk: a fixed VHD behind a SAS.
//!
//! [`ExportedImage::open`] proves that it is one; the plans that it makes know nothing of the VHD's footer any more, and
//! end where the disk does. Used for the disks of a run and for single images of the command line.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, try_join};

use super::Error;
use super::changes::{RangeLists, SECTOR};
use crate::azure::{self, ErrorKind, PageBlob, PageList, PageRanges};
use crate::intake::Intake;
use crate::pipeline::{BoxError, RangeSource, ReadPlan};
use crate::range::ByteRange;
use crate::range_list::{Disordered, RangeList};
use crate::vhd;

/// What is said of an image that is none.
const VHDX: &str = "Azure serves it as VHDX, as it does for disks with 4096-byte sectors; only fixed VHDs can be read";

/// Where a list of changes is asked whether it is one: bytes of the disk, at most.
const PROBE: u64 = 64 << 20;

/// A fixed VHD behind a SAS, its footer checked.
#[derive(Clone, Debug)]
pub struct ExportedImage {
    blob: PageBlob,
    /// For messages: `disk data-01 (LUN 3), snapshot s`.
    what: String,
    size: u64,
}

/// What to read for a whole image.
#[derive(Debug)]
pub struct FullPlan {
    /// What to read.
    pub plan: ReadPlan,
    /// Bytes that Azure lists as allocated.
    pub allocated_bytes: u64,
}

/// What to do to an older image to make it the newer one: first clear, then write what is read.
#[derive(Debug)]
pub struct Changes {
    /// Ranges that read as zeros now; ascending and disjoint. Some of them may be read as well.
    pub cleared: Vec<ByteRange>,
    /// What to read.
    pub plan: ReadPlan,
    /// Bytes that Azure lists as written.
    pub written_bytes: u64,
    /// Bytes that Azure lists as cleared.
    pub cleared_bytes: u64,
}

/// The bytes of an image, as the pipeline sees them.
#[derive(Debug)]
struct ImageSource(PageBlob);

impl RangeSource for ImageSource {
    fn read<'a>(
        &'a self,
        range: ByteRange,
        intake: &'a dyn Intake,
    ) -> BoxFuture<'a, Result<Vec<Bytes>, BoxError>> {
        async move {
            self.0
                .read_into(range, intake)
                .await
                .map_err(BoxError::from)
        }
        .boxed()
    }
}

impl ExportedImage {
    /// Checks by the footer that the blob is a fixed VHD. `what` names it in messages. With the `size` in bytes that the
    /// disk must have, this takes one request.
    ///
    /// # Errors
    ///
    /// Azure's refusal; [`Error::Unsavable`] if it is something else.
    pub async fn open(blob: PageBlob, what: String, size: Option<u64>) -> Result<Self, Error> {
        let failed = |action: &str, source| Error::azure(format!("{action} of {what}"), source);
        let refuse = |reason: String| Error::Unsavable {
            what: what.clone(),
            reason,
        };
        let length = match size {
            Some(size) => size.saturating_add(vhd::FOOTER_LEN),
            None => blob
                .content_length()
                .await
                .map_err(|source| failed("read image length", source))?,
        };
        let size = length.saturating_sub(vhd::FOOTER_LEN);
        let Some(foot) = ByteRange::new(size, length).filter(|foot| foot.start() > 0) else {
            return Err(refuse(format!("its image has {length} bytes only")));
        };
        let footer = match read_sector(&blob, foot).await {
            Ok(footer) => footer,
            // A VHDX has another length.
            Err(source) if is_beyond_end(&source) && is_vhdx(&blob).await => {
                return Err(refuse(VHDX.into()));
            }
            Err(source) => return Err(failed("read image footer", source)),
        };
        let actual = blob
            .content_length()
            .await
            .map_err(|source| failed("read image length", source))?;
        if actual != length && is_vhdx(&blob).await {
            return Err(refuse(VHDX.into()));
        }
        if actual != length {
            return Err(refuse(format!(
                "its image has {actual} bytes instead of {length}, the disk and a VHD footer"
            )));
        }
        match vhd::parse_fixed_footer(&footer) {
            Ok(named) if named == size => Ok(Self { blob, what, size }),
            Ok(named) => Err(refuse(format!(
                "its image says that it holds {named} bytes, and has {length} with the footer"
            ))),
            Err(_) if is_vhdx(&blob).await => Err(refuse(VHDX.into())),
            Err(error) => Err(refuse(format!("its image is no fixed VHD: {error}"))),
        }
    }

    /// The image of a snapshot that an earlier run has saved, and looked at then: it cannot have changed. No request.
    pub(super) fn of_base(blob: PageBlob, what: String, size: u64) -> Self {
        Self { blob, what, size }
    }

    /// Size of the disk in bytes, without the footer.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the bytes of its ranges come from.
    pub(super) fn source(&self) -> Arc<dyn RangeSource> {
        Arc::new(ImageSource(self.blob.clone()))
    }

    /// [Opens](Self::open) an image and plans to read all of it, at the same time; nothing is planned by a list of what is no
    /// such image.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`full_plan`](Self::full_plan).
    pub async fn open_full(
        blob: PageBlob,
        what: String,
        size: Option<u64>,
    ) -> Result<(Self, FullPlan), Error> {
        let list = blob.page_list();
        let (image, list) = list.beside(Self::open(blob, what, size)).await?;
        let plan = image.planned(list).await?;
        Ok((image, plan))
    }

    /// [Opens](Self::open) an image and an earlier one of the same disk, each given with its name in messages, and tells
    /// [what changed](Self::changes_since), at the same time.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`changes_since`](Self::changes_since).
    pub async fn open_changed(
        (blob, what): (PageBlob, String),
        (base, base_what): (PageBlob, String),
        most_cleared: usize,
    ) -> Result<(Self, Self, Changes), Error> {
        let list = blob.page_list_diff(&base);
        let opening = try_join(
            Box::pin(Self::open(blob, what, None)),
            Box::pin(Self::open(base, base_what, None)),
        );
        let ((image, base), list) = list.beside(opening).await?;
        let changes = image.changes(&base, list, most_cleared).await?;
        Ok((image, base, changes))
    }

    /// What to read for the whole image: what is allocated, and always the last 512 bytes, so that the data ends where the
    /// disk does.
    ///
    /// # Errors
    ///
    /// Azure's refusal; a list that cannot be trusted.
    pub async fn full_plan(&self) -> Result<FullPlan, Error> {
        self.planned(self.blob.page_list()).await
    }

    async fn planned(&self, list: PageList) -> Result<FullPlan, Error> {
        let listed = list.collect().await.map_err(|source| {
            Error::azure(format!("list allocated ranges of {}", self.what), source)
        })?;
        let lists = RangeLists::full(self.size, listed.written).map_err(self.untrusted())?;
        Ok(FullPlan {
            plan: self.plan(lists.read),
            allocated_bytes: lists.written_bytes,
        })
    }

    /// What to do to the image of `base`, an earlier snapshot of the same disk. Beyond `most_cleared` ranges, the
    /// smallest cleared ones are read instead of being named. Where the disk has grown, all that is allocated is read.
    ///
    /// # Errors
    ///
    /// Azure's refusal, also where no difference is to be had; a list that cannot be trusted.
    pub async fn changes_since(&self, base: &Self, most_cleared: usize) -> Result<Changes, Error> {
        let list = self.blob.page_list_diff(&base.blob);
        self.changes(base, list, most_cleared).await
    }

    async fn changes(
        &self,
        base: &Self,
        list: PageList,
        most_cleared: usize,
    ) -> Result<Changes, Error> {
        // Whether a difference covers what the base does not have at all is not documented, and a list that leaves it out
        // looks like any other.
        let grown = async {
            match ByteRange::new(base.size, self.size) {
                None => Ok(RangeList::new()),
                Some(grown) => {
                    let list = self.blob.page_list_within(grown).collect().await?;
                    Ok(list.written)
                }
            }
        };
        let failed = |source: azure::Error| {
            let action = format!("list changes of {} since {}", self.what, base.what);
            Error::azure(action, source)
        };
        let (listed, allocated) = try_join(list.collect(), grown).await.map_err(failed)?;
        if !self.is_difference(base, &listed).await.map_err(failed)? {
            return Err(Error::Unsavable {
                what: self.what.clone(),
                reason: format!(
                    "its list of changes is that of all allocated ranges, and leaves out what {} held and is gone: the \
                     service does not compute differences",
                    base.what
                ),
            });
        }
        let lists = RangeLists::changes(self.size, listed, base.size, allocated, most_cleared)
            .map_err(self.untrusted())?;
        Ok(Changes {
            plan: self.plan(lists.read),
            cleared: lists.cleared,
            written_bytes: lists.written_bytes,
            cleared_bytes: lists.cleared_bytes,
        })
    }

    /// Whether a list of changes can be one. A service that does not heed the base (the header came with version 2019-07-07)
    /// lists all that is allocated, and what was cleared since would stay as it was in the base. So where a list without any
    /// cleared range leaves something out, it must be allocated, as it is in the base; a list that covers all that the base
    /// held is right whatever it is. One small request tells, mostly.
    async fn is_difference(&self, base: &Self, listed: &PageRanges) -> Result<bool, azure::Error> {
        let PageRanges { written, cleared } = listed;
        let Some(gap) = first_gap(written, base.size).filter(|_| cleared.is_empty()) else {
            return Ok(true);
        };
        let end = gap.end().min(gap.start() + PROBE);
        let probe = ByteRange::new(gap.start(), end).unwrap_or(gap);
        if self.is_allocated(probe).await? {
            return Ok(true);
        }
        let before = base.blob.page_list().collect().await?;
        match first_outside(written, &before.written) {
            None => Ok(true),
            Some(unchanged) => self.is_allocated(unchanged).await,
        }
    }

    async fn is_allocated(&self, range: ByteRange) -> Result<bool, azure::Error> {
        let listed = self.blob.page_list_within(range).collect().await?;
        Ok(!listed.written.is_empty())
    }

    /// In a gap stands what the disk holds there, so it may be read as well: for a full image zeros, for changes what the
    /// base has there, too.
    fn plan(&self, ranges: RangeList) -> ReadPlan {
        ReadPlan::new(self.source(), ranges).across_gaps()
    }

    fn untrusted(&self) -> impl FnOnce(Disordered) -> Error {
        let what = self.what.clone();
        |error| Error::Unsavable {
            what,
            reason: format!("its list of ranges cannot be trusted: {error}"),
        }
    }
}

/// Whether there is nothing at the place that was read, or not all of it.
fn is_beyond_end(error: &azure::Error) -> bool {
    error.status() == Some(416) || error.kind() == ErrorKind::InvalidAnswer
}

/// Whether it begins as a VHDX does; what cannot be read does not.
async fn is_vhdx(blob: &PageBlob) -> bool {
    match ByteRange::new(0, SECTOR) {
        Some(head) => read_sector(blob, head)
            .await
            .is_ok_and(|head| head.starts_with(vhd::VHDX_SIGNATURE)),
        None => false,
    }
}

/// The first place of a disk of `size` bytes that `ranges` leave out.
fn first_gap(ranges: &RangeList, size: u64) -> Option<ByteRange> {
    let mut start = 0;
    for range in ranges {
        if range.start() > start {
            return ByteRange::new(start, range.start().min(size));
        }
        start = range.end();
    }
    ByteRange::new(start, size)
}

/// The first place in `inner` that is not in `outer`.
fn first_outside(outer: &RangeList, inner: &RangeList) -> Option<ByteRange> {
    let mut outer = outer.iter().peekable();
    inner.iter().find_map(|range| {
        let mut position = range.start();
        while position < range.end() {
            while outer.next_if(|next| next.end() <= position).is_some() {}
            match outer.peek() {
                Some(next) if next.start() <= position => position = next.end(),
                Some(next) => return ByteRange::new(position, range.end().min(next.start())),
                None => return ByteRange::new(position, range.end()),
            }
        }
        None
    })
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
