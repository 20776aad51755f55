//! The footer of a fixed VHD: the 512 bytes that follow the disk's data in an exported or uploaded image.
//!
//! Layout: "Virtual Hard Disk Image Format Specification" (Microsoft, version 1.0, October 2006), sections "Hard Disk
//! Footer Format" and appendix "CHS Calculation". All numbers are big-endian. Backup checks the footer that Azure
//! serves, restore writes one.

use std::time::{Duration, SystemTime};

use uuid::Uuid;

/// Length of the footer in bytes.
pub const FOOTER_LEN: u64 = 512;

const COOKIE: &[u8; 8] = b"conectix";
/// First bytes of a VHDX, which Azure serves for disks with 4096-byte sectors.
pub const VHDX_SIGNATURE: &[u8; 8] = b"vhdxfile";

/// "No features" is written with this bit set; it is reserved and always 1.
const FEATURES: u32 = 2;
const FORMAT_VERSION: u32 = 0x0001_0000;
/// A fixed disk has no further header; the specification asks for all ones.
const NO_DATA_OFFSET: u64 = u64::MAX;
/// Written by Windows' own tools. Readers that know several creators (QEMU's `vpc` driver, for one) take the size of
/// such an image from the size field; for creators they do not know they compute it from the rounded-down geometry.
const CREATOR_APPLICATION: &[u8; 4] = b"win ";
const CREATOR_VERSION: u32 = 0x000a_0000;
const CREATOR_HOST: &[u8; 4] = b"Wi2k";
const TYPE_FIXED: u32 = 2;
/// 2000-01-01T00:00:00Z, from which the format counts its seconds.
const EPOCH: Duration = Duration::from_secs(946_684_800);

const CHECKSUM: std::ops::Range<usize> = 64..68;

/// What makes bytes unusable as the footer of a fixed disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FooterError {
    /// It does not begin with the cookie of the format.
    #[error("no VHD footer (cookie missing)")]
    Cookie,
    /// The sum over its bytes is wrong.
    #[error("VHD footer with checksum {found:#010x} instead of {expected:#010x}")]
    Checksum {
        /// Over the bytes that are there.
        expected: u32,
        /// As written.
        found: u32,
    },
    /// Not of the fixed kind.
    #[error("VHD of type {0} instead of 2 (fixed)")]
    Type(u32),
}

/// The footer of a fixed disk of `size` bytes (the data alone). `size` must be a multiple of 512.
#[must_use]
pub fn fixed_footer(size: u64, id: Uuid, created: SystemTime) -> [u8; 512] {
    let seconds = created
        .duration_since(SystemTime::UNIX_EPOCH + EPOCH)
        .map_or(0, |age| u32::try_from(age.as_secs()).unwrap_or(u32::MAX));
    let (cylinders, heads, sectors) = geometry(size / 512);

    let mut footer = [0; 512];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        footer[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(COOKIE);
    put(&FEATURES.to_be_bytes());
    put(&FORMAT_VERSION.to_be_bytes());
    put(&NO_DATA_OFFSET.to_be_bytes());
    put(&seconds.to_be_bytes());
    put(CREATOR_APPLICATION);
    put(&CREATOR_VERSION.to_be_bytes());
    put(CREATOR_HOST);
    put(&size.to_be_bytes()); // original size
    put(&size.to_be_bytes()); // current size
    put(&cylinders.to_be_bytes());
    put(&[heads, sectors]);
    put(&TYPE_FIXED.to_be_bytes());
    put(&[0; 4]); // checksum, below
    put(id.as_bytes());
    let sum = checksum(&footer);
    footer[CHECKSUM].copy_from_slice(&sum.to_be_bytes());
    footer
}

/// The size in bytes of the disk that a footer of a fixed VHD ends.
///
/// # Errors
///
/// It is not a footer, is damaged, or is that of another kind of VHD.
pub fn parse_fixed_footer(footer: &[u8; 512]) -> Result<u64, FooterError> {
    if &footer[..8] != COOKIE {
        return Err(FooterError::Cookie);
    }
    let found = u32_at(footer, CHECKSUM.start);
    let expected = checksum(footer);
    if found != expected {
        return Err(FooterError::Checksum { expected, found });
    }
    match u32_at(footer, 60) {
        TYPE_FIXED => Ok(u64::from(u32_at(footer, 48)) << 32 | u64::from(u32_at(footer, 52))),
        other => Err(FooterError::Type(other)),
    }
}

/// One's complement of the sum of all bytes, those of the checksum itself left out.
fn checksum(footer: &[u8; 512]) -> u32 {
    let sum: u32 = footer
        .iter()
        .enumerate()
        .filter(|(at, _)| !CHECKSUM.contains(at))
        .map(|(_, &byte)| u32::from(byte))
        .sum();
    !sum
}

/// Cylinders, heads and sectors per track by the appendix of the specification; saturates at about 127 GiB.
fn geometry(total_sectors: u64) -> (u16, u8, u8) {
    let total = u32::try_from(total_sectors.min(65535 * 16 * 255)).unwrap_or(u32::MAX);
    let (sectors, heads, tracks) = if total >= 65535 * 16 * 63 {
        (255, 16, total / 255)
    } else {
        let tracks = total / 17;
        let heads = tracks.div_ceil(1024).max(4);
        if tracks < heads * 1024 && heads <= 16 {
            (17, heads, tracks)
        } else if total / 31 < 16 * 1024 {
            (31, 16, total / 31)
        } else {
            (63, 16, total / 63)
        }
    };
    let narrow = |n: u32| u8::try_from(n).unwrap_or(u8::MAX);
    let cylinders = u16::try_from(tracks / heads).unwrap_or(u16::MAX);
    (cylinders, narrow(heads), narrow(sectors))
}

fn u32_at(bytes: &[u8; 512], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_footer_says_its_size() {
        for size in [1 << 20, 20 << 20, 30 << 30, 4 << 40, (32 << 40) + 512] {
            let footer = fixed_footer(size, Uuid::new_v4(), SystemTime::now());
            assert_eq!(parse_fixed_footer(&footer), Ok(size));
        }
    }

    #[test]
    fn any_flipped_byte_is_noticed() {
        let footer = fixed_footer(1 << 30, Uuid::new_v4(), SystemTime::now());
        for at in 0..512 {
            let mut damaged = footer;
            damaged[at] ^= 0x40;
            assert!(parse_fixed_footer(&damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_dynamic_disk_is_refused() {
        let mut footer = fixed_footer(1 << 30, Uuid::nil(), SystemTime::UNIX_EPOCH);
        footer[63] = 3;
        let sum = checksum(&footer);
        footer[CHECKSUM].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(parse_fixed_footer(&footer), Err(FooterError::Type(3)));
    }

    /// Values computed by hand from the appendix of the specification.
    #[test]
    fn geometry_follows_the_appendix() {
        assert_eq!(geometry(2048), (30, 4, 17)); // 1 MiB
        assert_eq!(geometry(2_097_152), (2080, 16, 63)); // 1 GiB
        assert_eq!(geometry(400_000), (806, 16, 31)); // above 16 heads of 17 sectors
        assert_eq!(geometry(1 << 33), (65535, 16, 255)); // 4 TiB, saturated
    }

    /// QEMU is not ours: what it reads as the size is what other tools will see. It refuses more than 2040 GiB.
    #[test]
    fn qemu_reads_the_exact_size() {
        if Command::new("qemu-img").arg("--version").output().is_err() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        for size in [20 << 20, (1 << 30) + (1 << 20), 130 << 30, 2040 << 30] {
            let path = folder.path().join("image.vhd");
            let file = File::create(&path).unwrap();
            file.set_len(size + FOOTER_LEN).unwrap();
            let footer = fixed_footer(size, Uuid::new_v4(), SystemTime::now());
            file.write_all_at(&footer, size).unwrap();
            let output = Command::new("qemu-img")
                .args(["info", "-f", "vpc", "--output=json"])
                .arg(&path)
                .output()
                .unwrap();
            let info: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(
                info["virtual-size"],
                size,
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}
