//! A page blob, behind a SAS or in a storage account: its size, its page list, its bytes. [`super::blob_copy`] copies to it.
//!
//! Every answer is checked against what was asked for: status, length, offset, and that the blob has the same size as
//! before. A body that is short, long or displaced is an error, never cut or padded.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::Uri;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use tokio_util::sync::CancellationToken;

use super::arm::Subject;
use super::blob_credential::{BlobCredential, BothSas};
use super::call::{BuildError, Call};
use super::error::Defect;
use super::exchange::Answer;
use super::generated::ApiVersions;
use super::generated::blob;
use super::page_list::{PageListPage, push_joined};
use super::retry::{Credential, Outgoing, Reception, RetryPolicy, Sender};
use super::{Error, ErrorKind, SasUrl, Transport};
use crate::intake::{Intake, Unbounded};
use crate::payload::Payload;
use crate::range::ByteRange;

/// Unit of a page blob, in bytes: every range written or listed is a multiple of it.
pub const PAGE: u64 = 512;

/// Largest write, in bytes ("Put Page").
pub const MAX_WRITE: u64 = 4 << 20;

/// Ranges per page of a list; the service's own limit ("Get Page Ranges").
const LIST_PAGE: u32 = 10_000;

/// Pages of a list without a single range, one after the other, that are still taken for a list that goes on.
const EMPTY_PAGES: u32 = 1000;

/// Room for the XML or HTML of a refusal, in bytes.
const REFUSAL_LIMIT: u64 = 64 << 10;

/// Refusals of a difference that say: take the whole image ("Blob service error codes").
const NO_DIFFERENCE: [&str; 6] = [
    "BlobGenerationMismatch",
    "BlobOverwritten",
    "FeatureVersionMismatch",
    "PreviousSnapshotCannotBeNewer",
    "PreviousSnapshotNotFound",
    "PreviousSnapshotOperationNotSupported",
];

/// Whether a listed range holds data or reads as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageRangeKind {
    /// `<PageRange>`
    Written,
    /// `<ClearRange>`
    Cleared,
}

/// One entry of a page list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    /// Where.
    pub range: ByteRange,
    /// What.
    pub kind: PageRangeKind,
}

/// Client of one page blob. Cheap to clone; clones share what is known of the blob.
#[derive(Clone, Debug)]
pub struct PageBlob {
    sender: Sender,
    versions: Arc<ApiVersions>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    credential: BlobCredential,
    /// Address without a signature.
    location: Uri,
    /// A snapshot, and a disk being uploaded, never change their size.
    length: OnceLock<u64>,
    repeats: AtomicU64,
}

impl PageBlob {
    /// A blob reached by a SAS that nobody renews (command line). `cancel` ends every wait.
    #[must_use]
    pub fn from_sas(transport: &Transport, sas: SasUrl, cancel: CancellationToken) -> Self {
        let sender = Sender::new(Arc::new(transport.clone()), RetryPolicy::JOB, cancel);
        Self::new(sender, Arc::default(), BlobCredential::Fixed(sas))
    }

    pub(super) fn new(
        sender: Sender,
        versions: Arc<ApiVersions>,
        credential: BlobCredential,
    ) -> Self {
        let location = credential.location();
        Self {
            sender,
            versions,
            shared: Arc::new(Shared {
                credential,
                location,
                length: OnceLock::new(),
                repeats: AtomicU64::new(0),
            }),
        }
    }

    /// The same blob with another policy and a cancellation of its own.
    pub(super) fn detached(&self, policy: RetryPolicy) -> Self {
        Self {
            sender: self.sender.detached(policy),
            ..self.clone()
        }
    }

    pub(super) fn location(&self) -> &Uri {
        &self.shared.location
    }

    pub(super) fn versions(&self) -> &ApiVersions {
        &self.versions
    }

    pub(super) fn credential(&self) -> &BlobCredential {
        &self.shared.credential
    }

    /// Requests that had to be repeated so far, through any clone.
    #[must_use]
    pub fn repeats(&self) -> u64 {
        self.shared.repeats.load(Ordering::Relaxed)
    }

    /// Content length in bytes (an exported disk has 512 more than the disk: its VHD footer).
    ///
    /// # Errors
    ///
    /// The service's refusal; not a page blob; a length that is not a multiple of 512.
    pub async fn content_length(&self) -> Result<u64, Error> {
        if let Some(&length) = self.shared.length.get() {
            return Ok(length);
        }
        let subject = Subject::new("read size of blob", self);
        let call = blob::blob_get_properties(&self.shared.location, &self.versions);
        let answer = self.send(subject, call, Reception::up_to(0)).await?;
        match answer.header("x-ms-blob-type") {
            None | Some("PageBlob") => {}
            Some(other) => return Err(subject.invalid(format!("it is a {other}, not a page blob"))),
        }
        let length = answer
            .header(CONTENT_LENGTH.as_str())
            .and_then(|text| text.parse::<u64>().ok())
            .ok_or_else(|| subject.invalid("the answer has no Content-Length"))?;
        if !length.is_multiple_of(PAGE) {
            return Err(subject.invalid(format!("its {length} bytes are no whole pages")));
        }
        self.same_length(length)
            .map_err(|defect| Error::invalid_answer(subject.operation, self, defect))?;
        Ok(length)
    }

    /// All page ranges, every result page followed; ascending and disjoint.
    ///
    /// # Errors
    ///
    /// The service's refusal, or a list that cannot be trusted.
    pub async fn page_ranges(&self) -> Result<Vec<PageRange>, Error> {
        self.page_list().collect().await
    }

    /// The page ranges, page by page, for lists that shall not be in memory as a whole.
    #[must_use]
    pub fn page_list(&self) -> PageList {
        PageList::new(self.clone(), None)
    }

    /// The page ranges that overlap with `window`, page by page, cut to it.
    #[must_use]
    pub fn page_list_within(&self, window: ByteRange) -> PageList {
        PageList {
            window: Some(window),
            ..self.page_list()
        }
    }

    /// What changed since `base`, page by page: both kinds of range, in address order.
    #[must_use]
    pub fn page_list_diff(&self, base: &Self) -> PageList {
        PageList::new(self.clone(), Some(base.clone()))
    }

    /// Exactly the bytes of `range`, as the frames they came in.
    ///
    /// # Errors
    ///
    /// The service's refusal; a short, long or displaced body that stayed so.
    pub async fn read(&self, range: ByteRange) -> Result<Vec<Bytes>, Error> {
        self.read_into(range, &Unbounded).await
    }

    /// As [`read`](Self::read), no faster than `intake` admits it.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub async fn read_into(
        &self,
        range: ByteRange,
        intake: &dyn Intake,
    ) -> Result<Vec<Bytes>, Error> {
        let part = Part { blob: self, range };
        let subject = Subject::new("read bytes", &part);
        let call = blob::blob_download(&self.shared.location, &self.versions, range);
        let check = |answer: &Answer| self.check_part(answer, range);
        let reception = Reception {
            limit: range.len(),
            check: Some(&check),
            intake,
        };
        let answer = self.send(subject, call, reception).await?;
        Ok(answer.body)
    }

    fn check_part(&self, answer: &Answer, range: ByteRange) -> Result<(), Defect> {
        let displaced = |actual: &str| Defect::Displaced {
            expected: format!("{}-{}", range.start(), range.last()),
            actual: actual.to_owned(),
        };
        let header = answer
            .header(CONTENT_RANGE.as_str())
            .ok_or_else(|| displaced("no Content-Range"))?;
        let (start, end, total) = content_range(header).ok_or_else(|| displaced(header))?;
        if (start, end) != (range.start(), range.last()) || total <= end {
            return Err(displaced(header));
        }
        self.same_length(total)?;
        let announced = answer.header(CONTENT_LENGTH.as_str());
        let actual = match announced.map(str::parse::<u64>) {
            Some(Ok(announced)) if announced != range.len() => announced,
            Some(Err(_)) => return Err(Defect::Malformed("Content-Length is not a number".into())),
            Some(Ok(_)) | None => answer.len(),
        };
        if actual == range.len() {
            Ok(())
        } else {
            Err(Defect::WrongLength {
                expected: range.len(),
                actual,
            })
        }
    }

    /// Put Page. `offset` and length must be multiples of 512, the length at most 4 MiB.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] without a request if they are not; the service's refusal; [`ErrorKind::Unreadable`].
    pub async fn write(&self, offset: u64, data: impl Into<Payload>) -> Result<(), Error> {
        self.write_from(offset, data.into(), &Unbounded).await
    }

    /// As [`write`](Self::write); `intake` hears of refusals.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub async fn write_from(
        &self,
        offset: u64,
        data: Payload,
        intake: &dyn Intake,
    ) -> Result<(), Error> {
        let refuse = |why: String| {
            Err(Error::new(
                ErrorKind::Refused,
                "write bytes",
                &format_args!("at {offset} of {self}"),
                why,
            ))
        };
        let Some(range) = ByteRange::with_len(offset, data.total()) else {
            return refuse("there is nothing to write".into());
        };
        if !range.is_aligned(PAGE) || range.len() > MAX_WRITE {
            return refuse(format!(
                "{} bytes are not whole pages of {PAGE} bytes, or more than {MAX_WRITE}",
                range.len()
            ));
        }
        let part = Part { blob: self, range };
        let subject = Subject::new("write bytes", &part);
        let call = blob::page_blob_upload_pages(&self.shared.location, &self.versions, range, data);
        let reception = Reception {
            intake,
            ..Reception::DOCUMENT
        };
        self.send(subject, call, reception).await.map(|_answer| ())
    }

    pub(super) async fn send(
        &self,
        subject: Subject<'_>,
        call: Result<Call, BuildError>,
        reception: Reception<'_>,
    ) -> Result<Answer, Error> {
        self.send_as(&self.shared.credential, subject, call, reception)
            .await
    }

    pub(super) async fn send_as(
        &self,
        credential: &dyn Credential,
        subject: Subject<'_>,
        call: Result<Call, BuildError>,
        reception: Reception<'_>,
    ) -> Result<Answer, Error> {
        let call = call.map_err(|error| subject.unbuildable(&error))?;
        let outgoing = Outgoing {
            reception: Reception {
                // The explanation of a refusal must fit, however little was asked for.
                limit: reception.limit.max(REFUSAL_LIMIT),
                ..reception
            },
            ..Outgoing::new(
                subject.operation,
                subject.resource,
                call.request,
                call.operation.success,
                credential,
            )
        };
        let received = self.sender.send(outgoing).await.map_err(|error| {
            if error.kind() != ErrorKind::Unauthorized {
                return error;
            }
            let advice = "a disk whose dataAccessAuthMode is AzureActiveDirectory does not open to a SAS alone";
            error.reinterpret(ErrorKind::Forbidden, format!("{}; {advice}", error.message()))
        })?;
        let repeats = u64::from(received.attempts.saturating_sub(1));
        self.shared.repeats.fetch_add(repeats, Ordering::Relaxed);
        Ok(received.answer)
    }

    /// Remembers the length of the blob; a blob that changes its size is not the one that was opened.
    fn same_length(&self, length: u64) -> Result<(), Defect> {
        let known = *self.shared.length.get_or_init(|| length);
        if known == length {
            Ok(())
        } else {
            Err(Defect::Malformed(format!(
                "the blob has {length} bytes and had {known} before"
            )))
        }
    }
}

/// Host and path, without the signature.
impl fmt::Display for PageBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let location = &self.shared.location;
        let host = location.authority().map_or("", |a| a.as_str());
        write!(f, "{host}{}", location.path())
    }
}

/// A part of a blob, for messages.
struct Part<'a> {
    blob: &'a PageBlob,
    range: ByteRange,
}

impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.range, self.blob)
    }
}

/// `bytes first-last/total`.
fn content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((
        first.trim().parse().ok()?,
        last.trim().parse().ok()?,
        total.trim().parse().ok()?,
    ))
}

/// A page list that is being read.
#[derive(Debug)]
pub struct PageList {
    blob: PageBlob,
    base: Option<PageBlob>,
    /// What alone is listed.
    window: Option<ByteRange>,
    marker: Option<String>,
    position: u64,
    /// Pages without a range since the last one with any.
    empty: u32,
    done: bool,
}

impl PageList {
    fn new(blob: PageBlob, base: Option<PageBlob>) -> Self {
        Self {
            blob,
            base,
            window: None,
            marker: None,
            position: 0,
            empty: 0,
            done: false,
        }
    }

    /// The next ranges, at most 10 000; `None` at the end. Ascending and disjoint over all pages.
    ///
    /// # Errors
    ///
    /// The service's refusal, or a list that cannot be trusted; for a difference, [`ErrorKind::DiffUnavailable`].
    pub async fn next_page(&mut self) -> Result<Option<Vec<PageRange>>, Error> {
        if self.done {
            return Ok(None);
        }
        let length = self.blob.content_length().await?;
        let subject = Subject::new(
            match self.base {
                None => "list page ranges of",
                Some(_) => "list changed page ranges of",
            },
            &self.blob,
        );
        let answer = match &self.base {
            None => self.request(subject).await?,
            Some(base) => self
                .request_diff(subject, base)
                .await
                .map_err(no_difference)?,
        };
        if let Some(now) = answer.header("x-ms-blob-content-length") {
            let now = now.parse().map_err(|_not_a_number| {
                subject.invalid("x-ms-blob-content-length is not a number")
            })?;
            self.blob
                .same_length(now)
                .map_err(|defect| Error::invalid_answer(subject.operation, &self.blob, defect))?;
        }
        let mut page = PageListPage::parse(&answer.body, self.position, length)
            .map_err(|text| subject.invalid(text))?;
        if page.marker.is_some() && page.marker == self.marker {
            return Err(subject.invalid("the list repeats a page: its marker was not heeded"));
        }
        match page.ranges.last() {
            // Ranges only ascend, so these pages come to an end.
            Some(last) => {
                self.position = last.range.end();
                self.empty = 0;
            }
            None => self.empty += 1,
        }
        if self.empty > EMPTY_PAGES {
            return Err(subject.invalid(format!(
                "the list does not come to its end: {EMPTY_PAGES} pages without a range"
            )));
        }
        self.done = page.marker.is_none();
        self.marker = page.marker;
        if let Some(window) = self.window {
            // Whether the service cuts the ranges at the ends of the window is not documented.
            page.ranges.retain_mut(|page| {
                let inside = page.range.intersection(window);
                page.range = inside.unwrap_or(page.range);
                inside.is_some()
            });
        }
        Ok(Some(page.ranges))
    }

    /// All that is left of the list.
    ///
    /// # Errors
    ///
    /// As [`next_page`](Self::next_page).
    pub async fn collect(mut self) -> Result<Vec<PageRange>, Error> {
        let mut all = Vec::new();
        while let Some(page) = self.next_page().await? {
            for range in page {
                push_joined(&mut all, range);
            }
        }
        Ok(all)
    }

    async fn request(&self, subject: Subject<'_>) -> Result<Answer, Error> {
        let PageBlob {
            shared, versions, ..
        } = &self.blob;
        let call = blob::page_blob_get_page_ranges(
            &shared.location,
            versions,
            self.window,
            self.marker.as_deref(),
            Some(LIST_PAGE),
        );
        self.blob.send(subject, call, Reception::DOCUMENT).await
    }

    async fn request_diff(&self, subject: Subject<'_>, base: &PageBlob) -> Result<Answer, Error> {
        let PageBlob {
            shared, versions, ..
        } = &self.blob;
        let call = blob::page_blob_get_page_ranges_diff(
            &shared.location,
            versions,
            // The signature is added per attempt: it may be renewed in between.
            &base.shared.location,
            None,
            self.marker.as_deref(),
            Some(LIST_PAGE),
        );
        let both = BothSas {
            target: &shared.credential,
            base: &base.shared.credential,
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

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, answer};
    use super::*;

    fn list(script: &Arc<Script>) -> PageList {
        let sas = SasUrl::parse("https://md-1.blob.example/c/abcd?sig=s").expect("a SAS");
        let sender = script.sender(RetryPolicy::JOB);
        PageBlob::new(sender, Arc::default(), BlobCredential::Fixed(sas)).page_list()
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_goes_round_in_circles_is_refused() {
        let script = Script::new(|request, index| {
            if request.method() == http::Method::HEAD {
                return answer(200, &[("content-length", "1024")], "");
            }
            let marker = if index % 2 == 0 { "a" } else { "b" };
            answer(
                200,
                &[],
                format!("<PageList><NextMarker>{marker}</NextMarker></PageList>"),
            )
        });
        let error = list(&script).collect().await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidAnswer);
        assert!(
            error.to_string().contains("does not come to its end"),
            "{error}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn empty_pages_in_between_are_followed() {
        let script = Script::new(|request, index| {
            let page = match index {
                0 => return answer(200, &[("content-length", "1024")], ""),
                1..=500 => format!("<PageList><NextMarker>{index}</NextMarker></PageList>"),
                _ => "<PageList><PageRange><Start>0</Start><End>511</End></PageRange></PageList>"
                    .into(),
            };
            assert_eq!(request.uri().to_string().contains("marker="), index > 1);
            answer(200, &[], page)
        });
        let ranges = list(&script).collect().await.expect("listed");
        assert_eq!(ranges.len(), 1);
    }
}
