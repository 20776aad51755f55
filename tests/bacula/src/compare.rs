//! Byte for byte, but without reading what is a hole on both sides.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use anyhow::{Result, bail, ensure};
use mock_server::{Emulator, MIB};

use crate::guest_disk::GuestDisk;

/// A disk whose bytes can be read and that knows its holes.
pub trait Image {
    /// Size in bytes.
    ///
    /// # Errors
    ///
    /// It does not exist.
    fn size(&self) -> Result<u64>;

    /// Ranges that may hold other bytes than zeros, ascending.
    ///
    /// # Errors
    ///
    /// It does not exist.
    fn extents(&self) -> Result<Vec<Range<u64>>>;

    /// The bytes of a range.
    ///
    /// # Errors
    ///
    /// The range leaves the disk.
    fn read(&self, range: Range<u64>) -> Result<Vec<u8>>;
}

/// A managed disk or snapshot in the emulator, by id or by unique name.
#[derive(Debug)]
pub struct CloudDisk<'a> {
    /// Where it is.
    pub emulator: &'a Emulator,
    /// Its id or name.
    pub disk: &'a str,
}

impl Image for CloudDisk<'_> {
    fn size(&self) -> Result<u64> {
        Ok(self.emulator.disk_size(self.disk)?)
    }

    fn extents(&self) -> Result<Vec<Range<u64>>> {
        Ok(self.emulator.disk_extents(self.disk)?)
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let len = range.end - range.start;
        Ok(self.emulator.disk_read(self.disk, range.start, len)?)
    }
}

impl Image for GuestDisk {
    fn size(&self) -> Result<u64> {
        Ok(self.size())
    }

    fn extents(&self) -> Result<Vec<Range<u64>>> {
        self.extents()
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<u8>> {
        read_range(self.file(), range)
    }
}

fn read_range(file: &File, range: Range<u64>) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start)?];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}

/// Compares two disks; returns how many bytes were read on each side (all others are zeros on both).
///
/// # Errors
///
/// They differ: in size, or at which offset.
pub fn compare(expected: &impl Image, actual: &impl Image) -> Result<u64> {
    let (expected_size, size) = (expected.size()?, actual.size()?);
    ensure!(
        expected_size == size,
        "sizes differ: {expected_size} and {size} bytes"
    );
    let mut compared = 0;
    for extent in union(expected.extents()?, actual.extents()?) {
        let mut offset = extent.start;
        while offset < extent.end {
            let range = offset..extent.end.min(offset + MIB);
            let (left, right) = (expected.read(range.clone())?, actual.read(range.clone())?);
            if left != right {
                let at = left.iter().zip(&right).position(|(a, b)| a != b);
                bail!(
                    "bytes differ at offset {}",
                    offset + at.unwrap_or_default() as u64
                );
            }
            compared += range.end - range.start;
            offset = range.end;
        }
    }
    Ok(compared)
}

/// Ranges covered by either list, ascending and disjoint.
fn union(mut ranges: Vec<Range<u64>>, other: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.extend(other);
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            Some(_) | None => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn union_covers_both_lists_once() {
        assert_eq!(
            union(vec![0..4, 10..12], vec![2..6, 12..13, 20..21]),
            [0..6, 10..13, 20..21]
        );
        assert_eq!(
            union(vec![0..10, 20..21], vec![2..3, 4..5]),
            [0..10, 20..21]
        );
    }

    #[test]
    fn a_single_byte_in_a_hole_is_found() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let one = GuestDisk::empty(&directory.path().join("one"), 8 * MIB)?;
        let two = GuestDisk::empty(&directory.path().join("two"), 8 * MIB)?;
        one.write_pattern(1, MIB..2 * MIB)?;
        two.write_pattern(1, MIB..2 * MIB)?;
        assert_eq!(compare(&one, &two)?, MIB);
        two.write_pattern(1, 5 * MIB + 7..5 * MIB + 8)?;
        let error = compare(&one, &two).map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err(format!("bytes differ at offset {}", 5 * MIB + 7))
        );
        Ok(())
    }
}
