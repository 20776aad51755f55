//! One VM of a run: prepared as a whole, then handed out entry by entry.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::chain::{SnapshotRecord, VmRecord};
use super::changes::MOST_CLEARED;
use super::digests::PendingDigests;
use super::export::{self, Export};
use super::image::{self, Account, DiskImage, HeldDisk};
use super::run::{Context, seconds};
use super::select::Candidate;
use super::snapshot_set::{self, NotTaken, OpenSnapshot, Wanted};
use super::tags::SnapshotTags;
use super::{Content, Entry, Error};
use crate::catalog;
use crate::document::ImageContent;
use crate::notice::Notices;
use crate::pipeline::{ChunkReader, ZeroBlocks};

/// A VM of the run, as far as its end is concerned.
#[derive(Debug)]
pub(super) struct SavedVm {
    pub(super) candidate: Candidate,
    pub(super) epoch: u64,
    snapshots: Vec<SnapshotRecord>,
    /// Of some disk the changes are saved, and not all.
    pub(super) has_changes: bool,
    pub(super) disks: Vec<Arc<HeldDisk>>,
}

impl SavedVm {
    /// What is remembered of it when the run ends well.
    pub(super) fn record(&self) -> VmRecord {
        VmRecord {
            uuid: self.candidate.uuid.clone(),
            name: self.candidate.name.clone(),
            epoch: self.epoch,
            snapshots: self.snapshots.clone(),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.disks.iter().all(|disk| disk.is_complete())
    }

    pub(super) async fn give_back_all(&self, notices: &Notices) {
        join_all(self.disks.iter().map(|disk| disk.give_back(notices))).await;
    }
}

/// A VM whose entries are all known and whose images are queued for reading.
#[derive(Debug)]
pub(super) struct PreparedVm {
    pub(super) vm: Arc<SavedVm>,
    document: Vec<u8>,
    images: Vec<QueuedImage>,
    digests: PendingDigests,
}

#[derive(Debug)]
struct QueuedImage {
    file: String,
    held: Arc<HeldDisk>,
    chunks: ChunkReader,
    account: Account,
    zeros: ZeroBlocks,
}

impl PreparedVm {
    /// Configuration, snapshots, access, page lists, document. On failure everything that was made is given back.
    pub(super) async fn prepare(context: &Context, candidate: &Candidate) -> Result<Self, Error> {
        let Context {
            azure,
            tracker,
            notices,
            ..
        } = context;
        let export = export::read(azure, candidate).await?;
        let now = seconds(SystemTime::now());
        let epoch = tracker
            .update(notices, |state| state.reserve_epoch(&candidate.uuid, now))
            .await?;
        let wanted: Vec<_> = export
            .disks
            .iter()
            .map(|disk| {
                let tags = SnapshotTags::new(context, candidate, epoch, disk);
                Wanted::new(azure, disk, tags)
            })
            .collect();
        let access = context.access_duration();
        let mut ids: Vec<_> = wanted.iter().map(|wanted| wanted.id.clone()).collect();
        let prepared = match snapshot_set::take(azure, wanted, access, notices).await {
            Ok(snapshots) => Self::queue(context, candidate, &export, epoch, snapshots).await,
            Err(NotTaken { error, refused }) => {
                ids.retain(|id| !refused.contains(id));
                Err(error)
            }
        };
        if prepared.is_err() {
            let left = snapshot_set::delete(&azure.for_cleanup(), &ids, notices).await;
            context.note_unsaved(left);
        }
        prepared
    }

    /// Lists the ranges of all snapshots at the same time, has them copied if they shall be, and queues them in the order of
    /// their entries.
    async fn queue(
        context: &Context,
        candidate: &Candidate,
        export: &Export,
        epoch: u64,
        snapshots: Vec<OpenSnapshot>,
    ) -> Result<Self, Error> {
        // The document has room for so many in all.
        let most_cleared = MOST_CLEARED / snapshots.len().max(1);
        let plans = snapshots
            .iter()
            .map(|snapshot| image::plan(context, &candidate.uuid, snapshot, most_cleared));
        let planned = join_all(plans).await;
        let planned = match planned.into_iter().collect::<Result<Vec<_>, Error>>() {
            Ok(planned) => planned,
            Err(error) => return Err(close(snapshots, error, context).await),
        };
        let document = export.document(candidate, &context.run, epoch, &snapshots, &planned);
        let bytes = match document.to_bytes() {
            Ok(bytes) => bytes,
            Err(reason) => {
                let error = Error::Unsavable {
                    what: format!("virtual machine {}", candidate.name),
                    reason: format!("its configuration cannot be written: {reason}"),
                };
                return Err(close(snapshots, error, context).await);
            }
        };
        let records = snapshots
            .iter()
            .map(|open| SnapshotRecord::new(open, epoch))
            .collect();
        let is_delta = |content: &ImageContent| matches!(content, ImageContent::Delta { .. });
        let has_changes = planned.iter().any(|planned| is_delta(&planned.content));
        let images = snapshots
            .into_iter()
            .zip(planned)
            .zip(&document.images)
            .map(|((open, planned), record)| QueuedImage {
                file: record.file.clone(),
                held: Arc::new(HeldDisk::new(open)),
                chunks: context.queue.push(planned.plan),
                account: planned.account,
                // What changed to zeros must be written at restore.
                zeros: match planned.content {
                    ImageContent::Full => ZeroBlocks::Skip,
                    ImageContent::Delta { .. } => ZeroBlocks::Keep,
                },
            })
            .collect::<Vec<_>>();
        let handed_out = images
            .iter()
            .map(|image| (image.file.clone(), Arc::clone(&image.held)));
        Ok(Self {
            vm: Arc::new(SavedVm {
                candidate: candidate.clone(),
                epoch,
                snapshots: records,
                has_changes,
                disks: images.iter().map(|image| Arc::clone(&image.held)).collect(),
            }),
            digests: PendingDigests::new(&document, &bytes, handed_out),
            document: bytes,
            images,
        })
    }
}

/// Gives everything back after `error`, which is returned.
async fn close(snapshots: Vec<OpenSnapshot>, error: Error, context: &Context) -> Error {
    join_all(snapshots.into_iter().map(|open| async move {
        open.held.give_back(&open.id, &context.notices).await;
    }))
    .await;
    error
}

/// The time of a run.
pub(super) fn modified(epoch: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(epoch)
}

/// The entries of one VM, in the order name, conf, osdisk, 0, 1, ..., digests.
#[derive(Debug)]
pub struct VmBackup {
    context: Arc<Context>,
    vm: Arc<SavedVm>,
    entries: VecDeque<Entry>,
    /// Behind `entries`.
    digests: Option<PendingDigests>,
    images_left: usize,
    /// Tripped when the last image is handed out: time to prepare the next VM.
    at_last_image: CancellationToken,
}

impl VmBackup {
    pub(super) fn new(
        context: Arc<Context>,
        prepared: PreparedVm,
        at_last_image: CancellationToken,
    ) -> Self {
        let PreparedVm {
            vm,
            document,
            images,
            digests,
        } = prepared;
        let modified = modified(vm.epoch);
        let uuid = &vm.candidate.uuid;
        let entry = |path, size, content| Entry {
            path,
            modified,
            size,
            content,
        };
        let mut entries = VecDeque::from([
            entry(catalog::label(uuid, &vm.candidate.name), 0, Content::Empty),
            entry(
                catalog::document(uuid, vm.epoch),
                document.len() as u64,
                Content::Bytes(document),
            ),
        ]);
        let images_left = images.len();
        entries.extend(images.into_iter().map(|image| {
            entry(
                catalog::image(uuid, &image.file),
                image.account.size,
                Content::Image(Box::new(DiskImage::new(
                    image.held,
                    image.chunks,
                    image.account,
                    image.zeros,
                    context.notices.clone(),
                ))),
            )
        }));
        Self {
            context,
            vm,
            entries,
            digests: Some(digests),
            images_left,
            at_last_image,
        }
    }

    /// The VM's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.vm.candidate.name
    }

    /// The VM's resource group.
    #[must_use]
    pub fn resource_group(&self) -> &str {
        &self.vm.candidate.resource_group
    }

    /// The next entry; an image must be finished or dropped before the one after it is read. The last one tells of all images,
    /// and is there if all were finished.
    pub fn next_entry(&mut self) -> Option<Entry> {
        let Some(entry) = self.entries.pop_front() else {
            return self.digests.take()?.entry(&self.context.notices);
        };
        if matches!(entry.content, Content::Image(_)) {
            self.images_left -= 1;
            if self.images_left == 0 {
                self.at_last_image.cancel();
            }
        }
        Some(entry)
    }

    /// Begins to give back what is still held (access, copies), in every outcome; [`Backup::finish`](super::Backup::finish)
    /// waits for it. What cannot be given back is an error notice.
    pub async fn close(self) {
        // The queue serves images in order: what is not read any more must go before the next VM is.
        drop(self.entries);
        for disk in &self.vm.disks {
            disk.begin_giving_back(&self.context.notices);
        }
    }
}
