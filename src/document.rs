//! The configuration document: the `_conf` file of a saved VM.
//!
//! It is JSON with a `format` number; `docs/conf.schema.json` is its published schema. The resources are kept exactly
//! as Azure gave them, members unknown to this version included, because a restore may need what the service adds
//! later. `backup::export` writes it, `restore` reads it. No secret and no SAS is in it.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::range::ByteRange;

/// The number of the format that this version writes; any other is refused at restore.
pub const FORMAT: u32 = 1;

/// One VM as it was at backup time, and the images that belong to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// [`FORMAT`].
    pub format: u32,
    /// Program and version that wrote the document.
    pub creator: String,
    /// Unique name of the Bacula job that made the images.
    pub job: String,
    /// Seconds since 1970 in the file names of this run.
    pub epoch: u64,
    /// The VM's own UUID (`properties.vmId`), lower case with dashes.
    pub vm_uuid: String,
    /// The VM's name in Azure.
    pub vm_name: String,
    /// The virtual machine resource (with its instance view, where Azure gave one).
    pub virtual_machine: Value,
    /// The network interface resources, in the order of the VM's network profile.
    pub network_interfaces: Vec<Value>,
    /// One record per image, OS disk first, then the data disks in LUN order.
    pub images: Vec<ImageRecord>,
}

impl Document {
    /// The document as it is stored: UTF-8, indented, since people read it too.
    ///
    /// # Errors
    ///
    /// None that is known; what the serializer says.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// One image file of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageRecord {
    /// Last component of the image's file name: `<epoch>_osdisk`, `<epoch>_0`, ...
    pub file: String,
    /// The slot that the disk had in the VM.
    pub slot: Slot,
    /// Azure's `properties.uniqueId` of the disk: the identity that a chain follows.
    pub disk_unique_id: String,
    /// Size of the disk in bytes, without the VHD footer.
    pub size_bytes: u64,
    /// Logical sector size in bytes; images are made of 512-byte sectors.
    pub sector_size: u32,
    /// Whole image or changes.
    pub content: ImageContent,
    /// Name of the snapshot that was read.
    pub snapshot: String,
    /// `properties.timeCreated` of that snapshot, as Azure wrote it.
    pub snapshot_time: String,
    /// The managed disk resource.
    pub disk: Value,
}

/// Where a disk sits in its VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Slot {
    /// The OS disk.
    Os,
    /// The data disk on this logical unit number.
    Data(u32),
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os => f.write_str("OS disk"),
            Self::Data(lun) => write!(f, "LUN {lun}"),
        }
    }
}

/// What an image file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ImageContent {
    /// Everything that is not zero.
    Full,
    /// What changed since an earlier image of the same disk.
    #[serde(rename_all = "camelCase")]
    Delta {
        /// Epoch of the image that the changes apply to.
        base_epoch: u64,
        /// Ranges that read as zeros since then, `[start, end)` in bytes, ascending.
        cleared: Vec<[u64; 2]>,
    },
}

impl ImageContent {
    /// The cleared ranges of a delta, checked; empty for a full image.
    ///
    /// # Errors
    ///
    /// The offending pair, if one is empty, reversed, overlapping or out of order.
    pub fn cleared(&self) -> Result<Vec<ByteRange>, [u64; 2]> {
        let Self::Delta { cleared, .. } = self else {
            return Ok(Vec::new());
        };
        let mut position = 0;
        cleared
            .iter()
            .map(|&[start, end]| {
                let range = ByteRange::new(start, end).filter(|r| r.start() >= position);
                position = end;
                range.ok_or([start, end])
            })
            .collect()
    }
}
