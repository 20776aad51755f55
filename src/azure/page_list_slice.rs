//! A part of a page list that is read answer by answer, and the parts that are made of what is left of it.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::Error;
use super::arm::Subject;
use super::blob_credential::BothSas;
use super::error::ErrorKind;
use super::exchange::Answer;
use super::generated::blob;
use super::outgoing::Reception;
use super::page_blob::PageBlob;
use super::page_list::PageRanges;
use super::page_list_xml::{PageListPage, Window};
use crate::range::ByteRange;

/// Ranges per answer; the service's own limit ("Get Page Ranges").
pub(super) const LIST_PAGE: u32 = 10_000;

/// Answers without a single range, one after the other, that are still taken for a list that goes on.
const EMPTY_PAGES: u32 = 1000;

/// Slices of which what is left is made, at most: where nothing more comes, they are asked for in vain.
const SLICES: u64 = 16;

/// Slices begin at multiples of this many bytes.
const SLICE_UNIT: u64 = 1 << 20;

/// Refusals of a difference that say: take the whole image ("Blob service error codes").
const NO_DIFFERENCE: [&str; 6] = [
    "BlobGenerationMismatch",
    "BlobOverwritten",
    "FeatureVersionMismatch",
    "PreviousSnapshotCannotBeNewer",
    "PreviousSnapshotNotFound",
    "PreviousSnapshotOperationNotSupported",
];

/// What a difference is computed against.
#[derive(Clone, Debug)]
struct Base {
    blob: PageBlob,
    /// Held while the access of both blobs is renewed; one for all slices.
    renewal: Arc<Mutex<()>>,
}

/// A part of a blob, or all of it, that is listed answer by answer.
#[derive(Debug)]
pub(super) struct Slice {
    blob: PageBlob,
    base: Option<Base>,
    part: Option<ByteRange>,
    /// What was listed so far, up to `position`.
    ranges: PageRanges,
    position: u64,
    /// End of what is to be listed; known with the first answer.
    end: u64,
    /// Where the list goes on; `None` before its first answer and after its last one.
    marker: Option<String>,
    /// Answers without a range since the last one with any.
    empty: u32,
}

impl Slice {
    pub(super) fn new(blob: PageBlob, base: Option<PageBlob>, part: Option<ByteRange>) -> Self {
        let base = base.map(|blob| Base {
            blob,
            renewal: Arc::default(),
        });
        Self::of(blob, base, part)
    }

    fn of(blob: PageBlob, base: Option<Base>, part: Option<ByteRange>) -> Self {
        Self {
            blob,
            base,
            part,
            ranges: PageRanges::default(),
            position: part.map_or(0, ByteRange::start),
            end: 0,
            marker: None,
            empty: 0,
        }
    }

    pub(super) fn blob(&self) -> &PageBlob {
        &self.blob
    }

    fn start(&self) -> u64 {
        self.part.map_or(0, ByteRange::start)
    }

    /// Fetches the next answer.
    pub(super) async fn next_page(&mut self) -> Result<(), Error> {
        let blob = self.blob.clone();
        let subject = Subject::new(
            match self.base {
                None => "list page ranges of",
                Some(_) => "list changed page ranges of",
            },
            &blob,
        );
        let answer = match &self.base {
            None => self.request(subject).await?,
            Some(base) => self
                .request_diff(subject, base)
                .await
                .map_err(no_difference)?,
        };
        let length = match answer.header("x-ms-blob-content-length") {
            None => blob.content_length().await?,
            Some(text) => {
                let length = text.parse().map_err(|_not_a_number| {
                    subject.invalid("x-ms-blob-content-length is not a number")
                })?;
                blob.same_length(length)
                    .map_err(|defect| Error::invalid_answer(subject.operation, &blob, defect))?;
                length
            }
        };
        self.end = self.part.map_or(length, |part| part.end().min(length));
        let window = Window {
            length,
            part: self.part,
        };
        let page = PageListPage::parse(&answer.body, self.position, window, &mut self.ranges)
            .map_err(|text| subject.invalid(text))?;
        if page.marker.is_some() && page.marker == self.marker {
            return Err(subject.invalid("the list repeats a page: its marker was not heeded"));
        }
        match page.end {
            // Ranges only ascend, so these answers come to an end.
            Some(end) => {
                self.position = end;
                self.empty = 0;
            }
            None => self.empty += 1,
        }
        if self.empty > EMPTY_PAGES {
            return Err(subject.invalid(format!(
                "the list does not come to its end: {EMPTY_PAGES} pages without a range"
            )));
        }
        self.marker = page.marker;
        Ok(())
    }

    /// After an answer: what is left to be listed. What was listed goes into `listed` if this slice does not go on itself.
    pub(super) fn rest(self, listed: &mut Vec<(u64, PageRanges)>) -> Vec<Self> {
        let mut rest = Vec::new();
        if self.marker.is_some() {
            let slices = self.slices();
            if slices.len() <= 1 {
                return vec![self];
            }
            let slice = |part| Self::of(self.blob.clone(), self.base.clone(), Some(part));
            rest.extend(slices.into_iter().map(slice));
        }
        listed.push((self.start(), self.ranges));
        rest
    }

    /// What is left, cut so that each slice has three quarters of an answer if ranges lie as densely as before.
    fn slices(&self) -> Vec<ByteRange> {
        let covered = self.position - self.start();
        let left = self.end.saturating_sub(self.position);
        if covered == 0 {
            return Vec::new();
        }
        let count = left.saturating_mul(4).div_ceil(covered.saturating_mul(3));
        let length = left.div_ceil(count.clamp(1, SLICES)).max(SLICE_UNIT);
        let mut slices = Vec::new();
        let mut start = self.position;
        while let Some(slice) = ByteRange::new(start, self.end) {
            let border = start.saturating_add(length);
            let border = border.checked_next_multiple_of(SLICE_UNIT);
            start = border.unwrap_or(self.end).min(self.end);
            slices.extend(ByteRange::new(slice.start(), start));
        }
        slices
    }

    async fn request(&self, subject: Subject<'_>) -> Result<Answer, Error> {
        let call = blob::page_blob_get_page_ranges(
            self.blob.location(),
            self.blob.versions(),
            self.part,
            self.marker.as_deref(),
            Some(LIST_PAGE),
        );
        self.blob.send(subject, call, Reception::DOCUMENT).await
    }

    async fn request_diff(&self, subject: Subject<'_>, base: &Base) -> Result<Answer, Error> {
        let call = blob::page_blob_get_page_ranges_diff(
            self.blob.location(),
            self.blob.versions(),
            // The signature is added per attempt: it may be renewed in between.
            base.blob.location(),
            self.part,
            self.marker.as_deref(),
            Some(LIST_PAGE),
        );
        let both = BothSas {
            target: self.blob.credential(),
            base: base.blob.credential(),
            renewal: &base.renewal,
        };
        self.blob
            .send_as(&both, subject, call, Reception::DOCUMENT)
            .await
    }
}

fn no_difference(error: Error) -> Error {
    let unavailable = error.is_not_found()
        || error
            .code()
            .is_some_and(|code| NO_DIFFERENCE.contains(&code));
    if unavailable {
        error.reinterpret(ErrorKind::DiffUnavailable, error.message())
    } else {
        error
    }
}
