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
use super::blob_credential::BlobCredential;
use super::call::{BuildError, Call};
use super::error::Defect;
use super::exchange::Answer;
use super::generated::ApiVersions;
use super::generated::blob;
use super::outgoing::{Credential, Outgoing, Reception};
use super::page_list::{ListSlots, PageList, PageRanges};
use super::retry::{RetryPolicy, Sender};
use super::{Error, ErrorKind, SasUrl, Transport};
use crate::intake::{Intake, Unbounded};
use crate::payload::Payload;
use crate::range::ByteRange;

/// Unit of a page blob, in bytes: every range written or listed is a multiple of it.
pub const PAGE: u64 = 512;

/// Largest write, in bytes ("Put Page").
pub const MAX_WRITE: u64 = 4 << 20;

/// Room for the XML or HTML of a refusal, in bytes.
const REFUSAL_LIMIT: u64 = 64 << 10;

/// Client of one page blob. Cheap to clone; clones share what is known of the blob.
#[derive(Clone, Debug)]
pub struct PageBlob {
    sender: Sender,
    versions: Arc<ApiVersions>,
    list_slots: ListSlots,
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
            list_slots: ListSlots::default(),
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

    /// The same blob, whose lists share their requests with other ones.
    pub(super) fn with_list_slots(self, list_slots: &ListSlots) -> Self {
        Self {
            list_slots: list_slots.clone(),
            ..self
        }
    }

    pub(super) fn list_slots(&self) -> &ListSlots {
        &self.list_slots
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

    /// All page ranges.
    ///
    /// # Errors
    ///
    /// The service's refusal, or a list that cannot be trusted.
    pub async fn page_ranges(&self) -> Result<PageRanges, Error> {
        self.page_list().collect().await
    }

    /// The list of page ranges.
    #[must_use]
    pub fn page_list(&self) -> PageList {
        PageList::new(self.clone(), None, None)
    }

    /// The list of page ranges that overlap with `window`, cut to it.
    #[must_use]
    pub fn page_list_within(&self, window: ByteRange) -> PageList {
        PageList::new(self.clone(), None, Some(window))
    }

    /// The list of what changed since `base`, both kinds of range.
    #[must_use]
    pub fn page_list_diff(&self, base: &Self) -> PageList {
        PageList::new(self.clone(), Some(base.clone()), None)
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
    pub(super) fn same_length(&self, length: u64) -> Result<(), Defect> {
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
