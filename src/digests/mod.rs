//! The digests of a saved VM: the `_digests` file, the last of its run.
//!
//! It is JSON with a `format` number; `docs/digests.schema.json` is its published schema. It tells of each image what was
//! handed over, so that a byte that changed on a volume or on the way is found at restore, and of the configuration document
//! and of itself what they were. `backup` writes it, `restore` reads it.

mod hasher;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::hasher::{ImageHasher, Segments, segment_bytes};

/// The number of the format that this version writes; of any other nothing can be checked.
pub const FORMAT: u32 = 1;

/// XXH3 with 128 bits, by Yann Collet (<https://github.com/Cyan4973/xxHash>, specification 0.2.0), of each sector of 512 bytes,
/// seeded with its offset on the disk; summed up per segment modulo 2^128.
pub const ALGORITHM: &str = "sum of XXH3-128 of sectors";

/// Before the digest of everything that stands before it.
const SEAL: &str = ",\"sha256\":\"";

/// Behind it.
const END: &str = "\"}\n";

/// What the document takes at most in bytes: without images (a job's name has 127 characters, `MAX_NAME_LENGTH` of Bacula),
/// per image, and per segment.
pub(crate) const FRAME_BYTES: u64 = 640;
pub(crate) const IMAGE_BYTES: u64 = 144;
pub(crate) const SEGMENT_BYTES: u64 = 50;

/// Hexadecimal digits of a SHA-256.
const SHA256_LEN: usize = 64;

/// The images of one run of one VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Digests {
    /// [`FORMAT`].
    pub format: u32,
    /// Program and version that wrote the document.
    pub creator: String,
    /// Unique name of the Bacula job that made the images.
    pub job: String,
    /// Seconds since 1970 in the file names of this run.
    pub epoch: u64,
    /// The VM's own UUID, lower case with dashes.
    pub vm_uuid: String,
    /// [`ALGORITHM`].
    pub algorithm: String,
    /// SHA-256 of the configuration document, as hexadecimal digits.
    pub conf_sha256: String,
    /// One per image, in their order.
    pub images: Vec<ImageDigests>,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageDigests {
    /// Last component of the image's file name.
    pub file: String,
    /// Size of the disk in bytes.
    pub size_bytes: u64,
    /// Length of a segment of the disk in bytes.
    pub segment_bytes: u64,
    /// Digests of the segments of which something counts.
    pub segments: Segments,
}

impl Digests {
    /// As it is stored: on one line, since a large VM has many digests; its own one last.
    ///
    /// # Errors
    ///
    /// None that is known; what the serializer says.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec(self)?;
        // The closing bracket comes behind the seal.
        bytes.pop();
        let seal = sha256(&bytes);
        for part in [SEAL, &seal, END] {
            bytes.extend_from_slice(part.as_bytes());
        }
        Ok(bytes)
    }

    /// Reads what came as the digests of the run `epoch` of the VM `vm_uuid`.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &[u8], vm_uuid: &str, epoch: u64) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        if let Ok(Format { format }) = serde_json::from_slice(text)
            && format != FORMAT
        {
            return Err(format!(
                "it has format {format}, this release reads format {FORMAT}; restore it with the release that wrote it"
            ));
        }
        let mut sealed = unsealed(text)
            .ok_or("it is damaged: its own digest is not that of its bytes")?
            .to_vec();
        sealed.push(b'}');
        let digests: Self = serde_json::from_slice(&sealed)
            .map_err(|error| format!("it is not a document of ours: {error}"))?;
        if digests.vm_uuid != vm_uuid || digests.epoch != epoch {
            return Err(format!(
                "it is that of virtual machine {} at {}",
                digests.vm_uuid, digests.epoch
            ));
        }
        digests.check()?;
        Ok(digests)
    }

    /// What is said of the image `file`.
    #[must_use]
    pub fn image(&self, file: &str) -> Option<&ImageDigests> {
        self.images.iter().find(|image| image.file == file)
    }

    fn check(&self) -> Result<(), String> {
        if self.algorithm != ALGORITHM {
            return Err(format!(
                "its digests are made by {:?}, this release knows {ALGORITHM:?}",
                self.algorithm
            ));
        }
        let mut files = HashSet::new();
        for image in &self.images {
            let file = &image.file;
            if !files.insert(file) {
                return Err(format!("it names {file} twice"));
            }
            if image.segment_bytes != segment_bytes(image.size_bytes)
                || !image.segments.fit(image.size_bytes)
            {
                return Err(format!(
                    "the segments of {file} are not those of a disk of {} bytes",
                    image.size_bytes
                ));
            }
        }
        Ok(())
    }
}

/// What stands before the seal, if that is right.
fn unsealed(text: &[u8]) -> Option<&[u8]> {
    let tail = SEAL.len() + SHA256_LEN + END.len();
    let (sealed, tail) = text.split_at(text.len().checked_sub(tail)?);
    (tail == format!("{SEAL}{}{END}", sha256(sealed)).as_bytes()).then_some(sealed)
}

/// As hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::ZeroBlocks;

    const UUID: &str = "3d1f0c52-7a44-4e0e-9a53-8b1d6c2f9e10";

    fn digests() -> Digests {
        let size_bytes = 1 << 30;
        let mut hasher = ImageHasher::new(size_bytes);
        hasher.update(512, &[7; 1024]);
        hasher.update(size_bytes - 512, &[8; 512]);
        Digests {
            format: FORMAT,
            creator: "azure-vm-fd 0.1.0".into(),
            job: "job-7".into(),
            epoch: 7,
            vm_uuid: UUID.into(),
            algorithm: ALGORITHM.into(),
            conf_sha256: sha256(b"conf"),
            images: vec![ImageDigests {
                file: "7_osdisk".into(),
                size_bytes,
                segment_bytes: segment_bytes(size_bytes),
                segments: hasher.segments(ZeroBlocks::Skip),
            }],
        }
    }

    #[test]
    fn it_comes_back_as_it_was_written() {
        let bytes = digests().to_bytes().unwrap();
        assert_eq!(Digests::parse(&bytes, UUID, 7).unwrap(), digests());
        serde_json::from_slice::<serde_json::Value>(&bytes).unwrap();
    }

    #[test]
    fn any_changed_byte_of_it_is_found() {
        let bytes = digests().to_bytes().unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            Digests::parse(&changed, UUID, 7).unwrap_err();
        }
        for len in 0..bytes.len() {
            Digests::parse(&bytes[..len], UUID, 7).unwrap_err();
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let refused = |change: &dyn Fn(&mut Digests)| {
            let mut digests = digests();
            change(&mut digests);
            Digests::parse(&digests.to_bytes().unwrap(), UUID, 7).unwrap_err()
        };
        for (reason, change) in [
            (
                "format 2",
                (&|it: &mut Digests| it.format = 2) as &dyn Fn(&mut Digests),
            ),
            ("of virtual machine x", &|it| it.vm_uuid = "x".into()),
            ("at 8", &|it| it.epoch = 8),
            ("made by \"md5\"", &|it| it.algorithm = "md5".into()),
            ("7_osdisk twice", &|it| {
                it.images.push(it.images[0].clone());
            }),
            ("not those of a disk of 512 bytes", &|it| {
                it.images[0].size_bytes = 512;
            }),
            ("not those of a disk", &|it| {
                it.images[0].segment_bytes = 512
            }),
        ] {
            let text = refused(change);
            assert!(text.contains(reason), "{reason}: {text}");
        }
    }

    /// The most that Azure attaches: 64 data disks, each with as many segments as there can be.
    #[test]
    fn the_largest_one_fits_into_what_a_restore_accepts() {
        let mut digests = digests();
        let size: u64 = 64 << 40;
        let digest = "f".repeat(32);
        let segments: Vec<_> = (0..4096)
            .map(|number| format!("{}:{digest}", number * segment_bytes(size)))
            .collect();
        let image = ImageDigests {
            file: "1735689600_osdisk".into(),
            size_bytes: size,
            segment_bytes: segment_bytes(size),
            segments: serde_json::from_value(segments.into()).unwrap(),
        };
        digests.images = (0..65)
            .map(|number| ImageDigests {
                file: format!("1735689600_{number}"),
                ..image.clone()
            })
            .collect();
        digests.job = "j".repeat(127);
        digests.epoch = u64::MAX;
        let bytes = digests.to_bytes().unwrap();
        assert!(bytes.len() < 16 << 20, "{}", bytes.len());
        let most = FRAME_BYTES + 65 * (IMAGE_BYTES + 4096 * SEGMENT_BYTES);
        assert!(bytes.len() as u64 <= most, "{} of {most}", bytes.len());
        assert_eq!(Digests::parse(&bytes, UUID, u64::MAX).unwrap(), digests);
    }
}
