//! The configuration document: the `_conf` file of a saved VM.
//!
//! It is JSON with a `format` number; `docs/conf.schema.json` is its published schema. The resources are kept exactly
//! as Azure gave them, members unknown to this version included, because a restore may need what the service adds
//! later; only what extensions were told and said is left out. `backup::export` writes it, `restore` reads it. No secret and no
//! SAS is in it.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::range::ByteRange;

/// The number of the format that this version writes; any other is refused at restore.
pub const FORMAT: u32 = 1;

/// 1 January 10000, in seconds since 1970: no date is written from here on, and no epoch is this large.
pub(crate) const END_OF_DATES: u64 = 253_402_300_800;

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
    /// Level of that job: `Full`, `Incremental` or `Differential`. What an image holds, its `content` says.
    pub level: String,
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
    /// Most bytes that the image file holds: what was to be read of the snapshot. All-zero blocks of a full image are
    /// then left out.
    pub data_bytes: u64,
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
    /// What changed since an earlier image of the same disk: first clear, then write the blocks of the file.
    #[serde(rename_all = "camelCase")]
    Delta {
        /// Epoch of the image that the changes apply to.
        base_epoch: u64,
        /// Unique name of the job that made that image; with the epoch, it tells which one that is.
        base_job: String,
        /// Ranges that read as zeros since then; ascending and disjoint.
        #[serde(with = "range_list")]
        cleared: Vec<ByteRange>,
    },
}

impl ImageContent {
    /// The cleared ranges of a delta, ascending and disjoint; none for a full image.
    #[must_use]
    pub fn cleared(&self) -> &[ByteRange] {
        match self {
            Self::Full => &[],
            Self::Delta { cleared, .. } => cleared,
        }
    }
}

/// Ranges as text, `0..512 4096..8192`: a disk may have many, and as JSON numbers they would take twice the room.
mod range_list {
    use std::fmt::Write;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    use crate::range::ByteRange;

    pub(super) fn serialize<S: Serializer>(
        ranges: &[ByteRange],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut text = String::new();
        for range in ranges {
            let separator = if text.is_empty() { "" } else { " " };
            write!(text, "{separator}{range}").map_err(serde::ser::Error::custom)?;
        }
        serializer.serialize_str(&text)
    }

    /// Refuses what is empty, reversed, overlapping or out of order.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<ByteRange>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut position = 0;
        text.split_ascii_whitespace()
            .map(|word| {
                let range = word
                    .split_once("..")
                    .and_then(|(start, end)| ByteRange::new(start.parse().ok()?, end.parse().ok()?))
                    .filter(|range| range.start() >= position)
                    .ok_or_else(|| {
                        D::Error::custom(format!("cleared range {word} behind {position}"))
                    })?;
                position = range.end();
                Ok(range)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleared_ranges_round_trip_as_text() {
        let range = |start, end| ByteRange::new(start, end).unwrap();
        for (cleared, text) in [
            (vec![], "\"\""),
            (
                vec![range(0, 512), range(512, 1024), range(4096, 1 << 40)],
                "\"0..512 512..1024 4096..1099511627776\"",
            ),
        ] {
            let content = ImageContent::Delta {
                base_epoch: 7,
                base_job: "j".into(),
                cleared,
            };
            let json = serde_json::to_string(&content).unwrap();
            assert!(json.contains(text), "{json}");
            assert_eq!(
                serde_json::from_str::<ImageContent>(&json).unwrap(),
                content
            );
        }
        for wrong in [
            "512..512",
            "1024..512",
            "0..1024 512..2048",
            "8..9 0..1",
            "7",
            "0..x",
            "0-5",
        ] {
            let json = format!(
                "{{\"delta\":{{\"baseEpoch\":7,\"baseJob\":\"j\",\"cleared\":\"{wrong}\"}}}}"
            );
            serde_json::from_str::<ImageContent>(&json).expect_err(wrong);
        }
    }

    /// Numbers of Azure's API are integers of at most 64 bits and doubles ("format" in its `OpenAPI` documents).
    #[test]
    fn numbers_come_back_with_all_their_digits() {
        let integers = [
            "0",
            "9007199254740993",
            "18446744073709551615",
            "-9223372036854775808",
        ];
        let mut decimals: Vec<_> = [
            "0.1",
            "1e-7",
            "1.0",
            "0.30000000000000004",
            "5e-324",
            "1.7976931348623157e308",
        ]
        .map(str::to_owned)
        .into();
        // Of 17 digits, as many as a double can need.
        let mut random = fastrand::Rng::with_seed(17);
        decimals.extend((0..1000).map(|_| {
            let (digit, digits) = (random.u64(1..10), random.u64(0..10_u64.pow(16)));
            format!("{digit}.{digits:016}e{}", random.i32(-30..30))
        }));
        let vm = format!(
            "{{\"integers\":[{}],\"decimals\":[{}]}}",
            integers.join(","),
            decimals.join(",")
        );
        let document = Document {
            format: FORMAT,
            creator: "c".into(),
            job: "j".into(),
            level: "Full".into(),
            epoch: 7,
            vm_uuid: "u".into(),
            vm_name: "n".into(),
            virtual_machine: serde_json::from_str(&vm).unwrap(),
            network_interfaces: Vec::new(),
            images: Vec::new(),
        };
        let stored = document.to_bytes().unwrap();
        let restored: Document = serde_json::from_slice(&stored).unwrap();
        let sent = |member: &str| -> Vec<String> {
            let numbers = restored.virtual_machine[member].as_array().unwrap();
            numbers.iter().map(Value::to_string).collect()
        };
        assert_eq!(sent("integers"), integers);
        let value = |text: &String| text.parse::<f64>().unwrap();
        let (given, came): (Vec<_>, Vec<_>) = (
            decimals.iter().map(value).collect(),
            sent("decimals").iter().map(value).collect(),
        );
        assert_eq!(came, given);
    }

    #[test]
    fn the_most_cleared_ranges_of_a_run_fit_into_half_of_what_a_restore_accepts() {
        let disk_end = 32 << 40;
        let most = crate::backup::MOST_CLEARED as u64;
        let cleared: Vec<_> = (1..=most)
            .rev()
            .map(|number| {
                ByteRange::new(disk_end - number * 1024, disk_end - number * 1024 + 512).unwrap()
            })
            .collect();
        let content = ImageContent::Delta {
            base_epoch: 7,
            base_job: "j".into(),
            cleared,
        };
        let text = serde_json::to_vec_pretty(&content).unwrap();
        assert!(text.len() < 8 << 20, "{}", text.len());
        assert_eq!(
            serde_json::from_slice::<ImageContent>(&text).unwrap(),
            content
        );
    }
}
