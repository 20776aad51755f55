//! The footer of a fixed VHD: the last 512 bytes of every exported or uploaded disk.
//!
//! Source: "Virtual Hard Disk Image Format Specification", version 1.0 (all numbers big-endian).

/// Length of the footer in bytes.
pub(crate) const LEN: u64 = 512;

const COOKIE: &[u8; 8] = b"conectix";
const FEATURES_RESERVED: u32 = 2;
const VERSION: u32 = 0x0001_0000;
const TYPE_FIXED: u32 = 2;
const LARGEST_GEOMETRY: (u16, u8, u8) = (65_535, 16, 255);

/// A valid footer for a disk of `size` bytes. Its time stamp and id depend on nothing, so that equal disks end equally.
pub(crate) fn build(size: u64) -> [u8; 512] {
    let mut footer = [0; 512];
    let (cylinders, heads, sectors) = geometry(size);
    put(&mut footer, 0, COOKIE);
    put(&mut footer, 8, &FEATURES_RESERVED.to_be_bytes());
    put(&mut footer, 12, &VERSION.to_be_bytes());
    put(&mut footer, 16, &u64::MAX.to_be_bytes());
    put(&mut footer, 28, b"win ");
    put(&mut footer, 32, &0x0006_0001_u32.to_be_bytes());
    put(&mut footer, 36, b"Wi2k");
    put(&mut footer, 40, &size.to_be_bytes());
    put(&mut footer, 48, &size.to_be_bytes());
    put(&mut footer, 56, &cylinders.to_be_bytes());
    put(&mut footer, 58, &[heads, sectors]);
    put(&mut footer, 60, &TYPE_FIXED.to_be_bytes());
    let checksum = checksum(&footer).to_be_bytes();
    put(&mut footer, 64, &checksum);
    footer
}

/// Whether `footer` is that of a fixed VHD with `size` bytes of data; if not, what is wrong.
pub(crate) fn check(footer: &[u8; 512], size: u64) -> Result<(), String> {
    let u32_at = |at: usize| {
        u32::from_be_bytes([footer[at], footer[at + 1], footer[at + 2], footer[at + 3]])
    };
    let u16_at = |at: usize| u16::from_be_bytes([footer[at], footer[at + 1]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
    let expect = |what: &str, found: u64, wanted: u64| {
        if found == wanted {
            Ok(())
        } else {
            Err(format!("{what} is {found:#x}, not {wanted:#x}"))
        }
    };
    if footer.iter().all(|byte| *byte == 0) {
        return Err("there is none: the last 512 bytes are zero".to_owned());
    }
    if &footer[..8] != COOKIE {
        return Err("its cookie is not \"conectix\"".to_owned());
    }
    if u32_at(8) & FEATURES_RESERVED == 0 || u32_at(8) & !(FEATURES_RESERVED | 1) != 0 {
        return Err(format!("features are {:#x}, not 0x2", u32_at(8)));
    }
    expect("format version", u32_at(12).into(), VERSION.into())?;
    expect("data offset", u64_at(16), u64::MAX)?;
    expect("disk type", u32_at(60).into(), TYPE_FIXED.into())?;
    expect("current size", u64_at(48), size)?;
    // The largest geometry says that the current size alone counts: `qemu-img -o subformat=fixed,force_size`, which
    // "Prepare a Windows VHD or VHDX to upload to Azure" and its Linux counterparts tell people to use.
    let found = (u16_at(56), footer[58], footer[59]);
    if found != geometry(size) && found != LARGEST_GEOMETRY {
        return Err(format!(
            "its geometry (cylinders, heads, sectors per track) is {found:?}, not {:?}",
            geometry(size)
        ));
    }
    expect("checksum", u32_at(64).into(), checksum(footer).into())?;
    if footer[85..].iter().any(|byte| *byte != 0) {
        return Err("its reserved bytes are not zero".to_owned());
    }
    Ok(())
}

fn put(footer: &mut [u8; 512], at: usize, bytes: &[u8]) {
    footer[at..at + bytes.len()].copy_from_slice(bytes);
}

/// One's complement of the sum of all bytes but the checksum's own.
fn checksum(footer: &[u8; 512]) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    !(sum(&footer[..64]) + sum(&footer[68..]))
}

/// Cylinders, heads and sectors per track, as the specification's appendix computes them.
fn geometry(size: u64) -> (u16, u8, u8) {
    let total = (size / 512).min(65_535 * 16 * 255);
    let (mut sectors, mut heads, mut tracks);
    if total >= 65_535 * 16 * 63 {
        (sectors, heads) = (255, 16);
        tracks = total / sectors;
    } else {
        sectors = 17;
        tracks = total / sectors;
        heads = tracks.div_ceil(1024).max(4);
        if tracks >= heads * 1024 || heads > 16 {
            (sectors, heads) = (31, 16);
            tracks = total / sectors;
        }
        if tracks >= heads * 1024 {
            (sectors, heads) = (63, 16);
            tracks = total / sectors;
        }
    }
    let narrow = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
    let cylinders = u16::try_from(tracks / heads).unwrap_or(u16::MAX);
    (cylinders, narrow(heads), narrow(sectors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::size::{GIB, MIB, TIB};

    #[test]
    fn geometry_of_known_sizes() {
        // As other VHD tools write them for sizes that they do not round.
        assert_eq!(geometry(20 * MIB), (602, 4, 17));
        assert_eq!(geometry(GIB), (2080, 16, 63));
        assert_eq!(geometry(127 * GIB), (65_278, 16, 255));
        assert_eq!(geometry(4 * TIB), (65_535, 16, 255));
    }

    #[test]
    fn own_footers_are_valid_for_their_size_only() {
        for size in [20 * MIB, GIB, 32 * GIB, 4 * TIB, 32 * TIB - MIB] {
            let footer = build(size);
            assert_eq!(check(&footer, size), Ok(()));
            assert!(check(&footer, size + MIB).is_err());
        }
    }

    #[test]
    fn a_change_of_any_checked_byte_is_noticed() {
        let footer = build(GIB);
        for at in 0..512 {
            let mut wrong = footer;
            wrong[at] ^= 0x40;
            assert!(check(&wrong, GIB).is_err(), "byte {at}");
        }
        assert!(check(&[0; 512], GIB).unwrap_err().contains("there is none"));
    }
}
