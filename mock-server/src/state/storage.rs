//! Storage accounts: containers, page blobs, and copies from elsewhere under way.
use super::{World, content::Content};
use crate::{
    clock::{self, Instant},
    faults::Action,
    view::{BlobView, ContainerView, StorageAccountView},
};
use std::collections::BTreeMap;

/// A storage account.
#[derive(Debug)]
pub(crate) struct Account {
    /// Decoded.
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) containers: BTreeMap<String, Container>,
}

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) metadata: Metadata,
    pub(crate) modified: Instant,
    pub(crate) etag: String,
    pub(crate) blobs: BTreeMap<String, Blob>,
}

/// Name and value, as they were given.
pub(crate) type Metadata = BTreeMap<String, String>;

/// A page blob.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) content: Content,
    pub(crate) metadata: Metadata,
    pub(crate) created: Instant,
    pub(crate) modified: Instant,
    pub(crate) etag: String,
    pub(crate) copy: Option<BlobCopy>,
}

/// The copy that made a blob, or is about to.
#[derive(Debug)]
pub(crate) struct BlobCopy {
    pub(crate) id: String,
    /// Where it comes from, without its signature.
    pub(crate) source: String,
    pub(crate) status: CopyStatus,
    pub(crate) description: Option<String>,
    pub(crate) total: u64,
    pub(crate) copied: u64,
    pub(crate) ended: Option<Instant>,
    from: CopySource,
    started: Instant,
    polls: u32,
    endless: bool,
    failure: Option<String>,
}

/// What a copy reads.
#[derive(Clone, Debug)]
pub(crate) enum CopySource {
    /// A snapshot or disk behind the grant of this path.
    Grant(String),
    /// A blob as it was when the copy began: its signature is not looked at again.
    Blob(Content),
}

/// `x-ms-copy-status`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CopyStatus {
    Pending,
    Success,
    Aborted,
    Failed,
}

impl CopyStatus {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Success => "success",
            Self::Aborted => "aborted",
            Self::Failed => "failed",
        }
    }
}

impl Container {
    pub(crate) fn new(metadata: Metadata, now: Instant) -> Self {
        Self {
            metadata,
            modified: now,
            etag: etag(),
            blobs: BTreeMap::new(),
        }
    }
}

impl Blob {
    pub(crate) fn new(len: u64, metadata: Metadata, now: Instant) -> Self {
        Self {
            content: Content::new(len),
            metadata,
            created: now,
            modified: now,
            etag: etag(),
            copy: None,
        }
    }

    pub(crate) fn is_being_copied(&self) -> bool {
        self.copy
            .as_ref()
            .is_some_and(|copy| copy.status == CopyStatus::Pending)
    }

    /// Notes that it was changed.
    pub(crate) fn touch(&mut self, now: Instant) {
        self.modified = now;
        self.etag = etag();
    }

    /// Ends a pending copy without a result: a blob of no length remains.
    pub(crate) fn end_copy(&mut self, status: CopyStatus, description: &str, now: Instant) {
        if let Some(copy) = &mut self.copy {
            copy.status = status;
            copy.description = Some(description.to_owned());
            copy.ended = Some(now);
        }
        self.content = Content::new(0);
        self.touch(now);
    }
}

impl BlobCopy {
    pub(crate) fn new(
        source: String,
        from: CopySource,
        total: u64,
        now: Instant,
        fault: Option<&Action>,
    ) -> Self {
        let failure = match fault {
            Some(Action::FailOperation { code, message }) => Some(format!("{code} \"{message}\"")),
            Some(_) | None => None,
        };
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            source,
            status: CopyStatus::Pending,
            description: None,
            total,
            copied: 0,
            ended: None,
            from,
            started: now,
            polls: 0,
            endless: matches!(fault, Some(Action::NeverEnding)),
            failure,
        }
    }
}

impl World {
    pub(crate) fn container(&self, account: &str, container: &str) -> Option<&Container> {
        self.accounts.get(account)?.containers.get(container)
    }

    pub(crate) fn container_mut(
        &mut self,
        account: &str,
        container: &str,
    ) -> Option<&mut Container> {
        self.accounts
            .get_mut(account)?
            .containers
            .get_mut(container)
    }

    pub(super) fn release_copies(&mut self) {
        let accounts = self.accounts.values_mut();
        let containers = accounts.flat_map(|account| account.containers.values_mut());
        let blobs = containers.flat_map(|container| container.blobs.values_mut());
        for copy in blobs.filter_map(|blob| blob.copy.as_mut()) {
            copy.endless = false;
        }
    }

    /// Lets copies proceed: one whose source was closed fails, one that is due ends.
    pub(super) fn settle_copies(&mut self) {
        let policy = &self.settings.operations;
        let (grants, now) = (&self.grants, self.now);
        let blobs = self
            .accounts
            .values_mut()
            .flat_map(|account| account.containers.values_mut())
            .flat_map(|container| container.blobs.values_mut());
        for blob in blobs {
            let Some(copy) = blob
                .copy
                .as_mut()
                .filter(|copy| copy.status == CopyStatus::Pending)
            else {
                continue;
            };
            let image = match &copy.from {
                CopySource::Grant(path) => grants
                    .get(path)
                    .filter(|grant| grant.is_active(now))
                    .and_then(|grant| grant.image.clone()),
                CopySource::Blob(content) => Some(content.clone()),
            };
            let Some(image) = image else {
                let text = "403 AuthenticationFailed \"Copy failed when reading the source.\"";
                blob.end_copy(CopyStatus::Failed, text, now);
                continue;
            };
            let due = !copy.endless
                && copy.polls >= policy.polls_in_progress
                && now >= copy.started + policy.duration;
            if !due {
                let steps = u64::from(policy.polls_in_progress.max(1)) + 1;
                copy.copied = copy.total / steps * u64::from(copy.polls).min(steps - 1);
                continue;
            }
            if let Some(description) = copy.failure.clone() {
                blob.end_copy(CopyStatus::Failed, &description, now);
                continue;
            }
            copy.status = CopyStatus::Success;
            copy.copied = copy.total;
            copy.ended = Some(now);
            blob.content = image;
            blob.touch(now);
        }
    }

    /// Counts a look at a blob as a poll of its copy.
    pub(crate) fn poll_copy(&mut self, account: &str, container: &str, blob: &str) {
        if let Some(copy) = self
            .container_mut(account, container)
            .and_then(|container| container.blobs.get_mut(blob))
            .and_then(|blob| blob.copy.as_mut())
        {
            copy.polls += 1;
        }
    }

    pub(super) fn view_accounts(&self) -> Vec<StorageAccountView> {
        let containers = |account: &Account| {
            account
                .containers
                .iter()
                .map(|(name, container)| ContainerView {
                    name: name.clone(),
                    metadata: container.metadata.clone(),
                    blobs: container
                        .blobs
                        .iter()
                        .map(|(name, blob)| BlobView {
                            name: name.clone(),
                            size_bytes: blob.content.len(),
                            allocated_bytes: blob.content.allocated(),
                            metadata: blob.metadata.clone(),
                            copy_status: blob.copy.as_ref().map(|copy| copy.status.name()),
                            modified: clock::iso(blob.modified),
                        })
                        .collect(),
                })
                .collect()
        };
        self.accounts
            .iter()
            .map(|(name, account)| StorageAccountView {
                name: name.clone(),
                containers: containers(account),
            })
            .collect()
    }
}

fn etag() -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("\"0x8D{}\"", &id[..13].to_ascii_uppercase())
}
