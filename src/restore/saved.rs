//! What the configuration document of a run says of its images. It comes from a volume, so nothing is taken for granted.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;

use crate::digests::sha256;
use crate::document::{Document, END_OF_DATES, FORMAT, ImageContent, ImageRecord, Slot};
use crate::json;
use crate::notice::brief;
use crate::range::ByteRange;

/// 64 TiB, the largest Ultra disk ("Azure managed disk types").
const LARGEST_DISK: u64 = 64 << 40;

/// One run of a backup, as far as chains are concerned.
#[derive(Debug)]
pub(super) struct SavedRun {
    /// Unique name of the Bacula job.
    pub(super) job: String,
    /// SHA-256 of the document, as hexadecimal digits: a copy of it has the same, another run never.
    pub(super) digest: String,
    /// In the document's order: OS disk first.
    pub(super) images: Vec<Arc<SavedImage>>,
}

/// One image of a run.
#[derive(Debug)]
pub(super) struct SavedImage {
    /// Unique name of the Bacula job.
    pub(super) job: String,
    /// Last component of its catalog name.
    pub(super) file: String,
    /// Name and place of the saved disk, for messages.
    pub(super) disk: String,
    /// The identity that a chain follows.
    pub(super) disk_unique_id: String,
    /// Bytes of the disk.
    pub(super) size: u64,
    /// Bytes of data that the file holds. Of a full image all-zero blocks are left out.
    pub(super) data_bytes: u64,
    pub(super) content: SavedContent,
}

/// What an image holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SavedContent {
    /// Everything that is not zero.
    Full,
    /// What changed since the image of `base_epoch`: first `cleared` reads as zeros, then the blocks are written.
    Delta {
        base_epoch: u64,
        /// Unique name of the job that made it.
        base_job: String,
        /// Ascending and disjoint.
        cleared: Vec<ByteRange>,
    },
}

impl SavedRun {
    /// Takes from `document`, which was parsed from `text`, what chains need.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn new(document: &Document, text: &[u8]) -> Result<Self, String> {
        Self::read(document, text).map_err(brief)
    }

    fn read(document: &Document, text: &[u8]) -> Result<Self, String> {
        if document.images.first().map(|image| image.slot) != Some(Slot::Os) {
            return Err("its first image is not that of the OS disk".into());
        }
        let mut files = HashSet::new();
        let mut slots = HashSet::new();
        let mut disks = HashSet::new();
        let mut images = Vec::new();
        for record in &document.images {
            if !files.insert(&record.file) {
                return Err(format!("it names {} twice", record.file));
            }
            if !slots.insert(record.slot) {
                return Err(format!("it has two images of {}", record.slot));
            }
            if !disks.insert(record.disk_unique_id.to_lowercase()) {
                return Err(format!(
                    "it has two images of the disk {}",
                    record.disk_unique_id
                ));
            }
            images.push(Arc::new(SavedImage::new(document, record)?));
        }
        Ok(Self {
            job: document.job.clone(),
            digest: sha256(text),
            images,
        })
    }

    /// The image of a disk.
    pub(super) fn image_of(&self, disk_unique_id: &str) -> Option<&Arc<SavedImage>> {
        self.images
            .iter()
            .find(|image| image.disk_unique_id.eq_ignore_ascii_case(disk_unique_id))
    }
}

impl SavedImage {
    fn new(document: &Document, record: &ImageRecord) -> Result<Self, String> {
        let file = &record.file;
        let size = record.size_bytes;
        if size == 0 || !size.is_multiple_of(512) {
            return Err(format!(
                "the size of {file} is {size} bytes, not a multiple of 512"
            ));
        }
        if size > LARGEST_DISK {
            return Err(format!(
                "the size of {file} is {size} bytes, more than any managed disk has"
            ));
        }
        if record.sector_size != 512 {
            return Err(format!(
                "{file} has sectors of {} bytes; only 512 can be restored",
                record.sector_size
            ));
        }
        Ok(Self {
            job: document.job.clone(),
            file: file.clone(),
            disk: format!(
                "disk {} ({})",
                json::text(&record.disk, "/name").unwrap_or("(unnamed)"),
                record.slot
            ),
            disk_unique_id: record.disk_unique_id.clone(),
            size,
            data_bytes: record.data_bytes,
            content: content(record, document.epoch)?,
        })
    }

    /// The image and whose it is, for messages.
    pub(super) fn label(&self) -> String {
        format!("{} ({}, job {})", self.file, self.disk, self.job)
    }
}

fn content(record: &ImageRecord, epoch: u64) -> Result<SavedContent, String> {
    let file = &record.file;
    let ImageContent::Delta {
        base_epoch,
        base_job,
        cleared,
    } = &record.content
    else {
        return Ok(SavedContent::Full);
    };
    // With this, no chain of links ever comes back to where it was.
    if *base_epoch >= epoch {
        return Err(format!(
            "{file} holds the changes since {base_epoch}, which is not before {epoch}"
        ));
    }
    if let Some(last) = cleared.last().filter(|last| last.end() > record.size_bytes) {
        return Err(format!(
            "{file} has the cleared range {last}, beyond the end of the disk at {}",
            record.size_bytes
        ));
    }
    Ok(SavedContent::Delta {
        base_epoch: *base_epoch,
        base_job: base_job.clone(),
        cleared: cleared.clone(),
    })
}

/// Reads a configuration document that came as that of the run `epoch` of the VM `vm_uuid`.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn parse(text: &[u8], vm_uuid: &str, epoch: u64) -> Result<Document, String> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    // The parser's errors quote values.
    let Format { format } = serde_json::from_slice(text)
        .map_err(|error| brief(format!("it is not a document of ours: {error}")))?;
    if format != FORMAT {
        return Err(format!(
            "it has format {format}, this release reads format {FORMAT}; restore it with the release that wrote it"
        ));
    }
    let document: Document =
        serde_json::from_slice(text).map_err(|error| brief(format!("it is damaged: {error}")))?;
    if document.vm_uuid != vm_uuid || document.epoch != epoch {
        return Err(brief(format!(
            "it is that of virtual machine {} at {}",
            document.vm_uuid, document.epoch
        )));
    }
    Ok(document)
}

/// The time of a run, which tells a user which job it was.
pub(super) fn when(epoch: u64) -> String {
    if epoch >= END_OF_DATES {
        return format!("{epoch} s after 1970");
    }
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(epoch))
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    /// A document of a run with these images: file name without the epoch, slot, unique id, content.
    pub(in crate::restore) fn document(
        epoch: u64,
        images: &[(&str, Value, &str, Value)],
    ) -> Document {
        let images: Vec<_> = images
            .iter()
            .map(|(role, slot, disk, content)| {
                json!({
                    "file": format!("{epoch}_{role}"), "slot": slot, "diskUniqueId": disk, "sizeBytes": 1 << 30,
                    "sectorSize": 512, "dataBytes": 512, "content": content, "snapshot": "s", "snapshotTime": "t",
                    "disk": { "name": format!("saved-{disk}") },
                })
            })
            .collect();
        from_value(json!({
            "format": 1, "creator": "c", "job": format!("job-{epoch}"), "level": "Full", "epoch": epoch,
            "vmUuid": "3d1f0c52-7a44-4e0e-9a53-8b1d6c2f9e10", "vmName": "ledger01", "virtualMachine": {},
            "networkInterfaces": [], "images": images,
        }))
        .unwrap()
    }

    pub(in crate::restore) fn delta(base_epoch: u64) -> Value {
        json!({ "delta": {
            "baseEpoch": base_epoch, "baseJob": format!("job-{base_epoch}"), "cleared": ""
        } })
    }

    #[test]
    fn documents_that_contradict_themselves_are_refused() {
        let good = document(
            7,
            &[
                ("osdisk", json!("os"), "u", json!("full")),
                ("0", json!({ "data": 5 }), "v", delta(6)),
            ],
        );
        let run = SavedRun::new(&good, b"").unwrap();
        assert_eq!(
            run.image_of("V").unwrap().label(),
            "7_0 (disk saved-v (LUN 5), job job-7)"
        );
        let refused = |change: &dyn Fn(&mut Vec<ImageRecord>)| {
            let mut bad = good.clone();
            change(&mut bad.images);
            SavedRun::new(&bad, b"").unwrap_err()
        };
        let content = |base_epoch, end| ImageContent::Delta {
            base_epoch,
            base_job: "j".into(),
            cleared: ByteRange::new(0, end).into_iter().collect(),
        };
        assert!(refused(&|images| images.clear()).contains("OS disk"));
        assert!(refused(&|images| images.swap(0, 1)).contains("OS disk"));
        assert!(refused(&|images| images[1].file = "7_osdisk".into()).contains("twice"));
        assert!(refused(&|images| images[1].slot = Slot::Os).contains("two images"));
        assert!(refused(&|images| images[1].disk_unique_id = "U".into()).contains("two images"));
        assert!(refused(&|images| images[1].size_bytes = 1000).contains("512"));
        assert!(refused(&|images| images[1].size_bytes = u64::MAX - 511).contains("more than any"));
        assert!(refused(&|images| images[1].sector_size = 4096).contains("4096"));
        for base in [7, 8] {
            let reason = refused(&|images| images[1].content = content(base, 512));
            assert!(reason.contains("not before 7"), "{reason}");
        }
        let reason = refused(&|images| images[1].content = content(3, (1 << 30) + 512));
        assert!(reason.contains("beyond the end"), "{reason}");
    }

    #[test]
    fn reasons_do_not_repeat_the_document() {
        let long = "x".repeat(100_000);
        let good = document(7, &[("osdisk", json!("os"), "u", json!("full"))]);
        let mut named = good.clone();
        named.images[0].file = long.clone();
        named.images[0].size_bytes = 1;
        let mut texts = vec![SavedRun::new(&named, b"").unwrap_err()];
        for (member, value) in [
            ("format", json!(long)),
            ("job", json!([long])),
            ("vmUuid", json!(long)),
        ] {
            let mut text = serde_json::to_value(&good).unwrap();
            text[member] = value;
            texts.push(parse(text.to_string().as_bytes(), &good.vm_uuid, 7).unwrap_err());
        }
        assert!(texts.iter().all(|text| text.len() < 1100), "{texts:.2000?}");
    }

    #[test]
    fn times_are_written_for_people() {
        assert_eq!(when(1_735_689_600), "Wed, 01 Jan 2025 00:00:00 GMT");
        assert_eq!(
            when(u64::MAX),
            "18446744073709551615 s after 1970",
            "no panic"
        );
    }
}
