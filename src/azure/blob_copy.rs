//! Blobs of a storage account made and deleted: above all by Copy Blob, with which the service copies by itself, while
//! nobody waits.

use std::fmt;

use http::{HeaderName, HeaderValue};

use super::arm::Subject;
use super::blob_credential::CopyFrom;
use super::exchange::Answer;
use super::generated::blob;
use super::outgoing::Reception;
use super::retry::RetryPolicy;
use super::{Error, ErrorKind, PageBlob};

/// How a copy stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobCopy {
    /// The service's id of the copy.
    pub id: String,
    /// Whether it goes on, or how it ended.
    pub status: CopyStatus,
    /// Bytes copied, if the service says so.
    pub copied: Option<u64>,
    /// Why it failed, in the service's words.
    pub description: Option<String>,
}

/// State of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyStatus {
    /// It goes on.
    Pending,
    /// The blob is whole.
    Success,
    /// Somebody ended it.
    Aborted,
    /// It failed.
    Failed,
}

impl fmt::Display for CopyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Success => "success",
            Self::Aborted => "aborted",
            Self::Failed => "failed",
        })
    }
}

impl PageBlob {
    /// Begins to copy `source`, a blob behind a SAS, to this one, which is replaced. `metadata` is what the blob carries from
    /// then on: names of letters, digits and `_`, values of printable ASCII.
    ///
    /// # Errors
    ///
    /// The service's refusal; metadata that a header cannot carry.
    pub async fn start_copy(
        &self,
        source: &Self,
        metadata: &[(&str, &str)],
    ) -> Result<BlobCopy, Error> {
        let subject = Subject::new("copy to blob", self);
        let mut call = blob::blob_start_copy_from_url(
            self.location(),
            self.versions(),
            // The signature is added per attempt: it may be renewed in between.
            source.location(),
        );
        if let Ok(call) = &mut call {
            for (name, value) in metadata {
                let header = HeaderName::try_from(format!("x-ms-meta-{name}"))
                    .ok()
                    .zip(HeaderValue::try_from(*value).ok());
                let (name, value) = header.ok_or_else(|| {
                    Error::new(
                        ErrorKind::Refused,
                        subject.operation,
                        self,
                        format!("its metadata {name} does not fit into a header"),
                    )
                })?;
                call.request.headers_mut().insert(name, value);
            }
        }
        let credential = CopyFrom {
            target: self.credential(),
            source: source.credential(),
        };
        match self
            .send_as(&credential, subject, call, Reception::DOCUMENT)
            .await
        {
            Ok(answer) => {
                let begun = copy_of(subject, &answer)?;
                match begun.status {
                    CopyStatus::Pending | CopyStatus::Success => Ok(begun),
                    // Why is told by the blob only.
                    CopyStatus::Aborted | CopyStatus::Failed => self.copy_state().await,
                }
            }
            // The answer to an earlier attempt was lost, and what it began is under way.
            Err(error) if error.is_repeated() && error.code() == Some("PendingCopyOperation") => {
                self.copy_state().await
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the blob, of `len` bytes that read as zeros; a multiple of 512.
    ///
    /// # Errors
    ///
    /// The service's refusal.
    pub async fn create(&self, len: u64) -> Result<(), Error> {
        let subject = Subject::new("create blob", self);
        let call = blob::page_blob_create(self.location(), self.versions(), len);
        self.send(subject, call, Reception::DOCUMENT)
            .await
            .map(|_answer| ())
    }

    /// How the copy to this blob stands.
    ///
    /// # Errors
    ///
    /// The service's refusal; the blob was not made by a copy.
    pub async fn copy_state(&self) -> Result<BlobCopy, Error> {
        let subject = Subject::new("read state of the copy to blob", self);
        let call = blob::blob_get_properties(self.location(), self.versions());
        let answer = self.send(subject, call, Reception::up_to(0)).await?;
        copy_of(subject, &answer)
    }

    /// Deletes the blob, and ends a copy to it first; succeeds if there is none. Works for a cancelled job too.
    ///
    /// # Errors
    ///
    /// The service's refusal.
    pub async fn discard(&self) -> Result<(), Error> {
        let blob = self.detached(RetryPolicy::CLEANUP);
        match blob.delete().await {
            Err(error) if error.code() == Some("PendingCopyOperation") => {
                let copy = blob.copy_state().await?;
                blob.abort_copy(&copy.id).await?;
                blob.delete().await
            }
            other => other,
        }
    }

    async fn abort_copy(&self, id: &str) -> Result<(), Error> {
        let subject = Subject::new("end the copy to blob", self);
        let call = blob::blob_abort_copy_from_url(self.location(), self.versions(), id);
        match self.send(subject, call, Reception::DOCUMENT).await {
            // It ended by itself meanwhile.
            Err(error) if error.code() == Some("NoPendingCopyOperation") => Ok(()),
            other => other.map(|_answer| ()),
        }
    }

    async fn delete(&self) -> Result<(), Error> {
        let subject = Subject::new("delete blob", self);
        let call = blob::blob_delete(self.location(), self.versions());
        match self.send(subject, call, Reception::DOCUMENT).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(|_answer| ()),
        }
    }
}

fn copy_of(subject: Subject<'_>, answer: &Answer) -> Result<BlobCopy, Error> {
    let status = match answer.header("x-ms-copy-status") {
        Some("pending") => CopyStatus::Pending,
        Some("success") => CopyStatus::Success,
        Some("aborted") => CopyStatus::Aborted,
        Some("failed") => CopyStatus::Failed,
        Some(_) | None => return Err(subject.invalid("the answer tells of no copy")),
    };
    let id = answer
        .header("x-ms-copy-id")
        .ok_or_else(|| subject.invalid("the copy has no id"))?;
    let progress = answer.header("x-ms-copy-progress");
    Ok(BlobCopy {
        id: id.to_owned(),
        status,
        copied: progress
            .and_then(|text| text.split_once('/'))
            .and_then(|(copied, _total)| copied.parse().ok()),
        description: answer
            .header("x-ms-copy-status-description")
            .map(super::redact::clean),
    })
}
