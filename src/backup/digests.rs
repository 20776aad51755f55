//! The last entry of a VM: the digests of what was handed out of its images.

use std::sync::Arc;

use super::image::HeldDisk;
use super::{Content, Entry};
use crate::digests::{ALGORITHM, Digests, FORMAT, ImageDigests, segment_bytes, sha256};
use crate::document::Document;
use crate::notice::Notices;
use crate::{catalog, digests};

/// What is known of it before the images are read.
#[derive(Debug)]
pub(super) struct PendingDigests {
    /// Without images.
    document: Digests,
    /// Last components of the names of the images, and their disks.
    images: Vec<(String, Arc<HeldDisk>)>,
}

impl PendingDigests {
    /// Of the run that `document` tells of, which is stored as `conf`.
    pub(super) fn new(
        document: &Document,
        conf: &[u8],
        images: impl Iterator<Item = (String, Arc<HeldDisk>)>,
    ) -> Self {
        Self {
            document: Digests {
                format: FORMAT,
                creator: document.creator.clone(),
                job: document.job.clone(),
                epoch: document.epoch,
                vm_uuid: document.vm_uuid.clone(),
                algorithm: ALGORITHM.to_owned(),
                conf_sha256: sha256(conf),
                images: Vec::new(),
            },
            images: images.collect(),
        }
    }

    /// The entry; `None` if not all images were handed out, which is an error of the run.
    pub(super) fn entry(self, notices: &Notices) -> Option<Entry> {
        let Self {
            mut document,
            images,
        } = self;
        for (file, disk) in images {
            let delivered = disk.delivered()?;
            document.images.push(ImageDigests {
                file,
                size_bytes: delivered.size,
                segment_bytes: segment_bytes(delivered.size),
                segments: delivered.segments.clone(),
            });
        }
        let path = catalog::digests(&document.vm_uuid, document.epoch);
        match document.to_bytes() {
            Ok(bytes) => Some(Entry {
                path,
                modified: super::vm::modified(document.epoch),
                size: bytes.len() as u64,
                content: Content::Bytes(bytes),
            }),
            Err(reason) => {
                notices.error(format!("write {path}: {reason}"));
                None
            }
        }
    }
}

/// Size of the entry for disks of these sizes in bytes, at most.
pub(super) fn most_bytes(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(digests::FRAME_BYTES, |sum, size| {
        sum + digests::IMAGE_BYTES + size.div_ceil(segment_bytes(size)) * digests::SEGMENT_BYTES
    })
}
